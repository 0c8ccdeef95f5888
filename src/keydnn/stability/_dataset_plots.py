"""Pictures of data sets; matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'keydnn[plot]'") from error
    return plt


def samples(dataset: Any, max_points: int) -> Any:
    """The picture that fits the input and output types."""
    plt = _pyplot()
    X, Y = dataset.X[:max_points], dataset.Y[:max_points]
    source, target = dataset.input_type.value, dataset.output_type.value
    if source.startswith("image"):
        return _images(plt, X, Y)
    if target.endswith("class"):
        fig, ax = plt.subplots(layout="constrained")
        values, counts = np.unique(dataset.Y, return_counts=True)
        ax.bar(values, counts)
        ax.set(xlabel="label", ylabel="samples", title="labels")
        return fig
    if source.endswith("float"):
        return _scatter_grid(plt, X.reshape(len(X), -1), Y.reshape(len(Y), -1))
    print(f"plot: no picture for {source} to {target}")  # noqa: T201 - what the method promises
    return None


def _images(plt: Any, X: np.ndarray, Y: np.ndarray) -> Any:
    n = min(len(X), 9)
    side = int(np.ceil(np.sqrt(n)))
    fig, axes = plt.subplots(side, side, figsize=(2 * side, 2 * side), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for i, ax in zip(range(n), axes.flat, strict=False):
        image = X[i][0] if X[i].ndim == 3 and X[i].shape[0] == 1 else np.moveaxis(X[i], 0, -1) if X[i].ndim == 3 else X[i]
        ax.imshow(image, cmap="gray")
        ax.set_title(str(np.round(Y[i], 3)) if np.size(Y[i]) <= 4 else "")
    return fig


def _scatter_grid(plt: Any, X: np.ndarray, Y: np.ndarray) -> Any:
    rows, columns = Y.shape[1], X.shape[1]
    size = (2.6 * columns + 1, 2.2 * rows + 0.6)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex="col", sharey="row", layout="constrained")
    for i in range(rows):
        for j in range(columns):
            axes[i, j].scatter(X[:, j], Y[:, i], s=8)
        axes[i, 0].set_ylabel(f"y{i}")
    for j in range(columns):
        axes[-1, j].set_xlabel(f"x{j}")
    return fig


def histograms(dataset: Any, bins: int | None) -> Any:
    """One histogram per column of X and of Y."""
    plt = _pyplot()
    parts = [(f"x{j}", column) for j, column in enumerate(dataset.X.reshape(len(dataset.X), -1).T) if dataset.input_type.is_float]
    parts += [(f"y{j}", column) for j, column in enumerate(dataset.Y.reshape(len(dataset.Y), -1).T) if dataset.output_type.is_float]
    if not parts:
        print("plot_histogram: neither inputs nor outputs are real numbers")  # noqa: T201 - what the method promises
        return None
    columns = min(4, len(parts))
    rows = -(-len(parts) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3 * columns, 2.4 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(parts) :]:
        ax.axis("off")
    for ax, (name, column) in zip(axes.flat, parts, strict=False):
        ax.hist(column, bins="auto" if bins is None else bins)
        ax.set(xlabel=name, ylabel="samples")
    return fig
