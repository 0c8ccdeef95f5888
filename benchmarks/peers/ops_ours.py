"""Single operations of KeyDNN: called directly, and through ``keydnn.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keydnn
from benchmarks import kernels
from benchmarks.ops import Op, sampled
from benchmarks.remote import NotOfferedError, Session
from keydnn import ops

FORWARD: dict[str, Callable[..., Any]] = {
    "chain": lambda x: (x * 1.5 + 0.3).relu() * 2.0,
    "softmax": ops.softmax,
    "layer_norm": lambda x, g, b: ops.layer_norm(x, g.shape, g, b),
    "batch_norm": lambda x, g, b: ops.batch_norm(x, g, b)[0],
    "sum": lambda x, axis: ops.sum(x, axis),
    "exp": ops.exp,
    "gelu": ops.gelu,
    "conv": lambda x, w, b, stride, padding: ops.conv2d(x, w, b, stride=(stride, stride), padding=(padding, padding)),
    "gemm": lambda x, w: ops.linear(x, w),
}


def eager(case: Op | kernels.Case) -> Session:
    """Called directly."""
    if isinstance(case, kernels.Case):
        return kernels.ours(case)
    function, arrays = FORWARD[case.kind], [keydnn.tensor(a) for a in case.arrays()]
    if not case.backward:
        return _forward(lambda *tensors: function(*tensors, *case.options), arrays)
    for a in arrays:
        a.requires_grad = True
    y = function(*arrays, *case.options)
    g = keydnn.tensor(case.upstream(y.shape))
    return Session(lambda: keydnn.grad(y, arrays, g), answer=lambda: [sampled(a.to_numpy()) for a in keydnn.grad(y, arrays, g)])


def compiled(case: Op | kernels.Case) -> Session:
    """A recorded function; weights it does not take as arguments are read live."""
    if isinstance(case, kernels.Case) or case.backward:
        raise NotOfferedError("compiled functions are timed forward, without a graph")
    function, (x, *rest) = FORWARD[case.kind], [keydnn.tensor(a) for a in case.arrays()]
    return _forward(keydnn.compile(lambda x: function(x, *rest, *case.options)), [x])


def _forward(function: Callable[..., Any], arrays: list[Any]) -> Session:
    def call() -> Any:
        with keydnn.no_grad():
            return function(*arrays)

    return Session(call, answer=lambda: [sampled(call().to_numpy())])
