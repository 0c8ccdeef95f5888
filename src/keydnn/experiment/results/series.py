"""The named AxisSeries: what each kind of entry allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.tensors import to_numpy
from keydnn.experiment.data import DataFormat
from keydnn.experiment.optional import need
from keydnn.experiment.series import ENDS, AxisSeries, Later, Reducer
from keydnn.experiment.training import LossRecord
from keydnn.experiment.training.records import LossSums


class _Ends(AxisSeries):
    """A series whose objects cannot be joined; abstract."""

    def reducers(self) -> Mapping[str, Reducer]:
        """``first last``."""
        return ENDS


class _WithGaps(AxisSeries):
    """A series whose epochs and batches may be None; abstract."""

    def to_pandas(self) -> Any:
        """As of every series; epoch and batch are nullable integers.

        Raises:
            ImportError: pandas is not installed.
        """
        frame = super().to_pandas()
        return frame.astype({axis: "Int64" for axis in ("epoch", "batch") if axis in frame.columns})


class ContextSeries(_Ends):
    """ExecutionContexts by epoch and batch."""


class CallbackSeries(_WithGaps, _Ends):
    """Callback results by kind, label, epoch, batch and edge."""


class ArtifactSeries(_WithGaps, _Ends):
    """Artifacts by name, epoch and batch."""


class ResultSeries(_Ends):
    """Results of phases, for example of evaluations by epoch."""


class BatchSeries(_Ends):
    """Output batches by epoch and batch."""

    def to_format(self, fmt: DataFormat | str) -> BatchSeries:
        """The same batches in a tensor-like format, converted when they are asked for.

        Raises:
            ValueError: A format that is unknown or not tensor-like.
        """
        found = DataFormat.from_value(fmt)
        if not found.is_tensor_like:
            raise ValueError(f"format {found.value!r} is not tensor-like; take one such as 'numpy' or 'torch'")
        return self._like(self._axes, {key: Later(lambda k: self[k].to_format(found), key) for key in self})


class TensorSeries(AxisSeries):
    """Tensors by epoch and batch."""

    def to_pandas(self) -> Any:
        """A frame with a row per sample: a column per axis, ``sample`` (place in the batch) and a column per number of a sample.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = need("pandas", "to_pandas()")
        parts = []
        for key, value in self.items():
            array = to_numpy(value)
            flat = array.reshape(len(array), -1)
            names = ["value"] if flat.shape[1] == 1 else [f"value_{i}" for i in range(flat.shape[1])]
            told = {axis: [one] * len(flat) for axis, one in zip(self._axes, key, strict=True)} | {"sample": np.arange(len(flat))}
            parts.append(pandas.DataFrame(told | {name: flat[:, i] for i, name in enumerate(names)}))
        return pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=[*self._axes, "sample", "value"])


class LossSeries(LossSums):
    """LossRecords by epoch, batch and label; ``trainable``, ``auxiliary`` and ``to_float()`` add up what is left of them."""

    def _cells(self, value: Any) -> dict[str, Any]:
        one: LossRecord = value
        told = {"trainable": one.trainable, "auxiliary": one.auxiliary, "total": one.total}
        return {name: float("nan") if number is None else float(to_numpy(number)) for name, number in told.items()}


def _merged(reduce: Callable[[Sequence[float]], float]) -> Reducer:
    """Metrics as one: fields that differ are None."""

    def merged(entries: Sequence[Any]) -> Any:
        first = entries[0]
        same = {name: all(getattr(one, name) == getattr(first, name) for one in entries) for name in ("epoch_idx", "batch_idx")}
        kept = {name: getattr(first, name) if fits else None for name, fits in same.items()}
        return dataclasses.replace(first, value=reduce([one.value for one in entries]), **kept)

    return merged


class MetricSeries(_WithGaps):
    """Metrics by name, epoch and batch."""

    def reducers(self) -> Mapping[str, Reducer]:
        """``mean sum first last``."""
        return {**ENDS, "mean": _merged(lambda values: sum(values) / len(values)), "sum": _merged(sum)}

    def _cells(self, value: Any) -> dict[str, Any]:
        return {"value": value.value}
