"""A replayer: notes the kernel calls of one step and runs them again, without the operations that made them.
Memory is known by address.  What the caller names (parameters, moments, buffers, batch) is bound by reference and read live;
what a noted kernel returned lives in fresh memory, poisoned before each replay.  Any other operand was computed outside the
kernel table, which ends the recording with an error.
"""

import numpy as np

from keydnn.autograd.modes import StepRecorder, recording
from keydnn.kernels.dispatch import tables


class Replayer(StepRecorder):
    def __init__(self, tensors):
        self.calls = []  # (kernel, operands, keyword operands, results)
        self.buffers = []  # (first address, end address, recorded array)
        for tensor in tensors:
            self._new(tensor.to_numpy())
        self.n_bound = len(self.buffers)

    def record(self, step):
        with recording(self):
            result = step()
        self.result = self._place(result.to_numpy())
        return result

    def table(self, primitive, kernels, inputs=()):
        return Noting(self, kernels)

    def _new(self, array):
        start, end = np.lib.array_utils.byte_bounds(array)
        self.buffers.append((start, end, array))
        return len(self.buffers) - 1, 0, array.shape, array.strides, array.dtype

    def _place(self, array):
        """(buffer, offset, shape, strides, dtype) of an array in known memory."""
        start, end = np.lib.array_utils.byte_bounds(array)
        for i, (low, high, _) in enumerate(self.buffers):
            if low <= start and end <= high:
                return i, array.__array_interface__["data"][0] - low, array.shape, array.strides, array.dtype
        raise AssertionError(f"an operand of shape {array.shape} was made outside the kernel table")

    def note(self, name, operands, options, results):
        places = [self._place(v) if isinstance(v, np.ndarray) else (v,) for v in (*operands, *options.values())]
        self.calls.append(
            (name, places[: len(operands)], dict(zip(options, places[len(operands) :], strict=True)), list(map(self._new, results)))
        )

    def replay(self):
        """Run the noted calls once more; returns the result as an array."""
        memory = [recorded if i < self.n_bound else np.full_like(recorded, 77) for i, (_, _, recorded) in enumerate(self.buffers)]

        def array(place):
            if len(place) == 1:
                return place[0]
            i, offset, shape, strides, dtype = place
            return np.ndarray(shape, dtype, memory[i].data, offset, strides)

        kernels = next(iter(tables.values()))
        for name, operands, options, places in self.calls:
            values = getattr(kernels, name)(*map(array, operands), **{key: array(v) for key, v in options.items()})
            for place, value in zip(places, values if isinstance(values, tuple) else (values,), strict=False):
                np.copyto(array(place), value)
        return array(self.result).copy()


class Noting:
    def __init__(self, replayer, kernels):
        self.replayer, self.kernels = replayer, kernels

    def __getattr__(self, name):
        kernel = getattr(self.kernels, name)

        def noted(*operands, **options):
            results = kernel(*operands, **options)
            arrays = tuple(np.asarray(r) for r in (results if isinstance(results, tuple) else () if results is None else (results,)))
            self.replayer.note(name, operands, options, arrays)
            return None if results is None else arrays if isinstance(results, tuple) else arrays[0]

        return noted
