"""Checkpointing: at which hooks a state is kept, under which key and name, and how many are kept.

Keys are epoch indices, ``"<epoch>_<batch>"`` at batches, ``"phase_start"`` and ``"phase_end"``.
"""

from __future__ import annotations

import string
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

BATCH_HOOKS = ("batch_start", "batch_end")
EPOCH_HOOKS = ("epoch_start", "epoch_end")
BOTH_HOOKS = ("phase_start", "phase_end")
PHASE_HOOKS = (*BOTH_HOOKS, *EPOCH_HOOKS, *BATCH_HOOKS)
EXPERIMENT_HOOKS = (*BOTH_HOOKS, "group_start", "group_end", "experiment_start", "experiment_end")
MODES = ("memory", "disk")
Key = int | str

_OF_PHASES = ("phase", "epoch", "batch")
_PLACEHOLDERS = {
    **dict.fromkeys(BOTH_HOOKS, (*_OF_PHASES, "label")),
    **dict.fromkeys((*EPOCH_HOOKS, *BATCH_HOOKS), _OF_PHASES),
    **dict.fromkeys(EXPERIMENT_HOOKS[2:], ("label",)),
}
_TEMPLATES = {
    **dict.fromkeys(EPOCH_HOOKS, "{phase}_epoch{epoch}"),
    **dict.fromkeys(BATCH_HOOKS, "{phase}_epoch{epoch}_batch{batch}"),
    "phase_start": "{phase}_start",
    "phase_end": "{phase}_end",
    **dict.fromkeys(EXPERIMENT_HOOKS[2:], "{label}"),
}


class Checkpointing:
    """When and where states are kept; on a TrainPhase those of the graph, on an Experiment all of it.

    Args:
        mode: ``"memory"`` or ``"disk"``; an Experiment takes ``"disk"`` only.
        save_on: The hook: ``phase_start``, ``phase_end``; of a phase also ``epoch_start``, ``epoch_end``, ``batch_start``, ``batch_end``;
            of an experiment also ``group_start``, ``group_end``, ``experiment_start``, ``experiment_end``.
        every_n: A state is kept at every n-th occurrence of the hook.
        directory: Where files go; None leaves that to the experiment.
        name_template: Name of a file, with ``{phase}``, ``{epoch}`` and ``{batch}`` on a phase, ``{label}`` on an Experiment; None takes
            one that fits the hook.
        max_to_keep: The oldest beyond so many are dropped, their files deleted; None keeps all. A key that was spared stays.
        overwrite: Whether a file of the same name may be replaced.

    Raises:
        ValueError: Bad mode, hook or placeholder, or a count below 1.

    Warns:
        UserWarning: The directory holds files already.

    Example:
        >>> from keydnn.experiment.phases import Checkpointing
        >>> kept = Checkpointing(every_n=2)
        >>> [epoch for epoch in range(5) if kept.should_save("epoch_end")]
        [1, 3]
    """

    def __init__(
        self,
        *,
        mode: str = "memory",
        save_on: str = "epoch_end",
        every_n: int = 1,
        directory: str | Path | None = None,
        name_template: str | None = None,
        max_to_keep: int | None = None,
        overwrite: bool = True,
    ) -> None:
        _one_of("mode", mode, MODES)
        _one_of("save_on", save_on, _PLACEHOLDERS)
        _at_least_one("every_n", every_n)
        if max_to_keep is not None:
            _at_least_one("max_to_keep", max_to_keep)
        if name_template is not None:
            self.validate_placeholders(name_template, _PLACEHOLDERS[save_on], f"save_on={save_on!r}")
        self._mode, self._save_on, self._every_n = mode, save_on, int(every_n)
        self._directory = None if directory is None else Path(directory)
        self._template, self._overwrite = name_template, bool(overwrite)
        self.max_to_keep = max_to_keep
        self._counts: dict[str, int] = {}
        self._kept: dict[Key, Any] = {}  # oldest first; key to state or path
        self._spared: dict[str, Key] = {}  # who needs a key
        if mode == "disk" and self._directory is not None and self._directory.is_dir() and any(self._directory.iterdir()):
            warnings.warn(f"the checkpoint directory {self._directory} holds files already", UserWarning, stacklevel=2)

    def moved(self, directory: str | Path | None) -> Checkpointing:
        """The same with another directory; nothing is counted or kept yet.

        Args:
            directory: Where files go, which may be there.
        """
        made = Checkpointing(**{**self.get_config(), "directory": None})
        made._directory = None if directory is None else Path(directory)
        return made

    # -- what was asked for

    @property
    def mode(self) -> str:
        """``"memory"`` or ``"disk"``."""
        return self._mode

    @property
    def save_on(self) -> str:
        """The hook."""
        return self._save_on

    @property
    def every_n(self) -> int:
        """A state is kept at every n-th occurrence of the hook."""
        return self._every_n

    @property
    def directory(self) -> Path | None:
        """Where files go; None leaves that to the experiment."""
        return self._directory

    @property
    def name_template(self) -> str:
        """Name of a file, with placeholders."""
        return self._template or _TEMPLATES[self._save_on]

    @property
    def overwrite(self) -> bool:
        """Whether a file of the same name may be replaced."""
        return self._overwrite

    @staticmethod
    def validate_placeholders(template: str, allowed: Collection[str], context_name: str) -> None:
        """Refuse a template with a placeholder that cannot be filled.

        Args:
            template: The template.
            allowed: Names that can be filled.
            context_name: Where it is used, for the message.

        Raises:
            ValueError: Another name, one without a name, or braces that do not match.
        """
        try:
            used = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        except ValueError as error:
            raise ValueError(f"name template {template!r} is malformed: {error}") from error
        bad = [f"{{{name}}}" for name in used if name not in allowed]
        if bad:
            known = ", ".join(f"{{{name}}}" for name in allowed)
            raise ValueError(f"name template {template!r} uses {', '.join(bad)}; with {context_name} there are {known}")

    def format_name(self, **kw: Any) -> str:
        """The name of a file.

        Args:
            **kw: Values of the placeholders; those the template does not use are ignored.

        Raises:
            ValueError: A value is missing.
        """
        self.validate_placeholders(self.name_template, list(kw), f"the values {', '.join(kw) or 'given here (none)'}")
        return self.name_template.format(**kw)

    def check_for_phase(self) -> None:
        """Refuse what a TrainPhase cannot do.

        Raises:
            ValueError: The hook is one of an experiment, or the template needs its label.
        """
        _one_of("save_on of a phase's checkpointing", self._save_on, PHASE_HOOKS)
        self.validate_placeholders(self.name_template, _OF_PHASES, f"save_on={self._save_on!r} on a phase")

    def check_for_experiment(self) -> None:
        """Refuse what an Experiment cannot do.

        Raises:
            ValueError: The mode is ``"memory"``, the hook is one of a phase, or the template needs what only phases know.
        """
        _one_of("save_on of an experiment's checkpointing", self._save_on, EXPERIMENT_HOOKS)
        if self._mode != "disk":
            raise ValueError("checkpoints of an experiment go to files: expected mode='disk', got mode='memory'")
        if self._template is not None:
            self.validate_placeholders(self._template, ["label"], f"save_on={self._save_on!r} on an experiment")

    # -- what is kept

    def should_save(self, hook: str) -> bool:
        """Count one occurrence of a hook; whether a state is to be kept at it."""
        if hook != self._save_on:
            return False
        self._counts[hook] = self._counts.get(hook, 0) + 1
        return self._counts[hook] % self._every_n == 0

    def record_memory(self, key: Key, state: Any) -> None:
        """Keep a state.

        Raises:
            RuntimeError: The mode is not ``"memory"``.
        """
        self._check_mode("memory", "record_memory")
        self._record(key, state)

    def record_disk(self, key: Key, path: str | Path) -> None:
        """Keep the path of a file that was written; files that are dropped for it are deleted.

        Raises:
            RuntimeError: The mode is not ``"disk"``.
        """
        self._check_mode("disk", "record_disk")
        self._record(key, Path(path))

    def _check_mode(self, mode: str, method: str) -> None:
        if self._mode != mode:
            raise RuntimeError(f"{method} belongs to mode={mode!r}; this checkpointing has mode={self._mode!r}")

    def _record(self, key: Key, value: Any) -> None:
        before = self._kept.pop(key, None)
        if isinstance(before, Path) and before != value:
            before.unlink(missing_ok=True)
        self._kept[key] = value
        needed = {key, *self._spared.values()}
        for old in [old for old in self._kept if old not in needed]:
            if self.max_to_keep is None or len(self._kept) <= self.max_to_keep:
                break
            dropped = self._kept.pop(old)
            if isinstance(dropped, Path):
                dropped.unlink(missing_ok=True)

    def spare(self, owner: str, key: Key) -> None:
        """Do not drop a key, even before it is recorded, until its owner names another one."""
        self._spared[owner] = key

    def has_key(self, key: Key) -> bool:
        """Whether something is kept under a key."""
        return key in self._kept

    def get_state(self, key: Key) -> Any:
        """The state under a key; None unless the mode is ``"memory"``.

        Raises:
            KeyError: There is nothing under it.
        """
        return self._at(key) if self._mode == "memory" else None

    def get_path(self, key: Key) -> Path | None:
        """The file under a key; None unless the mode is ``"disk"``.

        Raises:
            KeyError: There is nothing under it.
        """
        return self._at(key) if self._mode == "disk" else None

    def _at(self, key: Key) -> Any:
        if key not in self._kept:
            raise KeyError(f"no checkpoint under {key!r}; there are {self.saved_keys}")
        return self._kept[key]

    @property
    def saved_keys(self) -> list[Key]:
        """The keys: the start of the phase, then by epoch and batch, then its end."""
        return sorted(self._kept, key=_place)

    def reset(self) -> None:
        """Forget counts, keys and states; files stay."""
        self._counts.clear()
        self._kept.clear()
        self._spared.clear()

    # -- config and progress

    def get_config(self) -> dict[str, Any]:
        """The seven arguments."""
        return {
            "mode": self._mode,
            "save_on": self._save_on,
            "every_n": self._every_n,
            "directory": None if self._directory is None else str(self._directory),
            "name_template": self._template,
            "max_to_keep": self.max_to_keep,
            "overwrite": self._overwrite,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Checkpointing:
        """The checkpointing a config describes."""
        return cls(**config)

    def get_progress(self) -> dict[str, Any]:
        """Counts, spared keys and paths, for a run that is continued; states in memory are not part of it."""
        paths = [(key, str(value)) for key, value in self._kept.items() if isinstance(value, Path)]
        return {"counts": dict(self._counts), "spared": dict(self._spared), "paths": paths}

    def set_progress(self, progress: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_progress`."""
        self._counts, self._spared = dict(progress["counts"]), dict(progress["spared"])
        self._kept = {key: Path(path) for key, path in progress["paths"]}

    def __eq__(self, other: object) -> bool:
        return self.get_config() == other.get_config() if isinstance(other, Checkpointing) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Checkpointing(mode={self._mode!r}, save_on={self._save_on!r}, every_n={self._every_n}, kept={self.saved_keys})"


def _one_of(what: str, value: Any, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")


def _at_least_one(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a whole number of at least 1, got {value!r}")


def _place(key: Key) -> tuple[int, ...]:
    """Where a key stands among the others."""
    if isinstance(key, int):
        return (1, key)
    numbers = key.split("_")
    if all(number.isdigit() for number in numbers):
        return (1, *map(int, numbers))
    return (2 if key != "phase_start" else 0,)
