"""Single operations of PyTorch: as users call them, channels last, the chain in place, products with packed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks import kernels
from benchmarks.ops import Op, sampled
from benchmarks.remote import NotOfferedError, Session

FORWARD: dict[str, Callable[..., Any]] = {
    "chain": lambda x: torch.relu(x * 1.5 + 0.3) * 2.0,
    "softmax": lambda x: F.softmax(x, -1),
    "layer_norm": lambda x, g, b: F.layer_norm(x, g.shape, g, b),
    "batch_norm": lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True),
    "sum": lambda x, axis: x.sum(axis),
    "exp": torch.exp,
    "gelu": F.gelu,
    "conv": lambda x, w, b, stride, padding: F.conv2d(x, w, b, stride, padding),
    "gemm": F.linear,
}


def eager(case: Op | kernels.Case) -> Session:
    """As users call them."""
    if isinstance(case, kernels.Case):
        return kernels.in_torch(case)
    return _session(case, [torch.from_numpy(a) for a in case.arrays()])


def channels_last(case: Op | kernels.Case) -> Session:
    """Convolutions, pools and batch norm over (N, H, W, C) in memory."""
    if isinstance(case, kernels.Case) and case.kind in ("conv", "max", "avg"):
        return _small(case)
    if isinstance(case, kernels.Case) or case.kind not in ("conv", "batch_norm"):
        raise NotOfferedError("only images have channels")
    return _session(case, [_last(torch.from_numpy(a)) for a in case.arrays()])


def _last(a: torch.Tensor) -> torch.Tensor:
    return a.contiguous(memory_format=torch.channels_last) if a.ndim == 4 else a


def _small(case: kernels.Case) -> Session:
    x, *rest = (_last(torch.from_numpy(a)) for a in case.arrays())
    function = {
        "conv": lambda: F.conv2d(x, *rest, case.stride, 1),
        "max": lambda: F.max_pool2d(x, 2),
        "avg": lambda: F.avg_pool2d(x, 2),
    }[case.kind]

    def call() -> Any:
        with torch.no_grad():
            return function()

    return Session(call, answer=lambda: call().numpy())


def in_place(case: Op | kernels.Case) -> Session:
    """The chain over one output that is kept."""
    if case.kind != "chain" or isinstance(case, kernels.Case):
        raise NotOfferedError("only the long chain runs in place")
    (x,) = (torch.from_numpy(a) for a in case.arrays())
    out = torch.empty_like(x)

    def call() -> Any:
        with torch.no_grad():
            return torch.mul(x, 1.5, out=out).add_(0.3).relu_().mul_(2.0)

    return Session(call, answer=lambda: [sampled(call().numpy())])


def packed(case: Op | kernels.Case) -> Session:
    """oneDNN's product with weights in its own layout."""
    if case.kind != "gemm":
        raise NotOfferedError("only products have packed weights")
    x, w = (torch.from_numpy(a) for a in case.arrays())
    blocked = torch.ops.mkldnn._reorder_linear_weight(w, len(x))

    def call() -> Any:
        with torch.no_grad():
            return torch.ops.mkldnn._linear_pointwise(x, blocked, None, "none", [], "")

    return Session(call, answer=lambda: [sampled(call().numpy())])


def _session(case: Op, arrays: list[torch.Tensor]) -> Session:
    function = FORWARD[case.kind]
    if not case.backward:

        def call() -> Any:
            with torch.no_grad():
                return function(*arrays, *case.options)

        return Session(call, answer=lambda: [sampled(call().numpy())])
    for a in arrays:
        a.requires_grad_()
    y = function(*arrays, *case.options)
    g = torch.empty_like(y).copy_(torch.from_numpy(case.upstream(tuple(y.shape))))

    def backward() -> Any:
        return torch.autograd.grad(y, arrays, g, retain_graph=True)

    return Session(backward, answer=lambda: [sampled(a.numpy()) for a in backward()])
