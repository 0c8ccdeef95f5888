"""One HTML page on a folder of runs and sweeps, with everything inside: phase diagrams, curves, verdicts.

A folder holds what ``keydnn stability run`` and ``keydnn stability sweep`` leave: ``*.npz`` histories and ``*.jsonl`` sweeps.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.stability._history_plots import pyplot
from keydnn.stability.explain import explain
from keydnn.stability.history import FitHistory
from keydnn.stability.sweep import phase_diagram, read_table

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:2px 8px;text-align:right}"
    ".verdict{background:#f3f3f3;padding:.5em 1em}"
)
_MOST_ROWS = 200


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
    title = f"Stability report: {html.escape(folder.resolve().name)}"
    head = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style></head>"
    page = f"{head}<body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    target = folder / "report.html" if out is None else Path(out)
    beside = target.with_name(target.name + ".new")
    beside.write_text(page, encoding="utf-8")
    os.replace(beside, target)
    return target


def _picture(fig: Any) -> str:
    plt = pyplot()
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=90)
    plt.close(fig)
    return f"<p><img alt='' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'></p>"


def _run(path: Path) -> str:
    history = FitHistory.from_npz(path)
    verdict = html.escape(str(explain(history)))
    parts = [f"<h2>{html.escape(path.stem)}</h2><p class='verdict'><b>Verdict:</b> {verdict}</p>"]
    parts.append(_picture(history.plot_results(show=False)[0]))
    if history.meta.get("precision") is not None:
        parts.append(_picture(history.plot_quantization(show=False)[0]))
        if "update_radius_ratio" in history:
            parts.append(_picture(history.plot_phase(show=False)[0]))
    return "".join(parts)


def _sweep(path: Path) -> str:
    rows = read_table(path)
    parts = [f"<h2>{html.escape(path.stem)}</h2><p>{len(rows)} finished cells.</p>"]
    axes = _axes(path)
    if len(axes) >= 2 and rows:
        parts.append(_picture(phase_figure(rows, axes[-1], axes[-2])))
    if rows:
        columns = list(rows[0])
        parts.append("<table><tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in columns) + "</tr>")
        for row in rows[:_MOST_ROWS]:
            parts.append("<tr>" + "".join(f"<td>{html.escape(_text(row.get(c)))}</td>" for c in columns) + "</tr>")
        parts.append("</table>")
        if len(rows) > _MOST_ROWS:
            parts.append(f"<p>... and {len(rows) - _MOST_ROWS} more.</p>")
    return "".join(parts)


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
    plt = pyplot()
    xs, ys, matrix = phase_diagram(rows, x, y, value)
    fig, ax = plt.subplots(figsize=(max(4.5, 0.5 * len(xs) + 3), max(3.2, 0.35 * len(ys) + 2)), layout="constrained")
    shown = np.log10(np.where(matrix > 0, matrix, np.nan))
    mesh = ax.imshow(shown, origin="lower", aspect="auto", cmap="viridis")
    fig.colorbar(mesh, ax=ax, label=f"log10 of final {value}")
    for row in rows:
        if row.get("diverged"):
            ax.plot(xs.index(row[x]), ys.index(row[y]), "x", color="red")
    every_x, every_y = max(len(xs) // 12, 1), max(len(ys) // 12, 1)
    ax.set_xticks(range(0, len(xs), every_x), [_text(v) for v in xs[::every_x]], rotation=45)
    ax.set_yticks(range(0, len(ys), every_y), [_text(v) for v in ys[::every_y]])
    ax.set(xlabel=x, ylabel=y, title="red cross: diverged")
    return fig
