"""Every kernel of every table keeps the promises of the contract, on the cases of `cases.py`."""

import numpy as np
import pytest

from keydnn.kernels import dispatch, reference
from keydnn.kernels.contract import KERNELS
from tests.kernels.cases import CASES

INTEGER_RESULTS = {"i", "argmax", "key"}
WITHOUT_CASE = {"draw_key"}  # no operands: has its own test below


def tables():
    yield "reference", reference
    if dispatch.native_status().loaded:
        yield "native", dispatch.cpu_table()


TABLES = dict(tables())


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]


@pytest.fixture(params=[np.float32, np.float64], ids=["f4", "f8"])
def dtype(request):
    return request.param


def strided(x):
    """The same values with gaps and a negative stride, read-only."""
    if x.ndim == 0:
        wide = np.stack([x, x])
        return wide[1, ...]
    wide = np.zeros([2 * n for n in x.shape], x.dtype)
    view = wide[tuple(slice(None, None, -2) for _ in x.shape)]
    view[...] = x
    view.flags.writeable = False
    return view


def float64(x):
    return x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def expect(case, arrays, params, dtype):
    """What must come out: a tuple, in float64."""
    wide = params | ({"dtype": dtype} if "dtype" in params else {})
    out = case.define(*(float64(a) for a in arrays), **wide)
    return out if isinstance(out, tuple) else (out,)


def run(table, case, arrays, params):
    """The kernel's results, or the operands it wrote, as a tuple."""
    row = KERNELS[case.kernel]
    out = getattr(table, case.kernel)(*arrays, **params)
    if row.returns == "None":
        assert out is None
        return tuple(arrays[i] for i in row.writes if arrays[i] is not None)
    assert isinstance(out, tuple) == ("," in row.returns)
    return out if isinstance(out, tuple) else (out,)


def check_values(case, got, want, dtype):
    which = 0 if dtype is np.float32 else 1
    assert len(got) == len(want)
    for y, expected in zip(got, want, strict=True):
        assert np.shape(y) == np.shape(expected)
        np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=case.rtol[which], atol=case.atol[which])


def test_every_kernel_has_a_case():
    assert {case.kernel for case in CASES} == set(KERNELS) - WITHOUT_CASE
    assert len({str(case) for case in CASES}) == len(CASES)


def test_the_reference_is_a_table():
    assert set(reference.__all__) == set(KERNELS)


def check_results(case, arrays, out, dtype):
    """Fresh, writable, C-contiguous, of the promised dtype."""
    assert len({id(y) for y in out}) == len(out)
    for name, y in zip(KERNELS[case.kernel].returns.split(", "), out, strict=True):
        assert y.dtype == (np.int64 if name in INTEGER_RESULTS else dtype)
        assert isinstance(y, np.ndarray) or isinstance(y, np.generic)
        if isinstance(y, np.ndarray):
            assert y.flags.c_contiguous and y.flags.writeable
            assert not any(np.shares_memory(y, a) for a in arrays if isinstance(a, np.ndarray))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_keeps_the_contract(table, case):
    """Value, dtype, layout, freshness, operands untouched except those it writes, and the same bits again."""
    row = KERNELS[case.kernel]
    for dtype in (np.float32, np.float64):
        arrays, params = case.make(np.random.default_rng(1), dtype)
        want = expect(case, arrays, params, dtype)
        out = run(table, case, arrays, params)
        check_values(case, out, want, dtype)
        if row.returns != "None":
            check_results(case, arrays, out, dtype)
        fresh, _ = case.make(np.random.default_rng(1), dtype)
        for i, (a, b) in enumerate(zip(arrays, fresh, strict=True)):
            if i not in row.writes and isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b)
        for y, again in zip(out, run(table, case, fresh, params), strict=True):
            assert np.asarray(y).tobytes() == np.asarray(again).tobytes()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_reads_strided_and_read_only_operands(table, case):
    for dtype in (np.float32, np.float64):
        arrays, params = case.make(np.random.default_rng(2), dtype)
        want = expect(case, arrays, params, dtype)
        arrays = [strided(a) if isinstance(a, np.ndarray) else a for a in arrays]
        for i in KERNELS[case.kernel].writes:
            if isinstance(arrays[i], np.ndarray):
                arrays[i].flags.writeable = True
        check_values(case, run(table, case, arrays, params), want, dtype)


def test_draw_key_follows_numpys_global_generator(table):
    np.random.seed(5)
    keys = [table.draw_key(), table.draw_key()]
    np.random.seed(5)
    assert [int(k) for k in keys] == [int(np.random.randint(0, 2**63, dtype=np.int64)) for _ in range(2)]
    assert all(k.shape == () and k.dtype == np.int64 for k in keys)


# What every floating kernel does at the edges; tiny is the smallest subnormal.  Pairs (x, y), because -0.0 == 0.0 as a key.
BIG, TINY, inf, nan = "big", "tiny", np.inf, np.nan
EDGES = {
    "neg": [(0.0, -0.0), (inf, -inf), (nan, nan)],
    "abs": [(-0.0, 0.0), (-inf, inf), (nan, nan)],
    "sign": [(-0.0, 0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)],
    "exp": [(-0.0, 1.0), (inf, inf), (-inf, 0.0), (800.0, inf), (-800.0, 0.0), (nan, nan)],
    "expm1": [(-0.0, -0.0), (inf, inf), (-inf, -1.0), (800.0, inf), (-800.0, -1.0), (nan, nan)],
    "log": [(0.0, -inf), (-0.0, -inf), (-1.0, nan), (inf, inf), (-inf, nan), (1.0, 0.0), (nan, nan)],
    "log1p": [(-1.0, -inf), (-2.0, nan), (inf, inf), (-0.0, -0.0), (nan, nan)],
    "sqrt": [(0.0, 0.0), (-1.0, nan), (inf, inf), (nan, nan)],
    "rsqrt": [(0.0, inf), (-1.0, nan), (inf, 0.0), (nan, nan)],
    "reciprocal": [(0.0, inf), (-0.0, -inf), (inf, 0.0), (-inf, -0.0), (nan, nan)],
    "square": [(BIG, inf), (-inf, inf), (nan, nan)],
    "sin": [(-0.0, -0.0), (inf, nan), (nan, nan)],
    "cos": [(0.0, 1.0), (-inf, nan), (nan, nan)],
    "tanh": [(-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (800.0, 1.0), (-800.0, -1.0), (BIG, 1.0), (TINY, TINY), (nan, nan)],
    "sigmoid": [(0.0, 0.5), (inf, 1.0), (-inf, 0.0), (800.0, 1.0), (-800.0, 0.0), (nan, nan)],
    "erf": [(-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (30.0, 1.0), (BIG, 1.0), (nan, nan)],
    "relu": [(-inf, 0.0), (inf, inf), (nan, nan), (TINY, TINY)],
    "gelu": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (40.0, 40.0), (-40.0, -0.0), (nan, nan)],
    "silu": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (800.0, 800.0), (nan, nan)],
    "softplus": [(inf, inf), (-inf, 0.0), (800.0, 800.0), (-800.0, 0.0), (BIG, BIG), (nan, nan)],
    "floor": [(-0.5, -1.0), (inf, inf), (nan, nan), (2.5, 2.0)],
    "ceil": [(0.5, 1.0), (-inf, -inf), (nan, nan), (-2.5, -2.0)],
    "round": [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-3.5, -4.0), (inf, inf), (nan, nan)],
}


def _edge(value, dtype):
    info = np.finfo(dtype)
    return {BIG: info.max, TINY: info.smallest_subnormal}.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("kernel", EDGES)
def test_unary_edges_are_ieee_and_silent(table, kernel, dtype):
    pairs = [(_edge(x, dtype), _edge(y, dtype)) for x, y in EDGES[kernel]]
    x, want = (np.array(column, dtype) for column in zip(*pairs, strict=True))
    for repeat in (1, 37):  # single lanes and whole vectors
        got = getattr(table, kernel)(np.tile(x, repeat))
        np.testing.assert_array_equal(got, np.tile(want, repeat))
        if kernel not in ("relu", "sign"):  # there the sign of zero is free
            zero = np.tile(want, repeat) == 0
            np.testing.assert_array_equal(np.signbit(got)[zero], np.signbit(np.tile(want, repeat))[zero])


def test_binary_edges_are_ieee_and_silent(table, dtype):
    big = np.finfo(dtype).max
    x, y = np.array([1, -1, 0, big, inf, nan, 1], dtype), np.array([0, 0, 0, big, -inf, 1, nan], dtype)
    np.testing.assert_array_equal(table.add(x, y), np.array([1, -1, 0, inf, nan, nan, nan], dtype))
    np.testing.assert_array_equal(table.sub(x, y), np.array([1, -1, 0, 0, inf, nan, nan], dtype))
    np.testing.assert_array_equal(table.mul(x, y), np.array([0, 0, 0, inf, -inf, nan, nan], dtype))
    np.testing.assert_array_equal(table.div(x, y), np.array([inf, -inf, nan, 1, nan, nan, nan], dtype))
    np.testing.assert_array_equal(table.maximum(x, y), np.array([1, 0, 0, big, inf, nan, nan], dtype))
    np.testing.assert_array_equal(table.minimum(x, y), np.array([0, -1, 0, big, -inf, nan, nan], dtype))
    for name, want in {"gt": 0, "ge": 0, "lt": 0, "le": 0, "eq": 0, "ne": 1}.items():
        np.testing.assert_array_equal(getattr(table, name)(x, y)[-2:], np.full(2, want, dtype))


def test_mixed_dtypes_promote_and_numbers_do_not(table):
    f4, f8 = np.ones(3, np.float32), np.ones(3, np.float64)
    assert table.add(f4, f8).dtype == np.float64
    assert table.mul(f4, 2.5).dtype == np.float32
    assert table.mul(2, f4).dtype == np.float32
    assert table.gt(f4, f8).dtype == np.float32
    assert table.gt(f8, f4).dtype == np.float64
    assert table.gt(0.0, f8).dtype == np.float64
    assert table.gt(np.arange(3), f8).dtype == np.float64
    assert table.gt(np.arange(3), 1).dtype == np.float32
    table.add_(f4, f8)
    assert f4.dtype == np.float32 and f4.tolist() == [2, 2, 2]


def test_ieee_silence_leaves_the_callers_error_state_alone(table):
    with np.errstate(over="raise"):
        table.exp(np.float32([1e4]))
        assert np.geterr()["over"] == "raise"


def test_sums_of_float32_are_as_good_as_rounded_exact_sums(table):
    x = np.random.default_rng(0).uniform(0, 1, (200_000, 2)).astype(np.float32)
    for axis in ((0,), None):
        exact = x.astype(np.float64).sum(axis=axis)
        np.testing.assert_allclose(table.sum(x, axis, False), exact, rtol=2e-7)
        np.testing.assert_allclose(table.mean(x, axis, False), exact / (200_000 if axis else 400_000), rtol=2e-7)


def test_maxpool_of_minus_infinity_points_at_a_real_cell(table, dtype):
    y, argmax = table.maxpool2d(np.full((1, 1, 3, 3), -inf, dtype), (2, 2), (2, 2), (1, 1))
    assert np.all(y == -inf)
    assert argmax.ravel().tolist() == [6, 7, 11, 12]  # the padded plane is 5 wide


def test_maxpool_lets_nan_win(table, dtype):
    x = np.array([[[[1, nan, 3, 4], [5, 6, nan, nan]]]], dtype)
    y, argmax = table.maxpool2d(x, (2, 2), (2, 2), (0, 0))
    assert np.isnan(y).all() and argmax.ravel().tolist() == [1, 6]
    assert np.isnan(table.maxpool2d_values(x, (2, 2), (2, 2), (0, 0))).all()


@pytest.mark.parametrize("window", [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 0)), ((2, 3), (1, 3), (0, 1))])
def test_the_largest_alone_is_the_largest_with_positions(table, dtype, window):
    x = np.random.default_rng(0).choice(np.array([-inf, -1, -0.0, 0, 1, nan], dtype), (2, 3, 13, 37))
    alone, y = table.maxpool2d_values(x, *window), table.maxpool2d(x, *window)[0]
    np.testing.assert_array_equal(alone, y)
    np.testing.assert_array_equal(np.signbit(alone[y == 0]), np.signbit(y[y == 0]))


def test_in_place_kernels_accept_overlapping_operands(table, dtype):
    x = np.arange(6, dtype=dtype)
    table.add_(x, x[::-1])
    assert x.tolist() == [5] * 6
    table.mul_(x, x)
    assert x.tolist() == [25] * 6
