"""Runs in sets: the folds of a cross-validation are one, any other run stands alone; and what a set says by metric."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from keydnn.experiment.execution.run_record import phase_results_of
from keydnn.experiment.report.charts import Curve
from keydnn.experiment.report.facts import Run
from keydnn.experiment.report.outcomes import Outcome, outcomes_of
from keydnn.experiment.results import TrainResults
from keydnn.experiment.results.cv_results import FOLD

_OF_FOLD = re.compile(rf"(.*)_{FOLD}(\d+)")
MEAN = "mean of folds"


@dataclass
class RunSet:
    """Runs that are shown together.

    Attributes:
        label: Of the run or of the cross-validation.
        runs: In order.
        names: Of each run: ``fold 0``, .. or the run's label.
        outcomes: Of each run, what its evaluations found.
        skipped: What could not be shown, and why.
    """

    label: str
    runs: list[Run]
    names: list[str]
    outcomes: list[list[Outcome]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def is_folds(self) -> bool:
        """Whether these are folds."""
        return self.names[0].startswith("fold ")

    def find_outcomes(self) -> None:
        """Look at what the evaluations of every run recorded."""
        self.outcomes = [[] if one.run.results is None else list(outcomes_of(one.run.results, self.skipped)) for one in self.runs]


def run_sets(runs: Sequence[Run]) -> list[RunSet]:
    """The history in sets; folds that follow each other and rise belong together."""
    sets: list[RunSet] = []
    last = -1
    for one in runs:
        found = _OF_FOLD.fullmatch(one.run.label)
        if found is None:
            sets.append(RunSet(one.run.label, [one], [one.run.label]))
            continue
        label, number = found[1], int(found[2])
        if sets and sets[-1].is_folds and sets[-1].label == label and number > last:
            sets[-1].runs.append(one)
            sets[-1].names.append(f"fold {number}")
        else:
            sets.append(RunSet(label, [one], [f"fold {number}"]))
        last = number
    return sets


# -- metrics by epoch -------------------------------------------------------------------------------------------------------


def curves_of(shown: RunSet) -> dict[str, list[Curve]]:
    """Title of a chart to its curves: what training and validation log under one name stands in one chart, all folds together."""
    charts: dict[str, list[Curve]] = {}
    for name, one in zip(shown.names, shown.runs, strict=True):
        for path, metric, x, y in _by_epoch(one):
            is_val = metric.startswith("val_")
            plain = metric.removeprefix("val_").removeprefix("train_")
            told = f"{'validation' if is_val else 'training'}, {name}" if shown.is_folds else metric
            curve = Curve(told, x, y, "val" if is_val else "train", is_bold=not shown.is_folds)
            charts.setdefault(f"{path}: {plain}", []).append(curve)
    return {title: [*lines, *_means(lines)] if shown.is_folds else lines for title, lines in charts.items()}


def _by_epoch(one: Run) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Path of a training phase, name of a metric, epochs from 1 and values; of two values for an epoch the later one counts."""
    for path, phase in phase_results_of(one.run.results) if one.run.results is not None else ():
        if not isinstance(phase, TrainResults):
            continue
        for told in phase.metric_store.get_state():
            whole = (told["batches"] < 0) & (told["epochs"] >= 0)
            epochs, values = told["epochs"][whole][::-1], told["values"][whole][::-1]
            x, first = np.unique(epochs, return_index=True)
            if len(x):
                yield "/".join(path), told["name"], x + 1.0, values[first]


def _means(lines: Sequence[Curve]) -> Iterator[Curve]:
    """The mean over folds, at epochs that all folds reached."""
    for color, word in (("train", "training"), ("val", "validation")):
        mine = [line for line in lines if line.color == color]
        if len(mine) > 1:
            common = mine[0].x
            for line in mine[1:]:
                common = np.intersect1d(common, line.x)
            if len(common):
                y = np.mean([line.y[np.searchsorted(line.x, common)] for line in mine], axis=0)
                yield Curve(f"{word}, {MEAN}", common, y, color)


# -- metrics at the end -----------------------------------------------------------------------------------------------------


def metric_table(shown: RunSet) -> list[tuple[str, list[float]]]:
    """Name of a metric to its value in each run, NaN where there is none; worked out from recorded outputs last, with a star."""
    columns = []
    for one, outcomes in zip(shown.runs, shown.outcomes, strict=True):
        several = len({outcome.node for outcome in outcomes}) > 1
        worked_out = {
            f"{outcome.path}/{score}{f' of {outcome.node}' if several else ''} *": value
            for outcome in outcomes
            for score, value in outcome.scores().items()
        }
        columns.append({**one.metrics, **worked_out})
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, float("nan")) for column in columns]) for name in sorted(names, key=lambda name: name.endswith(" *"))]
