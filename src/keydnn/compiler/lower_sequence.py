"""Plan rows of recurrent sequences, attention, lookups and triangles."""

from __future__ import annotations

from math import prod

from keydnn.compiler.ir import Op, View
from keydnn.compiler.lower import INT64, TYPES, Row, Unplannable, contiguous, lowers, type_of


def _places(op: Op, rows: list[Row]) -> list[View | None]:
    """The operands, copied where they are strided, and the results, None for one that nobody reads."""
    results = [None if i == op.params.get("unread") else v for i, v in enumerate(op.results)]
    return [*(None if v is None else contiguous(v, rows) for v in op.operands), *results]


def _sequence(op: Op, like: View) -> list[Row]:
    """``like`` is (steps, rows, n), the states of every step."""
    rows: list[Row] = []
    places = _places(op, rows)
    integers = [*like.shape, int(bool(op.params["reverse"]))]
    if "reset_after" in op.params:
        integers.append(int(bool(op.params["reset_after"])))
    return [*rows, Row(f"{op.kernel}:{type_of(op)}", places, integers, [], op.label, len(op.operands))]


@lowers("rnn", "lstm", "gru")
def forward(op: Op) -> list[Row]:
    """All steps."""
    return _sequence(op, op.results[0])


@lowers("rnn_grad", "lstm_grad", "gru_grad")
def gradient(op: Op) -> list[Row]:
    """All steps backward."""
    return _sequence(op, op.operands[{"rnn_grad": 2, "lstm_grad": 5, "gru_grad": 3}[op.kernel]])


@lowers("attention", "attention_grad")
def attention(op: Op) -> list[Row]:
    """Per head, without masks."""
    rows: list[Row] = []
    places, heads = _places(op, rows), op.params["heads"]
    q, k = op.operands[-3:-1]
    n, steps, wide = q.shape
    integers = [n, steps, k.shape[1], heads, wide // heads]
    return [*rows, Row(f"{op.kernel}:{type_of(op)}", places, integers, [float(op.params["scale"])], op.label, len(op.operands))]


def _index(op: Op, position: int, rows: list[Row]) -> View:
    view = op.operands[position]
    if view.dtype != INT64:
        raise Unplannable(f"{op.label}: an index of dtype {view.dtype}")
    return contiguous(view, rows)


@lowers("sequence_mask")
def sequence_mask(op: Op) -> list[Row]:
    """1 within the length of a row."""
    rows: list[Row] = []
    lengths, m = _index(op, 0, rows), op.results[0]
    return [*rows, Row(f"sequence_mask:{TYPES[m.dtype]}", [lengths, m], list(m.shape), [], op.label, 1)]


def _padding(op: Op) -> int:
    return -1 if op.params["padding"] is None else op.params["padding"]


@lowers("embedding")
def embedding(op: Op) -> list[Row]:
    """Rows of a table."""
    rows: list[Row] = []
    w, index, y = contiguous(op.operands[0], rows), _index(op, 1, rows), op.results[0]
    if y.size == 0:
        raise Unplannable(f"{op.label}: nothing to look up")
    return [*rows, Row(f"embedding:{type_of(op, w)}", [w, index, y], [*w.shape, index.size, _padding(op)], [], op.label, 2)]


@lowers("embedding_grad")
def embedding_grad(op: Op) -> list[Row]:
    """The rows of the gradient added up."""
    rows: list[Row] = []
    g, index, dw = contiguous(op.operands[0], rows), _index(op, 1, rows), op.results[0]
    if g.size == 0:
        raise Unplannable(f"{op.label}: nothing was looked up")
    return [*rows, Row(f"embedding_grad:{type_of(op, g)}", [g, index, dw], [*dw.shape, index.size, _padding(op)], [], op.label, 2)]


@lowers("tril", "triu")
def triangle(op: Op) -> list[Row]:
    """Lower or upper triangle of the last two axes."""
    rows: list[Row] = []
    x, y = contiguous(op.operands[0], rows), op.results[0]
    integers = [prod(y.shape[:-2]), *y.shape[-2:], int(op.params["k"]), int(op.kernel == "tril")]
    return [*rows, Row(f"triangle:{type_of(op)}", [x, y], integers, [], op.label, 1)]
