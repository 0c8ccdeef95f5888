"""One HTML page on a folder of runs and sweeps, with everything inside: phase diagrams, curves, verdicts.

A folder holds what ``keydnn stability run`` and ``keydnn stability sweep`` leave: ``*.npz`` histories and ``*.jsonl`` sweeps.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from keydnn import _page
from keydnn._page import escaped
from keydnn.stability._history_plots import pyplot
from keydnn.stability.explain import VERDICTS, explain
from keydnn.stability.history import FitHistory
from keydnn.stability.sweep import phase_diagram, read_table

_MOST_ROWS = 2000
COLORS = {
    "curvature": "tab:red",
    "not finite": "black",
    "infeasible interval": "tab:orange",
    "saturation": "tab:brown",
    "underflow": "tab:purple",
    "truncation bias": "tab:pink",
    "healthy": "tab:green",
    "no progress": "lightgray",
}


def write_report(folder: Any, out: Any = None) -> Path:
    """Write the page.

    Args:
        folder: Where the histories and sweeps are.
        out: The file; None is ``report.html`` in the folder.

    Returns:
        The file.

    Raises:
        FileNotFoundError: The folder holds neither histories nor sweeps.
        ImportError: matplotlib is not installed.
    """
    folder = Path(folder)
    runs, sweeps = sorted(folder.glob("*.npz")), sorted(folder.glob("*.jsonl"))
    if not runs and not sweeps:
        raise FileNotFoundError(
            f"{folder} holds no history (*.npz) and no sweep (*.jsonl); make one with `keydnn stability run` or `sweep`"
        )
    parts = [_sweep(path) for path in sweeps] + [_run(path) for path in runs]
    page = _page.document(f"Stability report: {folder.resolve().name}", parts)
    return _page.write(folder / "report.html" if out is None else Path(out), page)


def _picture(fig: Any, alt: str) -> str:
    plt = pyplot()
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=90)
    plt.close(fig)
    return f"<p><img alt='{escaped(alt)}' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'></p>"


def _run(path: Path) -> str:
    history = FitHistory.from_npz(path)
    verdict = escaped(str(explain(history)))
    parts = [f"<h2>{escaped(path.stem)}</h2><p class='verdict'><b>Verdict:</b> {verdict}</p>"]
    parts.append(_picture(history.plot_results(show=False)[0], "metrics over the steps"))
    if history.meta.get("precision") is not None:
        parts.append(_picture(history.plot_quantization(show=False)[0], "what finite precision does"))
        if "update_radius_ratio" in history:
            parts.append(_picture(history.plot_phase(show=False)[0], "actual against intended updates"))
    return "".join(parts)


def _sweep(path: Path) -> str:
    rows = read_table(path)
    parts = [f"<h2>{escaped(path.stem)}</h2><p>{len(rows)} finished cells.</p>"]
    if not rows:
        return "".join(parts)
    axes = _axes(path)
    verdicts = Counter(str(row["verdict"]) for row in rows if row.get("verdict") is not None)
    if verdicts:
        counts = ", ".join(f"{n} {escaped(name)}" for name, n in verdicts.most_common())
        parts.append(f"<p class='verdict'><b>Verdicts:</b> {counts}</p>")
    if len(axes) >= 2 and any("rmse" in row for row in rows):
        parts.append(_picture(phase_figure(rows, axes[-1], axes[-2]), "final error over two axes"))
    if len(axes) >= 2 and verdicts:
        parts.append(_picture(verdict_figure(rows, axes[-1], axes[-2]), "verdict over two axes"))
    return "".join([*parts, _table(rows, axes)])


def _table(rows: list[dict[str, Any]], axes: list[str]) -> str:
    """All cells, folded: the axes first, then the verdict; columns with one value stand in a sentence."""
    columns = list(dict.fromkeys([*axes, "verdict", *(c for row in rows for c in row)]))
    values = {c: [_text(row.get(c)) for row in rows] for c in columns}
    same = [c for c in columns if c not in axes and len(rows) > 1 and len(set(values[c])) == 1]
    shown = [c for c in columns if c not in same]
    parts = ["<details><summary>All cells</summary>"]
    if same:
        parts.append("<p>In every cell: " + ", ".join(f"{escaped(c)} {escaped(values[c][0])}" for c in same) + ".</p>")
    parts.append(_page.table(shown, ([values[c][i] for c in shown] for i in range(min(len(rows), _MOST_ROWS)))))
    if len(rows) > _MOST_ROWS:
        parts.append(f"<p>... and {len(rows) - _MOST_ROWS} more.</p>")
    return "".join([*parts, "</details>"])


def _axes(path: Path) -> list[str]:
    """Names of the settings that vary in a sweep."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    points = [json.loads(line)["point"] for line in lines if line.endswith("}")]
    if not points:
        return []
    return [name for name in points[0] if len({json.dumps(point.get(name)) for point in points}) > 1]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def phase_figure(rows: list[dict[str, Any]], x: str, y: str, value: str = "rmse") -> Any:
    """The phase diagram of a sweep: ``value`` in colour (logarithmic), diverged cells crossed out, over two axes.

    Args:
        rows: The table.
        x: Horizontal axis.
        y: Vertical axis.
        value: What the colour shows.

    Returns:
        The matplotlib figure.
    """
    xs, ys, matrix = phase_diagram(rows, x, y, value)
    fig, ax = _grid(xs, ys, x, y)
    mesh = ax.imshow(np.log10(np.where(matrix > 0, matrix, np.nan)), origin="lower", aspect="auto", cmap="viridis")
    fig.colorbar(mesh, ax=ax, label=f"log10 of final {value}")
    crosses = [(xs.index(row[x]), ys.index(row[y])) for row in rows if row.get("diverged")]
    for across, up in crosses:
        ax.plot(across, up, "x", color="red")
    ax.set_title(f"final {value}" + ("; red cross: diverged" if crosses else ""))
    return fig


def verdict_figure(rows: list[dict[str, Any]], x: str, y: str) -> Any:
    """What `explain` said of each cell, in colour, over two axes.

    Args:
        rows: The table.
        x: Horizontal axis.
        y: Vertical axis.

    Returns:
        The matplotlib figure.
    """
    plt = pyplot()
    from matplotlib.colors import to_rgb

    xs, ys = (list(dict.fromkeys(row[name] for row in rows)) for name in (x, y))
    fig, ax = _grid(xs, ys, x, y)
    matrix = np.full((len(ys), len(xs)), np.nan)
    for row in rows:
        if row.get("verdict") in VERDICTS:
            matrix[ys.index(row[y]), xs.index(row[x])] = VERDICTS.index(row["verdict"])
    there = sorted(set(matrix[np.isfinite(matrix)].astype(int).tolist()))
    image = np.ones((*matrix.shape, 3))
    for i in there:
        image[matrix == i] = to_rgb(COLORS[VERDICTS[i]])
    ax.imshow(image, origin="lower", aspect="auto", interpolation="nearest")
    patches = [plt.Rectangle((0, 0), 1, 1, color=COLORS[VERDICTS[i]]) for i in there]
    ax.legend(patches, [VERDICTS[i] for i in there], loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    ax.set_title("verdict")
    return fig


def _grid(xs: list[Any], ys: list[Any], x: str, y: str) -> tuple[Any, Any]:
    """An empty diagram over two axes."""
    fig, ax = pyplot().subplots(figsize=(min(max(6.5, 0.35 * len(xs) + 3), 12), min(max(3.2, 0.3 * len(ys) + 2), 9)), layout="constrained")
    every_x, every_y = max(len(xs) // 12, 1), max(len(ys) // 12, 1)
    ax.set_xticks(range(0, len(xs), every_x), [_text(v) for v in xs[::every_x]], rotation=45)
    ax.set_yticks(range(0, len(ys), every_y), [_text(v) for v in ys[::every_y]])
    ax.set(xlabel=x, ylabel=y)
    return fig, ax
