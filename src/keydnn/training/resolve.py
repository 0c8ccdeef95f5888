"""From what a user writes (a name, an object, a function) to what the loop calls.

Names are compared without case and surrounding blanks; names of optimizers also without ``-`` and ``_``.  An optimizer asked
for by name is made once per model and settings and kept with the model, so its moments survive from call to call; it is
dropped when the model's list of parameters changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.protocols import IOptimizer
from keydnn.nn.losses import LOSSES
from keydnn.nn.module import Module, latest_stamp
from keydnn.nn.weighted import WeightedLoss, weighted
from keydnn.optim import OPTIMIZERS, Optimizer
from keydnn.training.metrics import METRICS
from keydnn.training.streaming import STREAMING, StreamingMetric


def resolve_loss(loss: Any) -> Callable[[Any, Any], Any]:
    """A function of (prediction, target) from a name, a loss object or a function.

    Raises:
        ValueError: An unknown name; the message lists the known ones.
        TypeError: Nothing that can be called, or a class where an object is meant.
    """
    if isinstance(loss, str):
        return _named("loss", LOSSES, loss.strip().lower(), loss)
    if isinstance(loss, type):
        raise TypeError(f"loss must be a name or a callable (pred, target), got the class {loss.__name__}; pass {loss.__name__}()")
    if not callable(loss):
        raise TypeError(f"loss must be a name or a callable (pred, target), got {type(loss).__name__}")
    return loss


def resolve_weighted(model: Module, loss: Callable[[Any, Any], Any]) -> WeightedLoss:
    """The loss as a function of prediction, target and weights; the model keeps the latest, as recorded steps go by identity."""
    kept = model.__dict__.get("_weighted")
    if kept is None or kept[0] is not loss:
        kept = model.__dict__["_weighted"] = (loss, weighted(loss))
    return kept[1]  # type: ignore[no-any-return]


def _named(kind: str, table: Mapping[str, Any], key: str, given: str) -> Any:
    if key not in table:
        raise ValueError(f"unknown {kind} {given!r}; supported: {', '.join(table)}")
    return table[key]


def resolve_metrics(metrics: Any, names: Sequence[str] | None, model: Module | None = None, owner: str = "") -> tuple[list[Any], list[str]]:
    """Functions and streaming metrics, and their names in the logs.

    Args:
        metrics: A name, function (y_true, y_pred) or streaming metric, a sequence of them, or None.
        names: Names in the logs; None takes the string, the metric's ``name``, the function's ``__name__``, or ``metric_<i>``.
        model: Keeps the streaming metrics made from names, as recorded steps go by identity; None makes new ones.
        owner: Who asks: each has its own.

    Raises:
        ValueError: An unknown name, the numbers of metrics and names differ, or a name comes twice.
        TypeError: Nothing that can be called.
    """
    is_one = isinstance(metrics, str | StreamingMetric) or callable(metrics)
    given = [] if metrics is None else [metrics] if is_one else list(metrics)
    found = [_metric_named(m, model, owner) if isinstance(m, str) else m for m in given]
    for i, metric in enumerate(found):
        if isinstance(metric, type) or not (isinstance(metric, StreamingMetric) or callable(metric)):
            what = f"the class {metric.__name__}" if isinstance(metric, type) else type(metric).__name__
            raise TypeError(f"metric {i} must be a name, a callable (y_true, y_pred) or a streaming metric, got {what}")
    if names is None:
        names = [_name_of(m, i) for i, m in enumerate(given)]
    if len(names) != len(found):
        raise ValueError(f"metric_names has {len(names)} names for {len(found)} metrics")
    if len({"loss", *names}) != len(names) + 1:
        raise ValueError(f"metric names must differ from each other and from 'loss', got {list(names)}; set metric_names")
    return found, list(names)


def _name_of(metric: Any, i: int) -> str:
    if isinstance(metric, str):
        return metric.strip()
    return metric.name if isinstance(metric, StreamingMetric) else getattr(metric, "__name__", f"metric_{i}")


def _metric_named(given: str, model: Module | None, owner: str) -> Any:
    """A function, or a streaming metric that has counted nothing."""
    key = given.strip().lower()
    if key not in STREAMING:
        return _named("metric", {**METRICS, **STREAMING}, key, given)
    kept: dict[Any, StreamingMetric] = {} if model is None else model.__dict__.setdefault("_named_metrics", {})
    metric = kept.get((owner, key))
    if metric is None:
        metric = kept[owner, key] = STREAMING[key]()
    metric.reset()
    return metric


def resolve_optimizer(model: Module, optimizer: Any, settings: Mapping[str, Any] | None) -> Any:
    """An optimizer that holds parameters of ``model``, from an object or a name.

    Args:
        model: What shall be trained; it keeps the optimizers made from names.
        optimizer: An object with ``step``, ``zero_grad`` and ``params``, or a name from ``OPTIMIZERS``.
        settings: Arguments of the optimizer; only with a name.

    Raises:
        ValueError: An unknown name, settings out of range, or settings for an object.
        TypeError: No optimizer, or unknown settings.
        RuntimeError: The object holds none of the model's parameters.
    """
    if isinstance(optimizer, str):
        return _cached(model, optimizer, dict(settings or {}))
    if isinstance(optimizer, type) or not (isinstance(optimizer, Optimizer) or isinstance(optimizer, IOptimizer)):
        what = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else type(optimizer).__name__
        raise TypeError(f"optimizer must be an optimizer object or one of {', '.join(OPTIMIZERS)}, got {what}")
    if settings:
        raise ValueError(
            f"optimizer_kwargs {dict(settings)} belong to an optimizer given by name; set them on the {type(optimizer).__name__}"
        )
    if model.__dict__.get("_stepped_by") != (optimizer, latest_stamp()):  # asked once, not at every step
        _check_holds(model, optimizer.params)
        model.__dict__["_stepped_by"] = (optimizer, latest_stamp())
    return optimizer


def _cached(model: Module, name: str, settings: dict[str, Any]) -> Optimizer:
    key = "".join(c for c in name.strip().lower() if c not in "-_")
    cls = _named("optimizer", OPTIMIZERS, key, name)
    params = list(model.parameters())
    kept: dict[Any, Optimizer] = model.__dict__.setdefault("_named_optimizers", {})
    slot = (key, tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in settings.items())))
    found = kept.get(slot)
    if found is None or not _same(found.params, params):
        found = cls(params, **settings)
        for old in [k for k, other in kept.items() if not _same(other.params, params)]:
            del kept[old]
        kept[slot] = found
    return found


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(p is q for p, q in zip(a, b, strict=True))


def _check_holds(model: Module, params: Iterable[Any]) -> None:
    held = {id(p) for p in params}
    own = None
    for own in model.parameters():
        if id(own) in held:
            return
    if own is not None:
        raise RuntimeError(f"the optimizer holds none of the parameters of this {type(model).__name__}; create the optimizer after build()")
