"""Batching: which positions of the drawn samples make which batch.

plain       one permutation default_rng(seed).permutation(n), then consecutive slices
groups      every bucket of equal values cut separately: batches never mix groups
strata      one row of every bucket in turn (round robin), the sequence cut into slices
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def slices(positions: Positions, batch_size: int, drop_last: bool) -> list[Positions]:
    """Consecutive slices; a short last one is dropped if asked for."""
    n = len(positions)
    end = n - n % batch_size if drop_last else n
    return [positions[start : start + batch_size] for start in range(0, end, batch_size)]


def grouped(buckets: Sequence[Positions], batch_size: int, drop_last: bool, rng: np.random.Generator | None) -> list[Positions]:
    """Slices of each bucket; with a generator buckets are shuffled inside, and the order of all batches is."""
    batches: list[Positions] = []
    for bucket in buckets:
        if rng is not None:
            rng.shuffle(bucket)
        batches += slices(bucket, batch_size, drop_last)
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def round_robin(buckets: Sequence[Positions], strict: bool, rng: np.random.Generator | None) -> Positions:
    """One position of every bucket in turn; strict stops after the round in which a bucket is found empty.

    Example:
        >>> from keydnn.experiment.samplers.batching import round_robin
        >>> round_robin([np.array([0, 1]), np.array([2, 3, 4]), np.array([5, 6, 7, 8])], True, None).tolist()
        [0, 2, 5, 1, 3, 6, 4, 7]
    """
    for bucket in buckets:
        if rng is not None:
            rng.shuffle(bucket)
    sizes = np.array([len(bucket) for bucket in buckets])
    rounds = int(sizes.min()) + 1 if strict else int(sizes.max())
    kept = [bucket[:rounds] for bucket in buckets]
    turn = np.concatenate([np.arange(len(bucket)) for bucket in kept])
    stratum = np.concatenate([np.full(len(bucket), i) for i, bucket in enumerate(kept)])
    return np.concatenate(kept)[np.lexsort((stratum, turn))]
