"""KeyDNN, recorded and eager: ``train_on_batch`` with an optimizer object and prepared Tensors, ``fit``, ``predict``."""

from __future__ import annotations

import numpy as np

import keydnn
from benchmarks.remote import NotOfferedError, Session
from benchmarks.sessions import asking, epochs, stepping
from benchmarks.workloads import Arrays, Case, Layer, weights


def _layer(name: str):
    """A layer of ours by name; some come later than the benchmarks."""
    if name not in keydnn.__all__:
        raise NotOfferedError(f"keydnn has no {name}")
    return getattr(keydnn, name)


def _recurrent(name: str, **options):
    def build(n, hidden):
        return [_layer(name)(n, hidden, return_sequences=False, return_state=False, batch_first=True, **options)]

    return build


def _encoder(n, heads, hidden):
    return [_layer("TransformerEncoderLayer")(n, heads, hidden, dropout=0.0, batch_first=True)]


BUILD = {
    "linear": lambda n, out: [keydnn.Linear(n, out)],
    "relu": lambda: [keydnn.ReLU()],
    "conv": lambda n, out, bias: [keydnn.Conv2d(n, out, 3, padding=1, bias=bool(bias))],
    "batch_norm": lambda n: [keydnn.BatchNorm2d(n)],
    "max_pool": lambda: [keydnn.MaxPool2d(2)],
    "global_avg_pool": lambda: [keydnn.GlobalAvgPool2d(), keydnn.Flatten()],
    "flatten": lambda *shape: [keydnn.Flatten()],
    "lstm": _recurrent("LSTM"),
    "gru": _recurrent("GRU", reset_after=True),
    "encoder": _encoder,
}


ENCODER = {"up": "linear1", "down": "linear2"} | {name: f"attention.{name[0]}_proj" for name in ("query", "key", "value")}
ENCODER["out"] = "attention.out_proj"
NORM = {"weight": "gamma", "bias": "beta"}


def _as_ours(layer: Layer, arrays: Arrays) -> Arrays:
    """The weights under our names and in our layouts."""
    if layer.kind == "batch_norm":
        return {NORM[name]: a for name, a in arrays.items()}
    if layer.kind == "encoder":
        parts = [(*name.split("."), a) for name, a in arrays.items()]
        return {f"{ENCODER.get(part, part)}.{NORM[name] if 'norm' in part else name}": a for part, name, a in parts}
    if layer.kind in ("lstm", "gru"):
        if layer.kind == "gru":  # gates r z n; ours are z r n
            arrays = {name: np.concatenate([a[1], a[0], a[2]]) for name, a in ((k, np.split(v, 3)) for k, v in arrays.items())}
        return {"cell." + name.replace("weight", "W").replace("bias", "b"): a.T for name, a in arrays.items()}
    return arrays


def model_of(case: Case) -> keydnn.Sequential:
    """The model of a workload with its first weights."""
    workload, layers = case.work, []
    for layer, arrays in zip(workload.layers, weights(workload), strict=True):
        built = BUILD[layer.kind](*layer.sizes)
        named = dict(built[0].named_parameters())
        for name, array in _as_ours(layer, arrays).items():
            named[name].copy_from_numpy(np.ascontiguousarray(array))
        layers += built
    return keydnn.Sequential(*layers)


def _make(case: Case, compile: bool) -> Session:
    model, workload = model_of(case), case.work
    if case.mode == "infer":
        return asking(case, lambda x: model.predict(x, compile=compile), keydnn.tensor)
    sgd = workload.optimizer == "sgd"
    optimizer = keydnn.SGD(model.parameters(), lr=workload.lr, momentum=0.9) if sgd else keydnn.Adam(model.parameters(), lr=workload.lr)
    loss = "cross_entropy" if workload.classes else "mse"
    if case.mode == "step":
        return stepping(
            case, lambda x, t: model.train_on_batch(x, t, loss=loss, optimizer=optimizer, compile=compile)["loss"], keydnn.tensor
        )

    def prepare(x, t):
        x, t = keydnn.tensor(x), keydnn.tensor(t)
        options = {"loss": loss, "optimizer": optimizer, "batch_size": workload.shape[0], "verbose": 0, "compile": compile}

        def epoch(start, stop, shuffle):
            whole = stop - start == x.shape[0]  # a part of a Tensor is a copy
            data = (x, t) if whole else (x[start:stop], t[start:stop])
            return model.fit(*data, shuffle=shuffle, **options).last()["loss"]

        return epoch

    return epochs(case, prepare)


def recorded(case: Case) -> Session:
    """As users get it."""
    return _make(case, True)


def eager(case: Case) -> Session:
    """With ``compile=False``."""
    return _make(case, False)
