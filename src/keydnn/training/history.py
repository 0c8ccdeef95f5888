"""History: what was logged in each epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keydnn.domain.errors import MissingExtraError


@dataclass
class History:
    """Values by name and epoch.

    Attributes:
        history: Name to one float per epoch in which it was logged.
        epoch: Numbers of the epochs, from 0.
        epochs_of: Name to the numbers of the epochs in which it was logged.

    Example:
        >>> from keydnn.training import History
        >>> history = History()
        >>> history.append_epoch(0, {"loss": 0.5})
        >>> history.append_epoch(1, {"loss": 0.25})
        >>> history.history, history.last()
        ({'loss': [0.5, 0.25]}, {'loss': 0.25})
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    epochs_of: dict[str, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def append_epoch(self, epoch_idx: int, logs: Mapping[str, Any]) -> None:
        """Add the logs of one epoch; values are coerced to float.

        Raises:
            TypeError: A value is no number; nothing is added.
        """
        values = {name: float(value) for name, value in logs.items()}
        self.epoch.append(int(epoch_idx))
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
            self.epochs_of.setdefault(name, []).append(int(epoch_idx))

    def plot(self, names: Sequence[str] | None = None, *, path: str | os.PathLike[str] | None = None) -> Any:
        """The curves by epoch: a panel per name, training and validation together.

        Args:
            names: What to show, without ``val_``; None is everything that was logged.
            path: A file to write, such as ``curves.png``; None writes none.

        Returns:
            The ``matplotlib.figure.Figure``; a notebook shows it.

        Raises:
            ImportError: matplotlib is not installed.
            KeyError: A name was not logged.
            ValueError: There is nothing to show.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("History.plot", "matplotlib", "plot") from error
        shown = list(dict.fromkeys(name.removeprefix("val_") for name in self.history)) if names is None else list(names)
        for name in shown:
            if name not in self.history and f"val_{name}" not in self.history:
                raise KeyError(f"History.plot: {name!r} was not logged; there are {', '.join(self.history)}")
        if not shown:
            raise ValueError("History.plot: there is nothing to show")
        figure = Figure(figsize=(5 * len(shown), 4), dpi=120, layout="constrained")
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for key, label, color in ((name, "training", "#1f5fa8"), (f"val_{name}", "validation", "#d9730d")):
                values = self.history.get(key, [])
                if values:
                    axes.plot([epoch + 1 for epoch in self._epochs_of(key)], values, color=color, marker=".", label=label)
            axes.set(xlabel="epoch", ylabel=name, title=f"{name} by epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure

    def _epochs_of(self, name: str) -> list[int]:
        values = self.history[name]
        found = self.epochs_of.get(name, self.epoch)
        return found if len(found) == len(values) else list(range(len(values)))  # of a History that was put together by hand

    def last(self) -> dict[str, float]:
        """The latest value of each name."""
        return {name: values[-1] for name, values in self.history.items() if values}
