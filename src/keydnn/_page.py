"""One HTML page with everything inside: no script, no request.

A policy in the page's head (``default-src 'none'``) makes the browser itself refuse both, whatever a label may hold.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#1a1a1a;background:#fff;overflow-wrap:anywhere}"
    "img{max-width:100%}h1{line-height:1.2}"
    "table{border-collapse:collapse;font-size:13px;overflow-wrap:normal}"
    "td,th{border:1px solid #ccc;padding:1px 8px;text-align:right;white-space:nowrap;unicode-bidi:isolate}"
    "th{background:#f3f3f3;position:sticky;top:0}.left{text-align:left}"
    ".scroll{max-height:28em;overflow:auto}summary{cursor:pointer;margin:.5em 0}"
    ".verdict{background:#f3f3f3;padding:.5em 1em}"
)
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def escaped(value: Any) -> str:
    """A value as text that stands in a page or in an attribute as it is; what no page can hold becomes U+FFFD."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], left: Collection[Any] = ()) -> str:
    """A table in a box that scrolls.

    Args:
        head: Names of the columns.
        rows: Their values; everything is escaped.
        left: Names of columns that stand at the left edge, as text does.
    """
    marks = [" class='left'" if name in left else "" for name in head]
    parts = [
        "<div class='scroll'><table><tr>",
        *(f"<th{mark}>{escaped(name)}</th>" for name, mark in zip(head, marks, strict=True)),
        "</tr>",
    ]
    for row in rows:
        parts += ["<tr>", *(f"<td{mark}>{escaped(value)}</td>" for value, mark in zip(row, marks, strict=True)), "</tr>"]
    return "".join([*parts, "</table></div>"])


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """The page.

    Args:
        title: Plain text, which is escaped.
        parts: HTML, in order.
        style: CSS beside that of every page.
    """
    head = (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">"
        "<meta name='viewport' content='width=device-width,initial-scale=1'><link rel='icon' href='data:,'>"
        f"<title>{escaped(title)}</title><style>{_STYLE}{style}</style></head>"
    )
    return f"{head}<body><h1>{escaped(title)}</h1>{''.join(parts)}</body></html>\n"


def write(path: Path, page: str) -> Path:
    """Write a page; a file of that name is replaced as a whole, or stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        beside.write_text(page, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
