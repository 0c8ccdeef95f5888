"""NSampler, PairedSampler, TripletSampler: each row with partners that meet conditions."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.names import ROLE_ANCHOR, ROLE_NEGATIVE, ROLE_PAIR, ROLE_POSITIVE, STREAM_DEFAULT
from keydnn.experiment.progress import task
from keydnn.experiment.samplers.base import BaseSampler, Rows, Samples
from keydnn.experiment.samplers.candidates import Finder, Found
from keydnn.experiment.similarity import SimilarityCondition

Conditions = Mapping[str, SimilarityCondition]
PAIRINGS = ("cycle", "zip")
_KEY_MULTIPLIER = 0x9E3779B97F4A7C15


class NSampler(BaseSampler):
    """For every row as anchor, partners in any number of roles.

    Candidates are all other rows.  One that fails a condition without ``allow_fallback`` is excluded; the rest is ranked: matches of
    all conditions, of at least one, of none.  The weight of a pair is the mean of its conditions' scores.

    Args:
        condition_mapping: Role to {column: SimilarityCondition}; the role ``anchor`` is implicit.
        batch_size: Rows per batch.
        shuffle: Whether rows are shuffled.
        max_samples_per_anchor: Partners per anchor and role; None for all.
        choose_best_only: Whether the highest scores are taken instead of random candidates.
        group_by: Columns whose equal values stay in one batch.
        group_by_role: Role whose rows tell the group.
        stratify_by: Columns whose values are spread evenly over batches.
        stratify_by_role: Role whose rows tell the stratum.
        strict_stratification: Whether to stop after the round in which a stratum runs out.
        drop_last: Whether a short batch is dropped.
        seed: Of all draws; None draws one and keeps it.
        show_progress: Whether drawing that takes long shows how far it is; see :mod:`keydnn.experiment.progress`.
        n_workers: Threads; the result does not depend on it.
        source: FeatureSet or view with at least 2 rows.
        pairing: "cycle" repeats the partners of roles that found fewer; "zip" stops at the fewest.

    Raises:
        ValueError: The role ``anchor``, no role or condition, a limit or worker count below 1, or a metric that cannot be pickled with
            several workers.
    """

    def __init__(
        self,
        condition_mapping: Mapping[str, Conditions],
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        max_samples_per_anchor: int | None = 3,
        choose_best_only: bool = False,
        group_by: str | Sequence[str] | None = None,
        group_by_role: str = ROLE_ANCHOR,
        stratify_by: str | Sequence[str] | None = None,
        stratify_by_role: str = ROLE_ANCHOR,
        strict_stratification: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        show_progress: bool = True,
        n_workers: int = 1,
        source: Any = None,
        pairing: str = "cycle",
    ) -> None:
        self.condition_mapping = {role: dict(conditions) for role, conditions in condition_mapping.items()}
        self.max_samples_per_anchor, self.choose_best_only = max_samples_per_anchor, bool(choose_best_only)
        self.n_workers, self.pairing = int(n_workers), pairing
        self._check()
        super().__init__(
            batch_size=batch_size,
            shuffle=shuffle,
            group_by=group_by,
            group_by_role=group_by_role,
            stratify_by=stratify_by,
            stratify_by_role=stratify_by_role,
            strict_stratification=strict_stratification,
            drop_last=drop_last,
            seed=seed,
            show_progress=show_progress,
            sources=source,
        )

    _CONFIG: ClassVar[tuple[str, ...]] = (
        "condition_mapping", *BaseSampler._CONFIG, "max_samples_per_anchor", "choose_best_only", "n_workers", "pairing",
    )  # fmt: skip

    def _check(self) -> None:
        name, roles = type(self).__name__, self.condition_mapping
        if ROLE_ANCHOR in roles:
            raise ValueError(f"{name}: the role 'anchor' is implicit and has no conditions")
        if not roles or not all(roles.values()):
            raise ValueError(f"{name}: every role needs at least one condition, got {roles}")
        metrics = []
        for role, conditions in roles.items():
            for column, condition in conditions.items():
                if not isinstance(condition, SimilarityCondition):
                    raise TypeError(f"{name}: {role!r} has a {type(condition).__name__} on {column!r}, expected a SimilarityCondition")
                metrics.append(condition.metric)
        if self.max_samples_per_anchor is not None and self.max_samples_per_anchor < 1:
            raise ValueError(f"{name}: at least 1 partner per anchor, got {self.max_samples_per_anchor}; None means all")
        if self.n_workers < 1:
            raise ValueError(f"{name}: n_workers must be at least 1, got {self.n_workers}")
        if self.pairing not in PAIRINGS:
            raise ValueError(f"{name}: pairing must be one of {', '.join(PAIRINGS)}, got {self.pairing!r}")
        if self.n_workers > 1 and not all(map(_can_be_pickled, metrics)):
            raise ValueError(f"{name}: a metric that cannot be pickled needs n_workers=1; define it at the top of a module")

    def build_samples(self) -> dict[tuple[str, str], Samples]:
        """Anchors with their partners, sorted by anchor.

        Raises:
            ValueError: Fewer than 2 rows, a condition column whose samples are not scalars, or no anchor with partners in all roles.
        """
        rows = self.source.absolute_rows()
        rows = rows[rows >= 0]
        if len(rows) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 samples, {self.source.label!r} has {len(rows)}")
        found = {role: self._find(rows, i, conditions) for i, (role, conditions) in enumerate(self.condition_mapping.items())}
        anchors, places = _aligned(found, len(rows), self.pairing)
        if not len(anchors):
            raise ValueError(f"{type(self).__name__}: no sample of {self.source.label!r} has partners in all of {', '.join(found)}")
        indices = {ROLE_ANCHOR: rows[anchors], **{role: rows[part.partners[places[role]]] for role, part in found.items()}}
        weights = {ROLE_ANCHOR: np.ones(len(anchors)), **{role: part.weights[places[role]] for role, part in found.items()}}
        return {(STREAM_DEFAULT, self.source.label): Samples(indices, weights)}

    def _find(self, rows: Rows, role: int, conditions: Conditions) -> Found:
        view = self.source.take(np.flatnonzero(self.source.absolute_rows() >= 0))
        values = [_scalars(view.column_values(column), column) for column in conditions]
        key = (self.seed + (role + 1) * _KEY_MULTIPLIER) & 0xFFFFFFFFFFFFFFFF
        finder = Finder(values, list(conditions.values()), self.max_samples_per_anchor, self.choose_best_only, key)
        shares = np.array_split(np.arange(len(rows)), self.n_workers)
        with task(f"partners for {len(rows)} samples", len(rows)) as advance:
            if self.n_workers == 1:
                return finder.find(shares[0], advance)
            with ThreadPoolExecutor(self.n_workers) as pool:
                parts = list(pool.map(lambda share: finder.find(share, advance), shares))
        return Found(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("anchors", "partners", "weights")))


def _can_be_pickled(metric: Any) -> bool:
    try:
        pickle.dumps(metric)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _scalars(values: NDArray[Any], column: str) -> NDArray[Any]:
    if values.ndim != 1:
        raise ValueError(f"condition column {column!r} has samples of shape {values.shape[1:]}; one value per sample is needed")
    return values


def _aligned(found: Mapping[str, Found], n: int, pairing: str) -> tuple[Rows, dict[str, Rows]]:
    """Anchors, and for each role which of its partners stands beside each of them."""
    counts = {role: np.bincount(part.anchors, minlength=n) for role, part in found.items()}
    stacked = np.stack(list(counts.values()))
    lengths = np.where((stacked > 0).all(axis=0), stacked.max(axis=0) if pairing == "cycle" else stacked.min(axis=0), 0)
    anchors = np.repeat(np.arange(n), lengths)
    place = np.arange(len(anchors)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    starts = {role: np.cumsum(count) - count for role, count in counts.items()}
    return anchors, {role: starts[role][anchors] + place % np.maximum(counts[role][anchors], 1) for role in found}


class PairedSampler(NSampler):
    """Pairs: roles ``anchor`` and ``pair``; see :class:`NSampler`.

    Args:
        conditions: Column to SimilarityCondition.
        max_pairs_per_anchor: Pairs per anchor; None for all.

    Example:
        >>> from keydnn.experiment.data import FeatureSet
        >>> from keydnn.experiment.samplers import PairedSampler, SimilarityCondition
        >>> fs = FeatureSet.from_dict("ten", {"b": np.arange(10)}, "b", [])
        >>> pairs = PairedSampler({"b": SimilarityCondition(tolerance=1)}, max_pairs_per_anchor=2, batch_size=18, source=fs)
        >>> pairs.get_batches()[0].role_indices["anchor"].tolist()
        [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9]
    """

    def __init__(
        self,
        conditions: Conditions,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        max_pairs_per_anchor: int | None = 3,
        choose_best_only: bool = False,
        group_by: str | Sequence[str] | None = None,
        group_by_role: str = ROLE_ANCHOR,
        stratify_by: str | Sequence[str] | None = None,
        stratify_by_role: str = ROLE_ANCHOR,
        strict_stratification: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        show_progress: bool = True,
        n_workers: int = 1,
        source: Any = None,
        pairing: str = "cycle",
    ) -> None:
        self.conditions, self.max_pairs_per_anchor = dict(conditions), max_pairs_per_anchor
        super().__init__(
            {ROLE_PAIR: conditions},
            batch_size=batch_size,
            shuffle=shuffle,
            max_samples_per_anchor=max_pairs_per_anchor,
            choose_best_only=choose_best_only,
            group_by=group_by,
            group_by_role=group_by_role,
            stratify_by=stratify_by,
            stratify_by_role=stratify_by_role,
            strict_stratification=strict_stratification,
            drop_last=drop_last,
            seed=seed,
            show_progress=show_progress,
            n_workers=n_workers,
            source=source,
            pairing=pairing,
        )

    _CONFIG = ("conditions", *BaseSampler._CONFIG, "max_pairs_per_anchor", "choose_best_only", "n_workers", "pairing")


class TripletSampler(NSampler):
    """Triplets: roles ``anchor``, ``positive`` and ``negative``; see :class:`NSampler`.

    Args:
        pos_conditions: Column to SimilarityCondition of positives.
        neg_conditions: Column to SimilarityCondition of negatives.
    """

    def __init__(
        self,
        pos_conditions: Conditions,
        neg_conditions: Conditions,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        max_samples_per_anchor: int | None = 3,
        choose_best_only: bool = False,
        group_by: str | Sequence[str] | None = None,
        group_by_role: str = ROLE_ANCHOR,
        stratify_by: str | Sequence[str] | None = None,
        stratify_by_role: str = ROLE_ANCHOR,
        strict_stratification: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        show_progress: bool = True,
        n_workers: int = 1,
        source: Any = None,
        pairing: str = "cycle",
    ) -> None:
        self.pos_conditions, self.neg_conditions = dict(pos_conditions), dict(neg_conditions)
        super().__init__(
            {ROLE_POSITIVE: pos_conditions, ROLE_NEGATIVE: neg_conditions},
            batch_size=batch_size,
            shuffle=shuffle,
            max_samples_per_anchor=max_samples_per_anchor,
            choose_best_only=choose_best_only,
            group_by=group_by,
            group_by_role=group_by_role,
            stratify_by=stratify_by,
            stratify_by_role=stratify_by_role,
            strict_stratification=strict_stratification,
            drop_last=drop_last,
            seed=seed,
            show_progress=show_progress,
            n_workers=n_workers,
            source=source,
            pairing=pairing,
        )

    _CONFIG = (
        "pos_conditions", "neg_conditions", *BaseSampler._CONFIG, "max_samples_per_anchor", "choose_best_only", "n_workers", "pairing",
    )  # fmt: skip
