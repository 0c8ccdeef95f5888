"""RandomSplitter: parts by chance, plain, by groups or by strata.

plain:      default_rng(seed).shuffle(positions), cut into blocks in the order of the ratios
strata:     each bucket of equal values shuffled by the same generator and cut
groups:     the list of buckets shuffled and cut; a bucket never straddles
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.splitters.base import (
    BaseSplitter,
    Positions,
    check_not_empty,
    checked_ratios,
    cut,
    drawn_seed,
    name_list,
    part_sizes,
)  # fmt: skip
from keydnn.experiment.strata import buckets_of, codes_of


class RandomSplitter(BaseSplitter):
    """Cuts by chance; the same rows are cut alike by every call.

    Args:
        ratios: Split name to fraction; they sum to 1.
        group_by: Columns whose equal values stay together.
        stratify_by: Columns whose values are spread evenly.
        strict_stratification: Whether all strata are first cut down to the smallest.
        seed: Of ``numpy.random.default_rng``; None draws one and keeps it.

    Raises:
        ValueError: Ratios outside [0, 1] or not summing to 1, or both ``group_by`` and ``stratify_by``.

    Example:
        >>> from keydnn.experiment.data import FeatureSet
        >>> fs = FeatureSet.from_dict("ten", {"x": np.arange(10)}, "x", [])
        >>> fs.split_random({"train": 0.65, "val": 0.35}, seed=0)
        >>> fs["train"].indices.tolist()
        [4, 6, 2, 7, 3, 5, 9]
    """

    def __init__(
        self,
        ratios: Mapping[str, float],
        *,
        group_by: str | Sequence[str] | None = None,
        stratify_by: str | Sequence[str] | None = None,
        strict_stratification: bool = False,
        seed: int | None = 13,
    ) -> None:
        self.ratios = checked_ratios(ratios, "RandomSplitter")
        self.group_by, self.stratify_by = name_list(group_by), name_list(stratify_by)
        if self.group_by and self.stratify_by:
            raise ValueError("RandomSplitter: group_by and stratify_by exclude each other")
        self.strict_stratification = bool(strict_stratification)
        self.seed = drawn_seed(seed)

    def split(self, view: Any, *, return_views: bool = True) -> dict[str, Any]:
        """The parts of a view.

        Raises:
            ValueError: A part would get no samples.
            ResolutionError: An unknown column.
        """
        rng = np.random.default_rng(self.seed)
        cut_rows = self._by_groups if self.group_by else self._by_strata if self.stratify_by else self._plain
        parts = cut_rows(view, rng)
        check_not_empty(parts, "RandomSplitter")
        return self._answer(view, parts, return_views)

    def _plain(self, view: Any, rng: np.random.Generator) -> dict[str, Positions]:
        positions = np.arange(len(view))
        rng.shuffle(positions)
        return cut(positions, part_sizes(self.ratios, len(view)))

    def _buckets(self, view: Any, columns: Sequence[Any]) -> list[Positions]:
        return buckets_of(codes_of([view.column_values(column) for column in columns]))

    def _by_groups(self, view: Any, rng: np.random.Generator) -> dict[str, Positions]:
        groups = self._buckets(view, self.group_by or [])
        order = np.arange(len(groups))
        rng.shuffle(order)
        sizes = part_sizes(self.ratios, len(groups))
        check_not_empty(sizes, "RandomSplitter", f"groups (there are {len(groups)})")
        return {name: np.concatenate([groups[g] for g in chosen.tolist()]) for name, chosen in cut(order, sizes).items()}

    def _by_strata(self, view: Any, rng: np.random.Generator) -> dict[str, Positions]:
        strata = self._buckets(view, self.stratify_by or [])
        smallest = min(map(len, strata), default=0)
        parts: dict[str, list[Positions]] = {name: [] for name in self.ratios}
        for stratum in strata:
            rng.shuffle(stratum)
            kept = stratum[:smallest] if self.strict_stratification else stratum
            for name, positions in cut(kept, part_sizes(self.ratios, len(kept))).items():
                parts[name].append(positions)
        return {name: np.concatenate(positions) if positions else np.empty(0, np.int64) for name, positions in parts.items()}

    def _arguments(self) -> dict[str, Any]:
        names = ("ratios", "group_by", "stratify_by", "strict_stratification", "seed")
        return {name: getattr(self, name) for name in names}
