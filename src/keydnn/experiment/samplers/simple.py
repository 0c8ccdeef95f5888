"""SimpleSampler: the rows of a source, in order or shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keydnn.experiment.data.subsets import real
from keydnn.experiment.names import ROLE_DEFAULT, STREAM_DEFAULT
from keydnn.experiment.samplers.base import BaseSampler, Samples


class SimpleSampler(BaseSampler):
    """Batches of rows of one source, role ``default``.

    Args:
        batch_size: Rows per batch.
        shuffle: Whether rows are shuffled.
        group_by: Columns whose equal values stay in one batch.
        stratify_by: Columns whose values are spread evenly over batches.
        strict_stratification: Whether to stop after the round in which a stratum runs out.
        drop_last: Whether a short batch is dropped.
        seed: Of ``numpy.random.default_rng``; None draws one and keeps it.
        show_progress: Whether drawing that takes long shows how far it is; see :mod:`keydnn.experiment.progress`.
        source: FeatureSet or view.

    Raises:
        ValueError: A batch size below 1, or both ``group_by`` and ``stratify_by``.

    Example:
        >>> from keydnn.experiment.data import FeatureSet
        >>> from keydnn.experiment.samplers import SimpleSampler
        >>> fs = FeatureSet.from_dict("ten", {"x": np.arange(10)}, "x", [])
        >>> sampler = SimpleSampler(batch_size=4, shuffle=True, seed=1, source=fs)
        >>> [batch.role_indices["default"].tolist() for batch in sampler.get_batches()]
        [[8, 4, 7, 0], [1, 2, 5, 9], [6, 3]]
    """

    def __init__(
        self,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        group_by: str | Sequence[str] | None = None,
        stratify_by: str | Sequence[str] | None = None,
        strict_stratification: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        show_progress: bool = True,
        source: Any = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            shuffle=shuffle,
            group_by=group_by,
            stratify_by=stratify_by,
            strict_stratification=strict_stratification,
            drop_last=drop_last,
            seed=seed,
            show_progress=show_progress,
            sources=source,
        )

    _CONFIG = ("batch_size", "shuffle", "group_by", "stratify_by", "strict_stratification", "drop_last", "seed", "show_progress")

    def build_samples(self) -> dict[tuple[str, str], Samples]:
        """The rows of the source."""
        return {(STREAM_DEFAULT, self.source.label): Samples({ROLE_DEFAULT: real(self.source.absolute_rows())})}
