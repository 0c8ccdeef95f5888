"""The diagram of a feature set: the set, its splits, and the splits cut from them."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS, DOMAIN_TARGETS
from keydnn.experiment.visualization.mermaid import Diagram, Node, column_lines
from keydnn.experiment.visualization.visualizer import FeatureSetDisplayOptions


def feature_set_diagram(fs: Any, options: FeatureSetDisplayOptions | None = None) -> Diagram:
    """The diagram; nested splits hang on the split they were cut from."""
    shown = FeatureSetDisplayOptions() if options is None else options
    diagram, registry = Diagram(), fs.split_registry
    places = {None: diagram.add(Node("FeatureSet", "FeatureSet", fs.label, lines_of(fs, shown, len(fs), is_root=True)))}
    for name in registry.names:
        rows = registry.rows(name)
        lines = [*lines_of(fs, shown, len(rows), is_root=False), *(_overlaps(registry, name) if shown.show_overlaps else ())]
        places[name] = diagram.add(Node("Split", "Split", name, tuple(lines)))
    for name in registry.names:
        parent = registry.parent(name)
        label = f"n={len(registry.rows(name))}" if shown.show_n_samples else ""
        diagram.connect(places.get(parent, places[None]), places[name], label)
    return diagram


def lines_of(fs: Any, shown: FeatureSetDisplayOptions, n: int, *, is_root: bool) -> tuple[str, ...]:
    """Number of rows and columns, of a feature set or of a split with ``n`` rows."""
    tags = is_root if shown.show_tags == "root" else bool(shown.show_tags)
    wanted = {DOMAIN_FEATURES: shown.show_features, DOMAIN_TARGETS: shown.show_targets, DOMAIN_TAGS: tags}
    names = [name for name in fs.get_all_keys() if name != DOMAIN_SAMPLE_UUIDS and wanted[name.split(".")[0]]]
    shapes = [(name, fs.collection.shape(name)) for name in names]
    count = (f"n={n}",) if shown.show_n_samples else ()
    return (*count, *column_lines(shapes, shown.show_shapes))


def _overlaps(registry: Any, name: str) -> list[str]:
    others = [other for other in registry.names if other != name]
    shared = {other: registry.overlap(name, other) for other in others}
    lines = [f"{other}: {count}" for other, count in shared.items() if count]
    return ["overlap", *lines] if lines else []
