"""Callback and ExperimentCallback: what is called while phases and experiments run."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from keydnn.experiment.equality import same_values
from keydnn.experiment.phases.callback_configs import callback_class, callback_config, type_name


class _Configured:
    """Label, order, config: what callbacks of both levels share.

    Args:
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.
    """

    def __init__(self, label: str | None = None, execution_order: int = 0) -> None:
        self.label = type(self).__name__ if label is None else label
        self.execution_order = execution_order

    def _base_config(self) -> dict[str, Any]:
        return {"callback_type": type_name(type(self)), "label": self.label, "execution_order": self.execution_order}

    def get_config(self) -> dict[str, Any]:
        """Type, label and order; a class with arguments of its own adds them."""
        return self._base_config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The callback a config describes; ``callback_type`` says the class.

        Raises:
            ValueError: An unknown type, or one that is no subclass of the class asked.
        """
        found = callback_class(config, cls)
        if found is not cls:
            return found.from_config(config)
        return cls._from_arguments({name: value for name, value in config.items() if name != "callback_type"})

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """Label and order are set afterwards where the constructor does not take them."""
        parameters = inspect.signature(cls).parameters.values()
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        taken = {p.name for p in parameters}
        later = {name for name in ("label", "execution_order") if name in arguments and not takes_all and name not in taken}
        made = cls(**{name: value for name, value in arguments.items() if name not in later})
        for name in later:
            setattr(made, name, arguments[name])
        return made

    def get_state(self) -> dict[str, Any]:
        """What a continued run needs to know beside the config; nothing, unless a class says otherwise.

        Returns:
            What a file can hold: None, numbers, text, arrays, lists, tuples and dicts of these.
        """
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Configured):
            return NotImplemented
        return type(self) is type(other) and same_values(callback_config(self), callback_config(other))

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.get_config().items() if name not in ("callback_type", "eval_phase", "metrics", "loss")}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class Callback(_Configured, abc.ABC):
    """Called while a phase runs.

    Override the hooks you need: others are not called at all. What a hook returns is stored in the results of the phase: nothing for
    None, a :class:`CallbackResult` as it is, anything else as a payload. Frozen nodes and train or eval modes are afterwards as before.

    Args:
        label: Name; None takes that of the class.
        execution_order: Lower ones run first, equal ones in the order of the list.

    Example:
        >>> from keydnn.experiment.callbacks import Callback
        >>> class Steps(Callback):
        ...     def on_batch_end(self, *, experiment, phase, exec_ctx, results):
        ...         return exec_ctx.batch_idx
        ...
        ...     def get_config(self):
        ...         return super().get_config()
        >>> Steps().label
        'Steps'
    """

    HOOKS: ClassVar[tuple[str, ...]] = (
        "on_phase_start",
        "on_phase_end",
        "on_epoch_start",
        "on_epoch_end",
        "on_batch_start",
        "on_batch_end",
        "on_exception",
    )

    def __init__(self, label: str | None = None, execution_order: int = 0) -> None:
        super().__init__(label, execution_order)
        self._phase: Any = None

    @property
    def phase(self) -> Any:
        """The phase it was given to; None before."""
        return self._phase

    def attach(self, phase: Any) -> None:
        """Told by a phase that took this callback."""
        self._phase = phase

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Type, label and order; a subclass adds its arguments to these."""
        return self._base_config()

    def on_phase_start(self, *, experiment: Any, phase: Any, results: Any) -> Any:
        """Before the first step."""

    def on_phase_end(self, *, experiment: Any, phase: Any, results: Any) -> Any:
        """After the last epoch."""

    def on_epoch_start(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> Any:
        """Before the first step of an epoch."""

    def on_epoch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> Any:
        """After the last step of an epoch; its metrics are there."""

    def on_batch_start(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> Any:
        """Before a step."""

    def on_batch_end(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any) -> Any:
        """After a step, whose outputs and losses are in ``exec_ctx``."""

    def on_exception(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any, exception: BaseException) -> Any:
        """When anything failed, or was interrupted; ``exec_ctx`` is the last step, None if there was none."""


class ExperimentCallback(_Configured):
    """Called while an experiment runs its plan, a phase or a group; not in previews and not inside callbacks.

    Hooks are called with what they take: trailing arguments may be left out.

    Args:
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Example:
        >>> from keydnn.experiment.callbacks import ExperimentCallback
        >>> class Told(ExperimentCallback):
        ...     def on_phase_end(self, experiment, phase):
        ...         print("done:", phase.label)
        >>> Told().label
        'Told'
    """

    HOOKS: ClassVar[tuple[str, ...]] = (
        "on_experiment_start",
        "on_experiment_end",
        "on_phase_start",
        "on_phase_end",
        "on_group_start",
        "on_group_end",
        "on_exception",
    )

    def __init__(self, *, label: str | None = None, execution_order: int = 0) -> None:
        super().__init__(label, execution_order)

    def on_experiment_start(self, experiment: Any) -> None:
        """Before the first phase."""

    def on_experiment_end(self, experiment: Any) -> None:
        """After the last phase."""

    def on_phase_start(self, experiment: Any, phase: Any) -> None:
        """Before a phase."""

    def on_phase_end(self, experiment: Any, phase: Any, results: Any) -> None:
        """After a phase."""

    def on_group_start(self, experiment: Any, group: Any) -> None:
        """Before the items of a group."""

    def on_group_end(self, experiment: Any, group: Any, results: Any) -> None:
        """After the items of a group."""

    def on_exception(self, experiment: Any, phase: Any, exception: BaseException) -> None:
        """When a phase failed, or was interrupted."""
