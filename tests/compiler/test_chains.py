"""Reductions inside chains: what goes on without their result joins the chain before them."""

import numpy as np
import pytest

import keydnn
from keydnn.nn import Linear
from keydnn.optim import SGD
from keydnn.training import Sequential
from tests.compiler.steps import assert_same, only_step
from tests.compiler.test_passes import compiled, entries


def test_a_reduction_does_not_end_a_chain():
    def function(x, t):
        d = x - t
        return (d * d).mean(), d * 0.5

    assert compiled(function, keydnn.Tensor.rand((7, 90)), keydnn.Tensor.rand((7, 90))) == ["fused", "mean"]


def test_what_reads_the_reduction_stays_behind_it():
    def function(x):
        y = x * 3.0
        return y * y.sum(), y + 1.0

    assert compiled(function, keydnn.Tensor.rand((5, 40))) == ["fused", "sum", "fused"]


def test_what_is_written_after_a_reduction_stays_behind_it():
    def function(x):
        y = x * 3.0
        top = y.max()
        y += 1.0
        return top, y

    found = compiled(function, keydnn.Tensor.rand((5, 40)))
    assert found.index("max") < len(found) - 1


def test_two_reductions_of_one_chain():
    def function(x, t):
        d = x - t
        first, e = d.sum(), d.abs()
        return first, e.mean(), e * d

    assert compiled(function, keydnn.Tensor.rand((3, 50)), keydnn.Tensor.rand((3, 50))) == ["fused", "sum", "mean"]


def test_the_gradient_of_a_mean_square_comes_with_its_terms():
    rng = np.random.default_rng(0)
    x, t = (keydnn.Tensor(data=rng.standard_normal(shape).astype("f4")) for shape in ((40, 6), (40, 2)))
    model = assert_same(lambda: Sequential(Linear(6, 2)), lambda p: SGD(p, lr=0.1), [(x, t)] * 3, loss="mse")
    assert entries(only_step(model).plan)[1:3] == ["fused", "mean"]
    assert entries(only_step(model).plan).count("fused") == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 63, 128, 16384 + 200, 2**22 + 200])
def test_a_chain_of_one_array_and_numbers_has_the_bits_of_its_parts(dtype, n):
    rng = np.random.default_rng(n)
    data = rng.standard_normal(n).astype(dtype)
    data[:: max(1, n // 5)] = np.resize(np.array([np.nan, -0.0, np.inf, -np.inf, 1e-40], dtype), len(data[:: max(1, n // 5)]))

    chains = [
        lambda x: (x * 1.5 + 0.3).relu() * 2.0,
        lambda x: ((-x) / 3.0 - 0.1).abs(),
        lambda x: (x - 0.7) * (x - 0.7),  # not such a chain
        lambda x: 1.0 - x.relu() / 7.0,
        lambda x: (x.relu() + 0.1).relu() * 0.3 + x,  # reads x twice
    ]
    x = keydnn.tensor(data)
    with keydnn.no_grad():
        for chain in chains:
            expected, got = chain(x).to_numpy(), keydnn.compile(chain)(x).to_numpy()
            np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(expected[got == 0]))
