"""Folds of a feature set: which rows validate and which train, and the set as a fold sees it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, FeatureSetView
from keydnn.experiment.data.access import Rows
from keydnn.experiment.data.resplitting import resplit
from keydnn.experiment.names import as_list
from keydnn.experiment.splitters import RandomSplitter
from keydnn.experiment.splitters.base import name_list
from keydnn.experiment.strata import buckets_of, codes_of


class CVBinding:
    """Which rows of a feature set are cut into folds, and which splits the parts become.

    Args:
        fs: The feature set, or its id or label.
        source_splits: Splits whose rows are pooled.
        group_by: Columns whose equal values stay in one fold.
        stratify_by: Columns whose values are spread evenly over the folds.
        train_split_name: The split that a fold's training rows become.
        val_split_name: The split that its validation rows become; without such a split they are unused.
        val_size: Fraction of the pool that validates in each fold; None takes one over the number of folds.

    Raises:
        ValueError: An unknown set, a split that is not there, both ``group_by`` and ``stratify_by``, or ``val_size`` outside (0, 1).

    Warns:
        UserWarning: There is no split ``val_split_name``.

    Example:
        >>> import numpy as np
        >>> from keydnn.experiment import CVBinding, FeatureSet
        >>> fs = FeatureSet.from_dict("pooled", {"x": np.arange(10.0)}, "x", [])
        >>> fs.split_random({"train": 0.7, "val": 0.3})
        >>> CVBinding(fs, ["train", "val"]).pool().tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(
        self,
        fs: FeatureSet | str,
        source_splits: str | Sequence[str],
        *,
        group_by: str | Sequence[str] | None = None,
        stratify_by: str | Sequence[str] | None = None,
        train_split_name: str = "train",
        val_split_name: str = "val",
        val_size: float | None = None,
    ) -> None:
        self.featureset = _feature_set(fs)
        self.source_splits = as_list(source_splits)
        self.group_by, self.stratify_by = name_list(group_by), name_list(stratify_by)
        self.train_split_name, self.val_split_name, self.val_size = train_split_name, val_split_name, val_size
        known = self.featureset.available_splits
        missing = [name for name in (*self.source_splits, train_split_name) if name not in known]
        told = f"feature set {self.featureset.label!r} has the splits {', '.join(known) or 'none'}"
        if missing or not self.source_splits:
            raise ValueError(f"no split {', '.join(map(repr, missing)) or 'to pool is named'}: {told}")
        if self.group_by and self.stratify_by:
            raise ValueError("group_by and stratify_by exclude each other: give one of them")
        if val_size is not None and not 0 < val_size < 1:
            raise ValueError(f"val_size is a fraction between 0 and 1, got {val_size}")
        if val_split_name not in known:
            warnings.warn(f"no split {val_split_name!r}, the validation rows of folds are unused: {told}", UserWarning, stacklevel=2)

    def pool(self) -> Rows:
        """Distinct rows of the source splits, ascending."""
        return np.unique(np.concatenate([self.featureset.get_split(name).valid_indices for name in self.source_splits]))

    def folds(self, n_folds: int, seed: int) -> list[Fold]:
        """The folds: validation rows are the parts of a :class:`~keydnn.experiment.splitters.RandomSplitter`, the others train.

        Raises:
            ValueError: One fold without ``val_size``, ``val_size`` above ``1 / n_folds``, or a fold that would get no rows.

        Warns:
            UserWarning: A value of ``stratify_by`` has fewer rows than there are folds.
        """
        if self.val_size is None and n_folds == 1:
            raise ValueError(f"a single fold of {self.featureset.label!r} needs val_size: without it nothing is left to train on")
        size = 1 / n_folds if self.val_size is None else self.val_size
        if size > 1 / n_folds:
            raise ValueError(f"val_size {size:g} of {self.featureset.label!r} is too large for {n_folds} folds: at most {1 / n_folds:g}")
        rest = 1 - n_folds * size
        ratios = {f"fold_{i}": size for i in range(n_folds)} | ({"rest": rest} if rest > 1e-9 else {})
        splitter = RandomSplitter(ratios, group_by=self.group_by, stratify_by=self.stratify_by, seed=seed)
        rows = self.pool()
        view = FeatureSetView(self.featureset, rows, self.featureset.get_all_keys(), "pool")
        if n_folds > len(rows):
            raise ValueError(
                f"{n_folds} folds of the {len(rows)} rows of {self.featureset.label!r}: some would get no samples; take fewer folds"
            )
        try:
            parts = splitter.split(view, return_views=False)
        except ValueError as error:
            raise ValueError(f"{self.featureset.label!r} cannot be cut into {n_folds} folds, take fewer: {error}") from error
        if self.stratify_by:
            self._warn_of_small_strata(view, n_folds)
        return [Fold(np.delete(rows, parts[f"fold_{i}"]), rows[parts[f"fold_{i}"]]) for i in range(n_folds)]

    def _warn_of_small_strata(self, view: FeatureSetView, n_folds: int) -> None:
        strata = buckets_of(codes_of([view.column_values(column) for column in self.stratify_by or []]))
        least = min(map(len, strata))
        if least < n_folds:
            told = f"stratify_by {', '.join(map(str, self.stratify_by or []))}: the rarest value has {least} of {len(view)} rows"
            warnings.warn(f"{told}, so not each of {n_folds} folds validates on it", UserWarning, stacklevel=4)

    def parts(self, fold: Fold) -> dict[str, Rows]:
        """Split to rows in a fold; the validation rows are left out if no split takes them."""
        parts = {self.train_split_name: fold.train, self.val_split_name: fold.val}
        return {name: rows for name, rows in parts.items() if name in self.featureset.available_splits}

    def folded(self, fold: Fold) -> FeatureSet:
        """The feature set as a fold sees it: same id and label, other rows in the two splits; see :func:`resplit`."""
        return resplit(self.featureset, self.parts(fold))

    def __repr__(self) -> str:
        return f"CVBinding({self.featureset.label!r}, {self.source_splits})"


@dataclass(frozen=True)
class Fold:
    """Rows of one fold.

    Attributes:
        train: Ascending.
        val: In the order in which they were drawn.
    """

    train: Rows
    val: Rows


def _feature_set(fs: Any) -> FeatureSet:
    if isinstance(fs, FeatureSet):
        return fs
    try:
        found: FeatureSet = ExperimentContext.get_active().get_node(fs, enforce_type="FeatureSet")
    except (KeyError, TypeError) as error:
        raise ValueError(f"a binding needs a registered FeatureSet: {error.args[0]}") from error
    return found
