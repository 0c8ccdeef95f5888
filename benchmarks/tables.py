"""From the JSON of a run to the tables of ``docs/benchmarks.md``, so that no figure is typed by hand.

``python -m benchmarks table FILE.json`` prints them; with ``--into PAGE`` they replace what stands there between the lines
``<!-- NAME -->`` and ``<!-- end of NAME -->``, NAME being the benchmark.  README has ``measured`` instead: a few rows of ``steps``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import stability
from benchmarks.goals import goal_of, standing, verdict
from benchmarks.measure import Result, readable

SPOKEN = {  # rows of README
    "W1 step": "MLP 784-256-128-10, batch 64, Adam: a step",
    "W1 epoch": "the same, an epoch of 60,000 rows through `fit`",
    "W2 step": "two convolutions with pooling, 28x28, batch 64: a step",
    "W3 step": "six convolutions with batch norm, 32x32, batch 64: a step",
    "W4-LSTM step": "LSTM, 64 time steps, batch 32: a step",
    "W4-GRU step": "GRU, the same",
    "W5 step": "MLP 8-32-32-1, batch 32: a step",
    "W6 step": "transformer encoder block, batch 16: a step",
    "W7 W2 batch 1": "prediction for one image, the two convolutions",
}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(heads: list[str], lines: list[list[str]]) -> str:
    under = ["---", *("---:" for _ in heads[1:])]
    return "\n".join([_line(heads), _line(under), *map(_line, lines)])


def main_table(results: list[Result]) -> str:
    """Each row with its ratios, and its goals as met or missed."""
    lines = []
    for result in results:
        goal, at = goal_of(result.case), standing(result)
        times = [readable(result.median(name)) for name in (at.ours or "", "torch")]
        peer = f"{at.peer} {readable(result.median(at.peer))}" if at.peer else "-"
        ours = f"{times[0]} ({at.ours})" if at.ours not in (None, "keydnn") else times[0]
        lines.append([result.case, ours, times[1], verdict(at.torch, goal.torch), peer, verdict(at.best, goal.best)])
    return _table(["row", "ours", "torch", "torch / ours (goal)", "best peer", "best / ours (goal)"], lines)


def full_table(results: list[Result]) -> str:
    """Every contestant's median and half spread."""
    names = list(dict.fromkeys(name for result in results for name in (*result.seconds, *result.notes)))
    lines = []
    for result in results:
        cells = [result.case]
        for name in names:
            timed = f"{readable(result.median(name))} ±{50 * result.spread(name):.0f} %" if name in result.seconds else ""
            cells.append(timed or result.notes.get(name, "").split(":")[0])
        lines.append(cells)
    return _table(["row", *names], lines)


def remarks(results: list[Result]) -> str:
    """Who failed or disagreed, and how."""
    lines = [f"* {result.case}, {name}: {note}" for result in results for name, note in result.notes.items()]
    return "\n".join(["Failed or disagreed, therefore not timed:", "", *lines]) if lines else ""


def memory_table(figures: list[dict[str, Any]]) -> str:
    """Figures in MiB."""
    names = list(dict.fromkeys(name for figure in figures for name in figure["mebibytes"]))
    lines = [
        [figure["name"], *(f"{figure['mebibytes'][name]:.2f} MiB" if name in figure["mebibytes"] else "-" for name in names)]
        for figure in figures
    ]
    return _table(["memory", *names], lines)


def stability_table(results: list[Result], figures: list[dict[str, Any]]) -> str:
    """Steps beside TensorFlow, then speeds of quantisers and the sweep."""
    steps = _table(["row", "ours (goal)", "tensorflow", "tensorflow / ours (goal)"], [stability.step_cells(result) for result in results])
    lines = [[figure["name"], f"{figure['text']} ({figure['verdict']})"] for figure in figures]
    return steps + "\n\n" + _table(["row", "ours (goal)"], lines)


def busy_table(times: dict[str, dict[str, float]]) -> str:
    """Steps beside a busy process, over the time of one thread."""
    lines = [
        [f"{case}, {name}", readable(seconds), f"{seconds / medians['one thread']:.2f}"]
        for case, medians in times.items()
        for name, seconds in medians.items()
    ]
    return _table(["", "step", "over one thread"], lines)


def render(kept: dict[str, Any]) -> str:
    """The section of one run: date, command, machine, tables."""
    facts = ", ".join(f"{key} {value}" for key, value in kept["machine"].items() if key != "date")
    versions = ", ".join(f"{key} {value}" for key, value in kept.get("versions", {}).items())
    head = f"`{kept['command']}`, {kept['machine']['date']}: {facts}" + (f"; {versions}." if versions else ".")
    if kept["name"] == "busy":
        return f"{head}\n\n{busy_table(kept['results'])}"
    results = [Result(**result) for result in kept["results"]]
    if kept["name"] == "stability":
        return "\n\n".join(part for part in (head, stability_table(results, kept["figures"]), remarks(results)) if part)
    parts = [head, main_table(results), "Medians and half of the spread:", full_table(results), remarks(results)]
    if kept.get("figures"):
        parts.append(memory_table(kept["figures"]))
    return "\n\n".join(part for part in parts if part)


def spoken(kept: dict[str, Any]) -> str:
    """The rows of ``SPOKEN``, for those who do not know the workloads by their numbers."""
    facts, results = kept["machine"], [Result(**result) for result in kept["results"]]
    absent = {name for result in results for name in result.notes} - {name for result in results for name in result.seconds}
    peers = [f"{name} {version}" for name, version in kept["versions"].items() if name not in absent]
    head = (
        f"{facts['cores']} cores of {facts['cpu']}, float32, {facts['threads']} threads, {facts['date']};"
        " every contestant in its own process, in turn, losses compared first."
        f"\nPeers: {', '.join(peers)}."
    )
    lines = []
    for result in results:
        at = standing(result)
        if result.case in SPOKEN and at.ours and at.peer:
            times = [readable(result.median(name)) for name in (at.ours, "torch")]
            peer = f"{at.peer} {readable(result.median(at.peer))}"
            lines.append([SPOKEN[result.case], *times, f"**{at.torch:.3g}x**", peer, f"{at.best:.3g}x"])
    heads = ["", "KeyDNN", "PyTorch eager", "PyTorch / KeyDNN", "best peer", "best peer / KeyDNN"]
    return f"{head}\n\n{_table(heads, lines)}"


def put(page: Path, kept: dict[str, Any]) -> None:
    """Replace the section of a page that is about this run.

    Raises:
        ValueError: The page has no such section.
    """
    before = page.read_text(encoding="utf-8")
    ways = {kept["name"]: render} | ({"measured": spoken} if kept["name"] == "steps" else {})
    for section, way in ways.items():
        first, last = f"<!-- {section} -->", f"<!-- end of {section} -->"
        above, begun, rest = before.partition(first)
        _, ended, below = rest.partition(last)
        if begun and ended:
            page.write_text(f"{above}{first}\n{way(kept)}\n{last}{below}", encoding="utf-8")
            return
    raise ValueError(f"{page} has no lines {' or '.join(f'<!-- {section} -->' for section in ways)}")
