"""BaseSampler: turns a source of samples into named streams of batches."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.data import BatchView, FeatureSet, FeatureSetView, SampledView
from keydnn.experiment.data.view import check_rows
from keydnn.experiment.equality import same_values
from keydnn.experiment.io import InYaml, Saved
from keydnn.experiment.names import ROLE_DEFAULT, STREAM_DEFAULT
from keydnn.experiment.progress import showing
from keydnn.experiment.samplers.batching import grouped, round_robin, slices
from keydnn.experiment.samplers.registry import sampler_registry
from keydnn.experiment.samplers.state import Samples, feature_set_of, packed, unpacked
from keydnn.experiment.strata import buckets_of, codes_of

Rows = NDArray[np.int64]
Source = FeatureSet | FeatureSetView


class BaseSampler(Saved, InYaml):
    """Turns one source into streams of batches; derive from it, say ``build_samples`` and register the class.

    Args:
        batch_size: Rows per batch.
        shuffle: Whether samples are drawn in random order.
        group_by: Columns whose equal values stay in one batch.
        group_by_role: Role whose rows tell the group.
        stratify_by: Columns whose values are spread evenly over batches.
        stratify_by_role: Role whose rows tell the stratum.
        strict_stratification: Whether to stop after the round in which a stratum runs out.
        drop_last: Whether short batches are dropped.
        seed: Of ``numpy.random.default_rng``; None draws one and keeps it.
        show_progress: Whether drawing that takes long shows how far it is; see :mod:`keydnn.experiment.progress`.
        sources: What to draw from; see :meth:`bind_sources`.

    Raises:
        ValueError: A batch size below 1, or both ``group_by`` and ``stratify_by``.
    """

    kind: ClassVar[str] = "sm"

    def __init__(
        self,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        group_by: str | Sequence[str] | None = None,
        group_by_role: str = ROLE_DEFAULT,
        stratify_by: str | Sequence[str] | None = None,
        stratify_by_role: str = ROLE_DEFAULT,
        strict_stratification: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        show_progress: bool = True,
        sources: Any = None,
    ) -> None:
        if int(batch_size) < 1:
            raise ValueError(f"{type(self).__name__}: batch_size must be at least 1, got {batch_size}")
        if group_by and stratify_by:
            raise ValueError(f"{type(self).__name__}: group_by and stratify_by exclude each other")
        self.batch_size, self.shuffle, self.drop_last = int(batch_size), bool(shuffle), bool(drop_last)
        self.group_by = [group_by] if isinstance(group_by, str) else None if group_by is None else list(group_by)
        self.stratify_by = [stratify_by] if isinstance(stratify_by, str) else None if stratify_by is None else list(stratify_by)
        self.group_by_role, self.stratify_by_role = group_by_role, stratify_by_role
        self.strict_stratification, self.show_progress = bool(strict_stratification), bool(show_progress)
        self.seed = secrets.randbits(63) if seed is None else int(seed)
        self._sources: list[Source] = []
        self._samples: dict[str, tuple[FeatureSet, Samples]] = {}
        self._sampled: SampledView | None = None
        if sources is not None:
            self.bind_sources(sources)

    # --- sources ---------------------------------------------------------------------------------------------------

    def bind_sources(self, sources: Any) -> None:
        """Draw from a FeatureSet or view, or a list with one; what was drawn before is forgotten.

        Raises:
            TypeError: Something else.
        """
        given = list(sources) if isinstance(sources, list | tuple) else [sources]
        for source in given:
            if not isinstance(source, FeatureSet | FeatureSetView):
                raise TypeError(f"{type(self).__name__} draws from a FeatureSet or a view, got {type(source).__name__}")
        if not given:
            raise TypeError(f"{type(self).__name__} needs a source, got an empty list")
        self._sources, self._samples, self._sampled = given, {}, None

    @property
    def sources(self) -> list[Source]:
        """What it draws from; a copy."""
        return list(self._sources)

    @property
    def source(self) -> Source:
        """The one source.

        Raises:
            RuntimeError: None is bound.
        """
        if not self._sources:
            raise RuntimeError(f"{type(self).__name__} has no source: bind one with bind_sources(featureset or view)")
        return self._sources[0]

    @property
    def is_bound(self) -> bool:
        """Whether there is a source."""
        return bool(self._sources)

    @property
    def is_materialized(self) -> bool:
        """Whether batches were drawn."""
        return self._sampled is not None

    def is_materialized_for(self, view: Any) -> bool:
        """Whether batches were drawn from this very feature set and these rows."""
        if not self.is_materialized or not isinstance(view, FeatureSet | FeatureSetView):
            return False
        mine = self.source
        return mine._root is view._root and np.array_equal(mine.absolute_rows(), view.absolute_rows())

    # --- drawing ---------------------------------------------------------------------------------------------------

    def build_samples(self) -> dict[tuple[str, str], Samples]:
        """What is drawn: (stream, label of its source) to samples.

        Raises:
            NotImplementedError: A subclass has to say.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it draws")

    def materialize_batches(self, *, show_progress: bool = True) -> None:
        """Draw the batches; nothing happens if they were drawn already.

        Args:
            show_progress: Whether drawing that takes long shows how far it is; see :mod:`keydnn.experiment.progress`.

        Raises:
            RuntimeError: No source is bound.
            ValueError: The sources do not allow what was asked for.
            IndexError: A subclass drew a row that is not there.
        """
        if self._sampled is not None:
            return
        _ = self.source
        with showing(show_progress and self.show_progress, "drawing batches"):
            drawn = self._drawn()
            self._sampled = self._batched(drawn, self.seed)
        self._samples = drawn

    def _drawn(self) -> dict[str, tuple[FeatureSet, Samples]]:
        drawn: dict[str, tuple[FeatureSet, Samples]] = {}
        for (stream, label), samples in self.build_samples().items():
            if stream in drawn:
                raise ValueError(f"stream {stream!r} is drawn from two sources; a batch has one")
            found = next((s for s in self._sources if s.label == label), self.source)
            for rows in samples.role_indices.values():
                check_rows(rows, found._root.n_samples)
            drawn[stream] = (found._root, samples)
        return drawn

    def reshuffle(self, epoch: int) -> None:
        """Put the drawn samples into new batches, in an order derived from ``(seed, epoch)``.

        Raises:
            RuntimeError: No source is bound.
        """
        self.materialize_batches(show_progress=False)
        self._sampled = self._batched(self._samples, [self.seed, int(epoch)], shuffle=True)

    def _batched(self, drawn: Mapping[str, tuple[FeatureSet, Samples]], seed: Any, shuffle: bool | None = None) -> SampledView:
        streams = {}
        for stream, (fs, samples) in drawn.items():
            rng = np.random.default_rng(seed) if (self.shuffle if shuffle is None else shuffle) else None
            streams[stream] = list(self._views(fs, samples, rng))
        return SampledView(streams)

    def _views(self, fs: FeatureSet, samples: Samples, rng: np.random.Generator | None) -> Iterator[BatchView]:
        roles, weights = samples.role_indices, samples.role_weights
        n = len(next(iter(roles.values())))
        plain = not self.group_by and not self.stratify_by
        if plain and len(roles) == 1 and weights is None:  # the common case: one array is shuffled and sliced, nothing else is made
            ((role, rows),) = roles.items()
            rows = _read_only(rows if rng is None else _shuffled(rows, rng))
            yield from (BatchView.trusted(fs, {role: part}, None) for part in slices(rows, self.batch_size, self.drop_last))
            return
        for positions in self._positions(fs, roles, n, rng):
            indices = {role: _read_only(rows[positions]) for role, rows in roles.items()}
            yield BatchView.trusted(fs, indices, None if weights is None else {role: w[positions] for role, w in weights.items()})

    def _positions(self, fs: FeatureSet, roles: Mapping[str, Rows], n: int, rng: np.random.Generator | None) -> list[Rows]:
        if self.group_by:
            buckets = self._buckets(fs, roles, self.group_by, self.group_by_role)
            return grouped(buckets, self.batch_size, self.drop_last, rng)
        if self.stratify_by:
            buckets = self._buckets(fs, roles, self.stratify_by, self.stratify_by_role)
            if len(buckets) > self.batch_size:
                raise ValueError(f"{type(self).__name__}: {len(buckets)} strata do not fit into batches of {self.batch_size}")
            return slices(round_robin(buckets, self.strict_stratification, rng), self.batch_size, self.drop_last)
        return slices(np.arange(n) if rng is None else rng.permutation(n), self.batch_size, self.drop_last)

    def _buckets(self, fs: FeatureSet, roles: Mapping[str, Rows], columns: Sequence[Any], role: str) -> list[Rows]:
        if role not in roles:
            raise ValueError(f"{type(self).__name__}: rows are grouped by a role, one of {', '.join(roles)}; {role!r} is none")
        view = FeatureSetView.from_featureset(fs, rows=roles[role], label=role)
        return buckets_of(codes_of([view.column_values(column) for column in columns]))

    # --- what was drawn --------------------------------------------------------------------------------------------

    @property
    def sampled(self) -> SampledView:
        """The batches, drawn if they were not yet.

        Raises:
            RuntimeError: No source is bound.
        """
        self.materialize_batches(show_progress=self.show_progress)
        assert self._sampled is not None
        return self._sampled

    @property
    def stream_names(self) -> list[str]:
        """Names of the streams."""
        return self.sampled.stream_names

    @property
    def num_streams(self) -> int:
        """Number of streams."""
        return self.sampled.num_streams

    @property
    def role_names(self) -> list[str]:
        """Names of the roles."""
        return list(dict.fromkeys(role for batches in self.sampled.to_dict().values() for batch in batches[:1] for role in batch.roles))

    @property
    def num_roles(self) -> int:
        """Number of roles."""
        return len(self.role_names)

    @property
    def num_batches(self) -> int:
        """Batches per stream."""
        return self.sampled.num_batches

    def get_stream(self, name: str) -> list[BatchView]:
        """Batches of a stream.

        Raises:
            KeyError: Unknown stream.
        """
        return self.sampled.get_stream(name)

    def get_batches(self, stream: str | None = None) -> list[BatchView]:
        """Batches of a stream; of the default one, or the only one, for None.

        Raises:
            KeyError: Unknown stream.
        """
        names = self.stream_names
        return self.get_stream(stream or (STREAM_DEFAULT if STREAM_DEFAULT in names else names[0]))

    def __iter__(self) -> Iterator[dict[str, BatchView]]:
        return iter(self.sampled)

    def __len__(self) -> int:
        return self.num_batches

    # --- config and state ------------------------------------------------------------------------------------------

    _CONFIG: ClassVar[tuple[str, ...]] = (
        "batch_size", "shuffle", "group_by", "group_by_role", "stratify_by", "stratify_by_role", "strict_stratification", "drop_last",
        "seed", "show_progress",
    )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """``sampler_name`` (of a class that is not registered the class itself) and the constructor arguments but the source."""
        name = sampler_registry.name_of(type(self)) or type(self)
        return {"sampler_name": name, **{argument: getattr(self, argument) for argument in self._CONFIG}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The sampler a config describes; called on the base, ``sampler_name`` tells the class.

        Raises:
            ValueError: Unknown name.
        """
        made, arguments = sampler_registry.described(config, cls, BaseSampler)
        return made(**arguments)

    def get_state(self) -> dict[str, Any]:
        """Sources (ids and rows) and the drawn batches."""
        sources = [{"node_id": s._root.node_id, "label": s._root.label, "name": s.label, "rows": s.absolute_rows()} for s in self._sources]
        if self._sampled is None:
            return {"sources": sources, "streams": None}
        streams = {name: packed(batches, *self._samples[name]) for name, batches in self._sampled.to_dict().items()}
        return {"sources": sources, "streams": streams}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state; the feature sets are looked up in the active context, by id, then by label.

        Raises:
            RuntimeError: A feature set is not there.
        """
        bound: list[Source] = []
        for told in state["sources"]:
            fs = feature_set_of(told)
            whole = np.array_equal(told["rows"], fs.absolute_rows()) and told["name"] == fs.label
            bound.append(fs if whole else FeatureSetView.from_featureset(fs, rows=told["rows"], label=told["name"]))
        self._sources, self._samples, self._sampled = bound, {}, None
        if state["streams"] is None:
            return
        streams = {}
        for name, told in state["streams"].items():
            fs = feature_set_of(told["source"])
            self._samples[name] = (fs, Samples(told["drawn"], told["drawn_weights"]))
            streams[name] = unpacked(fs, told)
        self._sampled = SampledView(streams)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseSampler):
            raise TypeError(f"a sampler cannot be compared with a {type(other).__name__}")
        return same_values(self.get_config(), other.get_config()) and same_values(self.get_state(), other.get_state())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={self.batch_size}, is_bound={self.is_bound}, is_materialized={self.is_materialized})"


def _shuffled(rows: Rows, rng: np.random.Generator) -> Rows:
    """``rows[rng.permutation(n)]`` with one array instead of two: shuffling moves positions, whatever stands in them."""
    moved = np.array(rows)
    rng.shuffle(moved)
    return moved


def _read_only(rows: Rows) -> Rows:
    if rows.flags.writeable:
        rows = rows.view()
        rows.flags.writeable = False
    return rows
