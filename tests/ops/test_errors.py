"""What operations refuse: the type of the error, and that the message names both sides."""

import numpy as np
import pytest

from keydnn import Tensor, ops
from keydnn.domain.errors import KeyDNNError

X = Tensor((2, 3))
V = Tensor((3,))
S = Tensor(())
INTS = Tensor((2, 3), dtype=np.int64)
IMAGE = Tensor((1, 2, 4, 4))

WRONG = {
    "add": (lambda: X + Tensor((2, 2)), ValueError, r"Shape mismatch: \(2, 3\) vs \(2, 2\)"),
    "sub": (lambda: X - Tensor((4,)), ValueError, r"Shape mismatch: \(2, 3\) vs \(4,\)"),
    "mul": (lambda: X * Tensor((3, 3)), ValueError, r"Shape mismatch"),
    "div": (lambda: X / Tensor((2,)), ValueError, r"Shape mismatch"),
    "pow": (lambda: X ** Tensor((2,)), ValueError, r"Shape mismatch"),
    "floordiv": (lambda: X // Tensor((2,)), ValueError, r"Shape mismatch"),
    "mod": (lambda: X % Tensor((2,)), ValueError, r"Shape mismatch"),
    "maximum": (lambda: X.maximum(Tensor((2,))), ValueError, r"Shape mismatch"),
    "where": (lambda: ops.where(X, X, Tensor((2,))), ValueError, r"Shape mismatch"),
    "compare": (lambda: X > V, ValueError, r"Shape mismatch: \(2, 3\) vs \(3,\)"),
    "equal": (lambda: X == V, ValueError, r"Shape mismatch: \(2, 3\) vs \(3,\)"),
    "clamp-tensor": (lambda: X.clamp(min=V), TypeError, "Tensor"),
    "maximum-list": (lambda: X.maximum([1.0]), TypeError, "list"),
    "sum-axis-type": (lambda: X.sum(1.0), TypeError, "axis must be None, an int or a tuple of ints, got 1.0"),
    "sum-axis-bool": (lambda: X.sum(True), TypeError, "axis"),
    "sum-axis-text": (lambda: X.sum("0"), TypeError, "axis"),
    "sum-axis-range": (lambda: X.sum(2), ValueError, "axis 2 is out of range"),
    "sum-axis-low": (lambda: X.sum(-3), ValueError, "axis -3 is out of range"),
    "sum-axis-scalar": (lambda: S.sum(0), ValueError, "out of range"),
    "sum-axis-twice": (lambda: X.sum((0, -2)), ValueError, "twice"),
    "max-axis": (lambda: X.max(5), ValueError, "out of range"),
    "max-nothing": (lambda: Tensor((2, 0)).max(1), ValueError, r"nothing to reduce .*\(2, 0\)"),
    "min-nothing": (lambda: Tensor((0,)).min(None), ValueError, "nothing to reduce"),
    "argmax-nothing": (lambda: Tensor((0,)).argmax(), ValueError, "nothing to reduce"),
    "argmax-axes": (lambda: X.argmax((0, 1)), TypeError, "one int or None"),
    "cumsum-axes": (lambda: X.cumsum((0, 1)), TypeError, "one int or None"),
    "softmax-axis": (lambda: X.softmax(2), ValueError, "out of range"),
    "softmax-none": (lambda: X.softmax(None), TypeError, "axis must be an int"),
    "softmax-empty": (lambda: Tensor((2, 0)).softmax(), ValueError, r"axis -1 of shape \(2, 0\) is empty"),
    "sum_to_shape-axes": (lambda: V.sum_to_shape((1, 3)), ValueError, r"\(3,\) cannot be summed to \(1, 3\)"),
    "sum_to_shape-size": (lambda: X.sum_to_shape((2, 2)), ValueError, r"\(2, 3\) cannot be summed to \(2, 2\)"),
    "broadcast_to": (lambda: X.broadcast_to((2, 4)), ValueError, r"Cannot broadcast shape \(2, 3\) to \(2, 4\)"),
    "broadcast_to-fewer": (lambda: X.broadcast_to((3,)), ValueError, "Cannot broadcast shape"),
    "broadcast_to-negative": (lambda: Tensor((1,)).broadcast_to((-1,)), ValueError, "Cannot broadcast shape"),
    "expand": (lambda: X.expand(-1, 4), ValueError, "Cannot broadcast shape"),
    "reshape-size": (lambda: X.reshape(4, 2), ValueError, r"6 elements of shape \(2, 3\) do not fill shape \(4, 2\)"),
    "reshape-two": (lambda: X.reshape(-1, -1), ValueError, "do not fill"),
    "reshape-rest": (lambda: X.reshape(-1, 4), ValueError, "do not fill"),
    "reshape-negative": (lambda: X.reshape(-2, -3), ValueError, "do not fill"),
    "reshape-type": (lambda: X.reshape(2.0, 3), TypeError, "ints"),
    "reshape-unknown": (lambda: Tensor((0, 3)).reshape(0, -1), ValueError, "do not fill"),
    "flatten": (lambda: X.flatten(2), ValueError, "out of range"),
    "squeeze": (lambda: X.squeeze(0), ValueError, "does not have size 1"),
    "unsqueeze": (lambda: X.unsqueeze(4), ValueError, "out of range"),
    "T": (lambda: V.T, ValueError, r"2-D tensor, got shape \(3,\)"),
    "transpose": (lambda: IMAGE.transpose(), ValueError, "2-D tensor"),
    "transpose-order": (lambda: X.transpose(0, 0), ValueError, "no order"),
    "transpose-short": (lambda: IMAGE.transpose(1, 0), ValueError, "no order"),
    "swapaxes": (lambda: X.swapaxes(0, 2), ValueError, "out of range"),
    "stack-empty": (lambda: Tensor.stack([]), ValueError, "at least one"),
    "stack-shapes": (lambda: Tensor.stack([X, V]), ValueError, r"Shape mismatch: \(2, 3\) vs \(3,\)"),
    "stack-axis": (lambda: Tensor.stack([X, X], 3), ValueError, "out of range"),
    "stack-axis-low": (lambda: Tensor.stack([X, X], -4), ValueError, "out of range"),
    "stack-type": (lambda: Tensor.stack([X, 1.0]), TypeError, "float"),
    "concat-empty": (lambda: Tensor.concat([]), ValueError, "at least one"),
    "concat-scalars": (lambda: Tensor.concat([S, S]), ValueError, "scalars"),
    "concat-rank": (lambda: Tensor.concat([X, V]), ValueError, r"Shape mismatch: \(2, 3\) vs \(3,\)"),
    "concat-sizes": (lambda: Tensor.concat([X, Tensor((2, 4))]), ValueError, "Shape mismatch"),
    "concat-axis": (lambda: Tensor.concat([X, X], 2), ValueError, "out of range"),
    "concat-type": (lambda: Tensor.concat([X, np.zeros((2, 3))]), TypeError, "ndarray"),
    "split-sizes": (lambda: X.split([1, 1], 1), ValueError, "do not add up to 3"),
    "split-negative": (lambda: X.split([-1, 4], 1), ValueError, "do not add up"),
    "split-zero": (lambda: X.split(0), ValueError, "at least 1"),
    "chunk": (lambda: X.chunk(0), ValueError, "at least 1"),
    "pad": (lambda: X.pad(((1, 1),)), ValueError, "do not fit"),
    "pad-negative": (lambda: X.pad(-1), ValueError, "do not fit"),
    "flip": (lambda: X.flip(2), ValueError, "out of range"),
    "roll": (lambda: X.roll((1, 2), 0), ValueError, "2 shifts for 1 axes"),
    "tril": (lambda: V.tril(), ValueError, "at least 2 axes"),
    "gather-axis": (lambda: X.gather(2, INTS), ValueError, "out of range"),
    "gather-range": (lambda: X.gather(1, INTS + 7), IndexError, "7"),
    "gather-kind": (lambda: X.gather(1, X), IndexError, "integer"),
    "getitem-range": (lambda: X[2], IndexError, "out of bounds"),
    "getitem-many": (lambda: X[0, 0, 0], IndexError, "too many indices"),
    "getitem-float": (lambda: X[1.0], IndexError, "integers"),
    "getitem-text": (lambda: X["a"], IndexError, "integers"),
    "getitem-list": (lambda: X[[0, 5]], IndexError, "out of bounds"),
    "getitem-float-tensor": (lambda: X[Tensor(data=[0.0, 2.0])], IndexError, "mask of 0.0 and 1.0"),
    "setitem-range": (lambda: X.__setitem__(7, 1.0), IndexError, "out of bounds"),
    "setitem-shape": (lambda: X.__setitem__(0, Tensor((2,))), ValueError, "shape"),
    "setitem-type": (lambda: X.__setitem__(0, "a"), TypeError, "str"),
    "matmul": (lambda: X @ X, ValueError, r"inner sizes differ: \(2, 3\) @ \(2, 3\)"),
    "matmul-scalar": (lambda: X @ S, ValueError, "inner sizes"),
    "matmul-batch": (lambda: Tensor((2, 3, 4)) @ Tensor((3, 4, 5)), ValueError, "Shape mismatch"),
    "matmul-number": (lambda: X @ 2.0, TypeError, "float"),
    "matmul-array": (lambda: X.matmul(np.zeros((3, 2))), TypeError, "ndarray"),
    "dot": (lambda: X.dot(V), ValueError, r"two 1-D tensors, got \(2, 3\) and \(3,\)"),
    "outer": (lambda: X.outer(V), ValueError, "1-D"),
    "einsum-terms": (lambda: ops.einsum("ij,jk->ik", X), ValueError, "2 terms .* 1 tensors"),
    "einsum-rank": (lambda: ops.einsum("ijk->i", X), ValueError, "does not fit"),
    "einsum-size": (lambda: ops.einsum("ij,ij->i", X, X.T), ValueError, "sizes 2 vs 3"),
    "einsum-repeat": (lambda: ops.einsum("ii->i", Tensor((2, 2))), ValueError, "repeat"),
    "einsum-unknown": (lambda: ops.einsum("ij->k", X), ValueError, "unknown"),
    "linear": (lambda: ops.linear(X, X.T), ValueError, "do not fit"),
    "linear-bias": (lambda: ops.linear(X, X, V), ValueError, "do not fit"),
    "linear-ints": (lambda: ops.linear(INTS, X), TypeError, "int64"),
    "conv2d-rank": (lambda: ops.conv2d(X, IMAGE), ValueError, "conv2d"),
    "conv2d-channels": (lambda: ops.conv2d(IMAGE, Tensor((3, 3, 1, 1))), ValueError, "2 channels.*in_channels=3"),
    "conv2d-small": (lambda: ops.conv2d(IMAGE, Tensor((3, 2, 5, 5))), ValueError, "larger than the padded input"),
    "conv2d-bias": (lambda: ops.conv2d(IMAGE, Tensor((3, 2, 1, 1)), V[:2]), ValueError, "bias"),
    "maxpool2d-rank": (lambda: ops.maxpool2d(X, (2, 2)), ValueError, r"\(N, C, H, W\)"),
    "maxpool2d-window": (lambda: ops.maxpool2d(IMAGE, (5, 5)), ValueError, "larger than the padded input"),
    "maxpool2d-ints": (lambda: ops.maxpool2d(IMAGE.astype(np.int64), (2, 2)), TypeError, "int64"),
    "avgpool2d-stride": (lambda: ops.avgpool2d(IMAGE, (2, 2), (0, 1)), ValueError, "stride"),
    "global_avgpool2d": (lambda: ops.global_avgpool2d(X), ValueError, r"\(N, C, H, W\)"),
    "layer_norm": (lambda: ops.layer_norm(X, (2,)), ValueError, r"does not end in the normalized shape \(2,\)"),
    "mse": (lambda: ops.mse(X, V), ValueError, r"Shape mismatch: \(2, 3\) vs \(3,\)"),
    "sse": (lambda: ops.sse(V, Tensor((1,))), ValueError, "Shape mismatch"),
    "bce": (lambda: ops.bce(V, Tensor((3, 1))), ValueError, "Shape mismatch"),
    "cce": (lambda: ops.cce(S, S), ValueError, r"\(N, C\)"),
    "cross_entropy": (lambda: ops.cross_entropy(V, V), ValueError, r"logits \(N, C\)"),
    "cross_entropy-part": (lambda: ops.cross_entropy(X, Tensor(data=[0, 1.5])), ValueError, r"class numbers, got 1.5 in row 1"),
    "cross_entropy-nan": (lambda: ops.cross_entropy(X, Tensor(data=[np.nan, 1])), ValueError, "class numbers, got nan in row 0"),
    "cross_entropy-label": (lambda: ops.cross_entropy(X, Tensor(data=[0, 3], dtype=np.int64)), ValueError, "labels run from 0 to 3"),
    "cross_entropy-shape": (lambda: ops.cross_entropy(X, V), ValueError, "Shape mismatch"),
    "primitive-type": (lambda: ops.exp(np.zeros(3)), TypeError, "exp: expected Tensors, got ndarray"),
    "astype": (lambda: X.astype(complex), TypeError, "complex"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_clear_error(name):
    call, kind, text = WRONG[name]
    before = [t.numpy().copy() for t in (X, V, S, INTS, IMAGE)]
    with pytest.raises(kind, match=text) as caught:
        call()
    assert len(str(caught.value)) < 500 and "_p:" not in str(caught.value), "named as users know it"
    assert all((a == t.numpy()).all() for a, t in zip(before, (X, V, S, INTS, IMAGE), strict=True)), "nothing changed"


def test_errors_are_shape_errors_of_the_library():
    with pytest.raises(KeyDNNError):
        X + Tensor((2, 2))


def test_an_error_does_not_point_at_itself():
    with pytest.raises(IndexError) as caught:
        X[7]
    assert caught.value.__cause__ is not caught.value
