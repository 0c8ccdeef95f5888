"""The pictures of ``keydnn run`` and ``keydnn train``: learning curves and a confusion matrix.  Without matplotlib there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import keydnn

TRAIN, VALIDATION, MARK = "#1f5fa8", "#d9730d", "#666666"


def _figure(width: float, height: float) -> Any:
    """An empty figure that knows how to be saved; None, and a line that says why, when matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("no pictures: they need matplotlib; from the checkout: pip install '.[plot]'")
        return None
    fig = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def draw_history(path: Path, history: keydnn.History) -> None:
    """Write a panel per logged value by epoch, training and validation together; nothing without matplotlib."""
    if _figure(1, 1) is not None and history.history:
        history.plot(path=path)


def draw(folder: Path, history: keydnn.History, best_epoch: int, truth: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Write ``curves.png`` and ``confusion.png``.

    Args:
        folder: Where to.
        history: What ``fit`` returned.
        best_epoch: The epoch whose weights were kept, from 0.
        truth: Digits of the test rows.
        predicted: What the network says they are.

    Returns:
        The names of the files; none, and a line that says why, when matplotlib is missing.
    """
    wide = _figure(10, 4)
    if wide is None:
        return []
    curves(wide, history, best_epoch).savefig(folder / "curves.png")
    confusion(_figure(6.4, 5.6), truth, predicted).savefig(folder / "confusion.png")
    return ["curves.png", "confusion.png"]


def curves(figure: Any, history: keydnn.History, best_epoch: int) -> Any:
    """Loss and accuracy by epoch, training and validation, with the kept epoch marked."""
    epochs = [epoch + 1 for epoch in history.epoch]
    panels = [("loss", "cross-entropy loss"), ("acc", "accuracy")]
    for axes, (key, label) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(epochs, history.history[key], color=TRAIN, marker=".", label="training")
        axes.plot(epochs, history.history[f"val_{key}"], color=VALIDATION, marker=".", label="validation")
        axes.axvline(best_epoch + 1, color=MARK, linestyle=":", label=f"kept: epoch {best_epoch + 1}")
        axes.set(xlabel="epoch", ylabel=label, title=f"{label} by epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_yscale("log")
    return figure


def confusion(figure: Any, truth: np.ndarray, predicted: np.ndarray) -> Any:
    """How often each digit was taken for each digit, in numbers; the shade is the share of the row."""
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (truth, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            axes.text(column, row, counts[row, column], ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black")
    accuracy = np.trace(counts) / counts.sum()
    axes.set(xlabel="predicted digit", ylabel="true digit", title=f"{counts.sum()} test rows, accuracy {accuracy:.4f}")
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    figure.colorbar(image, ax=axes, label="share of the row")
    return figure
