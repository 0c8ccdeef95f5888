"""``keydnn stability run|sweep|report``: instrumented runs and sweeps from JSON files, and one page on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from keydnn.cli.job.config import ConfigError
from keydnn.stability import PrecisionSweep, explain, run_config
from keydnn.stability.report import write_report


def read(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ConfigError: The file holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def run(path: Path, out: Path | None) -> str:
    """One run; leaves ``<name>.npz`` and ``<name>.json`` and returns the verdict.

    Raises:
        ConfigError: The configuration cannot be done.
    """
    config = read(path)
    try:
        history = run_config(config)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    folder = Path("runs") / "stability" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    history.to_npz(folder / f"{path.stem}.npz")
    (folder / f"{path.stem}.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    lines = [str(explain(history)), f"{history.steps} steps, loss {history['loss'][0]:.6g} -> {history['loss'][-1]:.6g}"]
    return "\n".join([*lines, f"wrote {folder / path.stem}.npz"])


def sweep(path: Path, out: Path | None, resume: bool, workers: int, verbose: bool) -> str:
    """All cells of ``{"base": {...}, "axes": {...}}``; leaves ``<name>.jsonl``.

    Raises:
        ConfigError: The configuration cannot be done, or the file is not this sweep's.
    """
    config = read(path)
    unknown = sorted(config.keys() - {"base", "axes"})
    if unknown:
        raise ConfigError(f"{path}: unknown {', '.join(unknown)}; a sweep has 'base' and 'axes'")
    folder = Path("runs") / "stability" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}.jsonl"

    def tell(done: int, total: int) -> None:
        if verbose and (done == total or done % max(total // 20, 1) == 0):
            click.echo(f"{done}/{total} cells", err=True)

    try:
        made = PrecisionSweep(config.get("base"), config.get("axes"), out=target)
        rows = made.run(resume=resume, workers=workers, progress=tell)
    except FileExistsError as error:
        raise ConfigError(f"{error} (--resume)") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    verdicts = sorted({row["verdict"] for row in rows})
    counts = ", ".join(f"{sum(row['verdict'] == v for row in rows)} {v}" for v in verdicts)
    return f"{len(rows)} cells: {counts}\nwrote {target}"


def report(folder: Path) -> str:
    """The page of a folder."""
    return f"wrote {write_report(folder)}"
