"""``python -m benchmarks ops``: single operations of KeyDNN, called directly and through ``keydnn.compile``, against PyTorch.

PyTorch runs in processes of its own: NCHW, channels last, and the chain in place.  Forward is timed without a graph; backward
alone, by ``grad`` on a graph that is kept.  Values are compared before anything is timed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks import kernels
from benchmarks.contestants import KEEP_MEMORY
from benchmarks.goals import goal_of, standing, verdict
from benchmarks.measure import Result, contest, readable
from benchmarks.options import Options
from benchmarks.remote import Remote

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Op:
    """One row; ``options`` are the numbers of the operation, such as stride and padding."""

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    options: tuple[int, ...] = ()
    backward: bool = False

    def __str__(self) -> str:
        return self.name + (", backward" if self.backward else "")

    def arrays(self) -> list[np.ndarray]:
        """Inputs in order, from seed 0; the scale of normalisations is about 1."""
        rng = np.random.default_rng(0)
        return [rng.standard_normal(shape, dtype=np.float32) for shape in self.shapes]

    def upstream(self, shape: tuple[int, ...]) -> np.ndarray:
        """The gradient that a backward row starts from."""
        return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def _conv(name: str, x: tuple[int, ...], out: int, k: int, stride: int) -> list[Op]:
    shapes = (x, (out, x[1], k, k), (out,))
    return [Op(name, "conv", shapes, (stride, k // 2), backward) for backward in (False, True)]


def _both(name: str, kind: str, *shapes: tuple[int, ...]) -> list[Op]:
    return [Op(name, kind, shapes, backward=backward) for backward in (False, True)]


OPS = [
    Op("relu(a*x+b)*c over 1e7", "chain", ((10_000_000,),)),
    *_both("softmax 4096x512", "softmax", (4096, 512)),
    *_both("layer norm 4096x512", "layer_norm", (4096, 512), (512,), (512,)),
    *_both("batch norm 32x64x56x56", "batch_norm", (32, 64, 56, 56), (64,), (64,)),
    Op("sum of columns 4096x2048", "sum", ((4096, 2048),), (0,)),
    Op("sum of rows 4096x2048", "sum", ((4096, 2048),), (1,)),
    *_both("exp 4096x2048", "exp", (4096, 2048)),
    *_both("gelu 4096x2048", "gelu", (4096, 2048)),
    *_conv("conv 16x64x56x56 -> 64, 3x3", (16, 64, 56, 56), 64, 3, 1),
    *_conv("conv 16x256x14x14 -> 256, 3x3", (16, 256, 14, 14), 256, 3, 1),
    *_conv("conv 32x3x224x224 -> 64, 7x7 s2", (32, 3, 224, 224), 64, 7, 2),
    *(
        Op(f"gemm {m}x{k}x{n}", "gemm", ((m, k), (n, k)))
        for m, k, n in [(64, 784, 256), (64, 256, 128), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048)]
    ),
]
CONTESTANTS = {  # name: code, keeps memory
    "keydnn": ("benchmarks.peers.ops_ours:eager", False),
    "keydnn.compile": ("benchmarks.peers.ops_ours:compiled", False),
    "torch": ("benchmarks.peers.ops_torch:eager", False),
    "torch keeping memory": ("benchmarks.peers.ops_torch:eager", True),
    "torch channels last": ("benchmarks.peers.ops_torch:channels_last", True),
    "torch in place": ("benchmarks.peers.ops_torch:in_place", True),
    "torch packed": ("benchmarks.peers.ops_torch:packed", True),
}


def sampled(a: np.ndarray, most: int = 100_000) -> np.ndarray:
    """Evenly spaced elements, so that large answers need not travel whole."""
    flat = np.ascontiguousarray(a).reshape(-1)
    return flat[:: max(1, flat.size // most)].copy()


def run(options: Options) -> tuple[list[Result], dict[str, str]]:
    """All rows; prints a table and returns results and versions."""
    packages = {"torch": ("torch",)}
    contestants = [
        Remote(
            name,
            make,
            packages=packages.get(name, ()),
            python=options.interpreters.get(name.split()[0].split(".")[0]),
            environment=KEEP_MEMORY if keeps else {},
            threads=options.threads,
        )
        for name, (make, keeps) in CONTESTANTS.items()
    ]
    print(f"{'operation':<46}{'ours':>10}{'torch':>10}{'torch/ours':>22}{'best peer/ours':>22}  ours, best peer")
    results = []
    try:
        for case in [*kernels.CHAINS, *kernels.CASES, *OPS]:
            if options.only and not any(str(case).startswith(start) for start in options.only):
                continue
            rounds = options.rounds or (2 if options.quick else 5)
            budget = 0.02 if options.quick else 0.1
            result = contest(case, contestants, rounds=rounds, budget_s=budget, rtol=TOLERANCE)
            _show(result)
            results.append(result)
    finally:
        for c in contestants:
            c.close()
    return results, contestants[2].versions


def _show(result: Result) -> None:
    goal, at = goal_of(result.case), standing(result)
    times = [readable(result.median(name)) for name in (at.ours or "", "torch")]
    ratios = [verdict(at.torch, goal.torch), verdict(at.best, goal.best)]
    print(f"{result.case:<46}{times[0]:>10}{times[1]:>10}{ratios[0]:>22}{ratios[1]:>22}  {at.ours}, {at.peer}", flush=True)
    for name, note in result.notes.items():
        print(f"  {name} {note}", flush=True)
