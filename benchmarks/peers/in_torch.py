"""PyTorch: eager as users write it; tuned (fused optimizer, channels last, and the environment keeps freed memory); torch.compile."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.remote import Session
from benchmarks.sessions import asking, epochs, stepping
from benchmarks.workloads import Arrays, Case, weights


class _LastStep(nn.Module):
    """The last output of a recurrent layer."""

    def forward(self, out):
        return out[0][:, -1]


def _encoder(n, heads, hidden):
    return [nn.TransformerEncoderLayer(n, heads, hidden, dropout=0.0, batch_first=True)]


BUILD = {
    "linear": lambda n, out: [nn.Linear(n, out)],
    "relu": lambda: [nn.ReLU()],
    "conv": lambda n, out, bias: [nn.Conv2d(n, out, 3, padding=1, bias=bool(bias))],
    "batch_norm": lambda n: [nn.BatchNorm2d(n)],
    "max_pool": lambda: [nn.MaxPool2d(2)],
    "global_avg_pool": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    "flatten": lambda *shape: [nn.Flatten()],
    "lstm": lambda n, hidden: [nn.LSTM(n, hidden, batch_first=True), _LastStep()],
    "gru": lambda n, hidden: [nn.GRU(n, hidden, batch_first=True), _LastStep()],
    "encoder": _encoder,
}
ENCODER = {"out": "self_attn.out_proj", "up": "linear1", "down": "linear2"}


def _as_theirs(kind: str, arrays: Arrays) -> Arrays:
    """The weights under PyTorch's names."""
    if kind in ("lstm", "gru"):
        return {name + "_l0": a for name, a in arrays.items()}
    if kind != "encoder":
        return arrays
    named = {}
    for part in ("weight", "bias"):
        named[f"self_attn.in_proj_{part}"] = np.concatenate([arrays[f"{name}.{part}"] for name in ("query", "key", "value")])
    for name, array in arrays.items():
        layer, part = name.split(".")
        if layer not in ("query", "key", "value"):
            named[f"{ENCODER.get(layer, layer)}.{part}"] = array
    return named


def model_of(case: Case) -> nn.Sequential:
    """The model of a workload with its first weights."""
    workload, layers = case.work, []
    for layer, arrays in zip(workload.layers, weights(workload), strict=True):
        built = BUILD[layer.kind](*layer.sizes)
        state = {name: torch.tensor(a) for name, a in _as_theirs(layer.kind, arrays).items()}
        built[0].load_state_dict(state, strict=layer.kind != "batch_norm")  # running statistics stay
        layers += built
    return nn.Sequential(*layers)


def _training(case: Case, fused: bool):
    """The model, its loss as a function of a batch, its optimizer."""
    model, workload = model_of(case), case.work
    options = {"fused": True} if fused else {}
    if workload.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=workload.lr, momentum=0.9, **options)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=workload.lr, **options)
    criterion = nn.CrossEntropyLoss() if workload.classes else nn.MSELoss()
    return model, optimizer, lambda x, t: criterion(model(x), t)


def _stepper(loss_of, optimizer):
    def step(x, t):
        optimizer.zero_grad()
        loss = loss_of(x, t)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _with_loader(case: Case, step) -> Session:
    """Epochs through a DataLoader."""
    size = case.work.shape[0]

    def prepare(x, t):
        x, t = torch.from_numpy(x), torch.from_numpy(t)

        def epoch(start, stop, shuffle):
            loader = DataLoader(TensorDataset(x[start:stop], t[start:stop]), batch_size=size, shuffle=shuffle)
            total = sum(step(a, b).item() * len(a) for a, b in loader)
            return total / (stop - start)

        return epoch

    return epochs(case, prepare)


def _with_slices(case: Case, step) -> Session:
    """Epochs over rows picked by index."""
    size = case.work.shape[0]

    def prepare(x, t):
        x, t = torch.from_numpy(x), torch.from_numpy(t)

        def epoch(start, stop, shuffle):
            order = start + (torch.randperm(stop - start) if shuffle else torch.arange(stop - start))
            total = sum(step(x[picked], t[picked]) * len(picked) for picked in order.split(size))
            return total.item() / (stop - start)

        return epoch

    return epochs(case, prepare)


def _asking(case: Case, model, convert=torch.from_numpy) -> Session:
    def predict(x):
        with torch.inference_mode():
            return model(x)

    return asking(case, predict, convert)


def eager(case: Case) -> Session:
    """As users write it."""
    if case.mode == "infer":
        return _asking(case, model_of(case).eval())
    _, optimizer, loss_of = _training(case, fused=False)
    step = _stepper(loss_of, optimizer)
    return stepping(case, step, torch.from_numpy) if case.mode == "step" else _with_loader(case, step)


def tuned(case: Case) -> Session:
    """Fused optimizer, channels last, rows by index; for inference traced, frozen and optimised."""
    if case.mode == "infer":
        model = model_of(case).eval()
        example = torch.zeros(1, *case.work.shape[1:])
        return _asking(case, torch.jit.optimize_for_inference(torch.jit.trace(model, example)))
    model, optimizer, loss_of = _training(case, fused=True)
    model.to(memory_format=torch.channels_last)
    step = _stepper(loss_of, optimizer)
    return stepping(case, step, _last) if case.mode == "step" else _with_slices(case, step)


def _last(a):
    tensor = torch.from_numpy(a)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def compiled(case: Case) -> Session:
    """torch.compile of model and loss, fused optimizer."""
    if case.mode == "infer":
        return _asking(case, torch.compile(model_of(case).eval(), dynamic=False))
    _, optimizer, loss_of = _training(case, fused=True)
    step = _stepper(torch.compile(loss_of, dynamic=False), optimizer)
    return stepping(case, step, torch.from_numpy) if case.mode == "step" else _with_slices(case, step)
