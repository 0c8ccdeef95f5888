"""Pictures as SVG inside a page: curves, a confusion matrix, a parity plot.  No package is needed.

Coordinates are those of the SVG, y down; the view is 380 wide, so text keeps its size on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keydnn._page import escaped

WIDTH, HEIGHT = 380, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 12, 34
MOST_POINTS = 300  # of a curve; of more, the least and the greatest of every stretch are drawn
MOST_DOTS = 1500
STYLE = (
    ".charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:1em}"
    "figure{margin:0;min-width:0}figure svg{width:100%;max-width:520px;height:auto;display:block}"
    "figcaption{font-size:13px;margin-bottom:.3em}svg text{font:12px sans-serif;fill:#333}"
    ".axis{stroke:#888;fill:none}.grid{stroke:#e6e6e6}.line{fill:none;stroke-width:1;opacity:.45}.line.bold{stroke-width:2.2;opacity:1}"
    ".train{stroke:#1f5fa8}.val{stroke:#d9730d}.dot.train{fill:#1f5fa8}.dot.val{fill:#d9730d}.dot{stroke:none}"
    ".cloud{fill:#1f5fa8;opacity:.35}.same{stroke:#666;stroke-dasharray:4 3}"
    ".key{display:inline-block;width:1.4em;border-top:3px solid;vertical-align:middle;margin:0 .3em 0 .8em}"
    ".key.train{border-color:#1f5fa8}.key.val{border-color:#d9730d}"
)


@dataclass
class Curve:
    """A line of a chart: its name, x and y, its colour (``train`` or ``val``), and whether it is the one to look at."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: str
    is_bold: bool = True


@dataclass
class _Scale:
    """Numbers to coordinates along one axis."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        a, b, v = (math.log10(n) for n in (self.low, self.high, value)) if self.is_log else (self.low, self.high, value)
        return self.start + (v - a) / (b - a) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.is_log:
            return _round_numbers(self.low, self.high)
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        return [10.0**p for p in range(first, last + 1, max(1, math.ceil((last - first) / 5)))]


def _round_numbers(low: float, high: float) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten between two numbers."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _scale(values: np.ndarray, start: float, end: float, *, may_be_log: bool = False) -> _Scale:
    """A scale for finite values, a little wider than they are."""
    limit = 1e300  # so that differences stay finite
    low, high = (min(max(float(n), -limit), limit) for n in (values.min(), values.max()))
    if may_be_log and low > 1e-300 and high / low > 100:
        return _Scale(low / 1.2, high * 1.2, start, end, is_log=True)
    half = max((high - low) / 2, 1e-9 * max(abs(low), abs(high)))
    half = half if half > 1e-300 else 0.5
    middle = (low + high) / 2
    return _Scale(middle - 1.08 * half, middle + 1.08 * half, start, end)


def number(value: float) -> str:
    """A number in few characters."""
    return f"{value:.4g}"


def _labels(ticks: Sequence[float]) -> list[str]:
    """Numbers in few characters, but all of them different."""
    short = [number(tick) for tick in ticks]
    return short if len(set(short)) == len(short) else [f"{tick:.10g}" for tick in ticks]


def svg(width: float, height: float, label: str, body: str) -> str:
    """An SVG that tells readers of the screen what it shows."""
    return f"<svg viewBox='0 0 {width:g} {height:g}' role='img' aria-label='{escaped(label)}'>{body}</svg>"


def figure(caption: str, picture: str) -> str:
    """A picture under its caption, which is HTML."""
    return f"<figure><figcaption>{caption}</figcaption>{picture}</figure>"


def _frame(x: _Scale, y: _Scale, x_name: str, *, whole_x: bool = False) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick, told in zip(y.ticks(), _labels(y.ticks()), strict=True):
        parts.append(f"<path class='grid' d='M{LEFT} {y(tick):.1f}H{right}'/>")
        parts.append(f"<text x='{LEFT - 5}' y='{y(tick) + 4:.1f}' text-anchor='end'>{told}</text>")
    across = [tick for tick in x.ticks() if not whole_x or tick == round(tick)]
    for tick, told in zip(across, _labels(across), strict=True):
        parts.append(f"<text x='{x(tick):.1f}' y='{bottom + 15}' text-anchor='middle'>{told}</text>")
    parts.append(f"<path class='axis' d='M{LEFT} {TOP}V{bottom}H{right}'/>")
    parts.append(f"<text x='{(LEFT + right) / 2}' y='{HEIGHT - 4}' text-anchor='middle'>{escaped(x_name)}</text>")
    return "".join(parts)


# -- curves -----------------------------------------------------------------------------------------------------------------


def curves(title: str, lines: Sequence[Curve]) -> str:
    """Curves over epochs; the y axis is logarithmic if values above 0 span more than two powers of ten.

    Values that are not finite leave gaps, and are counted.
    """
    finite = [np.isfinite(line.y) for line in lines]
    wrong = sum(int(np.sum(~ok)) for ok in finite)
    ys = np.concatenate([line.y[ok] for line, ok in zip(lines, finite, strict=True)])
    if not len(ys):
        return figure(f"<b>{escaped(title)}</b>", f"<p>All of its {wrong} values are NaN or infinite.</p>")
    x = _scale_of_epochs(np.concatenate([line.x for line in lines]))
    y = _scale(ys, HEIGHT - BOTTOM, TOP, may_be_log=True)
    body = _frame(x, y, "epoch", whole_x=True) + "".join(_line(line, x, y) for line in sorted(lines, key=lambda line: line.is_bold))
    notes = [*(["logarithmic"] if y.is_log else []), *([f"{wrong} values NaN or infinite"] if wrong else [])]
    told = f" ({', '.join(notes)})" if notes else ""
    return figure(f"<b>{escaped(title)}</b>{told}", svg(WIDTH, HEIGHT, f"{title} by epoch", body))


def _scale_of_epochs(x: np.ndarray) -> _Scale:
    low, high = float(x.min()), float(x.max())
    if high - low >= 5:
        return _Scale(low, high, LEFT + 4, WIDTH - RIGHT - 6)
    return _Scale(low - 0.5, high + 0.5, LEFT, WIDTH - RIGHT)


def _line(line: Curve, x: _Scale, y: _Scale) -> str:
    xs, ys = _thinned(line.x, line.y)
    pieces: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(xs.tolist(), ys.tolist(), strict=True):
        if math.isfinite(b):
            pieces[-1].append((x(a), y(b)))
        elif pieces[-1]:
            pieces.append([])
    kind = f"{line.color}{' bold' if line.is_bold else ''}"
    name, drawn = f"<title>{escaped(line.name)}</title>", []
    path = " ".join("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in piece) for piece in pieces if len(piece) > 1)
    if path:
        drawn.append(f"<path class='line {kind}' d='{path}'>{name}</path>")
    few = len(xs) <= 40 and line.is_bold
    drawn += [
        f"<circle class='dot {line.color}' cx='{a:.1f}' cy='{b:.1f}' r='2.4'>{name}</circle>"
        for piece in pieces
        if few or len(piece) == 1
        for a, b in piece
    ]
    return "".join(drawn)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``MOST_POINTS`` points that keep every peak: the least and the greatest of each stretch, in their order."""
    if len(x) <= MOST_POINTS:
        return x, y
    keep = []
    for stretch in np.array_split(np.arange(len(x)), MOST_POINTS // 2):
        finite = stretch[np.isfinite(y[stretch])]
        keep += sorted({int(finite[y[finite].argmin()]), int(finite[y[finite].argmax()])}) if len(finite) else [int(stretch[0])]
    return x[keep], y[keep]


# -- what was found beside what was true --------------------------------------------------------------------------------------


def confusion(counts: np.ndarray, names: Sequence[str], title: str) -> str:
    """Counts of true class (rows) and found class (columns); the deeper the blue, the larger the share of the row."""
    k = len(names)
    cell = min(30.0, (WIDTH - LEFT - RIGHT) / k)
    side, top = cell * k, 20.0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = []
    for i in range(k):
        if cell >= 11:
            at = f"{LEFT + (i + 0.5) * cell:.1f}"
            parts.append(
                f"<text x='{LEFT - 5}' y='{top + (i + 0.5) * cell + 4:.1f}' text-anchor='end'>{escaped(_short(names[i], 6))}</text>"
            )
            parts.append(
                f"<text x='{at}' y='{top + side + 14:.1f}' text-anchor='middle'>{escaped(_short(names[i], max(1, int(cell / 8))))}</text>"
            )
        for j in range(k):
            n, share = int(counts[i, j]), float(shares[i, j])
            told = f"true {names[i]}, found {names[j]}: {n} rows"
            at_x, at_y = LEFT + j * cell, top + i * cell
            parts.append(
                f"<rect x='{at_x:.1f}' y='{at_y:.1f}' width='{cell:.2f}' height='{cell:.2f}' fill='#1f5fa8' fill-opacity='{share:.3f}'"
                f" stroke='#ddd' stroke-width='.5'><title>{escaped(told)}</title></rect>"
            )
            if n and cell >= 8 * len(str(n)):
                color = " style='fill:#fff'" if share > 0.5 else ""
                parts.append(f"<text x='{at_x + cell / 2:.1f}' y='{at_y + cell / 2 + 4:.1f}' text-anchor='middle'{color}>{n}</text>")
    parts.append(f"<text x='{LEFT + side / 2:.1f}' y='12' text-anchor='middle'>found</text><text x='4' y='12'>true</text>")
    return svg(WIDTH, top + side + 22, title, "".join(parts))


def _short(name: str, n: int) -> str:
    return name if len(name) <= n else f"{name[: max(n - 1, 1)]}…"


def parity(truth: np.ndarray, found: np.ndarray, title: str) -> str:
    """A dot per row: what was true (x), what was found (y), and the line where both are the same."""
    ok = np.isfinite(truth) & np.isfinite(found)
    truth, found = truth[ok], found[ok]
    if not len(truth):
        return "<p>No row has a finite target and output.</p>"
    both = np.concatenate([truth, found])
    x, y = _scale(both, LEFT, WIDTH - RIGHT), _scale(both, HEIGHT - BOTTOM, TOP)
    some = slice(None, None, max(1, math.ceil(len(truth) / MOST_DOTS)))
    dots = "".join(
        f"<circle class='cloud' cx='{x(a):.1f}' cy='{y(b):.1f}' r='2.5'/>" for a, b in zip(truth[some], found[some], strict=True)
    )
    line = f"<path class='same' d='M{x(x.low):.1f} {y(x.low):.1f}L{x(x.high):.1f} {y(x.high):.1f}'/>"
    names = f"<text x='{LEFT + 6}' y='{TOP + 10}'>found</text>"
    return svg(WIDTH, HEIGHT, title, _frame(x, y, "true") + line + dots + names)
