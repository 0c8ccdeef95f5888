"""``python -m benchmarks kernels``: small convolutions, pools and elementwise chains against loops and PyTorch.

"ours" is the public call, a layer on a Tensor under ``no_grad``; PyTorch runs the same function in its own process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks import baselines
from benchmarks.measure import Result, contest, readable
from benchmarks.remote import Local, Remote, Session


@dataclass(frozen=True)
class Case:
    """One row: ``kind`` conv, max or avg with shapes, or a chain of small operations."""

    name: str
    kind: str
    shape: tuple[int, ...]
    out_channels: int = 0
    stride: int = 1
    over_python: float = 0.0  # published factor over Python loops
    over_numpy: float = 0.0  # published factor over the NumPy loop

    def __str__(self) -> str:
        return self.name

    def arrays(self) -> list[np.ndarray]:
        """Input, and for convolutions weight and bias."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal(self.shape).astype(np.float32)
        if self.kind != "conv":
            return [x]
        w = (rng.standard_normal((self.out_channels, self.shape[1], 3, 3)) / 9).astype(np.float32)
        return [x, w, rng.standard_normal(self.out_channels).astype(np.float32)]


CASES = [
    Case("max pool 1x8x28x28", "max", (1, 8, 28, 28), over_python=150, over_numpy=240),
    Case("avg pool 8x16x32x32", "avg", (8, 16, 32, 32), over_python=400, over_numpy=800),
    Case("max pool 8x32x64x64", "max", (8, 32, 64, 64), over_python=250, over_numpy=210),
    Case("avg pool 16x64x56x56", "avg", (16, 64, 56, 56), over_python=430, over_numpy=890),
    Case("conv 1x8x28x28 -> 8", "conv", (1, 8, 28, 28), 8, over_python=370, over_numpy=42),
    Case("conv 1x8x16x16 -> 8", "conv", (1, 8, 16, 16), 8, over_python=460, over_numpy=59),
    Case("conv 1x16x32x32 -> 16", "conv", (1, 16, 32, 32), 16, over_python=340, over_numpy=21),
    Case("conv 1x8x28x28 -> 8, stride 2", "conv", (1, 8, 28, 28), 8, 2, over_python=480, over_numpy=56),
]
CHAINS = [
    Case("64 mul/add of 16, no gradient", "chain", (16,)),
    Case("64 mul/add of 16, forward + backward", "chain_backward", (16,)),
]


def ours(case: Case) -> Session:
    """The case as a call of our public layers."""
    import keydnn

    arrays = [keydnn.tensor(a) for a in case.arrays()]
    if case.kind in ("chain", "chain_backward"):
        return _chain(arrays[0], keydnn.tensor(np.full(16, 0.5, np.float32)), case.kind == "chain_backward", keydnn.no_grad)
    if case.kind == "conv":
        layer = keydnn.Conv2d(case.shape[1], case.out_channels, 3, stride=case.stride, padding=1)
        layer.weight.copy_from(arrays[1])
        layer.bias.copy_from(arrays[2])
    else:
        layer = keydnn.MaxPool2d(2) if case.kind == "max" else keydnn.AvgPool2d(2)
    x = arrays[0]

    def call() -> np.ndarray:
        with keydnn.no_grad():
            return layer(x).to_numpy()

    return Session(call)


def in_torch(case: Case) -> Session:
    """The case in PyTorch."""
    import torch

    arrays = [torch.from_numpy(a) for a in case.arrays()]
    if case.kind in ("chain", "chain_backward"):
        return _chain(arrays[0], torch.full((16,), 0.5), case.kind == "chain_backward", torch.no_grad)
    if case.kind == "conv":
        layer = torch.nn.Conv2d(case.shape[1], case.out_channels, 3, stride=case.stride, padding=1)
        layer.weight.data, layer.bias.data = arrays[1], arrays[2]
    else:
        layer = torch.nn.MaxPool2d(2) if case.kind == "max" else torch.nn.AvgPool2d(2)
    x = arrays[0]

    def call() -> np.ndarray:
        with torch.no_grad():
            return layer(x).numpy()

    return Session(call)


def _chain(x, c, with_backward: bool, no_grad) -> Session:
    """64 operations on 16 elements: ``y * c + c``, 32 times over; the answer is the value, or the gradient."""

    def forward():
        y = x
        for _ in range(32):
            y = y * c
            y = y + c
        return y

    def plain() -> np.ndarray:
        with no_grad():
            return np.asarray(forward())

    def both() -> np.ndarray:
        x.grad = None
        forward().sum().backward()
        return np.asarray(x.grad)

    x.requires_grad = with_backward
    return Session(both if with_backward else plain)


def in_python(case: Case) -> Session:
    """Plain Python loops over nested lists."""
    return _loops(case, baselines.conv_in_python, baselines.pool_in_python)


def in_numpy(case: Case) -> Session:
    """The loop over positions with NumPy per window."""
    return _loops(case, baselines.conv_in_numpy, baselines.pool_in_numpy)


def _loops(case: Case, conv, pool) -> Session:
    x, *rest = _padded(case)
    out = np.empty(_out_shape(case), np.float32)

    def call() -> np.ndarray:
        if case.kind == "conv":
            conv(x, *rest, out, case.stride)
        else:
            pool(x, out, case.kind)
        return out

    return Session(call)


def _padded(case: Case) -> list[np.ndarray]:
    x, *rest = case.arrays()
    return [np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))) if case.kind == "conv" else x, *rest]


def _out_shape(case: Case) -> tuple[int, ...]:
    n, c, h, w = case.shape
    if case.kind == "conv":
        return n, case.out_channels, (h - 1) // case.stride + 1, (w - 1) // case.stride + 1
    return n, c, h // 2, w // 2


def run(rounds: int = 9, budget_s: float = 0.1) -> list[Result]:
    """All rows; prints a table and returns the results."""
    results = []
    torch = Remote("torch", "benchmarks.kernels:in_torch", packages=("torch",))
    heads = ("ours", "torch", "torch/ours", "python/ours", "(published)", "numpy/ours", "(published)")
    print(f"{'case':<38}" + "".join(f"{head:>12}" for head in heads))
    for case in CASES + CHAINS:
        loops = [Local("python", in_python), Local("numpy", in_numpy)] if case in CASES else []
        result = contest(case, [Local("ours", ours), torch, *loops], rounds=rounds, budget_s=budget_s, rtol=1e-4, once=("python", "numpy"))
        results.append(result)
        cells = [readable(result.median("ours")), readable(result.median("torch")), f"{result.ratio('ours', 'torch'):.2f}"]
        if loops:
            cells += [f"{result.ratio('ours', 'python'):.0f}", f"{case.over_python:.0f}"]
            cells += [f"{result.ratio('ours', 'numpy'):.0f}", f"{case.over_numpy:.0f}"]
        print(f"{case.name:<38}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
        for name, note in result.notes.items():
            print(f"  {name} {note}", flush=True)
    torch.close()
    return results
