"""ResultRecording: which steps of a training phase leave their tensors behind, and what that costs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

from keydnn.experiment.choices import Choice
from keydnn.experiment.names import DOMAIN_OUTPUTS, DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS, DOMAIN_TARGETS

RECORDABLE = (DOMAIN_OUTPUTS, DOMAIN_TARGETS, DOMAIN_TAGS, DOMAIN_SAMPLE_UUIDS)
MIB = 2**20
LARGE_BYTES = 1024 * MIB


class ResultRecording(Choice):
    """Which steps are recorded; metrics are kept in any case.

    ``ALL`` keeps every step, ``LAST`` those of the last epoch (of the best one with ``EarlyStopping(restore_best=True)``), ``NONE``
    nothing.

    Example:
        >>> from keydnn.experiment.phases import ResultRecording
        >>> ResultRecording.from_value("last")
        <ResultRecording.LAST: 'last'>
    """

    ALL = "all"
    LAST = "last"
    NONE = "none"


def checked_keep(keep: str | Iterable[str] | None) -> frozenset[str] | None:
    """Domains that are recorded; None means all of them.

    Raises:
        ValueError: A domain that no step leaves behind.
    """
    if keep is None:
        return None
    wanted = [keep] if isinstance(keep, str) else list(keep)
    unknown = [domain for domain in wanted if domain not in RECORDABLE]
    if unknown:
        raise ValueError(f"keep: unknown domains {unknown}; expected some of {', '.join(RECORDABLE)}")
    return frozenset(wanted)


def bytes_per_sample(nodes: Iterable[Any]) -> int:
    """What the outputs of nodes take for one sample, in single precision; nodes that are not built count nothing.

    Args:
        nodes: Nodes of a graph that run.
    """
    return sum(4 * math.prod(node.output_shape or ()) for node in nodes if node.is_built)


def recorded_bytes(recording: ResultRecording, *, n_epochs: int, n_samples: int, bytes_per_sample: int) -> int:
    """How much the outputs of a phase will take: targets, tags and ids are shared with the batches.

    Args:
        recording: Which epochs stay.
        n_epochs: Epochs of the phase.
        n_samples: Samples of an epoch.
        bytes_per_sample: Outputs of all executed nodes for one sample.
    """
    epochs = {ResultRecording.ALL: n_epochs, ResultRecording.LAST: 1, ResultRecording.NONE: 0}[recording]
    return epochs * n_samples * bytes_per_sample


def warn_if_large(recording: ResultRecording, *, n_epochs: int, n_samples: int, bytes_per_sample: int) -> int:
    """Warn once, before the first step, of recordings above 1 GiB; see :func:`recorded_bytes`.

    Returns:
        The estimate in bytes.

    Warns:
        UserWarning: With the estimate in MiB and what can be changed.
    """
    size = recorded_bytes(recording, n_epochs=n_epochs, n_samples=n_samples, bytes_per_sample=bytes_per_sample)
    if size > LARGE_BYTES:
        mend = "'last' or 'none'" if recording is ResultRecording.ALL else "'none'"
        warnings.warn(
            f"recording the outputs of {n_epochs if recording is ResultRecording.ALL else 1} epochs of {n_samples} samples takes about"
            f" {size / MIB:,.0f} MiB; set result_recording={mend} to keep less",
            UserWarning,
            stacklevel=3,
        )
    return size
