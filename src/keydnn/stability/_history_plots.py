"""Pictures of instrumented runs; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Runs = Sequence[tuple[str, Any]]
RESULTS = (
    ("loss", ("loss",), None),
    ("weight error", ("weight_error_fro",), None),
    ("gradient norm", ("grad_norm",), None),
    ("curvature", ("curvature_proxy", "curvature_ema", "hessian_lambda_max"), None),
    ("raw margin $\\eta\\lambda_{max}$", ("stability_margin_lambda_raw",), 2.0),
    ("throttle $\\alpha_{would}$", ("alpha_would",), None),
)
QUANTIZATION = (
    ("loss", ("loss",), None),
    ("weight error", ("weight_error_fro",), None),
    ("gradient norm", ("grad_norm",), None),
    ("throttle $\\alpha$", ("alpha",), None),
    ("raw margin $\\eta\\lambda_{max}$", ("stability_margin_lambda_raw",), 2.0),
    ("controlled margin", ("stability_margin_lambda_ctrl",), 2.0),
    ("update norm", ("raw_update_norm", "actual_update_norm"), None),
    ("cosine of actual and intended update", ("update_cosine",), None),
    ("weight saturation", ("weight_saturation_fraction_max",), None),
    ("gradient saturation", ("gradient_saturation_fraction_max",), None),
    ("update underflow", ("update_underflow_fraction_max",), None),
    ("update saturation", ("update_saturation_fraction_max",), None),
)
LINEAR = {"alpha", "alpha_would", "update_cosine"}
STYLES = ("-", (0, (5, 2)), (0, (2, 1)), (0, (5, 1, 1, 1)))
RINGS = (0.25, 0.5, 1.0, 1.5)


def pyplot() -> Any:
    """matplotlib.pyplot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'keydnn[plot]'") from error
    return plt


def results(runs: Runs, title: str | None, show: bool) -> Any:
    """3 x 2 panels."""
    return _panels(runs, RESULTS, (3, 2), title, show)


def quantization(runs: Runs, title: str | None, show: bool) -> Any:
    """4 x 3 panels."""
    return _panels(runs, QUANTIZATION, (4, 3), title, show)


def _panels(runs: Runs, table: Any, grid: tuple[int, int], title: str | None, show: bool) -> Any:
    plt = pyplot()
    rows, columns = grid
    fig, axes = plt.subplots(rows, columns, sharex=True, figsize=(4.4 * columns, 2.5 * rows), layout="constrained")
    for ax, (name, keys, line) in zip(axes.flat, table, strict=True):
        _panel(ax, runs, name, keys, line)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    named = [(i, label) for i, (label, _) in enumerate(runs) if label]
    if named:
        lines = [plt.Line2D([], [], color=f"C{i}", linestyle=STYLES[i % len(STYLES)]) for i, _ in named]
        fig.legend(lines, [label for _, label in named], loc="outside upper right", ncols=len(named), frameon=False)
    if title:
        fig.suptitle(title)
    if show:
        plt.show()
    return fig, axes


def _panel(ax: Any, runs: Runs, name: str, keys: Sequence[str], line: float | None) -> None:
    """One panel: runs differ by colour, and by dashes so that equal ones show; several metrics of several runs by dashes alone."""
    drawn = []
    for i, (_, history) in enumerate(runs):
        for j, key in enumerate(keys):
            values = np.asarray(history.get(key, ()), float)
            if np.isfinite(values).any():
                color = i if len(runs) > 1 else j
                style = STYLES[(j if len(keys) > 1 else i) % len(STYLES)] if len(runs) > 1 else "-"
                text = key if len(keys) > 1 and i == 0 else None
                ax.plot(np.arange(len(values)), values, label=text, color=f"C{color}", linestyle=style, linewidth=1.3)
                drawn.append(values[np.isfinite(values)])
    ax.set_title(name, fontsize=10)
    ax.grid(alpha=0.3)
    if not drawn:
        ax.text(0.5, 0.5, "not logged", transform=ax.transAxes, ha="center", va="center", color="gray")
        ax.set_yticks([])
        return
    if line is not None:
        ax.axhline(line, color="black", linestyle=":", linewidth=0.9, label=f"limit {line:g}")
    _scale(ax, name, keys, np.concatenate(drawn), line)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(fontsize=7)


def _scale(ax: Any, name: str, keys: Sequence[str], values: np.ndarray, line: float | None) -> None:
    """Shares from 0 to 1, cosines from -1 to 1; what is positive logarithmically, with 0 at the bottom if it occurs."""
    if name.endswith(("saturation", "underflow")):
        ax.set_ylim(-0.03, 1.03)
        return
    if "update_cosine" in keys:
        ax.set_ylim(-1.05, 1.05)
        return
    positive = values[values > 0]
    is_far = len(positive) > 0 and (values >= 0).all() and float(positive.max()) > 10 * float(positive.min())
    has_lost = len(positive) > 0 and (values == 0).any() and line is None  # a norm that fell to 0 is what one looks for
    if not LINEAR & set(keys) and has_lost and (is_far or "actual_update_norm" in keys):
        ax.set_yscale("symlog", linthresh=float(positive.min()), linscale=1.0)
        ax.set_ylim(bottom=-0.1 * float(positive.min()))
    elif not LINEAR & set(keys) and len(positive) == len(values) and (is_far or line is None):
        ax.set_yscale("log", nonpositive="mask")
        ax.tick_params(axis="y", which="minor", labelleft=not is_far, labelsize=7)
    elif line is not None:
        ax.set_ylim(0.0, 1.1 * max(line, float(values.max())))
    elif set(keys) & {"alpha", "alpha_would"}:
        ax.set_ylim(-0.03, max(1.05, 1.05 * float(values.max())))


def edge(history: Any, title: str | None, show: bool) -> Any:
    """Curvature relative to the limit of the update rule, above the loss."""
    plt = pyplot()
    fig, axes = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5), layout="constrained")
    margin = ("curvature / limit of the update rule", ("margin_to_limit",), 1.0)
    for ax, (name, keys, line) in zip(axes, (margin, ("loss", ("loss",), None)), strict=True):
        _panel(ax, [("", history)], name, keys, line)
    axes[-1].set_xlabel("step")
    if title:
        fig.suptitle(title)
    if show:
        plt.show()
    return fig, axes


def phase(history: Any, title: str | None, show: bool) -> Any:
    """Update distortion in the complex plane."""
    plt = pyplot()
    fig, ax = plt.subplots(figsize=(5.4, 5), layout="constrained")
    radius, angle = (np.asarray(history.get(key, ()), float) for key in ("update_radius_ratio", "update_angle_rad"))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    reach = max(1.6, 1.1 * float(np.nanmax(radius, initial=0.0)))
    turn = np.linspace(0, 2 * np.pi, 200)
    for ring in RINGS:
        ax.plot(ring * np.cos(turn), ring * np.sin(turn), color="lightgray", linewidth=0.8, zorder=0)
        ax.annotate(f"{ring:g}", (0, -ring), color="gray", fontsize=7, ha="center")
    ax.axhline(0, color="lightgray", linewidth=0.8, zorder=0)
    ax.plot(1, 0, "+", color="black", markersize=12, label="intended update")
    if len(x):
        points = ax.scatter(x, y, c=np.arange(len(x)), s=10, cmap="viridis")
        fig.colorbar(points, ax=ax, label="step", shrink=0.8)
        ax.plot(x[0], y[0], "o", markerfacecolor="none", color="tab:blue", markersize=10, label="start")
        ax.plot(x[-1], y[-1], "x", color="tab:red", markersize=10, label="end")
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="along the intended update", ylabel="across it")
    ax.set_title(title or "actual / intended update")
    ax.legend(fontsize=8, loc="upper left")
    if show:
        plt.show()
    return fig, ax
