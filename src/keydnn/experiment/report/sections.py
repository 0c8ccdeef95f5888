"""The sections of a report as HTML; what was not recorded says what to do to have it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn._page import escaped, table
from keydnn.experiment.execution.describing import item_facts
from keydnn.experiment.report import charts, picture
from keydnn.experiment.report.facts import Facts, NodeFacts, Run, SetFacts
from keydnn.experiment.report.outcomes import Outcome, pooled
from keydnn.experiment.report.runs import RunSet, curves_of, metric_table
from keydnn.experiment.visualization.mermaid import Diagram, Node

MOST_RUNS, MOST_SETS, MOST_COLUMNS, MOST_CLASSES, MOST_METRICS = 200, 4, 200, 60, 300
STYLE = (
    charts.STYLE
    + picture.STYLE
    + (
        "h2{margin-top:1.6em;border-bottom:1px solid #ccc}h3{margin-bottom:.3em}.facts{display:grid;grid-template-columns:max-content 1fr;"
        "gap:.1em 1em}.facts dt{color:#555}.facts dd{margin:0;unicode-bidi:isolate}pre{overflow-x:auto;background:#f3f3f3;padding:.5em 1em;"
        "font-size:13px}.none{color:#555;border-left:3px solid #bbb;padding-left:.8em}.bad{border-left:3px solid #d50000;padding-left:.8em}"
        ".good{border-left:3px solid #2e7d32;padding-left:.8em}"
        "@media(max-width:600px){body{margin:1em auto}.facts{grid-template-columns:1fr}.facts dd{margin-bottom:.4em}pre{padding:.5em}}"
    )
)
_LEAKS = {
    "split_overlap": "the splits {splits} share {count} rows",
    "duplicate_rows": "{count} rows with equal features stand in {splits}",
    "scaler_leak": "a scaler of {columns} was fitted to {count} rows that {splits} hold",
    "nan_column": "{columns}: {count} rows without a value",
    "constant_column": "{columns} is the same in all {count} rows",
}
_IS_LEAK = ("split_overlap", "duplicate_rows", "scaler_leak")


def section(title: str, name: str, *parts: str) -> str:
    """A section that can be linked to."""
    return f"<section id='{name}'><h2>{escaped(title)}</h2>{''.join(parts)}</section>"


def not_recorded(what: str, mend: str) -> str:
    """What is missing, and how to have it."""
    return f"<p class='none'>Not recorded: {escaped(what)}. To have it: {escaped(mend)}.</p>"


def _list(pairs: Sequence[tuple[str, Any]]) -> str:
    return "<dl class='facts'>" + "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in pairs) + "</dl>"


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{escaped(title)}</summary>{inner}</details>"


def all_sections(facts: Facts, sets: Sequence[RunSet]) -> Iterator[str]:
    """The page below its title."""
    yield summary(facts)
    yield graph(facts)
    yield data(facts)
    yield plan(facts)
    yield training(sets)
    yield metrics(sets)
    yield evaluations(facts, sets)
    yield runs(facts)
    yield environment(facts)


# -- what it is -------------------------------------------------------------------------------------------------------------


def summary(facts: Facts) -> str:
    """Name, seed, fingerprints, how the latest run ended."""
    pairs: list[tuple[str, Any]] = [("experiment", facts.label)]
    pairs += [("file", facts.source)] if facts.source else []
    pairs.append(("seed", "none" if facts.seed is None else facts.seed))
    pairs += [(f"fingerprint of {one.label}", one.fingerprint) for one in facts.feature_sets]
    pairs.append(("runs", _ended(facts.runs)))
    notes = "".join(f"<p class='bad'>{escaped(note)}</p>" for note in facts.notes)
    return section("Summary", "summary", _list(pairs), notes)


def _ended(history: Sequence[Run]) -> str:
    if not history:
        return "none"
    statuses = [one.run.status for one in history]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def graph(facts: Facts) -> str:
    """The nodes as a picture, and as text for Mermaid."""
    if not facts.nodes:
        return section("Graph", "graph", not_recorded("a graph of models", "make a ModelGraph in the context of the experiment"))
    drawn = graph_diagram(facts.nodes, facts.feature_sets)
    text = _folded("as Mermaid text", f"<pre>{escaped(drawn.to_mermaid())}</pre>")
    return section("Graph", "graph", picture.draw(drawn, f"graph of {len(facts.nodes)} nodes"), text)


def graph_diagram(nodes: Sequence[NodeFacts], sets: Sequence[SetFacts]) -> Diagram:
    """Feature sets, the nodes, and what those put out that nobody reads."""
    diagram = Diagram()
    sizes = {one.label: one.n_samples for one in sets}
    labels = {node.label for node in nodes}
    sources = dict.fromkeys(name for node in nodes for name in node.reads if name not in labels)
    places = {}
    for name in sources:
        size = f"n={sizes[name]}" if name in sizes else "not in the experiment"
        places[name] = diagram.add(Node("FeatureSet", "FeatureSet", name, (size,)))
    for node in nodes:
        style = ("FrozenNode" if node.frozen else "ModelNode") if node.model is not None else "MergeNode"
        lines = (
            *([node.model] if node.model else []),
            *([f"<{node.backend}>"] if node.backend else []),
            *(["frozen"] if node.frozen else []),
        )
        places[node.label] = diagram.add(Node(style, node.kind, node.label, lines))
    shapes = {node.label: node.output_shape for node in nodes}
    for node in nodes:
        for name in node.reads:
            shape = shapes[name] if name in shapes else node.input_shape
            diagram.connect(places[name], places[node.label], "" if shape is None else str(shape))
    read = {name for node in nodes for name in node.reads}
    for node in nodes:
        if node.label not in read:
            end = diagram.add(Node("Terminal", "", "", shape="circle"))
            diagram.connect(places[node.label], end, "" if node.output_shape is None else str(node.output_shape))
    return diagram


def data(facts: Facts) -> str:
    """Feature sets with their splits and what the audit found."""
    if not facts.feature_sets:
        return section("Data", "data", not_recorded("feature sets", "make a FeatureSet in the context of the experiment"))
    return section("Data", "data", *(_feature_set(one) for one in facts.feature_sets))


def _feature_set(one: SetFacts) -> str:
    parts = [f"<h3>{escaped(one.label)}</h3>", f"<p>{one.n_samples:,} rows, {len(one.columns)} columns.</p>"]
    if one.splits:
        rows = [(name, f"{n:,}", f"{n / max(one.n_samples, 1):.1%}", one.parents.get(name) or "all rows") for name, n in one.splits.items()]
        parts.append(table(("split", "rows", "of all", "cut from"), rows, ("split", "cut from")))
    else:
        parts.append(not_recorded("splits", f"{one.label}.split_random({{'train': 0.7, 'val': 0.15, 'test': 0.15}})"))
    parts.append(f"<p>{escaped('; '.join(one.cuts))}.</p>" if one.cuts else "")
    parts.append(f"<p>Scaled: {escaped('; '.join(one.scalers))}.</p>" if one.scalers else "")
    parts.append(_audit(one))
    if one.columns:
        shown = one.columns[:MOST_COLUMNS]
        more = f"<p>... and {len(one.columns) - len(shown)} more.</p>" if len(shown) < len(one.columns) else ""
        parts.append(_folded("columns", table(("column", "shape of a row", "type"), shown, ("column", "shape of a row", "type")) + more))
    return "".join(parts)


def _audit(one: SetFacts) -> str:
    if one.findings is None:
        return not_recorded(f"an audit of {one.label}", one.why)
    told = []
    for finding in one.findings:
        words = {"columns": ", ".join(finding.columns), "splits": ", ".join(finding.splits), "count": finding.count}
        mark = "Leak" if finding.kind in _IS_LEAK else "Look at"
        told.append(f"<p class='{'bad' if mark == 'Leak' else 'none'}'>{mark}: {escaped(_LEAKS[finding.kind].format(**words))}.</p>")
    if one.splits and not any(finding.kind in _IS_LEAK for finding in one.findings):
        told.insert(
            0, "<p class='good'>Audit: no leak found. Splits share no row and no twin of one; scalers saw rows of their split alone.</p>"
        )
    return "".join(told)


def plan(facts: Facts) -> str:
    """Phases and groups as a tree."""
    if not facts.plan:
        mend = "experiment.execution_plan.add_phase(phase), which run() then runs"
        return section("Plan", "plan", not_recorded("phases of a plan", mend))
    return section("Plan", "plan", _tree(facts.plan))


def _tree(items: Sequence[Mapping[str, Any]]) -> str:
    told = (f"<li><b>{escaped(one['label'])}</b>: {escaped(item_facts(one))}{_tree(one.get('items', ()))}</li>" for one in items)
    return f"<ul>{''.join(told)}</ul>" if items else ""


# -- what came out ----------------------------------------------------------------------------------------------------------


def training(sets: Sequence[RunSet]) -> str:
    """Curves by epoch."""
    shown = _latest(sets)
    drawn = [charts.curves(f"{_title(one)}, {title}", lines) for one in shown for title, lines in curves_of(one).items()]
    if not drawn:
        mend = "run() a plan with a TrainPhase, then report; Evaluation callbacks add the validation curves"
        return section("Training", "training", not_recorded("metrics by epoch", mend))
    folds = " Thin: a fold each; thick: their mean." if any(one.is_folds for one in shown) else ""
    key = f"<p><span class='key train'></span>training<span class='key val'></span>validation.{folds}</p>"
    return section("Training", "training", key, f"<div class='charts'>{''.join(drawn)}</div>", _left_out(sets))


def _title(one: RunSet) -> str:
    return f"{one.label}: {len(one.runs)} folds" if one.is_folds else one.label


def _latest(sets: Sequence[RunSet]) -> Sequence[RunSet]:
    return sets[-MOST_SETS:]


def _left_out(sets: Sequence[RunSet]) -> str:
    return f"<p>The latest {MOST_SETS} of {len(sets)} are shown; the table of runs has all.</p>" if len(sets) > MOST_SETS else ""


def metrics(sets: Sequence[RunSet]) -> str:
    """A table per set of runs: values at the last epoch; of folds with mean and spread."""
    parts = []
    has_star = False
    for one in _latest(sets):
        lines = metric_table(one)
        if not lines:
            continue
        has_star = has_star or any(name.endswith(" *") for name, _ in lines)
        spread = ("mean", "std", "least", "greatest") if len(one.runs) > 1 else ()  # first, where a narrow screen shows them
        rows = [(name, *(_spread(values) if spread else ()), *map(charts.number, values)) for name, values in lines[:MOST_METRICS]]
        more = f"<p>... and {len(lines) - MOST_METRICS} more.</p>" if len(lines) > MOST_METRICS else ""
        names = one.names if one.is_folds else ["value"]
        parts.append(f"<h3>{escaped(_title(one))}</h3>{table(('metric', *spread, *names), rows, ('metric',))}{more}")
    star = (
        "<p>* worked out for this page from recorded outputs and targets. std: over folds, divided by their number.</p>" if has_star else ""
    )
    missing = not_recorded("metrics", "run() a plan with a TrainPhase or an EvalPhase, then report")
    return section("Metrics", "metrics", *parts or [missing], star)


def _spread(values: Sequence[float]) -> list[str]:
    told = np.asarray([value for value in values if np.isfinite(value)])
    if not len(told):
        return ["nan"] * 4
    return [charts.number(float(n)) for n in (told.mean(), told.std(), told.min(), told.max())]


def evaluations(facts: Facts, sets: Sequence[RunSet]) -> str:
    """Confusion matrices and parity plots."""
    classes = {key: names for one in facts.feature_sets for key, names in one.classes.items()}
    drawn: list[str] = []
    skipped: dict[str, str] = {}
    for one in _latest(sets):
        together: dict[tuple[str, str, bool], list[Outcome]] = {}
        for outcome in (outcome for run in one.outcomes for outcome in run):
            together.setdefault((outcome.path, outcome.node, outcome.is_classes), []).append(outcome)
        drawn += [_outcome(_title(one), pooled(some), len(some), classes) for some in together.values()]
        skipped |= {f"{one.label}: {name}": why for name, why in one.skipped.items()}
    why = "".join(f"<p class='none'>Not shown: {escaped(name)}: {escaped(reason)}.</p>" for name, reason in skipped.items())
    mend = "add an EvalPhase, or an Evaluation callback, on a split whose targets the feature set has"
    shown = f"<div class='charts'>{''.join(drawn)}</div>" if drawn else not_recorded("outputs beside targets", mend)
    return section("Evaluations", "evaluations", shown, why)


def _outcome(title: str, one: Outcome, n_runs: int, classes: Mapping[str, Sequence[Any]]) -> str:
    told = ", ".join(f"{name} {charts.number(value)}" for name, value in one.scores().items())
    folds = " of all folds together" if n_runs > 1 else ""
    caption = f"<b>{escaped(title)}, {escaped(one.path)}</b>: node {escaped(one.node)}, {len(one.truth):,} rows{folds}; {escaped(told)}"
    if one.is_classes:
        return _matrix(one, caption, classes)
    columns = one.truth.shape[1]
    keys = one.keys if len(one.keys) == columns else [f"column {i}" for i in range(columns)]
    shown = min(columns, 6)
    drawn = [
        charts.figure(f"{caption}; {escaped(keys[i])}", charts.parity(one.truth[:, i], one.found[:, i], f"found against true {keys[i]}"))
        for i in range(shown)
    ]
    return "".join([*drawn, f"<p>... and {columns - shown} more columns.</p>" if columns > shown else ""])


def _matrix(one: Outcome, caption: str, classes: Mapping[str, Sequence[Any]]) -> str:
    values = np.arange(one.n_classes) if one.n_classes else np.unique(np.concatenate([one.truth, one.found]))
    k = len(values)
    if k > MOST_CLASSES:
        return charts.figure(caption, f"<p>A matrix of {k} classes would be too large to read.</p>")
    places = [np.searchsorted(values, side) for side in (one.truth, one.found)]
    counts = np.bincount(places[0] * k + places[1], minlength=k * k).reshape(k, k)
    known = classes.get(one.keys[0], ()) if len(one.keys) == 1 else ()
    names = [str(name) for name in known] if len(known) == k else [str(value) for value in values.tolist()]
    return charts.figure(caption, charts.confusion(counts, names, f"confusion matrix of {k} classes") + _by_class(counts, names))


def _by_class(counts: np.ndarray, names: Sequence[str]) -> str:
    right, true, found = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)

    def share(a: int, b: int) -> str:
        return f"{a / b:.3f}" if b else "-"

    rows = [(name, int(true[i]), share(right[i], true[i]), share(right[i], found[i])) for i, name in enumerate(names)]
    return _folded("by class", table(("class", "rows", "recall", "precision"), rows, ("class",)))


def runs(facts: Facts) -> str:
    """A line per run."""
    if not facts.runs:
        return section("Runs", "runs", not_recorded("runs", "experiment.run(), then report"))
    shown = facts.runs[-MOST_RUNS:]
    rows = [
        (
            one.run.label,
            one.run.status,
            one.run.started_at.strftime("%Y-%m-%d %H:%M:%S %Z").strip(),
            f"{one.run.duration_seconds:.3g}",
            ", ".join(f"{label} {seconds:.3g}" for label, seconds in one.run.phase_durations.items()),
        )
        for one in shown
    ]
    head = ("run", "status", "started", "seconds", "seconds by phase")
    more = f"<p>The latest {MOST_RUNS} of {len(facts.runs)}.</p>" if len(shown) < len(facts.runs) else ""
    errors = "".join(_error(one) for one in shown)
    return section("Runs", "runs", table(head, rows, ("run", "status", "started", "seconds by phase")), more, errors)


def _error(one: Run) -> str:
    told = one.run.metadata.get("error")
    if not isinstance(told, Mapping):
        return ""
    where = f" in phase {told['phase']}" if told.get("phase") else ""
    words = f"Run {one.run.label} failed{where}: {told.get('type')}: {told.get('message')}"
    return f"<p class='bad'>{escaped(words)}</p>" + _folded("traceback", f"<pre>{escaped(told.get('traceback'))}</pre>")


def environment(facts: Facts) -> str:
    """Versions and seeds of the latest run; its host is left out."""
    pairs: list[tuple[str, Any]] = [("KeyDNN" if not facts.source else "KeyDNN that wrote the file", facts.written_by)]
    told = facts.runs[-1].run.metadata if facts.runs else {}
    pairs += [
        (name, told[key]) for key, name in (("python", "Python"), ("system", "system"), ("git_revision", "git revision")) if told.get(key)
    ]
    packages = told.get("packages")
    pairs += list(packages.items()) if isinstance(packages, Mapping) else []
    if told.get("sampler_seeds"):
        pairs.append(("seeds of samplers", json.dumps(told["sampler_seeds"], ensure_ascii=False)))
    mend = "let a run come to its end, then report"
    missing = "" if told.get("python") else not_recorded("versions and system of a run", mend)
    return section("Environment", "environment", _list(pairs), missing)
