"""Where a sweep looks: every combination, points by chance, or points that Optuna proposes from what came out before.

A dimension is a list of choices, or {"uniform": [low, high]}, {"loguniform": [low, high]} or {"int": [low, high]} (both ends included).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from keydnn.experiment.execution.executors.executor import checked_whole
from keydnn.experiment.optional import need

Point = dict[str, Any]
RANGES = ("uniform", "loguniform", "int")


class Proposer(Protocol):
    """Proposes points."""

    def propose(self, values: Sequence[float | None], n: int) -> list[Point]:
        """The next points: at least one and at most n, none when it is done.

        Args:
            values: What came out of all points so far; None of those that failed.
            n: How many can be used at once.
        """


def make_proposer(mode: str, space: Mapping[str, Any], n_trials: int | None, seed: int, direction: str) -> Proposer:
    """The proposer that a mode means.

    Raises:
        ValueError: An unknown mode, a space or number of trials that does not fit it.
        ImportError: Optuna is wanted and not installed.
    """
    if mode not in _MODES:
        raise ValueError(f"unknown mode {mode!r}; expected one of {', '.join(_MODES)}")
    if not space:
        raise ValueError(
            "the space of a sweep is empty: give it a way to a value and the values, such as {'phases.train.n_epochs': [1, 5]}"
        )
    for name, dimension in space.items():
        _check(name, dimension)
    if mode != "grid" and n_trials is None:
        raise ValueError(f"mode {mode!r} needs n_trials")
    if n_trials is not None:
        checked_whole("n_trials", n_trials, 1)
    return _MODES[mode](space, n_trials, seed, direction)


def _check(name: str, dimension: Any) -> None:
    if isinstance(dimension, Mapping):
        kind = next(iter(dimension), None)
        ends: Any = dimension.get(kind)
        fits = len(dimension) == 1 and kind in RANGES and isinstance(ends, list | tuple) and len(ends) == 2 and ends[0] <= ends[1]
        if not fits or (kind == "loguniform" and ends[0] <= 0):
            raise ValueError(f"{name!r}: a range is one of {', '.join(RANGES)} with [low, high], above 0 for loguniform; got {dimension!r}")
    elif isinstance(dimension, str) or not isinstance(dimension, Sequence) or not dimension:
        raise ValueError(f"{name!r}: a list of choices or a range is expected, got {dimension!r}")


class _Listed:
    """Points that do not depend on what comes out."""

    def __init__(self, points: list[Point]) -> None:
        self.points = points

    def propose(self, values: Sequence[float | None], n: int) -> list[Point]:
        return self.points[len(values) : len(values) + n]


class _Grid(_Listed):
    def __init__(self, space: Mapping[str, Any], n_trials: int | None, seed: int, direction: str) -> None:
        ranges = [name for name, dimension in space.items() if isinstance(dimension, Mapping)]
        if ranges:
            raise ValueError(f"a grid needs lists of choices, {', '.join(map(repr, ranges))} is a range: use mode='random'")
        points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
        super().__init__(points if n_trials is None else points[:n_trials])


class _Random(_Listed):
    def __init__(self, space: Mapping[str, Any], n_trials: int | None, seed: int, direction: str) -> None:
        super().__init__([self._point(space, np.random.default_rng([seed, i])) for i in range(n_trials or 0)])

    @staticmethod
    def _point(space: Mapping[str, Any], rng: np.random.Generator) -> Point:
        return {name: _drawn(dimension, rng) for name, dimension in space.items()}


def _drawn(dimension: Any, rng: np.random.Generator) -> Any:
    if not isinstance(dimension, Mapping):
        return dimension[int(rng.integers(len(dimension)))]
    ((kind, (low, high)),) = dimension.items()
    if kind == "int":
        return int(rng.integers(low, high + 1))
    if kind == "uniform":
        return float(rng.uniform(low, high))
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


class _Optuna:
    """Tree-structured Parzen estimator of Optuna, seeded; equal answers bring equal questions."""

    def __init__(self, space: Mapping[str, Any], n_trials: int | None, seed: int, direction: str) -> None:
        optuna = need("optuna", "mode='optuna'")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._n, self._failed = space, n_trials or 0, optuna.trial.TrialState.FAIL
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(direction="minimize" if direction == "min" else "maximize", sampler=sampler)
        self._asked: list[Any] = []
        self._told = 0

    def propose(self, values: Sequence[float | None], n: int) -> list[Point]:
        for trial, value in zip(self._asked[self._told : len(values)], values[self._told :], strict=True):
            if value is None:
                self._study.tell(trial, state=self._failed)
            else:
                self._study.tell(trial, value)
        self._told = len(values)
        new = [self._study.ask() for _ in range(min(n, self._n - len(self._asked)))]
        self._asked += new
        return [{name: self._suggested(trial, name, dimension) for name, dimension in self._space.items()} for trial in new]

    @staticmethod
    def _suggested(trial: Any, name: str, dimension: Any) -> Any:
        if not isinstance(dimension, Mapping):
            return dimension[trial.suggest_categorical(name, list(range(len(dimension))))]
        ((kind, (low, high)),) = dimension.items()
        if kind == "int":
            return trial.suggest_int(name, low, high)
        return trial.suggest_float(name, low, high, log=kind == "loguniform")


_MODES: dict[str, Callable[..., Proposer]] = {"grid": _Grid, "random": _Random, "optuna": _Optuna}
