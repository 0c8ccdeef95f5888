"""tinygrad: the training step and the prediction under TinyJit."""

from __future__ import annotations

import numpy as np
from tinygrad import Tensor, TinyJit, nn
from tinygrad.helpers import Context

from benchmarks.remote import Session
from benchmarks.sessions import asking, offered, refuse, stepping
from benchmarks.workloads import Case, weights


def _conv(p, x):
    return x.conv2d(p["weight"], p.get("bias"), padding=1)


APPLY = {
    "linear": lambda p, x: x.linear(p["weight"].T, p["bias"]),
    "relu": lambda p, x: x.relu(),
    "conv": _conv,
    "max_pool": lambda p, x: x.max_pool2d(2),
    "global_avg_pool": lambda p, x: x.mean((2, 3)),
    "flatten": lambda p, x: x.flatten(1),
}


def _convert(a: np.ndarray) -> Tensor:
    return Tensor(a.astype(np.int32) if a.dtype == np.int64 else a).realize()


def make(case: Case) -> Session:
    """The case under TinyJit."""
    workload = case.work
    offered(workload, APPLY)
    if case.mode == "epoch":
        return refuse("no epochs")
    parameters = [{name: Tensor(a).contiguous().realize() for name, a in arrays.items()} for arrays in weights(workload)]

    def model(x):
        for layer, p in zip(workload.layers, parameters, strict=True):
            x = APPLY[layer.kind](p, x)
        return x

    if case.mode == "infer":
        jitted = TinyJit(lambda x: model(x).realize())
        return asking(case, lambda x: jitted(x).numpy(), _convert)
    every = [p for layer in parameters for p in layer.values()]
    optimizer = nn.optim.SGD(every, workload.lr, momentum=0.9) if workload.optimizer == "sgd" else nn.optim.Adam(every, workload.lr)

    @TinyJit
    def step(x, t):
        with Context(TRAINING=1):
            optimizer.zero_grad()
            y = model(x)
            loss = y.sparse_categorical_crossentropy(t) if workload.classes else ((y - t) ** 2).mean()
            loss.backward()
            return loss.realize(*optimizer.schedule_step())

    return stepping(case, step, _convert, read=lambda loss: float(loss.numpy()))
