"""Weight initializers: names for the distributions that weights start from.

An initializer is a callable that fills a tensor in place and returns it.  Those below read ``shape`` and ``dtype`` alone,
draw from NumPy's global generator (so ``np.random.seed`` repeats them) and write through ``copy_from_numpy``.

With r the product of the sizes from the third axis on, a weight of shape ``(out, in, ...)`` has

    fan_in = in * r,   fan_out = out * r

Sources: Glorot & Bengio 2010, http://proceedings.mlr.press/v9/glorot10a.html (xavier); He et al. 2015,
https://arxiv.org/abs/1502.01852 (kaiming); LeCun et al. 1998, Efficient BackProp (lecun); Saxe et al. 2014,
https://arxiv.org/abs/1312.6120 (orthogonal).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

Fill = Callable[..., Any]

_FILLS: dict[str, Fill] = {}


class WeightInitializer:
    """A registered initializer, perhaps with other parameters than its defaults.

    Args:
        name: A registered name, see :meth:`available`.
        parameters: Keyword parameters of the initializer, such as ``std=0.02`` of ``"normal"``.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> from keydnn.nn import WeightInitializer
        >>> WeightInitializer("uniform", low=0.0, high=1.0)(keydnn.zeros((2, 3))).shape
        (2, 3)
    """

    def __init__(self, name: str, **parameters: Any) -> None:
        self.name: str | None = name
        self.parameters = parameters
        self._fill = self.get(name)

    def __call__(self, tensor: Any) -> Any:
        """Fill ``tensor`` in place and return it."""
        self._fill(tensor, **self.parameters)
        return tensor

    def __repr__(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self.parameters.items())
        return f"WeightInitializer({self.name!r}{options})"

    @property
    def config(self) -> Any:
        """What a JSON config holds: the name, a dict with ``name`` and parameters, or None for a function without a name."""
        return {"name": self.name, **self.parameters} if self.parameters else self.name

    @staticmethod
    def register_initializer(name: str, *, overwrite: bool = False) -> Callable[[Fill], Fill]:
        """Decorator: make a function that fills a tensor in place known by ``name``.

        Raises:
            ValueError: The name is empty or no string, or is taken and ``overwrite`` is false.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"an initializer's name must be a non-empty string, got {name!r}")
        if name in _FILLS and not overwrite:
            raise ValueError(f"initializer {name!r} is registered already; pass overwrite=True to replace it")

        def register(fill: Fill) -> Fill:
            _FILLS[name] = fill
            return fill

        return register

    @staticmethod
    def available() -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(_FILLS))

    @staticmethod
    def get(name: str) -> Fill:
        """The function registered under ``name``.

        Raises:
            ValueError: There is none; the message lists the names.
        """
        if not isinstance(name, str) or name not in _FILLS:
            raise ValueError(f"Unsupported initializer name: {name!r}. Available: {', '.join(sorted(_FILLS))}")
        return _FILLS[name]


def as_initializer(value: Any) -> WeightInitializer:
    """A WeightInitializer from a name, a config dict, a WeightInitializer, or any callable that fills a tensor.

    Raises:
        ValueError: The name is unknown.
        TypeError: ``value`` is none of these.
    """
    if isinstance(value, WeightInitializer):
        return value
    if isinstance(value, str):
        return WeightInitializer(value)
    if isinstance(value, Mapping):
        return WeightInitializer(**value)
    if not callable(value):
        raise TypeError(f"initializer must be a name, a WeightInitializer or a callable that fills a tensor, got {value!r}")
    made = object.__new__(WeightInitializer)
    made.name, made.parameters, made._fill = None, {}, value
    return made


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight, each at least 1; a vector has its length for both."""
    if len(shape) < 2:
        n = max(math.prod(shape), 1)
        return n, n
    receptive = math.prod(shape[2:])
    return max(shape[1] * receptive, 1), max(shape[0] * receptive, 1)


def _write(tensor: Any, values: Any) -> None:
    tensor.copy_from_numpy(np.asarray(values).astype(tensor.dtype).reshape(tensor.shape))


def _leaky_gain(slope: float) -> float:
    return math.sqrt(2.0 / (1.0 + slope * slope))


# -- variance scaling: gain^2 / fan is the variance, drawn normally or evenly

_MODES: dict[str, Callable[[int, int], float]] = {
    "in": lambda fan_in, fan_out: float(fan_in),
    "average": lambda fan_in, fan_out: (fan_in + fan_out) / 2.0,
}


def _scaled(tensor: Any, gain: float, mode: str, uniform: bool) -> None:
    """Standard deviation ``gain / sqrt(fan)``."""
    std = gain / math.sqrt(_MODES[mode](*fans(tuple(tensor.shape))))
    limit = math.sqrt(3.0) * std  # an even distribution on +-limit has this standard deviation
    draw = np.random.uniform(-limit, limit, tensor.shape) if uniform else np.random.normal(0.0, std, tensor.shape)
    _write(tensor, draw)


def _scaling(name: str, mode: str, gain: float, *, uniform: bool = False) -> None:
    """Register ``name``; a partial of a module's function can be pickled, a function made here could not."""
    WeightInitializer.register_initializer(name)(partial(_scaled, gain=gain, mode=mode, uniform=uniform))


_scaling("kaiming", "in", math.sqrt(2.0))
_scaling("kaiming_relu", "in", math.sqrt(2.0))
_scaling("kaiming_leaky_relu_0.01", "in", _leaky_gain(0.01))
_scaling("kaiming_leaky_relu_0.2", "in", _leaky_gain(0.2))
_scaling("kaiming_uniform", "in", math.sqrt(2.0), uniform=True)
_scaling("xavier", "average", 1.0)
_scaling("xavier_uniform", "average", 1.0, uniform=True)
_scaling("xavier_relu", "average", math.sqrt(2.0))
_scaling("xavier_tanh", "average", 5.0 / 3.0)
_scaling("xavier_leaky_relu_0.01", "average", _leaky_gain(0.01))
_scaling("xavier_leaky_relu_0.2", "average", _leaky_gain(0.2))
_scaling("lecun_normal", "in", 1.0)
_scaling("lecun_uniform", "in", 1.0, uniform=True)


# -- the others


@WeightInitializer.register_initializer("zeros")
def zeros(tensor: Any) -> None:
    """All elements 0."""
    _write(tensor, np.zeros(tensor.shape))


@WeightInitializer.register_initializer("ones")
def ones(tensor: Any) -> None:
    """All elements 1."""
    _write(tensor, np.ones(tensor.shape))


@WeightInitializer.register_initializer("normal")
def normal(tensor: Any, mean: float = 0.0, std: float = 0.05) -> None:
    """Normally distributed."""
    _write(tensor, np.random.normal(mean, std, tensor.shape))


@WeightInitializer.register_initializer("uniform")
def uniform(tensor: Any, low: float = -0.05, high: float = 0.05) -> None:
    """Evenly distributed on [low, high)."""
    _write(tensor, np.random.uniform(low, high, tensor.shape))


@WeightInitializer.register_initializer("truncated_normal")
def truncated_normal(tensor: Any, mean: float = 0.0, std: float = 0.05) -> None:
    """Normally distributed, redrawn until within two standard deviations of the mean."""
    z = np.random.normal(size=math.prod(tensor.shape))
    while (outside := np.abs(z) > 2.0).any():
        z[outside] = np.random.normal(size=int(outside.sum()))
    _write(tensor, mean + std * z)


@WeightInitializer.register_initializer("orthogonal")
def orthogonal(tensor: Any, gain: float = 1.0) -> None:
    """Seen as (out, rest): orthonormal rows, or columns if those are fewer, times gain."""
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise ValueError(f"orthogonal: needs two or more axes, got shape {shape}")
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(np.random.normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # otherwise the signs of qr bias the distribution
    _write(tensor, gain * (q if rows >= columns else q.T))


@WeightInitializer.register_initializer("identity")
def identity(tensor: Any, gain: float = 1.0) -> None:
    """``gain`` on the diagonal of a matrix, 0 elsewhere."""
    shape = tuple(tensor.shape)
    if len(shape) != 2:
        raise ValueError(f"identity: needs two axes, got shape {shape}")
    _write(tensor, gain * np.eye(*shape))
