"""``keydnn experiment show|report|sweep|reproduce|compare``: what an artifact holds, read without running anything it brings; a page on it;
sweeps from YAML files; whether a file proves its own numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from keydnn.cli.job.config import ConfigError
from keydnn.cli.table import table

_SWEEP = ("space", "metric", "direction", "mode", "n_trials", "seed", "executor", "workers", "threads_per_task", "retries")


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


def report(path: Path, out: Path | None) -> str:
    """Write the page on an experiment and say where it is.

    Raises:
        ImportError: The extra ``experiment`` is not installed.
        ClickException: No experiment, or a damaged or hostile file.
    """
    from keydnn.experiment.errors import ExperimentError
    from keydnn.experiment.report import report_file

    beside = path / "report.html" if path.is_dir() else path.with_name(f"{path.name.split('.')[0]}.html")
    try:
        page = report_file(path, beside if out is None else out)
    except ExperimentError as error:
        raise click.ClickException(str(error)) from error
    return f"wrote {page}"


# -- sweeps -----------------------------------------------------------------------------------------------------------------


def sweep(path: Path, out: Path | None, resume: bool, allow_packaged_code: bool, as_json: bool) -> str:
    """Run a sweep; leaves a line per trial in ``out`` and returns the table of trials.

    Raises:
        ConfigError: The configuration cannot be done, or the file is not this sweep's.
        ImportError: The extra ``experiment`` is not installed.
    """
    from keydnn.experiment.documents.text import read_text
    from keydnn.experiment.errors import ExperimentError
    from keydnn.experiment.sweeps import Sweep

    try:
        told = _sweep_config(path, read_text(path))
        made = Sweep(experiment=_experiment(path, told, allow_packaged_code), **{name: told[name] for name in _SWEEP if name in told})
        target = Path("runs") / "experiment" / f"{path.stem}.jsonl" if out is None else out
        results = made.run(out=target, resume=resume)
    except FileExistsError as error:
        raise ConfigError(f"{error} (--resume)") from error
    except (ExperimentError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if as_json:
        trials = [{"number": one.number, "point": dict(one.point), "value": one.value, "error": one.error} for one in results.trials]
        return json.dumps({"metric": results.metric, "direction": results.direction, "trials": trials, "out": str(target)}, indent=1)
    best = results.best.number if any(one.error is None for one in results.trials) else None
    rows = [
        (one.number, *one.point.values(), one.error or f"{one.value:.6g}", "best" if one.number == best else "") for one in results.trials
    ]
    return f"{table(('trial', *made.space, made.metric, ''), rows)}\nwrote {target}"


def _sweep_config(path: Path, told: Any) -> dict[str, Any]:
    known = ("experiment", "data", *_SWEEP)
    if not isinstance(told, dict):
        raise ConfigError(f"{path}: a sweep is a mapping with {', '.join(known)}")
    unknown = [str(key) for key in told if key not in known]
    missing = [key for key in ("experiment", "space", "metric") if key not in told]
    if unknown or missing:
        words = f"unknown {', '.join(unknown)}" if unknown else f"{', '.join(missing)} missing"
        raise ConfigError(f"{path}: {words}; a sweep has {', '.join(known)}")
    return told


def _experiment(path: Path, told: dict[str, Any], allow_packaged_code: bool) -> Any:
    """The experiment of a sweep, in a context of its own; files are found from where the configuration lies."""
    from keydnn.experiment import Experiment, ExperimentContext, FeatureSet

    source = path.parent / str(told["experiment"])
    data = told.get("data") or []
    if not isinstance(data, list):
        raise ConfigError(f"{path}: data is a list of files, got {data!r}")
    with ExperimentContext().activate():
        for name in data:
            FeatureSet.load(path.parent / str(name), allow_packaged_code=allow_packaged_code)
        if source.suffix in (".yaml", ".yml"):
            return Experiment.from_yaml(source)
        return Experiment.load(source, allow_packaged_code=allow_packaged_code)


# -- does it come out again? --------------------------------------------------------------------------------------------------


def reproduced(path: Path, data: tuple[Path, ...], allow_packaged_code: bool, as_json: bool) -> tuple[str, bool]:
    """What a new run of the plan in a file brings beside the stored one, and whether nothing differs.

    Raises:
        ConfigError: It could not be run.
        ImportError: The extra ``experiment`` is not installed.
    """
    from keydnn.experiment import Experiment
    from keydnn.experiment.execution.reproducing import reproduce

    return _told(lambda: reproduce(Experiment, path, data=data, allow_packaged_code=allow_packaged_code), as_json)


def compared(a: Path, b: Path, allow_packaged_code: bool, as_json: bool) -> tuple[str, bool]:
    """How the latest runs in two files differ, and whether they do not.

    Raises:
        ConfigError: A file cannot be read, or holds no run.
        ImportError: The extra ``experiment`` is not installed.
    """
    from keydnn.experiment import Experiment
    from keydnn.experiment.execution.reproducing import compare

    return _told(lambda: compare(Experiment, a, b, allow_packaged_code=allow_packaged_code), as_json)


def _told(make: Callable[[], Any], as_json: bool) -> tuple[str, bool]:
    from keydnn.experiment.errors import ExperimentError

    try:
        found = make()
    except (ExperimentError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(str(error)) from error
    if as_json:
        lines = [{"what": line.what, "verdict": line.verdict, "detail": line.detail} for line in found.lines]
        return json.dumps({"ok": found.ok, "counts": found.counts, "versions": found.versions, "lines": lines}, indent=1), found.ok
    parts = [f"versions differ: {', '.join(found.versions)}"] if found.versions else []
    parts += [f"{line.verdict:10} {line.what}  {line.detail}".rstrip() for line in found.lines if line.verdict != "identical"]
    parts.append(", ".join(f"{count} {verdict}" for verdict, count in found.counts.items()))
    return "\n".join(parts), found.ok
