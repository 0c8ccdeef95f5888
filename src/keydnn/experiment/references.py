"""References: frozen values that name a node, a split or columns without holding them.

``resolve(ctx)`` looks in a context, by id first and by label then; what cannot be found is a :class:`ResolutionError`.
Columns may also be named by text, such as ``"voltage"``, ``"voltage.raw"`` or ``"cells.features.voltage.raw"``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.errors import ResolutionError
from keydnn.experiment.names import ALL_REPS, COLUMN_DOMAINS, DOMAIN_SAMPLE_UUIDS, REP_RAW


class _Reference:
    """What all references share."""

    def to_string(self, *, separator: str = ".", include_node_id: bool = False) -> str:
        """The set fields, joined; members of tuples are joined too."""
        parts: list[str] = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is None or (field.name == "node_id" and not include_node_id):
                continue
            parts += value if isinstance(value, tuple) else [str(value)]
        return separator.join(parts)

    def get_config(self) -> dict[str, Any]:
        """The fields."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The reference with these fields."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in config.items()})


def _find(reference: Any, ctx: ExperimentContext | None, kind: str) -> Any:
    context = ExperimentContext.get_active() if ctx is None else ctx
    label, node_id = reference.node_label, reference.node_id
    if label is None and node_id is None:
        raise ResolutionError(f"{type(reference).__name__} names no node: give node_label or node_id")
    for selector in ({"node_id": node_id}, {"label": label}):
        if None not in selector.values() and context.has_node(**selector):
            try:
                return context.get_node(**selector, enforce_type=kind)
            except TypeError as error:
                raise ResolutionError(str(error)) from error
    known = ", ".join(repr(node.label) for node in context.available_nodes.values()) or "none"
    raise ResolutionError(f"no node with id {node_id!r} or label {label!r} in this context; registered labels: {known}")


def _columns(node: Any, names: Sequence[str]) -> Any:
    missing = [name for name in names if name not in node.get_all_keys()]
    if missing:
        raise ResolutionError(f"{node.label!r} has no column {', '.join(missing)}; it has {', '.join(node.get_all_keys())}")
    return node.select(list(names))


@dataclass(frozen=True, order=True)
class ExperimentNodeReference(_Reference):
    """Names any node."""

    node_label: str | None = None
    node_id: str | None = None

    def resolve(self, ctx: ExperimentContext | None = None) -> Any:
        """The node.

        Raises:
            ResolutionError: It cannot be found.
        """
        return _find(self, ctx, "ExperimentNode")


@dataclass(frozen=True, order=True)
class GraphNodeReference(_Reference):
    """Names a graph node."""

    node_label: str | None = None
    node_id: str | None = None

    def resolve(self, ctx: ExperimentContext | None = None) -> Any:
        """The graph node.

        Raises:
            ResolutionError: It cannot be found, or is a node of another kind.
        """
        return _find(self, ctx, "GraphNode")


@dataclass(frozen=True, order=True)
class FeatureSetReference(_Reference):
    """Names columns of a feature set by full names; they are kept sorted.  All three None: every column."""

    node_label: str | None = None
    node_id: str | None = None
    features: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for domain in COLUMN_DOMAINS:
            names = getattr(self, domain)
            if names is not None:
                object.__setattr__(self, domain, tuple(sorted([names] if isinstance(names, str) else names)))

    def resolve(self, ctx: ExperimentContext | None = None) -> Any:
        """A view with exactly these columns.

        Raises:
            ResolutionError: The set or a column cannot be found, or no column is named.
        """
        node = _find(self, ctx, "FeatureSet")
        chosen = [getattr(self, domain) for domain in COLUMN_DOMAINS]
        if all(names is None for names in chosen):
            return node.to_view()
        names = [name for part in chosen for name in part or ()]
        if not names:
            raise ResolutionError(f"the reference to {node.label!r} names no column")
        return _columns(node, names)


@dataclass(frozen=True, order=True)
class FeatureSetSplitReference(_Reference):
    """Names a split of a feature set; ``split_name=None`` means the whole set."""

    split_name: str | None
    node_label: str | None = None
    node_id: str | None = None

    def resolve(self, ctx: ExperimentContext | None = None) -> Any:
        """The split's view.

        Raises:
            ResolutionError: The set or the split cannot be found.
        """
        node = _find(self, ctx, "FeatureSet")
        if self.split_name is None:
            return node.to_view()
        if self.split_name not in node.available_splits:
            raise ResolutionError(f"{node.label!r} has no split {self.split_name!r}; it has {', '.join(node.available_splits) or 'none'}")
        return node.get_split(self.split_name)


@dataclass(frozen=True, order=True)
class FeatureSetColumnReference(_Reference):
    """Names one column of a feature set.

    Raises:
        ValueError: ``domain`` is none of features, targets, tags and sample_uuids.
    """

    domain: str
    key: str | None
    rep: str | None
    node_label: str | None = None
    node_id: str | None = None

    def __post_init__(self) -> None:
        if self.domain not in (*COLUMN_DOMAINS, DOMAIN_SAMPLE_UUIDS):
            raise ValueError(f"unknown domain {self.domain!r}; expected one of {', '.join((*COLUMN_DOMAINS, DOMAIN_SAMPLE_UUIDS))}")

    @property
    def column(self) -> str:
        """The full name of the column."""
        return self.domain if self.domain == DOMAIN_SAMPLE_UUIDS else f"{self.domain}.{self.key}.{self.rep}"

    def resolve(self, ctx: ExperimentContext | None = None) -> Any:
        """A view of the one column.

        Raises:
            ResolutionError: The set or the column cannot be found.
        """
        return _columns(_find(self, ctx, "FeatureSet"), [self.column])

    @classmethod
    def from_string(
        cls, val: str, *, experiment: Any = None, known_attrs: Mapping[str, str | None] | None = None
    ) -> FeatureSetColumnReference:
        """The column that a text names.

        Args:
            val: Words joined by dots: label of a set, domain, key, representation, as many as are needed.
            experiment: An experiment or a context with the registered sets; None takes the active context.
            known_attrs: Fields that are settled already: node_label, node_id, domain, key, rep.

        Raises:
            ValueError: Another key in ``known_attrs``.
            ResolutionError: The text contradicts what is known, names no column, or more than one.

        Warns:
            UserWarning: Several representations exist and none is named: raw is taken.
        """
        known = {name: value for name, value in (known_attrs or {}).items() if value is not None}
        unknown = set(known) - {"node_label", "node_id", "domain", "key", "rep"}
        if unknown:
            raise ValueError(f"known_attrs: unknown {', '.join(sorted(unknown))}; expected node_label, node_id, domain, key, rep")
        ctx = ExperimentContext.get_active() if experiment is None else getattr(experiment, "ctx", experiment)
        return parse_column(val, list(ctx.available_featuresets.values()), known)


@dataclass(frozen=True, order=True)
class ModelOutputReference(_Reference):
    """Names what a model node produced in a step: of a role, None where there is only one; its outputs or what passed through."""

    node_label: str | None
    node_id: str | None
    role: str | None = None
    domain: str = "outputs"

    def resolve_node_id(self, ctx: Any) -> str:
        """Id of the node among those that ran in a step (an ExecutionContext).

        Raises:
            ResolutionError: It did not run.
        """
        if self.node_id in ctx.outputs:
            return str(self.node_id)
        active = ExperimentContext.get_active()
        if self.node_label is not None and active.has_node(label=self.node_label):
            node_id = active.get_node(label=self.node_label).node_id
            if node_id in ctx.outputs:
                return node_id
        raise ResolutionError(f"node {self.node_label or self.node_id!r} has no output in this step")

    def resolve(self, ctx: Any = None) -> Any:
        """The tensor of a step.

        Raises:
            ResolutionError: The node did not run, or the role is missing or not told among several.
        """
        if ctx is None:
            raise ResolutionError("a ModelOutputReference is resolved against an ExecutionContext: pass the step's")
        output = ctx.outputs[self.resolve_node_id(ctx)]
        roles = output.available_roles
        if self.role not in roles and (self.role is not None or len(roles) != 1):
            raise ResolutionError(f"role {self.role!r} of node {self.node_label!r}: there are {', '.join(roles)}")
        return output.get_data(self.role or roles[0], self.domain)


def parse_column(val: str, sets: Sequence[Any], known: Mapping[str, str] | None = None) -> FeatureSetColumnReference:
    """:meth:`FeatureSetColumnReference.from_string` over given sets."""
    if not isinstance(val, str):
        raise ResolutionError(f"a column is named by text, got {type(val).__name__}: {val!r}")
    settled = dict(known or {})
    sets = [node for node in sets if _fits(node, settled)]
    parts = [part for part in val.split(".") if part] if val else []
    readings = [_Reading(parts, sets, settled, None)] if len(sets) == 1 and val in sets[0].get_all_keys() else []
    for i, part in enumerate(parts):
        readings += [_Reading(parts[:i] + parts[i + 1 :], [node], settled, part) for node in sets if node.label == part]
    readings.append(_Reading(parts, sets, settled, None))
    problems: list[ResolutionError] = []
    for reading in readings:
        try:
            return reading.reference(val)
        except ResolutionError as error:
            problems.append(error)
    raise problems[0]


def _fits(node: Any, known: Mapping[str, str]) -> bool:
    if "node_id" in known and known["node_id"] == node.node_id:
        return True
    return known.get("node_label", node.label) == node.label and "node_id" not in known


class _Reading:
    """One way to read the words: without those that name the set."""

    def __init__(self, words: Sequence[str], sets: Sequence[Any], known: dict[str, str], label: str | None) -> None:
        self.words, self.sets, self.known, self.label = words, sets, known, label

    def reference(self, val: str) -> FeatureSetColumnReference:
        if len(self.sets) != 1:
            found = ", ".join(repr(node.label) for node in self.sets) or "none"
            raise ResolutionError(f"column {val!r} names no feature set, and not exactly one fits: {found}")
        node = self.sets[0]
        columns = [name.split(".") for name in node.get_all_keys() if "." in name]
        if [*self.words] == [DOMAIN_SAMPLE_UUIDS]:
            return FeatureSetColumnReference(DOMAIN_SAMPLE_UUIDS, None, None, node.label, node.node_id)
        told = dict(self.known)
        reps = {rep for _, _, rep in columns} | set(ALL_REPS)
        for word in self.words:
            place = "domain" if word in COLUMN_DOMAINS else "rep" if word in reps else "key"
            if told.get(place, word) != word:
                raise ResolutionError(f"column {val!r}: {place} {word!r} contradicts {told[place]!r}")
            told[place] = word
        fits = [c for c in columns if told.get("domain", c[0]) == c[0] and told.get("key", c[1]) == c[1]]
        names = sorted({(domain, key) for domain, key, _ in fits})
        if len(names) != 1:
            what = "no column" if not names else f"several columns: {', '.join('.'.join(name) for name in names)}"
            raise ResolutionError(f"{val!r} names {what}; {node.label!r} has {', '.join(node.get_all_keys())}")
        rep = self._rep(val, told.get("rep"), [rep for _, _, rep in fits])
        return FeatureSetColumnReference(*names[0], rep, node.label, node.node_id)

    @staticmethod
    def _rep(val: str, wanted: str | None, reps: list[str]) -> str:
        if wanted is not None:
            if wanted not in reps:
                raise ResolutionError(f"{val!r}: no representation {wanted!r}; there are {', '.join(reps)}")
            return wanted
        if len(reps) == 1:
            return reps[0]
        warnings.warn(f"{val!r} has representations {', '.join(reps)}; raw is taken. Name one to be sure.", UserWarning, stacklevel=5)
        return REP_RAW
