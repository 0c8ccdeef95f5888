"""What is trained and asked: models as lists of layers, their weights (seed 0) and their batches (seed 1), in NumPy.

Every contestant builds its model from the same list and starts from the same weights.  Weights are laid out as PyTorch has
them: linear (out, in), convolution (out, in, kh, kw), recurrent (gates * hidden, in) with the gates i f g o and r z n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
DISTINCT = 8  # batches that steps cycle through
CHECKED = (1, 20)  # steps whose losses are compared


class Layer(NamedTuple):
    """One layer: its kind and its sizes.

    linear (in, out); conv (in, out, bias), 3x3 with padding 1; batch_norm (channels); max_pool (), 2x2; flatten (channels, height,
    width); lstm and gru (in, hidden), all steps in and the last one out; encoder (features, heads, hidden), normalised after.
    """

    kind: str
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Workload:
    """A model with its batches and its way of training; ``shape`` is one batch, without ``classes`` the target is real.

    ``checked_lr`` replaces ``lr`` while losses are compared, where training at ``lr`` multiplies rounding errors: half a unit in
    the last place of W3's weights moves PyTorch's own loss by 1 % at step 20.
    """

    layers: tuple[Layer, ...]
    shape: tuple[int, ...]
    classes: int = 10
    optimizer: str = "adam"
    lr: float = 1e-3
    checked_lr: float | None = None


@dataclass(frozen=True)
class Case:
    """One row: a workload and what is done with it: ``step``, ``epoch`` of so many rows, or ``infer`` one row."""

    workload: str
    mode: str
    rows: int = 0
    checking: bool = False

    @property
    def work(self) -> Workload:
        """The workload, with the learning rate that counts."""
        found = WORKLOADS[self.workload]
        return replace(found, lr=found.checked_lr) if self.checking and found.checked_lr else found

    @property
    def to_check(self) -> Case:
        """The case to compare losses by; equal to this one if nothing differs."""
        return replace(self, checking=True) if WORKLOADS[self.workload].checked_lr and self.mode != "infer" else self

    def __str__(self) -> str:
        return f"W7 {self.workload} batch 1" if self.mode == "infer" else f"{self.workload} {self.mode}"

    @property
    def tags(self) -> tuple[str, ...]:
        """What ``--only`` knows it by."""
        return ("W7",) if self.mode == "infer" else (self.workload, self.workload[:2])


def _mlp(*sizes: int) -> tuple[Layer, ...]:
    layers = [Layer("linear", sizes[:2])]
    for pair in zip(sizes[1:], sizes[2:], strict=False):
        layers += [Layer("relu"), Layer("linear", pair)]
    return tuple(layers)


def _blocks(*channels: int) -> tuple[Layer, ...]:
    layers, before = [], 3
    for c in channels:
        for n in (before, c):
            layers += [Layer("conv", (n, c, 0)), Layer("batch_norm", (c,)), Layer("relu")]
        layers.append(Layer("max_pool"))
        before = c
    return (*layers, Layer("global_avg_pool"), Layer("linear", (before, 10)))


_CNN = (
    *(Layer("conv", (1, 32, 1)), Layer("relu"), Layer("max_pool")),
    *(Layer("conv", (32, 64, 1)), Layer("relu"), Layer("max_pool")),
    Layer("flatten", (64, 7, 7)),
    *_mlp(3136, 128, 10),
)
WORKLOADS = {
    "W1": Workload(_mlp(784, 256, 128, 10), (64, 784)),
    "W2": Workload(_CNN, (64, 1, 28, 28)),
    "W3": Workload(_blocks(32, 64, 128), (64, 3, 32, 32), optimizer="sgd", lr=0.05, checked_lr=0.002),
    "W4-LSTM": Workload((Layer("lstm", (32, 128)), Layer("linear", (128, 10))), (32, 64, 32)),
    "W4-GRU": Workload((Layer("gru", (32, 128)), Layer("linear", (128, 10))), (32, 64, 32)),
    "W5": Workload(_mlp(8, 32, 32, 1), (32, 8), classes=0),
    "W6": Workload((Layer("encoder", (128, 4, 512)),), (16, 64, 128), classes=0),
}


def weights(workload: Workload) -> list[Arrays]:
    """The first weights of each layer, an empty dictionary where it has none."""
    rng = np.random.default_rng(0)
    return [DRAW[layer.kind](rng, *layer.sizes) if layer.kind in DRAW else {} for layer in workload.layers]


def _he(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(np.float32)


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _linear(rng: np.random.Generator, n: int, out: int) -> Arrays:
    return {"weight": _he(rng, out, n), "bias": _zeros(out)}


def _conv(rng: np.random.Generator, n: int, out: int, bias: int) -> Arrays:
    return {"weight": _he(rng, out, n, 3, 3)} | ({"bias": _zeros(out)} if bias else {})


def _norm(_: np.random.Generator, n: int) -> Arrays:
    return {"weight": np.ones(n, np.float32), "bias": _zeros(n)}


def _recurrent(gates: int):
    def draw(rng: np.random.Generator, n: int, hidden: int) -> Arrays:
        k, g = hidden**-0.5, gates * hidden
        shapes = {"weight_ih": (g, n), "weight_hh": (g, hidden), "bias_ih": (g,), "bias_hh": (g,)}
        return {name: rng.uniform(-k, k, shape).astype(np.float32) for name, shape in shapes.items()}

    return draw


def _encoder(rng: np.random.Generator, n: int, heads: int, hidden: int) -> Arrays:
    parts = {name: _linear(rng, n, n) for name in ("query", "key", "value", "out")}
    parts |= {"up": _linear(rng, n, hidden), "down": _linear(rng, hidden, n), "norm1": _norm(rng, n), "norm2": _norm(rng, n)}
    return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}


DRAW = {"linear": _linear, "conv": _conv, "batch_norm": _norm, "lstm": _recurrent(4), "gru": _recurrent(3), "encoder": _encoder}


def rows(workload: Workload, count: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
    """``count`` rows and their targets: class numbers (int64), or a smooth function of the row, or noise like the row."""
    rng = rng or np.random.default_rng(1)
    x = rng.standard_normal((count, *workload.shape[1:]), dtype=np.float32)
    if workload.classes:
        return x, rng.integers(0, workload.classes, count)
    if x.ndim == 2:
        return x, x[:, :1] * x[:, 1:2] + 0.5 * x[:, 2:3]
    return x, rng.standard_normal(x.shape, dtype=np.float32)


def batches(workload: Workload) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches that steps cycle through."""
    rng = np.random.default_rng(1)
    return [rows(workload, workload.shape[0], rng) for _ in range(DISTINCT)]


def channels_last(workload: Workload) -> list[Arrays]:
    """:func:`weights` for models whose images are (N, H, W, C): linear (in, out), convolution (kh, kw, in, out).

    The rows of a linear layer behind ``flatten`` are put in the order in which such a model flattens.
    """
    found, flattened = [], None
    for layer, arrays in zip(workload.layers, weights(workload), strict=True):
        kept = dict(arrays)
        if layer.kind == "conv":
            kept["weight"] = arrays["weight"].transpose(2, 3, 1, 0)
        if layer.kind == "linear":
            kept["weight"] = arrays["weight"].T
            if flattened is not None:
                kept["weight"] = kept["weight"].reshape(*flattened, -1).transpose(1, 2, 0, 3).reshape(kept["weight"].shape)
                flattened = None
        if layer.kind == "flatten":
            flattened = layer.sizes
        found.append({name: np.ascontiguousarray(a) for name, a in kept.items()})
    return found


def images_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) to (N, H, W, C); anything else as it is."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x
