"""What evaluations found beside what was true: classes or numbers, from recorded outputs and targets.

outputs (N, K), targets (N,) whole numbers below K, or (N, K) with a single 1 in each row: classes, the largest output wins
outputs (N,), targets 0 and 1: classes, from 0.5 up if all outputs lie in [0, 1], else (logits) from 0 up
outputs (N,) and targets (N,) whole numbers of an integer type, or text: classes by name
outputs and targets of one shape otherwise: numbers, scaling of the targets undone
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment.errors import ExperimentError
from keydnn.experiment.execution.run_record import phase_results_of
from keydnn.experiment.names import DOMAIN_OUTPUTS, DOMAIN_TARGETS, split_column
from keydnn.experiment.results import EvalResults, TrainResults

MOST_CLASSES = 1000  # above that whole numbers are taken for what was measured


@dataclass
class Outcome:
    """One node in one evaluation.

    Attributes:
        path: Labels that lead to the phase.
        node: Label of the node.
        is_classes: Whether ``truth`` and ``found`` name classes.
        truth: Targets; classes (N,), or numbers (N, columns).
        found: What the node put out, likewise.
        n_classes: How many classes there are; 0 where they are known by name, or of numbers.
        keys: Names of the target columns.
    """

    path: str
    node: str
    is_classes: bool
    truth: np.ndarray
    found: np.ndarray
    n_classes: int
    keys: tuple[str, ...]

    def scores(self) -> dict[str, float]:
        """Accuracy; or RMSE, MAE and R² over all columns."""
        if self.is_classes:
            return {"accuracy": float(np.mean(self.truth == self.found))}
        with np.errstate(all="ignore"):
            error = self.found - self.truth
            spread = np.sum((self.truth - np.mean(self.truth, axis=0)) ** 2)
            r2 = {} if not spread > 0 else {"R²": float(1 - np.sum(error**2) / spread)}
            return {"RMSE": float(np.sqrt(np.mean(error**2))), "MAE": float(np.mean(np.abs(error))), **r2}


def pooled(outcomes: list[Outcome]) -> Outcome:
    """The same evaluation in several folds as one."""
    first = outcomes[0]
    truth, found = (np.concatenate([getattr(one, name) for one in outcomes]) for name in ("truth", "found"))
    n_classes = max(one.n_classes for one in outcomes)
    return Outcome(first.path, first.node, first.is_classes, truth, found, n_classes, first.keys)


def outcomes_of(results: Any, skipped: dict[str, str]) -> Iterator[Outcome]:
    """Every node that no other reads in every evaluation; without any, in the last validation of training phases.

    Args:
        results: Of a phase or a group.
        skipped: Gets what cannot be shown, and why.
    """
    phases = [("/".join(path), phase) for path, phase in phase_results_of(results)]
    passes = [(name, phase) for name, phase in phases if isinstance(phase, EvalResults)]
    if not passes:
        trained = [(name, phase) for name, phase in phases if isinstance(phase, TrainResults)]
        passes = [(f"{name}/{label}", last) for name, phase in trained for label, last in _validations(phase).items()]
    for name, one in passes:
        yield from _of_pass(name, one, skipped)


def _validations(phase: TrainResults) -> dict[str, Any]:
    """Label of an evaluation callback to what it left at its last epoch."""
    labels = dict.fromkeys(label for _, label, *_ in phase.callbacks(kind="evaluation").keys())  # noqa: SIM118 - a series
    return {label: list(phase.validation(label).values())[-1] for label in labels}


def _of_pass(name: str, results: Any, skipped: dict[str, str]) -> Iterator[Outcome]:
    for node_id, note in results.nodes.notes.items():
        if not note.is_tail:
            continue
        label = note.label or node_id
        try:
            outputs, targets = _tensors(results, node_id)
            yield _outcome(name, label, targets, outputs, _keys(results, node_id))
        except (ExperimentError, ValueError, KeyError, RuntimeError, TypeError) as error:
            skipped[f"{name}, node {label}"] = str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def _tensors(results: Any, node_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and targets in raw units, or as the node had them where its scaling cannot be undone."""
    try:
        found = [results.stacked_tensors(node_id, domain, fmt="np", unscale=True) for domain in (DOMAIN_OUTPUTS, DOMAIN_TARGETS)]
    except (ExperimentError, ValueError, RuntimeError):
        found = [results.stacked_tensors(node_id, domain, fmt="np") for domain in (DOMAIN_OUTPUTS, DOMAIN_TARGETS)]
    return np.asarray(found[0]), np.asarray(found[1])


def _keys(results: Any, node_id: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(split_column(name)[1] for part in results.nodes.target_columns(node_id) for name in part))


def _outcome(name: str, node: str, targets: np.ndarray, outputs: np.ndarray, keys: tuple[str, ...]) -> Outcome:
    n = len(outputs)
    if not n or len(targets) != n:
        raise ValueError(f"{n} outputs stand beside {len(targets)} targets")
    truth, found = targets.reshape(n, -1), outputs.reshape(n, -1)
    classes = _classes(truth, found)
    if classes is not None:
        return Outcome(name, node, True, *classes, keys)
    if truth.shape != found.shape:
        raise ValueError(f"targets of shape {targets.shape[1:]} cannot be compared with outputs of shape {outputs.shape[1:]}")
    return Outcome(name, node, False, truth.astype(np.float64), found.astype(np.float64), 0, keys)


def _classes(truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, int] | None:
    """True and found classes and how many there are; None if these are numbers."""
    k, is_text = found.shape[1], truth.dtype.kind in "OUS"
    if is_text or found.dtype.kind in "OUS":
        return (truth[:, 0].astype(str), found[:, 0].astype(str), 0) if truth.shape[1] == k == 1 else None
    whole = bool(np.all(np.isfinite(truth)) and np.all(truth == np.floor(truth)))
    if k > 1 and truth.shape[1] == 1 and whole and truth.min() >= 0 and truth.max() < k:
        return truth[:, 0].astype(np.int64), found.argmax(axis=1), k
    if k > 1 and truth.shape[1] == k and whole and np.all(truth.sum(axis=1) == 1) and truth.min() >= 0:
        return truth.argmax(axis=1), found.argmax(axis=1), k
    if k > 1 or truth.shape[1] != 1 or not whole:
        return None
    if truth.min() >= 0 and truth.max() == 1 and (truth.min() == 0 or truth.dtype.kind in "biu"):
        inside = bool(np.all((found >= 0) & (found <= 1)))
        return truth[:, 0].astype(np.int64), (found[:, 0] >= (0.5 if inside else 0.0)).astype(np.int64), 2
    are_names = truth.dtype.kind in "iu" and np.all(found == np.floor(found)) and len(np.unique(truth)) <= MOST_CLASSES
    return (truth[:, 0].astype(np.int64), found[:, 0].astype(np.int64), 0) if are_names else None
