"""Learning rate schedules: pure functions from a count (epochs, or steps) to a factor of the starting rate.

``schedule(t)`` is the factor at count t = 0, 1, ...; ``schedule.lr(base, t)`` is the rate.  Being pure they hold no state:
a resumed run asks for the same t and gets the same rate.  Pass one in the ``callbacks`` of ``fit`` to apply it each epoch,
or wrap it in :class:`keydnn.training.LearningRateScheduler` to choose.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from keydnn.optim.optimizer import at_least_zero, fraction, positive


def _count(owner: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{owner}: {name} must be at least 1, got {value}")
    return value


class Schedule:
    """Base of the schedules; a subclass writes :meth:`factor`."""

    def factor(self, t: int) -> float:
        """Factor of the starting rate at count t."""
        raise NotImplementedError

    def __call__(self, t: int) -> float:
        return self.factor(t)

    def lr(self, base: float, t: int) -> float:
        """The learning rate at count t for the starting rate ``base``."""
        return base * self.factor(t)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"


class StepLR(Schedule):
    """Times ``gamma`` after every ``step_size`` counts: ``gamma ** (t // step_size)``.

    Example:
        >>> from keydnn.optim import StepLR
        >>> [StepLR(2, gamma=0.5)(t) for t in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = _count("StepLR", "step_size", step_size)
        self.gamma = positive("StepLR", "gamma", gamma)

    def factor(self, t: int) -> float:
        """``gamma ** (t // step_size)``."""
        return self.gamma ** (t // self.step_size)


class MultiStepLR(Schedule):
    """Times ``gamma`` at each of the ``milestones``: ``gamma ** (number of milestones up to t)``."""

    def __init__(self, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = tuple(sorted(_count("MultiStepLR", "a milestone", m) for m in milestones))
        self.gamma = positive("MultiStepLR", "gamma", gamma)

    def factor(self, t: int) -> float:
        """``gamma`` to the number of milestones passed."""
        return self.gamma ** bisect_right(self.milestones, t)


class ExponentialLR(Schedule):
    """``gamma ** t``."""

    def __init__(self, gamma: float) -> None:
        self.gamma = positive("ExponentialLR", "gamma", gamma)

    def factor(self, t: int) -> float:
        """``gamma ** t``."""
        return self.gamma**t


class CosineLR(Schedule):
    """Half a cosine from 1 down to ``floor`` over ``total`` counts, then ``floor``.

    Source: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts.
    """

    def __init__(self, total: int, floor: float = 0.0) -> None:
        self.total = _count("CosineLR", "total", total)
        self.floor = at_least_zero("CosineLR", "floor", floor)

    def factor(self, t: int) -> float:
        """``floor + (1 - floor) * (1 + cos(pi * t / total)) / 2``."""
        return self.floor + (1.0 - self.floor) * (1.0 + math.cos(math.pi * min(t, self.total) / self.total)) / 2.0


class PolynomialLR(Schedule):
    """``(1 - t / total) ** power``, 0 from ``total`` on; power 1 is a straight line."""

    def __init__(self, total: int, power: float = 1.0) -> None:
        self.total = _count("PolynomialLR", "total", total)
        self.power = positive("PolynomialLR", "power", power)

    def factor(self, t: int) -> float:
        """``(1 - min(t, total) / total) ** power``."""
        return (1.0 - min(t, self.total) / self.total) ** self.power


class WarmupLR(Schedule):
    """A straight rise over ``n`` counts, then another schedule counted from there.

    Args:
        n: Length of the rise; its factors are ``1/n, 2/n, ..., 1``.
        then: What follows; None keeps the full rate.

    Example:
        >>> from keydnn.optim import StepLR, WarmupLR
        >>> [WarmupLR(2, StepLR(1, 0.5))(t) for t in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """

    def __init__(self, n: int, then: Schedule | None = None) -> None:
        self.n = _count("WarmupLR", "n", n)
        self.then = then

    def factor(self, t: int) -> float:
        """``(t + 1) / n`` while t is below n, then the other schedule at ``t - n``."""
        if t < self.n:
            return (t + 1) / self.n
        return 1.0 if self.then is None else self.then.factor(t - self.n)

    def get_config(self) -> dict[str, Any]:
        """``n``, and the other schedule as ``{"type": ..., "config": ...}``."""
        return {"n": self.n, "then": None if self.then is None else {"type": type(self.then).__name__, "config": self.then.get_config()}}


class CosineRestartsLR(Schedule):
    """Half cosines from 1 to ``floor``, the first ``period`` counts long, each next one ``growth`` times as long.

    Source: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5.
    """

    def __init__(self, period: int, growth: int = 1, floor: float = 0.0) -> None:
        self.period = _count("CosineRestartsLR", "period", period)
        self.growth = _count("CosineRestartsLR", "growth", growth)
        self.floor = at_least_zero("CosineRestartsLR", "floor", floor)

    def factor(self, t: int) -> float:
        """``floor + (1 - floor) * (1 + cos(pi * (counts since the restart) / length)) / 2``."""
        length = self.period
        while t >= length and self.growth > 1:
            t, length = t - length, length * self.growth
        return self.floor + (1.0 - self.floor) * (1.0 + math.cos(math.pi * (t % length) / length)) / 2.0


class OneCycleLR(Schedule):
    """Up from ``1 / start`` to 1 over the first ``rise`` of ``total`` counts, then down to ``1 / (start * end)``, by half cosines.

    The rate of the optimizer is the peak.  Source: Smith & Topin 2018, https://arxiv.org/abs/1708.07120, with cosines.
    """

    def __init__(self, total: int, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> None:
        self.total = _count("OneCycleLR", "total", total)
        self.rise = fraction("OneCycleLR", "rise", rise)
        self.start = positive("OneCycleLR", "start", start)
        self.end = positive("OneCycleLR", "end", end)

    def factor(self, t: int) -> float:
        """The cosine between the ends of the phase that t lies in."""
        top, last = self.rise * self.total - 1.0, self.total - 1.0
        low = 1.0 / self.start
        if t <= top:
            return low + (1.0 - low) * (1.0 - math.cos(math.pi * t / top)) / 2.0 if top > 0 else 1.0
        part = min((t - top) / (last - top), 1.0) if last > top else 1.0
        return low / self.end + (1.0 - low / self.end) * (1.0 + math.cos(math.pi * part)) / 2.0


class InverseSqrtLR(Schedule):
    """A straight rise over ``warmup`` counts, then ``sqrt(warmup / (t + 1))``.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 5.3, scaled to 1 at the peak.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = _count("InverseSqrtLR", "warmup", warmup)

    def factor(self, t: int) -> float:
        """``min((t + 1) / warmup, sqrt(warmup / (t + 1)))``."""
        return min((t + 1) / self.warmup, math.sqrt(self.warmup / (t + 1)))


class LambdaLR(Schedule):
    """The factor of any function of the count.

    Args:
        function: Called with t, returns the factor.
    """

    def __init__(self, function: Callable[[int], float]) -> None:
        if not callable(function):
            raise TypeError(f"LambdaLR: expected a function of the count, got {type(function).__name__}")
        self.function = function

    def factor(self, t: int) -> float:
        """``function(t)``."""
        return float(self.function(t))

    def get_config(self) -> dict[str, Any]:
        """A function cannot be written as JSON.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("LambdaLR: a function cannot be written as JSON")


SCHEDULES: dict[str, type[Schedule]] = {
    cls.__name__: cls
    for cls in (StepLR, MultiStepLR, ExponentialLR, CosineLR, CosineRestartsLR, OneCycleLR, InverseSqrtLR, PolynomialLR, WarmupLR)
}


def schedule_from_config(name: str, config: dict[str, Any]) -> Schedule:
    """The schedule called ``name`` with the arguments of :meth:`Schedule.get_config`.

    Raises:
        ValueError: There is no such schedule, or an argument is out of range.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; there are {', '.join(SCHEDULES)}")
    arguments = {
        key: schedule_from_config(value["type"], value["config"]) if isinstance(value, dict) else value for key, value in config.items()
    }
    return SCHEDULES[name](**arguments)
