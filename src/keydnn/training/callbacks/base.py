"""Callbacks: what ``fit`` tells its listeners, and when.

    on_train_begin   { on_epoch_begin   { on_batch_begin  on_batch_end }*   on_epoch_end }*   on_train_end

Begin hooks get ``{}``; batch end the values of the batch; epoch end the means of the epoch with ``val_*``; train end the
latest values.  Epochs and batches count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

Logs = dict[str, float]
BATCH_HOOKS = ("on_batch_begin", "on_batch_end")


@runtime_checkable
class ICallback(Protocol):
    """What a listener must offer; subclasses of :class:`Callback` do."""

    def set_model(self, model: Any) -> Any: ...
    def on_train_begin(self, logs: Any = None) -> Any: ...
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> Any: ...
    def on_batch_begin(self, batch: int, logs: Any = None) -> Any: ...
    def on_batch_end(self, batch: int, logs: Any = None) -> Any: ...
    def on_epoch_end(self, epoch: int, logs: Any = None) -> Any: ...
    def on_train_end(self, logs: Any = None) -> Any: ...


class Callback:
    """Base of the callbacks; override the hooks you need.

    Attributes:
        model: The model in training.
        optimizer: Its optimizer.
        snapshot: Function that gives the complete state of the run, see :class:`keydnn.training.TrainingState`.
        stop_training: Set True to end training after the current epoch.
        stop_epoch: Set True in a batch hook to end the current epoch at once.
        comes_last: Whether ``on_epoch_end`` is called after that of all others, to see what they did.

    Example:
        >>> from keydnn.training import Callback
        >>> class Printer(Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         print(epoch, sorted(logs))
    """

    model: Any = None
    optimizer: Any = None
    snapshot: Callable[[], Any] | None = None
    stop_training: bool = False
    stop_epoch: bool = False
    comes_last: bool = False

    def set_model(self, model: Any) -> None:
        """Store the model."""
        self.model = model

    def set_run(self, optimizer: Any, snapshot: Callable[[], Any]) -> None:
        """Store the optimizer, and how to get the state of the run."""
        self.optimizer, self.snapshot = optimizer, snapshot

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Training starts."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch starts."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """A batch comes next."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """A batch is done."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch is done, validation included."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Training is over."""

    def get_state(self) -> dict[str, Any]:
        """What the callback has to remember over an interruption: JSON values, arrays, and dicts and lists of them."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`; called after ``on_train_begin``."""


class CallbackList:
    """Callbacks as one: every hook is passed on in order.

    Args:
        callbacks: The callbacks.

    Raises:
        TypeError: An entry is no callback.
    """

    def __init__(self, callbacks: Iterable[Any] = ()) -> None:
        self.callbacks: list[Any] = list(callbacks)
        for callback in self.callbacks:
            if isinstance(callback, type) or not isinstance(callback, Callback | ICallback):
                what = f"the class {callback.__name__}" if isinstance(callback, type) else type(callback).__name__
                raise TypeError(f"callbacks must hold Callback objects, got {what}")
        self.has_batch_hooks = any(_overrides(callback, name) for callback in self.callbacks for name in BATCH_HOOKS)

    def __iter__(self) -> Any:
        return iter(self.callbacks)

    def __len__(self) -> int:
        return len(self.callbacks)

    @property
    def stop_training(self) -> bool:
        """Whether a callback asks to end training after the epoch."""
        return any(getattr(callback, "stop_training", False) for callback in self.callbacks)

    @property
    def stop_epoch(self) -> bool:
        """Whether a callback asks to end the epoch now."""
        return any(isinstance(callback, Callback) and callback.stop_epoch for callback in self.callbacks)

    def set_model(self, model: Any) -> None:
        """Tell all the model."""
        for callback in self.callbacks:
            callback.set_model(model)

    def set_run(self, optimizer: Any, snapshot: Callable[[], Any]) -> None:
        """Tell all the optimizer, and how to get the state of the run."""
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.set_run(optimizer, snapshot)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Tell all."""
        for callback in self.callbacks:
            callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Tell all."""
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Tell all."""
        for callback in self.callbacks:
            callback.on_batch_begin(batch, logs)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Tell all, in order, those that come last after the others."""
        for callback in self._late_last():
            callback.on_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Tell all, in order, those that come last after the others."""
        for callback in self._late_last():
            callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Tell all."""
        for callback in self.callbacks:
            callback.on_train_end(logs)

    def _late_last(self) -> list[Any]:
        return sorted(self.callbacks, key=lambda callback: isinstance(callback, Callback) and callback.comes_last)

    # -- state

    def get_states(self) -> list[dict[str, Any]]:
        """``type`` and ``state`` of each callback that has some."""
        pairs = [(type(c).__name__, c.get_state()) for c in self.callbacks if isinstance(c, Callback)]
        return [{"type": name, "state": state} for name, state in pairs if state]

    def match(self, states: Iterable[dict[str, Any]]) -> list[tuple[Callback, dict[str, Any]]]:
        """Each state with its callback: the first of that type, then the second, and so on.

        Raises:
            ValueError: There are fewer callbacks of a type than states.
        """
        free = [c for c in self.callbacks if isinstance(c, Callback)]
        found = []
        for entry in states:
            callback = next((c for c in free if type(c).__name__ == entry["type"]), None)
            if callback is None:
                raise ValueError(f"the run to resume had a {entry['type']} callback with state; pass one in callbacks")
            free = [c for c in free if c is not callback]
            found.append((callback, entry["state"]))
        return found


def _overrides(callback: Any, name: str) -> bool:
    if not isinstance(callback, Callback):
        return True
    return name in vars(callback) or getattr(type(callback), name) is not getattr(Callback, name)
