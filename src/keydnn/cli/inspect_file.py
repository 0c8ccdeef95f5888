"""``keydnn inspect FILE``: what a checkpoint holds, read from the file alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from keydnn.cli.table import table
from keydnn.saving.config import nodes_of
from keydnn.saving.json_v1 import decode, read_json
from keydnn.saving.state import read_state

USUAL = [("device", "cpu"), ("dtype", "float32")]  # settings not worth a column


def report(path: Path) -> str:
    """Tables of the layers and arrays in a JSON checkpoint or a state file.

    Raises:
        ValueError: The file is neither, or damaged.
    """
    with path.open("rb") as file:
        start = file.read(2)
    is_json = start == b"\x1f\x8b" or start[:1] in (b"{", b"[", b" ", b"\n", b"\r", b"\t")
    return _json_report(path) if is_json else _state_report(path)


def _json_report(path: Path) -> str:
    payload = read_json(path)
    shapes = {name: decode(entry, name).shape for name, entry in payload["state"].items()}
    rows, total = [], 0
    claimed: set[str] = set()
    for where, node in nodes_of(payload["arch"]):
        own = {name: shape for name, shape in shapes.items() if name.rpartition(".")[0] == where}
        claimed |= own.keys()
        count = sum(math.prod(shape) for shape in own.values())
        total += 0 if "shared_with" in node else count
        arrays = ", ".join(f"{name.rpartition('.')[2]} {_times(shape)}" for name, shape in own.items())
        rows.append((where or "(root)", node["type"], count, arrays, _settings(node)))
    parts = [
        f"{path}: {payload['format']}",
        table(("path", "type", "values", "arrays", "settings"), rows, right=("values",)),
        f"{len(rows)} nodes, {len(shapes)} arrays, {total:,} values (parameters and buffers, shared ones once)",
    ]
    loose = sorted(set(shapes) - claimed)
    return "\n".join([*parts, f"entries that belong to no node: {', '.join(loose)}"] if loose else parts)


def _settings(node: dict[str, Any]) -> str:
    config = {key: value for key, value in (node.get("config") or {}).items() if (key, value) not in USUAL and not isinstance(value, dict)}
    shared = [f"shared with {node['shared_with']}"] if "shared_with" in node else []
    return ", ".join([f"{key}={json.dumps(value)}" for key, value in config.items()] + shared)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _state_report(path: Path) -> str:
    arrays, meta = read_state(path)
    rows = [(name, str(array.dtype), _times(array.shape), array.size) for name, array in sorted(arrays.items())]
    parts = [
        f"{path}: training state",
        table(("array", "dtype", "shape", "values"), rows, right=("values",)),
        f"{len(rows)} arrays, {sum(array.size for array in arrays.values()):,} values",
        *_facts(meta),
    ]
    return "\n".join(parts)


def _facts(meta: Any) -> list[str]:
    """One line per entry of the text section, long ones cut."""
    if not isinstance(meta, dict):
        return []
    lines = [f"{key}: {json.dumps(value)}" for key, value in sorted(meta.items())]
    return [line if len(line) <= 120 else f"{line[:117]}..." for line in lines]
