"""The bias's gradient of a linear layer comes with the weight's product, with the bits of the two ops."""

import numpy as np
import pytest

import keydnn
from keydnn import ops
from keydnn.compiler import compile
from keydnn.nn import Linear, ReLU
from keydnn.optim import SGD
from keydnn.training import Sequential
from tests.compiler.steps import assert_same, only_step, train
from tests.native.common import same_bits_for_threads

# rows, inputs, outputs: rows packed in chunks, several parts and blocks of them; packed beforehand; broken registers; few inputs
SIZES = [(1100, 50, 128), (1300, 130, 100), (600, 400, 128), (256, 70, 256), (700, 20, 300), (4100, 35, 17), (800, 5, 90)]


def entries(plan):
    return [row.entry.split(":")[0] for row in plan.rows]


def batches(rows, inputs, dtype, classes):
    rng = np.random.default_rng(0)
    x = keydnn.Tensor(data=rng.standard_normal((rows, inputs)).astype(dtype))
    return [(x, keydnn.Tensor(data=rng.integers(0, classes, rows), dtype=np.int64))] * 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES)
def test_they_are_one_op(sizes, dtype):
    rows, inputs, outputs = sizes

    def make():
        return Sequential(Linear(inputs, outputs, dtype=dtype), ReLU(), Linear(outputs, 3, dtype=dtype))

    model = assert_same(make, lambda p: SGD(p, lr=0.1), batches(rows, inputs, dtype, 3), loss="cross_entropy")
    found = entries(only_step(model).plan)
    assert found.count("gemm_sums") == 1 and found.count("sum") == 1  # three columns stay two ops


def test_small_gradients_stay_two_ops():
    model = assert_same(lambda: Sequential(Linear(20, 40)), lambda p: SGD(p, lr=0.1), batches(64, 20, np.float32, 40), loss="cross_entropy")
    assert "gemm_sums" not in entries(only_step(model).plan)


def test_against_the_definition():
    rng = np.random.default_rng(0)
    x, w, b, g = (keydnn.Tensor(data=rng.standard_normal(s).astype("f4")) for s in ((900, 60), (100, 60), (100,), (900, 100)))

    def function(x, w, b, g):
        w, b = w * 1.0, b * 1.0
        w.requires_grad = b.requires_grad = True
        ops.linear(x, w, b).backward(g * 1.0)
        return w.grad, b.grad

    made = compile(function)
    for _ in range(3):
        dw, db = made(x, w, b, g)
    assert "gemm_sums" in entries(made._latest.plan)
    exact = g.numpy().astype("f8")
    np.testing.assert_allclose(db.numpy(), exact.sum(0), rtol=2e-7, atol=1e-9)
    np.testing.assert_allclose(dw.numpy(), exact.T @ x.numpy().astype("f8"), rtol=0, atol=2e-4)


def test_infinities_nan_and_zeros_keep_their_column():
    g = np.zeros((1100, 64), "f4")
    g[:, 1], g[5, 2], g[6, 3], g[1099, 63] = -0.0, np.inf, np.nan, 7.0
    x, w, b = keydnn.ones((1100, 32)), keydnn.ones((64, 32)), keydnn.zeros((64,))

    def function(x, w, b, g):
        w, b = w * 1.0, b * 1.0
        w.requires_grad = b.requires_grad = True
        ops.linear(x, w, b).backward(g * 1.0)
        return b.grad

    made = compile(function)
    for _ in range(3):
        db = made(x, w, b, keydnn.tensor(g)).numpy()
    assert db.tobytes() == function(x, w, b, keydnn.tensor(g)).numpy().tobytes()
    assert np.isinf(db[2]) and np.isnan(db[3]) and db[63] == 7.0 and not np.delete(db, [2, 3, 63]).any()


def test_the_same_bits_for_any_number_of_threads():
    def trained():
        model, *_ = train(
            lambda: Sequential(Linear(150, 128), ReLU(), Linear(128, 130)),
            lambda p: SGD(p, lr=0.1),
            batches(1100, 150, np.float32, 130),
            compile=True,
            loss="cross_entropy",
        )
        assert entries(only_step(model).plan).count("gemm_sums") == 2
        return tuple(p.numpy().copy() for p in model.parameters())

    same_bits_for_threads(trained)
