"""How each layer is written as nodes of ONNX: class to function ``(writer, module, x, where) -> result``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn import nn
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import UnsupportedOnnxError
from keydnn.interop.onnx.export_planes import PLANES
from keydnn.interop.onnx.rules_recurrent import GATES
from keydnn.interop.onnx.writer import Rule, State, Writer
from keydnn.nn import MultiHeadAttention, TransformerEncoderLayer
from keydnn.nn.layers.layer import Weightless
from keydnn.nn.module import Module
from keydnn.training import Sequential


def write_module(writer: Writer, module: Module, x: State, where: str) -> Any:
    """The nodes of a module; returns its result, or a tuple of several.

    Raises:
        UnsupportedOnnxError: It has no ONNX form.
    """
    rule = WRITE.get(type(module))
    if rule is None:
        why = f": {NO_FORM[type(module)]}" if type(module) in NO_FORM else ""
        raise UnsupportedOnnxError(f"to_onnx: {where} ({type(module).__name__}) has no ONNX form{why}")
    if isinstance(module, Weightless) and isinstance(x, State) and module.dtype is not None and module.dtype != x.value.dtype:
        raise UnsupportedOnnxError(f"to_onnx: {where} ({type(module).__name__}) changes the dtype, which is not written")
    try:
        return rule(writer, module, x, where)
    except UnsupportedOnnxError as error:
        if where in str(error):
            raise
        raise UnsupportedOnnxError(f"to_onnx: {where} ({type(module).__name__}): {error}") from error


def _simple(op: str, **attributes: Any) -> Rule:
    """One node without constants."""
    return lambda g, m, x, where: State(g.node(op, x.name, **attributes), m(x.value))


def _sequential(g: Writer, m: Sequential, x: State, where: str) -> Any:
    for name, layer in m.named_children():
        if isinstance(x, tuple):
            raise UnsupportedOnnxError(f"to_onnx: {where}.{name} would get {len(x)} values; the layer before it needs return_state=False")
        x = write_module(g, layer, x, f"{where}.{name}")
    return x


def _product(g: Writer, weight: Tensor | None, bias: Tensor | None, name: str, rank: int, where: str) -> str:
    w = g.constant(weight, f"{where}.weight")
    if rank == 2:
        return g.node("Gemm", name, w, *([] if bias is None else [g.constant(bias, f"{where}.bias")]), transB=1)
    y = g.node("MatMul", name, g.node("Transpose", w, perm=[1, 0]))
    return y if bias is None else g.node("Add", y, g.constant(bias, f"{where}.bias"))


def _linear(g: Writer, m: Any, x: State, where: str) -> State:
    return State(_product(g, m.weight, m.bias, x.name, x.value.ndim, where), m(x.value))


def _scale_and_shift(g: Writer, m: nn.Normalization, shape: tuple[int, ...], where: str) -> tuple[str, str]:
    ones, zeros = np.ones(shape), np.zeros(shape)
    gamma = g.constant(ones if m.gamma is None else m.gamma, f"{where}.gamma")
    return gamma, g.constant(zeros if m.beta is None else m.beta, f"{where}.beta")


def _batch_norm(g: Writer, m: Any, x: State, where: str) -> State:
    gamma, beta = _scale_and_shift(g, m, (m.num_features,), where)
    mean, var = g.constant(m.running_mean, f"{where}.running_mean"), g.constant(m.running_var, f"{where}.running_var")
    return State(g.node("BatchNormalization", x.name, gamma, beta, mean, var, epsilon=m.eps), m(x.value))


def _layer_norm(g: Writer, m: nn.LayerNorm, x: State, where: str) -> State:
    gamma, beta = _scale_and_shift(g, m, m.normalized_shape, where)
    return State(g.node("LayerNormalization", x.name, gamma, beta, axis=-len(m.normalized_shape), epsilon=m.eps), m(x.value))


def _nothing(g: Writer, m: Any, x: State, where: str) -> State:
    return x


def _softmax(op: str) -> Rule:
    return lambda g, m, x, where: State(g.node(op, x.name, axis=m.axis), m(x.value))


def _gelu(g: Writer, m: nn.GELU, x: State, where: str) -> State:
    half = g.node("Mul", x.name, g.constant(0.5))
    inner = g.node("Erf", g.node("Mul", x.name, g.constant(1 / math.sqrt(2))))
    return State(g.node("Mul", half, g.node("Add", inner, g.constant(1.0))), m(x.value))


def _silu(g: Writer, m: nn.SiLU, x: State, where: str) -> State:
    return State(g.node("Mul", x.name, g.node("Sigmoid", x.name)), m(x.value))


def _clip(low: float, high: float) -> Rule:
    return lambda g, m, x, where: State(g.node("Clip", x.name, g.constant(low), g.constant(high)), m(x.value))


def _prelu(g: Writer, m: nn.PReLU, x: State, where: str) -> State:
    shape = (-1, *(1,) * (x.value.ndim - 2)) if m.weight.numel() > 1 else (1,)
    slope = g.node("Reshape", g.constant(m.weight, f"{where}.weight"), g.constant(np.array(shape)))
    return State(g.node("PRelu", x.name, slope), m(x.value))


def _embedding(g: Writer, m: nn.Embedding, x: State, where: str) -> State:
    index = x.name if x.value.dtype.kind == "i" else g.node("Cast", x.name, to=int(g.onnx.TensorProto.INT64))
    return State(g.node("Gather", g.constant(m.weight, f"{where}.weight"), index), m(x.value))


# -- recurrent layers


def _stacked(cell: Any, op: str) -> list[np.ndarray]:
    """W, R and B of one cell for one direction, gates in the order of ONNX."""
    order = np.argsort(GATES[op])
    hidden = cell.hidden_size

    def blocks(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[i * hidden : (i + 1) * hidden] for i in order])

    w_ih, w_hh, b_ih, b_hh = cell.weights
    parts = [blocks(w_ih.numpy().T), blocks(w_hh.numpy().T)]
    return parts if b_ih is None else [*parts, np.concatenate([blocks(b_ih.numpy()), blocks(b_hh.numpy())])]


def _one_layer(g: Writer, m: Any, cell: Any, name: str, where: str, is_reverse: bool) -> list[str]:
    """(T, N, D) -> (T, N, H) and the last states (N, H)."""
    op = type(m).__name__
    weights = [g.constant(array[None], f"{where}.{what}") for array, what in zip(_stacked(cell, op), "WRB", strict=False)]
    options: dict[str, Any] = {"hidden_size": m.hidden_size, "direction": "reverse" if is_reverse else "forward"}
    if op == "GRU":
        options["linear_before_reset"] = int(m.reset_after)
    found = g.node(op, name, *weights, outputs=3 if op == "LSTM" else 2, **options)
    squeezed = [g.node("Squeeze", found[0], g.constant(np.array([1])))]
    return squeezed + [g.node("Squeeze", state, g.constant(np.array([0]))) for state in found[1:]]


def _over_time(g: Writer, m: Any, name: str, where: str, is_reverse: bool) -> tuple[str, list[list[str]]]:
    """All layers of a recurrent module, time first; the outputs of the last one and the last states of each."""
    ends = []
    for i, cell in enumerate(m.cells):
        name, *last = _one_layer(g, m, cell, name, f"{where}.{i}", is_reverse)
        ends.append(last)
    return name, ends


def _recurrent(g: Writer, m: Any, x: State, where: str) -> Any:
    y = m(x.value)
    name = g.node("Transpose", x.name, perm=[1, 0, 2]) if m.batch_first else x.name
    name, ends = _over_time(g, m, name, where, False)
    last, states = ends[-1][0], _last_states(g, ends)
    name = g.node("Transpose", name, perm=[1, 0, 2]) if m.batch_first else name
    names: list[str] = [name if m.return_sequences else last]
    if m.return_state:
        names = [*names, *states] if m.return_sequences or m.keras_compat or len(states) > 1 else states
    return _named(names, y)


def _last_states(g: Writer, ends: list[list[str]]) -> list[str]:
    """The last states of a recurrent module: of several layers stacked."""
    if len(ends) == 1:
        return ends[0]
    zero = g.constant(np.array([0]))
    return [g.node("Concat", *[g.node("Unsqueeze", end, zero) for end in part], axis=0) for part in zip(*ends, strict=True)]


def _named(names: list[str], y: Any) -> Any:
    """Names with the values they stand for, which may be nested in tuples."""
    flat = list(_flat(y))
    states = tuple(State(name, value) for name, value in zip(names, flat, strict=True))
    return states[0] if len(states) == 1 else states


def _flat(y: Any) -> Any:
    if isinstance(y, tuple):
        for part in y:
            yield from _flat(part)
    else:
        yield y


def _bidirectional(g: Writer, m: nn.Bidirectional, x: State, where: str) -> Any:
    inner: Any = m.forward_layer
    name = g.node("Transpose", x.name, perm=[1, 0, 2]) if inner.batch_first else x.name
    sides = [_over_time(g, layer, name, f"{where}.{i}", bool(i)) for i, layer in enumerate((m.forward_layer, m.backward_layer))]
    if m.return_sequences:
        parts = [side[0] for side in sides]
    else:
        parts = [sides[0][1][-1][0], sides[1][1][-1][0]]
        if m.last == "aligned":
            parts[1] = g.node("Gather", sides[1][0], g.constant(np.array(-1)), axis=0)
    merged = _merged(g, m.merge_mode, parts)
    merged = g.node("Transpose", merged, perm=[1, 0, 2]) if inner.batch_first and m.return_sequences else merged
    states = [name for _, ends in sides for name in _last_states(g, ends)] if m.return_state else []
    return _named([merged, *states], m(x.value))


def _merged(g: Writer, mode: str, parts: list[str]) -> str:
    if mode == "concat":
        return g.node("Concat", *parts, axis=-1)
    y = g.node("Mul" if mode == "mul" else "Add", *parts)
    return g.node("Mul", y, g.constant(0.5)) if mode == "ave" else y


# -- attention


def _attention(g: Writer, m: MultiHeadAttention, x: State, where: str) -> State:
    heads, size, shape = m.num_heads, m.embed_dim // m.num_heads, g.constant(np.array([0, 0, m.num_heads, -1]))
    to_heads, back = ([0, 2, 1, 3], [0, 2, 1, 3]) if m.batch_first else ([1, 2, 0, 3], [2, 0, 1, 3])

    def projected(layer: Any, perm: list[int], what: str) -> str:
        y = _product(g, layer.weight, layer.bias, x.name, 3, f"{where}.{what}")
        return g.node("Transpose", g.node("Reshape", y, shape), perm=perm)

    q = g.node("Mul", projected(m.q_proj, to_heads, "q_proj"), g.constant(1.0 / math.sqrt(size)))
    k = projected(m.k_proj, [to_heads[0], to_heads[1], 3, to_heads[2]], "k_proj")
    weights = g.node("Softmax", g.node("MatMul", q, k), axis=-1)
    mixed = g.node("Transpose", g.node("MatMul", weights, projected(m.v_proj, to_heads, "v_proj")), perm=back)
    joined = g.node("Reshape", mixed, g.constant(np.array([0, 0, heads * size])))
    return State(_product(g, m.out_proj.weight, m.out_proj.bias, joined, 3, f"{where}.out_proj"), m(x.value))


def _encoder(g: Writer, m: TransformerEncoderLayer, x: State, where: str) -> State:
    def network(y: State) -> str:
        inner = _product(g, m.linear1.weight, m.linear1.bias, y.name, 3, f"{where}.linear1")
        wide = State(inner, Tensor((*y.value.shape[:2], m.dim_feedforward), dtype=y.value.dtype))
        active = WRITE[type(m.act)](g, m.act, wide, f"{where}.act")
        return _product(g, m.linear2.weight, m.linear2.bias, active.name, 3, f"{where}.linear2")

    def normed(norm: Any, y: State, what: str) -> State:
        return _layer_norm(g, norm, y, f"{where}.{what}")

    def plus(y: State, name: str) -> State:
        return State(g.node("Add", y.name, name), y.value)

    if m.norm_first:
        x = plus(x, _attention(g, m.attention, normed(m.norm1, x, "norm1"), f"{where}.attention").name)
        return plus(x, network(normed(m.norm2, x, "norm2")))
    x = normed(m.norm1, plus(x, _attention(g, m.attention, x, f"{where}.attention").name), "norm1")
    return normed(m.norm2, plus(x, network(x)), "norm2")


WRITE: dict[type, Rule] = {
    Sequential: _sequential,
    nn.Linear: _linear,
    nn.Dense: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.Flatten: _simple("Flatten"),
    nn.Dropout: _nothing,
    nn.Identity: _nothing,
    nn.ReLU: _simple("Relu"),
    nn.LeakyReLU: lambda g, m, x, where: State(g.node("LeakyRelu", x.name, alpha=m.alpha), m(x.value)),
    nn.ELU: lambda g, m, x, where: State(g.node("Elu", x.name, alpha=m.alpha), m(x.value)),
    nn.SELU: _simple("Selu"),
    nn.Sigmoid: _simple("Sigmoid"),
    nn.Tanh: _simple("Tanh"),
    nn.Softmax: _softmax("Softmax"),
    nn.LogSoftmax: _softmax("LogSoftmax"),
    nn.Softplus: _simple("Softplus"),
    nn.Softsign: _simple("Softsign"),
    nn.Mish: _simple("Mish"),
    nn.HardSigmoid: _simple("HardSigmoid", alpha=1 / 6, beta=0.5),
    nn.Hardswish: _simple("HardSwish"),
    nn.GELU: _gelu,
    nn.SiLU: _silu,
    nn.ReLU6: _clip(0.0, 6.0),
    nn.Hardtanh: _clip(-1.0, 1.0),
    nn.PReLU: _prelu,
    nn.Embedding: _embedding,
    nn.RNN: _recurrent,
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.Bidirectional: _bidirectional,
    MultiHeadAttention: _attention,
    TransformerEncoderLayer: _encoder,
    **PLANES,
}

NO_FORM: dict[type, str] = {
    nn.RNNCell: "one step with its state handed in: a graph of layers has one input",
    nn.LSTMCell: "one step with its states handed in: a graph of layers has one input",
    nn.GRUCell: "one step with its state handed in: a graph of layers has one input",
}
