"""Batch schedules: which samplers give a batch in which step of an epoch.

With samplers of lengths n_1 .. n_k (S1 = b1 b2 b3, S2 = c1 c2):

zip_strict        (b1,c1) (b2,c2)              min n_i steps
zip_cycle         (b1,c1) (b2,c2) (b3,c1)      max n_i steps, shorter ones start again
alternate_strict  b1 c1 b2 c2                  k min n_i steps, one sampler each
alternate_cycle   b1 c1 b2 c2 b3 c1            k max n_i steps, one sampler each
"""

from __future__ import annotations

from collections.abc import Sequence

from keydnn.experiment.choices import Choice

Places = tuple[int | None, ...]  # per sampler the number of its batch, None where it is inactive


class BatchSchedulingPolicy(Choice):
    """How several samplers share the steps of an epoch."""

    ZIP_STRICT = "zip_strict"
    ZIP_CYCLE = "zip_cycle"
    ALTERNATE_STRICT = "alternate_strict"
    ALTERNATE_CYCLE = "alternate_cycle"

    @property
    def alternates(self) -> bool:
        """Whether exactly one sampler is active per step."""
        return self in (BatchSchedulingPolicy.ALTERNATE_STRICT, BatchSchedulingPolicy.ALTERNATE_CYCLE)

    @property
    def cycles(self) -> bool:
        """Whether shorter samplers start again."""
        return self in (BatchSchedulingPolicy.ZIP_CYCLE, BatchSchedulingPolicy.ALTERNATE_CYCLE)


def schedule(lengths: Sequence[int], policy: BatchSchedulingPolicy) -> list[Places]:
    """The steps of one epoch.

    Args:
        lengths: Batches per sampler.
        policy: The policy.

    Returns:
        Per step, for each sampler, the number of its batch, or None where it is inactive; no steps if a sampler has no batch.

    Example:
        >>> from keydnn.experiment.phases.schedule import BatchSchedulingPolicy, schedule
        >>> schedule([3, 2], BatchSchedulingPolicy.ZIP_CYCLE)
        [(0, 0), (1, 1), (2, 0)]
        >>> [len(schedule([4, 3], policy)) for policy in BatchSchedulingPolicy]
        [3, 4, 6, 8]
    """
    if not lengths or min(lengths) == 0:
        return []
    rounds = max(lengths) if policy.cycles else min(lengths)
    if not policy.alternates:
        return [tuple(i % n for n in lengths) for i in range(rounds)]
    k = len(lengths)
    return [tuple(i % lengths[j] if j == active else None for j in range(k)) for i in range(rounds) for active in range(k)]
