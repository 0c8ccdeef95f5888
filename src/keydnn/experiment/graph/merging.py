"""How tensors of several inputs become one: strategies for targets and tags, joining along an axis, padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from keydnn.experiment.choices import Choice


class MergeStrategy(Choice):
    """What becomes of targets and tags of several inputs."""

    FIRST = "first"
    LAST = "last"
    MEAN = "mean"
    CONCAT = "concat"


class PadMode(Choice):
    """What stands behind the end of a shorter input."""

    CONSTANT = "constant"
    REFLECT = "reflect"
    REPLICATE = "replicate"
    CIRCULAR = "circular"


_MIRRORS: dict[PadMode, Callable[[int, int], list[int]]] = {  # (length, how many) -> places that are repeated behind the end
    PadMode.REFLECT: lambda n, extra: [n - 2 - i for i in range(extra)],
    PadMode.REPLICATE: lambda n, extra: [n - 1] * extra,
    PadMode.CIRCULAR: lambda n, extra: list(range(extra)),
}
_MOST: dict[PadMode, Callable[[int], int]] = {PadMode.REFLECT: lambda n: n - 1, PadMode.CIRCULAR: lambda n: n}  # that can be added


def added(tensors: Sequence[Any]) -> Any:
    """The sum."""
    return reduce(lambda a, b: a + b, tensors)


def multiplied(tensors: Sequence[Any]) -> Any:
    """The product."""
    return reduce(lambda a, b: a * b, tensors)


def averaged(tensors: Sequence[Any]) -> Any:
    """The mean."""
    return added(tensors) / len(tensors)


TAKEN: dict[MergeStrategy, Callable[[Sequence[Any]], Any]] = {  # strategies that need no axis
    MergeStrategy.FIRST: lambda tensors: tensors[0],
    MergeStrategy.LAST: lambda tensors: tensors[-1],
    MergeStrategy.MEAN: averaged,
}


def padded(tensor: Any, axis: int, goal: Sequence[int], face: Any, mode: PadMode, value: float) -> Any:
    """A tensor lengthened at the ends of all axes but one.

    Args:
        tensor: Of the framework of ``face``.
        axis: Stays as it is.
        goal: Sizes of all axes.
        face: Adapter of the framework.
        mode: What stands behind the end.
        value: The constant of ``PadMode.CONSTANT``.

    Raises:
        ValueError: An axis too short to be mirrored or repeated that often.
    """
    for i, size in enumerate(goal):
        have = int(tensor.shape[i])
        if i == axis or have == size:
            continue
        if mode is PadMode.CONSTANT:
            behind = face.constant(tensor, [*tensor.shape[:i], size - have, *tensor.shape[i + 1 :]], value)
        else:
            behind = face.take(tensor, _mirrored(mode, have, size - have), i)
        tensor = face.concat([tensor, behind], i)
    return tensor


def _mirrored(mode: PadMode, have: int, extra: int) -> list[int]:
    most = _MOST[mode](have) if mode in _MOST else extra
    if extra > most:
        raise ValueError(f"pad_mode {mode.value!r} cannot lengthen {have} by {extra}, at most by {most}")
    return _MIRRORS[mode](have, extra)
