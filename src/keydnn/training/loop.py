"""The loop that every kind of training shares: steps over batches, with hooks around each, and means over what they log.

The value of an epoch is the mean over its batches, weighted by their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keydnn.autograd.modes import no_grad
from keydnn.nn.module import Module
from keydnn.training import recorded
from keydnn.training.data import batch_size_of
from keydnn.training.step import measure, read, read_logs
from keydnn.training.streaming import StreamingMetric
from keydnn.training.turns import evaluation_mode
from keydnn.training.weights import total_weight

Logs = dict[str, float]


def _added(total: float, values: np.ndarray, counts: np.ndarray | float = 1.0) -> float:
    """``total`` and then each value times its count, added in order as a loop would."""
    terms = np.empty(len(values) + 1)
    terms[0] = total
    with np.errstate(all="ignore"):
        np.multiply(values, counts, out=terms[1:])
        return float(np.add.accumulate(terms, out=terms)[-1])


@dataclass
class Totals:
    """Sums of logs weighted by batch size.

    Attributes:
        sums: Name to sum of value times size.
        sizes: Name to sum of sizes.
        samples: Samples of all batches.
        batches: Number of batches.
    """

    sums: Logs = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0

    def add(self, logs: Mapping[str, float], size: int, weight: float | None = None) -> None:
        """Count one batch; ``weight`` is what its loss counts, None is its size."""
        for name, value in logs.items():
            counted = size if weight is None or name != "loss" else weight
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * counted
            self.sizes[name] = self.sizes.get(name, 0) + counted
        self.samples += size
        self.batches += 1

    def add_columns(self, columns: Mapping[str, Sequence[float] | np.ndarray], size: int, weights: Sequence[float] | None = None) -> None:
        """Count batches of one size: per name the values of each, in order; the sums are those of :meth:`add` batch by batch."""
        count = 0
        for name, values in columns.items():
            column, n = np.asarray(values, np.float64), self.sizes.get(name, 0)
            count = len(column)
            is_weighted = weights is not None and name == "loss"
            counts = np.asarray(weights if is_weighted else float(size))
            self.sizes[name] = _added(n, counts) if is_weighted else n + count * size
            self.sums[name] = _added(self.sums.get(name, 0.0), column, counts)
        self.samples += count * size
        self.batches += count

    def means(self) -> Logs:
        """Means so far."""
        return {name: total / self.sizes[name] if self.sizes[name] else 0.0 for name, total in self.sums.items()}


class BatchHooks:
    """What :func:`run_steps` tells around each batch; the base does nothing."""

    def before(self, i: int) -> None:
        """Batch ``i`` comes next."""

    def after(self, i: int, logs: Logs, totals: Totals) -> bool:
        """Batch ``i`` is done and counted; True ends the loop."""
        return False


def run_steps(step: Callable[..., Logs], batches: Iterable[tuple[Any, ...]], totals: Totals, hooks: BatchHooks | None = None) -> Totals:
    """Run ``step`` over batches.

    Args:
        step: Called with what a batch holds, returns logs.
        batches: Pairs (x, y), or triples (x, y, weights), whose loss counts by the sum of the weights.
        totals: What came before in the same epoch; added to, so the first batch has number ``totals.batches``.
        hooks: Told before and after each batch.

    Returns:
        ``totals``.
    """
    hooks = BatchHooks() if hooks is None else hooks
    for batch in batches:
        i = totals.batches
        hooks.before(i)
        logs = step(*batch)
        totals.add(logs, batch_size_of(batch[0]), total_weight(batch[2]) if len(batch) > 2 else None)
        if hooks.after(i, logs, totals):
            break
    return totals


def all_logs(means: Logs, metrics: Sequence[Any], names: Sequence[str]) -> Logs:
    """Means and the values of streaming metrics, in the order of the metrics."""
    values = dict(means)
    values.update({n: read(m) for n, m in zip(names, metrics, strict=True) if isinstance(m, StreamingMetric) and m.is_number})
    return {name: values[name] for name in dict.fromkeys(("loss", *names, *values)) if name in values}


def evaluate_batches(
    model: Module,
    batches: Iterable[tuple[Any, ...]],
    loss: Callable[..., Any],
    metrics: Sequence[Any],
    names: Sequence[str],
    compile: bool = True,
) -> Logs:
    """Weighted means of loss and metrics, in evaluation mode and without a graph; flags are restored.

    The loss gets the prediction and what else a batch holds: the target, and weights if there are any.  Streaming metrics
    start anew.
    """

    def step(*batch: Any) -> Logs:
        if compile:
            return read_logs(recorded.evaluate(model, batch, loss, metrics), names, streaming=False)
        x, *rest = batch
        y_pred = model(x)
        return read_logs([loss(y_pred, *rest), *measure(metrics, rest[0], y_pred)], names, streaming=False)

    for metric in metrics:
        if isinstance(metric, StreamingMetric):
            metric.reset()
    with evaluation_mode(model), no_grad():
        return all_logs(run_steps(step, batches, Totals()).means(), metrics, names)
