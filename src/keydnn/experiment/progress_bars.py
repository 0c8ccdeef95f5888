"""Bars of phases: epochs of a training and the steps of each, batches of an evaluation.

    train    ━━━━━━━━━━━━━━━━━━━━━━   3/10 0:00:03 0:00:07 loss=0.0312 | val_loss=0.0407
    epoch 4  ━━━━━━━━━━━━━━          61/94 0:00:00 0:00:00 loss=0.0288 | val_loss=0.0407

A step costs a comparison of times; a loss on a device is read only when it is drawn.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from keydnn.experiment import progress
from keydnn.experiment.backends.tensors import is_tensor, to_numpy
from keydnn.experiment.progress import Stage, Task, active_stage, showing

Step = Callable[[Any], None]


def _text(name: str, value: Any) -> str:
    number = float(to_numpy(value).reshape(())) if is_tensor(value) else float(value)
    return f"{name}={number:.4g}"


class TrainingBars:
    """The bar of a training and that of its running epoch.

    Args:
        stage: Where they are shown; None shows nothing.
        label: Of the phase.
        n_epochs: How many epochs there are.
        persist_epoch: Whether each epoch leaves a line behind.
    """

    def __init__(self, stage: Stage | None, label: str, n_epochs: int, persist_epoch: bool) -> None:
        self._persist_epoch, self._n_epochs = persist_epoch, n_epochs
        self._whole = None if stage is None else stage.start(label, n_epochs, first=True)
        self._stage, self._epoch = stage, None
        self._loss: Any = None
        self._val_loss: Any = None
        self._steps, self._due = 0, 0.0

    _epoch: Task | None

    def epoch(self, epoch: int, n_steps: int) -> Step:
        """An epoch begins.

        Args:
            epoch: Its index.
            n_steps: How many steps it has.

        Returns:
            What each step is told with its loss, a number or a scalar tensor.
        """
        if self._stage is None or self._whole is None:
            return _silent
        what = f"epoch {epoch + 1}"
        if self._epoch is None:
            self._epoch = self._stage.start(what, n_steps)
            self._epoch.note = self._note
        else:
            self._epoch.renew(what, n_steps)
        return self._step

    def _step(self, loss: Any = None) -> None:
        self._loss = loss
        self._steps += 1
        now = time.monotonic()
        if now >= self._due:
            self._due = now + progress.DRAW_S
            self._tell()

    def _tell(self) -> None:
        """Steps that nobody has seen yet."""
        steps, self._steps = self._steps, 0
        if self._epoch is not None:
            self._epoch(steps)

    def _note(self) -> str:
        told = [("loss", self._loss), ("val_loss", self._val_loss)]
        return " | ".join(_text(name, value) for name, value in told if value is not None)

    def epoch_done(self, loss: Any = None, val_loss: Any = None, n_steps: int = 0) -> None:
        """An epoch is over.

        Args:
            loss: Its loss; None keeps that of the last step.
            val_loss: Its validation loss, if there is one.
            n_steps: Steps that were not told one by one.
        """
        if self._whole is None or self._epoch is None:
            return
        self._loss = self._loss if loss is None else loss
        self._val_loss = val_loss
        self._steps += n_steps
        self._tell()
        self._whole.note = self._note() if self._whole.is_due or self._epoch.drawn else self._whole.note
        self._whole(1)
        if self._persist_epoch:
            self._epoch.leave(f"{self._epoch.what}: {self._note()}")


def _silent(loss: Any = None) -> None:
    return None


def _nothing() -> None:
    return None


@contextlib.contextmanager
def training_progress(
    label: str, n_epochs: int, *, wanted: bool = True, persist: bool = False, persist_epoch: bool = False
) -> Iterator[TrainingBars]:
    """Bars of a training.

    Args:
        label: Of the phase.
        n_epochs: How many epochs there are.
        wanted: Whether anything is shown, as far as somebody looks.
        persist: Whether the bar stays when the training is over.
        persist_epoch: Whether each epoch that was drawn leaves a line behind.

    Example:
        >>> from keydnn.experiment.progress_bars import training_progress
        >>> with training_progress("train", 2, wanted=False) as bars:
        ...     for epoch in range(2):
        ...         step = bars.epoch(epoch, 3)
        ...         for loss in (3.0, 2.0, 1.0):
        ...             step(loss)
        ...         bars.epoch_done(2.0, val_loss=2.5)
    """
    with showing(wanted, persist=persist):
        yield TrainingBars(active_stage(), label, n_epochs, persist_epoch)


@contextlib.contextmanager
def evaluation_progress(label: str, n_batches: int | None, *, wanted: bool = True, persist: bool = False) -> Iterator[Callable[[], None]]:
    """The bar of an evaluation; what is given is called after each batch.

    Args:
        label: Of the phase.
        n_batches: How many batches there are; None if nobody knows.
        wanted: Whether anything is shown, as far as somebody looks.
        persist: Whether the bar stays when the evaluation is over.
    """
    inside = active_stage() is not None
    with showing(wanted, persist=persist):
        stage = active_stage()
        bar = None if stage is None else stage.start(label, n_batches)
        yield _nothing if bar is None else bar
        if bar is not None and inside:
            bar.close()
