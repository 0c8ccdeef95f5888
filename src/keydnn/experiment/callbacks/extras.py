"""Small callbacks: learning rates as metrics, gradients of limited norm, a limit of time, lines of text."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from keydnn.experiment.callbacks.callback import Callback
from keydnn.experiment.callbacks.loggers import LATE, metrics_of
from keydnn.experiment.graph import ModelNode


def optimizers_of(graph: Any, phase: Any) -> dict[str, Any]:
    """The optimizers that a phase uses by name: "" for one of the whole graph, else backend or label of the node."""
    whole = graph.optimizer
    if isinstance(whole, dict):
        return {backend.value: optimizer for backend, optimizer in whole.items()}
    if whole is not None:
        return {"": whole}
    nodes = [node for node in graph.executed_nodes(phase.active_nodes) if isinstance(node, ModelNode)]
    return {node.label: node.optimizer for node in nodes if node.optimizer is not None}


class LearningRateLogger(Callback):
    """Logs learning rates at the end of every epoch, as they were in its last update or are set for the next one by a torch scheduler.

    The metric is ``learning_rate``; of several optimizers ``learning_rate/<backend or node>``; of several groups of parameters with
    ``/<number>`` behind it.

    Args:
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.
    """

    def on_epoch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> None:
        """Log the rates."""
        for name, optimizer in optimizers_of(experiment.model_graph, phase).items():
            rates = optimizer.learning_rates
            for i, rate in enumerate(rates):
                words = ["learning_rate", *([name] if name else []), *([str(i)] if len(rates) > 1 else [])]
                results.metric_store.log(name="/".join(words), value=float(rate), epoch_idx=exec_ctx.epoch_idx)

    def get_config(self) -> dict[str, Any]:
        """Type, label and order."""
        return self._base_config()


class GradientClipping(Callback):
    """Scales the gradients of every update of a phase so that their common norm is at most ``norm``.

    It is ``clip_norm`` of the graph's optimizers, over several backends of all gradients together, while the phase runs; of optimizers of
    single nodes each node's own gradients count. Afterwards the optimizers clip as they did before.

    Args:
        norm: The largest norm.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Raises:
        ValueError: ``norm`` is not above 0.
    """

    def __init__(self, norm: float, *, label: str | None = None, execution_order: int = 0) -> None:
        if not norm > 0:
            raise ValueError(f"norm must be above 0, got {norm!r}")
        super().__init__(label, execution_order)
        self.norm = float(norm)

    @contextlib.contextmanager
    def around(self, graph: Any, phase: Any) -> Iterator[None]:
        """A block in which the optimizers of a phase clip."""
        before = [(optimizer, optimizer.clip_norm) for optimizer in optimizers_of(graph, phase).values()]
        for optimizer, _ in before:
            optimizer.clip_norm = self.norm
        try:
            yield
        finally:
            for optimizer, norm in before:
                optimizer.clip_norm = norm

    def get_config(self) -> dict[str, Any]:
        """Type, label, order and norm."""
        return {**self._base_config(), "norm": self.norm}


class TimeLimit(Callback):
    """Ends a training phase after the epoch in which its time is up; the time before a kill counts, too.

    Args:
        seconds: The time.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Attributes:
        stopped_epoch: Epoch after which the phase ended for this reason; None if it did not.

    Raises:
        ValueError: ``seconds`` is below 0.
    """

    def __init__(self, seconds: float, *, label: str | None = None, execution_order: int = 0) -> None:
        if not seconds >= 0:
            raise ValueError(f"seconds must be at least 0, got {seconds!r}")
        super().__init__(label, execution_order)
        self.seconds = float(seconds)
        self.stopped_epoch: int | None = None
        self._began = time.monotonic()

    def on_phase_start(self, *, experiment: Any, phase: Any, results: Any) -> None:
        """The time begins."""
        self._began, self.stopped_epoch = time.monotonic(), None

    def on_epoch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> None:
        """Ask for the end, if the time is up."""
        if time.monotonic() - self._began >= self.seconds and self.stopped_epoch is None:
            self.stopped_epoch = exec_ctx.epoch_idx
            phase.request_stop()

    def get_config(self) -> dict[str, Any]:
        """Type, label, order and seconds."""
        return {**self._base_config(), "seconds": self.seconds}

    def get_state(self) -> dict[str, Any]:
        """Seconds that have gone, and the epoch of the end."""
        return {"gone": time.monotonic() - self._began, "stopped_epoch": self.stopped_epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        self._began, self.stopped_epoch = time.monotonic() - state["gone"], state["stopped_epoch"]


class ProgressPrinter(Callback):
    """Prints a line with the metrics of every n-th epoch and of the last one.

    Args:
        every_n_epochs: How often.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Raises:
        ValueError: ``every_n_epochs`` below 1.
    """

    def __init__(self, every_n_epochs: int = 1, *, label: str | None = None, execution_order: int = LATE) -> None:
        if isinstance(every_n_epochs, bool) or not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be a whole number of at least 1, got {every_n_epochs!r}")
        super().__init__(label, execution_order)
        self.every_n_epochs = every_n_epochs

    def on_epoch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> None:
        """Print the line."""
        done = exec_ctx.epoch_idx + 1
        if done % self.every_n_epochs == 0 or done == phase.n_epochs or phase.stop_requested:
            metrics = ", ".join(f"{name}={value:.6g}" for name, value in metrics_of(results.metric_store, exec_ctx.epoch_idx).items())
            print(f"{phase.label}: epoch {done}/{phase.n_epochs}: {metrics}")  # noqa: T201 - what it is for

    def get_config(self) -> dict[str, Any]:
        """Type, label, order and how often."""
        return {**self._base_config(), "every_n_epochs": self.every_n_epochs}


class ModelSummary(Callback):
    """Prints the summary of the graph, which is built, before the first step of a phase.

    Args:
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.
    """

    def on_phase_start(self, *, experiment: Any, phase: Any, results: Any) -> None:
        """Print it."""
        print(experiment.model_graph.summary())  # noqa: T201 - what it is for

    def get_config(self) -> dict[str, Any]:
        """Type, label and order."""
        return self._base_config()
