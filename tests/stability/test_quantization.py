"""Quantisers: one set of bits on every path, gradients that pass straight through, rail statistics."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keydnn
from keydnn import Tensor
from keydnn.kernels import dispatch, reference
from keydnn.stability import RailStats, quantize_np, quantize_tensor, rail_stats
from keydnn.stability.dtypes import ap_fixed, ap_int, ap_ufixed, bf16, block_scaled, fp8_e4m3
from keydnn.stability.quantization import subnormal_fraction
from tests.native.common import needs_native
from tests.stability.integer_rounding import OMODES, QMODES

EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38, 0.5, -0.5, 1.0]
FORMATS = [(w, iwl) for w, iwl in ((1, 1), (2, 4), (5, 2), (8, 3), (16, 6), (24, 8), (25, 8), (32, 16), (40, 10), (53, 20), (54, 20))]


@pytest.mark.slow
@needs_native
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_native_and_numpy_have_the_same_bits(dtype):
    native, rng = dispatch.cpu_table(), np.random.default_rng(0)
    for (w, iwl), qmode, omode, signed in itertools.product(FORMATS, QMODES, OMODES, (True, False)):
        if omode == "AP_WRAP_SM" and not signed:
            continue
        q = 2.0 ** (iwl - w)
        spread = 2.0**iwl
        x = [rng.integers(-(2**20), 2**20, 100) * q / 4, rng.standard_normal(100) * spread, rng.standard_normal(60) * q, EDGES]
        x = np.concatenate(x).astype(dtype)
        for n in (0, 1, 3) if "WRAP" in omode and w > 3 else (0,):
            how = {"wl": w, "iwl": iwl, "signed": signed, "qmode": qmode, "omode": omode, "sat_bits": n}
            ours, theirs = native.quantize_fixed(x, **how), reference.quantize_fixed(x, **how)
            assert ours.dtype == dtype
            np.testing.assert_array_equal(ours.view(f"u{x.itemsize}"), theirs.view(f"u{x.itemsize}"), err_msg=str(how))


@needs_native
@given(
    x=hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats()),
    w=st.integers(1, 53),
    f=st.integers(0, 60),
    modes=st.tuples(st.sampled_from(QMODES), st.sampled_from(OMODES)),
    n=st.integers(0, 3),
)
def test_native_and_numpy_agree_on_any_double(x, w, f, modes, n):
    how = {"wl": w, "iwl": w - f, "signed": True, "qmode": modes[0], "omode": modes[1], "sat_bits": min(n, w - 1)}
    np.testing.assert_array_equal(dispatch.cpu_table().quantize_fixed(x, **how), reference.quantize_fixed(x, **how), err_msg=str(how))


@pytest.mark.parametrize("element", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [ap_fixed(8, 3, "AP_RND", "AP_SAT"), ap_ufixed(6, 2), ap_int(4), ap_fixed(60, 10), fp8_e4m3, bf16,
                                   ap_fixed(8, 3, "AP_RND_STOCH", "AP_SAT"), block_scaled(fp8_e4m3, 1)], ids=repr)  # fmt: skip
def test_tensors_and_arrays_have_the_same_bits(dtype, element):
    x = (np.random.default_rng(1).standard_normal((7, 33)) * 3).astype(element)
    y = quantize_tensor(Tensor(data=x), dtype, key=5)
    assert y.dtype == element and y.shape == x.shape
    np.testing.assert_array_equal(y.numpy(), quantize_np(x, dtype, key=5).astype(element))
    again = quantize_np(quantize_np(x, dtype, key=5), dtype, key=6)
    np.testing.assert_array_equal(again, quantize_np(x, dtype, key=5))  # what is on the grid stays


def test_gradients():
    dtype = ap_fixed(4, 2, "AP_RND", "AP_SAT")
    x = Tensor(data=np.array([-5.0, -0.3, 0.1, 1.7, 1.8, 9.0]), requires_grad=True)
    weights = Tensor(data=np.arange(1.0, 7.0))
    (quantize_tensor(x, dtype) * weights).sum().backward()
    assert x.grad.tolist() == [1, 2, 3, 4, 5, 6]
    x.grad = None
    (quantize_tensor(x, dtype, ste="clipped") * weights).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 0, 0]
    assert not quantize_tensor(x, dtype, ste=False).requires_grad
    assert quantize_tensor(x, None) is x and quantize_np(3.3, None) == 3.3


def test_the_forward_value_is_on_the_grid_and_second_derivatives_pass():
    dtype = ap_fixed(6, 3, "AP_RND", "AP_SAT")
    x = Tensor(data=np.linspace(-2, 2, 9), requires_grad=True)
    y = quantize_tensor(x, dtype)
    (g,) = keydnn.grad((y * y * y).sum(), x, create_graph=True)
    (h,) = keydnn.grad(g.sum(), x)
    np.testing.assert_array_equal(g.numpy(), 3 * y.numpy() ** 2)
    np.testing.assert_array_equal(h.numpy(), 6 * y.numpy())


@needs_native
def test_a_quantised_step_is_recorded():
    dtype = ap_fixed(8, 3, "AP_RND", "AP_SAT")
    step = keydnn.compile(lambda x: (quantize_tensor(x, dtype) * 2.0).sum())
    with keydnn.no_grad():
        for seed in range(4):
            x = np.random.default_rng(seed).standard_normal((5, 8)).astype(np.float32)
            assert step(Tensor(data=x)).item() == pytest.approx(2 * dtype(x).sum(), abs=1e-5)
    assert "quantize_fixed" in step.plan_report()


def test_bad_arguments():
    with pytest.raises(ValueError, match="ste must be"):
        quantize_tensor(Tensor(data=np.ones(2)), ap_int(4), ste="pwl")
    with pytest.raises(TypeError, match="floating Tensor"):
        quantize_tensor(np.ones(2), ap_int(4))


def test_rail_stats_by_hand():
    x = [-3.0, -2.0, -1.9, 0.0, 0.01, -0.01, 1.7, 1.75]
    assert rail_stats(x, ap_fixed(4, 2, "AP_RND", "AP_SAT")) == RailStats(-2.0, 1.75, 3 / 8, 3 / 8, 2 / 8)
    assert rail_stats(x, ap_fixed(4, 2)).underflow_fraction == 1 / 8  # truncation makes a full quantum of -0.01
    assert rail_stats(np.array([0.0, 0.0, -1.0, 3.75]), ap_ufixed(4, 2)).saturation_fraction == 0.5  # a zero is not clipped
    assert rail_stats(x, ap_fixed(4, 2), near_ratio=0.5).near_rail_fraction == 5 / 8
    for stats in (rail_stats([], ap_int(4)), rail_stats(x, None)):
        assert np.isnan([stats.min_value, stats.max_value]).all()
        assert (stats.saturation_fraction, stats.near_rail_fraction, stats.underflow_fraction) == (0, 0, 0)
    assert rail_stats(Tensor(data=np.array([300.0])), bf16).saturation_fraction == 0
    assert subnormal_fraction([0.002, 1.0, 0.0, 0.01], fp8_e4m3) == 0.5


@pytest.mark.parametrize("bits", [None, 6])
def test_stochastic_rounding_of_fixed_point_is_unbiased(bits):
    q = ap_fixed(12, 6, "AP_RND_STOCH", "AP_SAT", SR_BITS=bits)
    grid = np.arange(-64, 64) * q.quantum
    np.testing.assert_array_equal(q(grid, key=3), grid)  # what lies on the grid never moves
    n, r = 1_000_000, 0.3
    drawn = q(np.full(n, (5 + r) * q.quantum), key=7) / q.quantum
    share = r if bits is None else np.floor(r * 2**bits) / 2**bits
    assert set(np.unique(drawn)) == {5.0, 6.0} and abs(drawn.mean() - 5 - share) < 4 * np.sqrt(share * (1 - share) / n)
    np.testing.assert_array_equal(q(np.full(9, 0.3), key=1), q(np.full(9, 0.3), key=1))
    assert (q(np.full(99, 0.3), key=1) != q(np.full(99, 0.3), key=2)).any()
