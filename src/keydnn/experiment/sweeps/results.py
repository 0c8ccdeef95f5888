"""SweepResults: the trials of a sweep, and which one was best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keydnn.experiment.optional import need


@dataclass(frozen=True)
class Trial:
    """One setting and what came out.

    Attributes:
        number: From 0.
        point: Way to value.
        value: Of the metric that the sweep looks at; None if the trial failed.
        metrics: All metrics of the trial at their last epoch, by path.
        error: What ended a trial that failed.
    """

    number: int
    point: Mapping[str, Any]
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


class SweepResults:
    """Trials in the order of their numbers.

    Args:
        metric: What was looked at.
        direction: "min" or "max".
        trials: The trials.

    Example:
        >>> from keydnn.experiment.sweeps import SweepResults, Trial
        >>> results = SweepResults("val/loss", "min", [Trial(0, {"seed": 1}, 0.5), Trial(1, {"seed": 2}, 0.25)])
        >>> results.best.point, len(results)
        ({'seed': 2}, 2)
    """

    def __init__(self, metric: str, direction: str, trials: Sequence[Trial]) -> None:
        self.metric, self.direction, self.trials = metric, direction, tuple(trials)

    @property
    def best(self) -> Trial:
        """The trial with the best value; the first one of equals.

        Raises:
            ValueError: None ended well.
        """
        good = [trial for trial in self.trials if trial.value is not None and trial.value == trial.value]
        if not good:
            raise ValueError(f"none of {len(self.trials)} trials ended with a value of {self.metric!r}")
        sign = 1.0 if self.direction == "min" else -1.0
        return min(good, key=lambda trial: sign * float(trial.value or 0.0))

    def to_pandas(self) -> Any:
        """A frame with a row per trial: number, the values of its point, ``value`` and ``error``.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = need("pandas", "to_pandas()")
        rows = [{"trial": one.number, **one.point, "value": one.value, "error": one.error} for one in self.trials]
        return pandas.DataFrame(rows, columns=list(dict.fromkeys(name for row in rows for name in row)) or ["trial", "value", "error"])

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        return f"SweepResults({self.metric!r}, {self.direction}, {len(self.trials)} trials)"
