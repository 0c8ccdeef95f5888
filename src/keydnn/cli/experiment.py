"""``keydnn experiment show FILE``: what an artifact holds, read without running anything it brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from keydnn.cli.table import table


def show(path: Path, as_json: bool) -> str:
    """A file of any kind as text or JSON.

    Raises:
        ImportError: The extra ``experiment`` is not installed.
        ClickException: No artifact, or a damaged or hostile one.
    """
    from keydnn.experiment.errors import ExperimentError
    from keydnn.experiment.execution.describing import describe, tree_lines

    try:
        told = describe(path)
    except ExperimentError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        return json.dumps(told, indent=1, ensure_ascii=False)
    parts = [_head(told), *(f"\n{text}" for text in _parts(told, list(tree_lines(told.get("plan", [])))) if text)]
    return "\n".join(parts)


def _head(told: dict[str, Any]) -> str:
    header = told["header"]
    label = f" {told['label']!r}" if "label" in told else ""
    lines = [
        f"{told['file']}: {told['kind']}{label}, {told['bytes']:,} bytes in {told['members']} members",
        f"written by KeyDNN {header.get('package_version')}, schema {header.get('schema_version')}, object {header.get('object_version')}",
    ]
    if "seed" in told:
        lines.append(f"seed {told['seed']}, registration policy {told['registration_policy']}")
    lines.append(f"packaged code: {', '.join(told['packaged_code']) or 'none'}")
    lines.append(f"unsafe members: {', '.join(told['unsafe_members']) or 'none'}")
    return "\n".join(lines)


def _parts(told: dict[str, Any], plan: list[str]) -> list[str]:
    sets = told.get("feature_sets") or ([told] if told["kind"] == "feature set" else [])
    set_rows = [
        (one["label"], one["n_samples"], "yes" if one["has_data"] else "no", one["fingerprint"], _splits(one["splits"]), one["scalers"])
        for one in sets
    ]
    node_rows = [
        (one["label"], one["model"] or one["type"], one["backend"], ", ".join(map(str, one["reads"])), "yes" if one["frozen"] else "")
        for one in told.get("nodes", [])
    ]
    run_rows = [(one["label"], one["status"], one["started_at"], _metrics(one["metrics"])) for one in told.get("runs", [])]
    checkpoints = ", ".join(told.get("checkpoints", []))
    return [
        table(("feature set", "samples", "data", "fingerprint", "splits", "scalers"), set_rows, ("samples", "scalers")) if sets else "",
        table(("node", "model", "backend", "reads", "frozen"), node_rows) if node_rows else "",
        "\n".join(["plan", *plan]) if plan else "",
        table(("run", "status", "started", "last metrics"), run_rows) if run_rows else "",
        f"checkpoints: {checkpoints}" if checkpoints else "",
        f"entries: {', '.join(told['entries'])}\nmeta: {json.dumps(told['meta'], ensure_ascii=False)}" if "entries" in told else "",
        json.dumps(told["config"], indent=1, ensure_ascii=False) if "config" in told else "",
    ]


def _splits(splits: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in splits.items())


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
