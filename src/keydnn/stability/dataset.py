"""Data sets with a known teacher, so that errors of the weights and the Hessian can be computed, and drift of their inputs.

Y = X A^T + b,   X ~ Uniform(0, 1)          half-MSE Hessian of a student without bias: I (x) X^T X / N
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.stability import _dataset_plots

DEFAULT_A = ((1.25, -0.75, 0.50, 0.20), (-0.40, 0.90, 1.10, -0.60))
DEFAULT_B = (0.35, -0.25)


class DataType(Enum):
    """What the samples are: a tag for plots and exports that never changes numbers."""

    IMAGE_CLASS = "image-class"
    IMAGE_FLOAT = "image-float"
    D1_CLASS = "1d-class"
    D1_FLOAT = "1d-float"
    D2_CLASS = "2d-class"
    D2_FLOAT = "2d-float"

    @property
    def is_float(self) -> bool:
        """Whether the samples are real numbers rather than labels."""
        return self.value.endswith("float")


@dataclass(repr=False)
class BaseDataset(ABC):
    """Inputs and targets with a teacher; subclasses set ``X``, ``Y``, ``input_type`` and ``output_type``.

    Args:
        num_samples: Number of samples, at least 1.
        seed: Seed of the generator; None draws fresh entropy.

    Raises:
        ValueError: ``num_samples`` is below 1.
    """

    num_samples: int = 1000
    seed: int | None = None
    X: np.ndarray = field(init=False)
    Y: np.ndarray = field(init=False)
    input_type: DataType = field(init=False)
    output_type: DataType = field(init=False)

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"{type(self).__name__}: num_samples must be at least 1, got {self.num_samples}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of X, with the sample axis."""
        return self.X.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of Y, with the sample axis."""
        return self.Y.shape

    @property
    @abstractmethod
    def reference_weight_matrix(self) -> np.ndarray:
        """The teacher's weights, (out, in)."""

    @property
    @abstractmethod
    def reference_bias_vector(self) -> np.ndarray:
        """The teacher's bias, (out,)."""

    @abstractmethod
    def __repr__(self) -> str:
        """What an experimenter wants to see at a glance."""

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """``(X, Y)``."""
        return self.X, self.Y

    def to_numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """``(X, Y)``."""
        return self.X, self.Y

    def to_txt(self, prefix: str = "dataset") -> None:
        """Write ``<prefix>_X.txt`` and ``<prefix>_Y.txt``, one sample per row."""
        np.savetxt(f"{prefix}_X.txt", _rows(self.X))
        np.savetxt(f"{prefix}_Y.txt", _rows(self.Y))

    def to_dat(self, prefix: str = "dataset") -> None:
        """Write ``tb_input_features.dat`` and ``tb_output_predictions.dat``, the files an hls4ml test bench reads, into a folder.

        Args:
            prefix: The folder; made if missing.
        """
        folder = Path(prefix)
        folder.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / "tb_input_features.dat", _rows(self.X))
        np.savetxt(folder / "tb_output_predictions.dat", _rows(self.Y))

    def plot(self, max_points: int = 100) -> Any:
        """Show the samples; returns the matplotlib figure, or None (with a printed notice) where there is no picture for the types."""
        return _dataset_plots.samples(self, max_points)

    def plot_histogram(self, bins: int | None = None) -> Any:
        """One histogram per input and output column, of real numbers only; returns the matplotlib figure or None."""
        return _dataset_plots.histograms(self, bins)


def _rows(a: np.ndarray) -> np.ndarray:
    return np.asarray(a).reshape(len(a), -1)


@dataclass(repr=False)
class AffineDataset(BaseDataset):
    """Samples of an affine map: ``X ~ Uniform(0, 1)``, ``Y = X A^T + b``, both float64.

    Args:
        num_samples: Number of samples.
        seed: Seed of ``np.random.default_rng``.
        A: Teacher's weights (out, in); None is a 2 x 4 default.
        b: Teacher's bias (out,); None is the default's, or zeros if A has not two rows.
        use_bias: False replaces b by zeros.

    Raises:
        ValueError: A is no matrix, or b does not have one entry per row of A.

    Example:
        >>> from keydnn.stability import AffineDataset
        >>> data = AffineDataset(1000, seed=1)
        >>> data.X.shape, data.Y.shape, round(data.analytic_hessian["lambda_max"], 6)
        ((1000, 4), (1000, 2), 1.072789)
    """

    A: Any = None
    b: Any = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.A = np.array(DEFAULT_A if self.A is None else self.A, np.float64)
        if self.A.ndim != 2 or 0 in self.A.shape:
            raise ValueError(f"AffineDataset: A must be a matrix (out, in), got shape {self.A.shape}")
        if self.b is None:
            self.b = DEFAULT_B if len(self.A) == 2 else np.zeros(len(self.A))
        self.b = np.array(self.b, np.float64)
        if self.b.shape != (self.A.shape[0],):
            raise ValueError(f"AffineDataset: b must have one entry per row of A, got b {self.b.shape} and A {self.A.shape}")
        if not self.use_bias:
            self.b = np.zeros_like(self.b)
        n_out, n_in = self.A.shape
        self.X = np.random.default_rng(self.seed).uniform(0, 1, size=(self.num_samples, n_in))
        self.Y = self.X @ self.A.T + self.b
        self.input_type = DataType.D1_FLOAT if n_in == 1 else DataType.D2_FLOAT
        self.output_type = DataType.D1_FLOAT if n_out == 1 else DataType.D2_FLOAT

    @property
    def reference_weight_matrix(self) -> np.ndarray:
        """A."""
        return np.asarray(self.A)

    @property
    def reference_bias_vector(self) -> np.ndarray:
        """b."""
        return np.asarray(self.b)

    @cached_property
    def analytic_hessian(self) -> dict[str, Any]:
        """``hessian`` = I (x) X^T X / N of the half-MSE of a student without bias, ``lambda_max``, ``eta_max = 2 / lambda_max``."""
        gram = self.X.T @ self.X / len(self.X)
        lambda_max = float(np.linalg.eigvalsh(gram)[-1])
        return {"hessian": np.kron(np.eye(self.A.shape[0]), gram), "lambda_max": lambda_max, "eta_max": 2.0 / lambda_max}

    def __repr__(self) -> str:
        h = self.analytic_hessian
        return (
            f"AffineDataset(num_samples={self.num_samples}, seed={self.seed}, use_bias={self.use_bias})\n"
            f"  X {self.X.shape} {self.input_type.value}, Uniform(0, 1); Y {self.Y.shape} {self.output_type.value}, Y = X A^T + b\n"
            f"  A = {self.A.tolist()}\n  b = {self.b.tolist()}\n"
            f"  lambda_max = {h['lambda_max']:.10g}, eta_max = {h['eta_max']:.10g}"
        )


Schedule = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class DriftModel:
    """Drift of the inputs, ``x' = clip(gain * x + offset)``, and of the targets that go with it.

    With clean targets ``Y' = Y``: the best weights change, to A / gain.  With consistent targets ``Y' = X' A^T + b``: they
    stay A.  These are different problems.

    Args:
        gain: Factor of all inputs.
        offset: Added to all inputs.
        clip: ``(low, high)`` limits of the result, or None.
        dead_columns: Input columns that read 0.
        target: ``"clean"`` or ``"consistent"``.
        schedule: Maps a step to the parameters that differ from the above, such as ``{"gain": 3.0}``; see `step_at`,
            `ramp` and `spike`.  None is constant.

    Raises:
        ValueError: An unknown target, or limits in the wrong order.

    Example:
        >>> from keydnn.stability import AffineDataset, DriftModel
        >>> X, Y, best = DriftModel(gain=2.0).apply(AffineDataset(10, seed=0, use_bias=False))
        >>> best.tolist()[0]
        [0.625, -0.375, 0.25, 0.1]
    """

    gain: float = 1.0
    offset: float = 0.0
    clip: tuple[float, float] | None = None
    dead_columns: Sequence[int] = ()
    target: str = "clean"
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.target not in ("clean", "consistent"):
            raise ValueError(f"DriftModel: target must be 'clean' or 'consistent', got {self.target!r}")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"DriftModel: clip must be (low, high) with low < high, got {self.clip}")

    def parameters(self, step: int | None = None) -> dict[str, Any]:
        """Gain, offset, clip and dead columns at a step; None is without the schedule.

        Raises:
            ValueError: The schedule gives an unknown parameter.
        """
        values = {"gain": self.gain, "offset": self.offset, "clip": self.clip, "dead_columns": tuple(self.dead_columns)}
        changed = {} if step is None or self.schedule is None else self.schedule(step)
        if changed.keys() - values.keys():
            raise ValueError(f"DriftModel: the schedule gave {sorted(changed.keys() - values.keys())}; expected some of {sorted(values)}")
        return values | changed

    def inputs(self, X: np.ndarray, step: int | None = None) -> np.ndarray:
        """The drifted inputs, in the dtype of X."""
        p = self.parameters(step)
        Xd = X * X.dtype.type(p["gain"]) + X.dtype.type(p["offset"])
        if p["clip"] is not None:
            Xd = np.clip(Xd, *p["clip"])
        if p["dead_columns"]:
            Xd[..., list(p["dead_columns"])] = 0
        return np.asarray(Xd, X.dtype)

    def apply(self, dataset: BaseDataset, step: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Drifted inputs, the targets that go with them, and the weights that fit them best.

        Args:
            dataset: Where X, Y and the teacher come from.
            step: Step of the schedule; None is without the schedule.

        Returns:
            ``(X', Y', reference_A)``; reference_A is A, A / gain, or None where no weights fit exactly: clipped or
            dead inputs, gain 0, or (clean targets) an offset that only a bias could mend is still fitted by A / gain.
        """
        p = self.parameters(step)
        Xd, A = self.inputs(dataset.X, step), dataset.reference_weight_matrix
        if self.target == "consistent":
            return Xd, (Xd @ A.T + dataset.reference_bias_vector).astype(dataset.Y.dtype), A
        bent = p["gain"] == 0 or bool(p["dead_columns"]) or not np.array_equal(Xd, dataset.X * p["gain"] + p["offset"])
        return Xd, dataset.Y, None if bent else A / p["gain"]


def step_at(at: int, **parameters: Any) -> Schedule:
    """A schedule that applies ``parameters`` from step ``at`` on."""
    return lambda step: parameters if step >= at else {}


def spike(at: int, **parameters: Any) -> Schedule:
    """A schedule that applies ``parameters`` at the single step ``at``."""
    return lambda step: parameters if step == at else {}


def ramp(begin: int, end: int, *, start: float = 1.0, stop: float, name: str = "gain") -> Schedule:
    """A schedule that moves one parameter linearly from ``start`` at step ``begin`` to ``stop`` at step ``end``."""
    if not begin < end:
        raise ValueError(f"ramp: begin must be before end, got {begin} and {end}")
    return lambda step: {name: float(np.interp(step, (begin, end), (start, stop)))}
