"""The compiled functions themselves: that they, and not their reference, answer; bits for any number of threads."""

from types import SimpleNamespace

import numpy as np
import pytest

from keydnn.domain.memory import copied
from keydnn.kernels import dispatch, native
from keydnn.kernels.contract import KERNELS
from keydnn.kernels.native.direct import FAMILIES
from keydnn.threads import get_threads, set_threads
from tests.kernels.cases import CASES
from tests.kernels.test_tables import check_values, expect, run
from tests.native.common import needs_native

pytestmark = needs_native


class Refused(Exception):
    """The compiled function has called its reference."""


def refusing_table():
    """The compiled functions over a reference that refuses everything."""

    def refuse(*operands, **params):
        raise Refused

    module = native.load()
    table = {}
    for family in FAMILIES:
        table |= getattr(module, f"{family}_kernels")(SimpleNamespace(**dict.fromkeys(KERNELS, refuse)))
    return SimpleNamespace(**table)


DIRECT = refusing_table() if dispatch.native_status().loaded else SimpleNamespace()
# Cases that the compiled functions leave to the reference: nothing to do, or a rare layout.
LEFT_TO_REFERENCE = {
    "where-broadcast",
    "where-numbers",
    "softmax-(4, 7)-0",
    "softmax-(2, 3, 5)-1",
    "log_softmax-(4, 7)-0",
    "log_softmax-(2, 3, 5)-1",
    "softmax_grad-(4, 7)-0",
    "softmax_grad-(2, 3, 5)-1",
    "log_softmax_grad-(4, 7)-0",
    "log_softmax_grad-(2, 3, 5)-1",
    "layer_norm-(0, 4)-affine",
    "layer_norm-(0, 4)-bare",
    "layer_norm_grad-(0, 4)-affine",
    "layer_norm_grad-(0, 4)-bare",
    *(f"{kernel}-empty" for kernel in ("sum", "mean", "max", "min")),
    "sum-of-nothing",
    *(f"{kernel}-none-{padding}" for kernel in ("embedding", "embedding_grad") for padding in (None, 2)),
    *(f"quantize_fixed-{format}{nothing}" for format in ("70-bits",) for nothing in ("", "-empty")),
}
SERVED = [case for case in CASES if case.kernel in vars(DIRECT)]


@pytest.mark.parametrize("case", SERVED, ids=str)
def test_compiled_code_answers(case):
    for dtype in (np.float32, np.float64):
        arrays, params = case.make(np.random.default_rng(1), dtype)
        want = expect(case, arrays, params, dtype)
        if str(case) in LEFT_TO_REFERENCE:
            with pytest.raises(Refused):
                run(DIRECT, case, arrays, params)
        else:
            check_values(case, run(DIRECT, case, arrays, params), want, dtype)


def test_every_family_serves_its_rows():
    assert len(vars(DIRECT)) >= 45


@pytest.mark.parametrize(
    "call",
    [
        lambda k: k.exp(np.arange(3)),
        lambda k: k.exp(np.ones(3, np.float16)),
        lambda k: k.add(np.ones(3, np.float32), np.ones(3)),
        lambda k: k.add(np.ones(3), np.ones(4)),
        lambda k: k.add(1.0, 2.0),
        lambda k: k.add(np.ones(3), True),
        lambda k: k.add(np.ones(3), 10**400),
        lambda k: k.add_(np.ones(3), np.ones((2, 3))),
        lambda k: k.add_(np.ones(3, np.float32), np.ones(3)),
        lambda k: k.sum(np.ones((2, 2)), (2,), False),
        lambda k: k.sum(np.ones((2, 2)), (0, 0), False),
        lambda k: k.sum(np.ones((2, 3, 2, 3, 2)), (0, 2, 4), False),
        lambda k: k.softmax(np.ones((2, 3)), 2),
        lambda k: k.cross_entropy(np.ones((2, 3)), np.array([0, 3])),
        lambda k: k.cross_entropy(np.ones((2, 3)), np.array([0, -1])),
        lambda k: k.cross_entropy(np.ones((2, 3)), np.array([0, 1, 2])),
        lambda k: k.cross_entropy_grad(np.ones((2, 3)), np.array([0, 1]), np.ones(3)),
        lambda k: k.batch_norm(np.ones((2, 3)), np.ones(2), None, 1e-5),
        lambda k: k.batch_norm(np.ones((2, 3)), np.ones(3, np.float32), None, 1e-5),
        lambda k: k.layer_norm(np.ones((2, 3)), np.ones(2), None, 1, 1e-5),
        lambda k: k.layer_norm_grad(np.ones((2, 3)), np.ones((2, 3)), None, np.ones(3), np.ones(2), 1),
        lambda k: k.rnn(np.ones((2, 3, 4)), np.ones((4, 4)), np.ones(3), np.ones((3, 4)), None, False),
        lambda k: k.rnn(np.ones((2, 3, 4)), np.ones((4, 4)), None, np.ones((3, 4), np.float32), None, False),
        lambda k: k.lstm(np.ones((2, 3, 4)), np.ones((4, 4)), None, np.ones((3, 4)), np.ones((3, 4)), None, False),
        lambda k: k.gru(np.ones((2, 3, 12)), np.ones((4, 12)), None, None, np.ones((3, 4)), np.ones((3, 3)), False, True),
        lambda k: k.attention(np.ones((2, 3, 4)), np.ones((2, 3, 4)), np.ones((2, 3, 4)), 3, 1.0),
        lambda k: k.attention(np.ones((2, 3, 4)), np.ones((2, 5, 4)), np.ones((2, 3, 4)), 2, 1.0),
        lambda k: k.embedding(np.ones((4, 3)), np.array([0, 4]), None),
        lambda k: k.embedding(np.ones((4, 3)), np.array([0, -5]), None),
        lambda k: k.embedding_grad(np.ones((2, 3)), np.array([0, 4]), 4, None),
        lambda k: k.embedding_grad(np.ones((2, 3)), np.array([0, 1], np.int32), 4, None),
        lambda k: k.uniform(np.asarray(1), (-1,), np.float32),
        lambda k: k.uniform(np.asarray(1), (3,), np.float16),
        lambda k: k.uniform(1.5, (3,), np.float32),
        lambda k: k.dropout_mask(np.asarray(1), (3,), 1.0, np.float32),
        lambda k: k.sgd_(np.ones(3), np.ones(4), None, np.asarray(0.1), 0.0, False, 0.0),
        lambda k: k.adam_(np.ones(3), np.ones(3), np.ones(3), np.ones(2), np.asarray(0), np.asarray(0.1), 0.9, 0.9, 1e-8, 0.0, False),
        lambda k: k.adam_(np.ones(3), np.ones(3), np.ones(3), np.ones(3), np.asarray(0.0), np.asarray(0.1), 0.9, 0.9, 1e-8, 0.0, False),
    ],
)
def test_what_compiled_code_does_not_take_goes_to_the_reference(call):
    with pytest.raises(Refused):
        call(DIRECT)


def test_other_byte_orders_and_unaligned_memory_are_copied():
    x = np.array([1.0, 2.0, 3.0])
    swapped = x.astype(">f8")
    unaligned = np.frombuffer(b"." + x.tobytes(), np.float64, offset=1)
    for odd in (swapped, unaligned):
        assert DIRECT.add(odd, 1.0).tolist() == [2, 3, 4]
        assert DIRECT.add(odd, 1.0).dtype == np.dtype("=f8")
        assert DIRECT.sum(odd, None, False) == 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "call",
    [
        lambda x: DIRECT.exp(x),
        lambda x: DIRECT.relu(x),
        lambda x: DIRECT.silu_grad(x, x),
        lambda x: DIRECT.relu_grad(x, x),
        lambda x: DIRECT.mul(x, x),
        lambda x: DIRECT.sub(1.5, x),
        lambda x: DIRECT.add(x, x[:1]),
    ],
)
def test_results_that_pass_the_caches_have_the_bits_of_their_rows(call, dtype):
    x = copied(large((2049, 2048), dtype), np.dtype(dtype))
    whole = call(x)
    for row in (0, 1000, 2047, 2048):
        part = np.concatenate([x[:1], x[row : row + 1]])
        assert whole[row].tobytes() == call(part)[1].tobytes()


def test_adam_refuses_before_it_counts():
    t, shared = np.asarray(3), np.ones(4)
    with pytest.raises(Refused):
        DIRECT.adam_(np.ones(4), np.ones(4), shared, shared, t, np.asarray(0.1), 0.9, 0.9, 1e-8, 0.0, False)
    assert int(t) == 3


def large(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def update(kernel, *shapes, **params):
    """A call that returns what an in-place kernel wrote."""

    def call(k, dtype):
        arrays = [np.abs(large(shape, dtype, i)) for i, shape in enumerate(shapes)]
        extra = [np.asarray(7)] if kernel == "adam_" else []
        rate = [] if kernel in ("ema_", "add_", "mul_") else [np.asarray(0.01)]
        getattr(k, kernel)(*arrays, *extra, *rate, **params)
        return tuple(arrays)

    return call


def sequences(kind):
    """A recurrent kernel and its gradient over more rows than a chunk has, and features that fill no register."""
    name, after = kind.partition(" ")[::2]
    steps, rows, n, gates = 9, 70, 37, {"rnn": 1, "lstm": 4, "gru": 3}[name]
    how = {"reverse": True} | ({"reset_after": bool(after)} if name == "gru" else {})

    def operands(t):
        small = lambda shape, seed: (0.2 * large(shape, t, seed)).astype(t)  # noqa: E731
        biases = [small(gates * n, 3), small(gates * n, 4)][: 2 if name == "gru" else 1]
        states = [small((rows, n), 5), small((rows, n), 6)][: 2 if name == "lstm" else 1]
        mask = (large((steps, rows), t, 7) > -1).astype(t)
        return [small((steps, rows, gates * n), 1), small((n, gates * n), 2), *biases, *states, mask], states, mask

    def forward(k, t):
        return getattr(k, name)(*operands(t)[0], **how)

    def backward(k, t):
        arrays, states, mask = operands(t)
        h, _, *kept = (np.asarray(y, t) for y in getattr(dispatch.reference, name)(*arrays, **how))
        arrived = [large((steps, rows, n), t, 8), *(large((rows, n), t, 9 + i) for i in range(len(states)))]
        return getattr(k, f"{name}_grad")(*arrived, *reversed(kept[-2:] if name == "lstm" else kept), h, arrays[1], *states, mask, **how)

    return [(kind, forward), (f"{kind} grad", backward)]


def attention_grad(k, t):
    q, key, v = (large((3, size, 66), t, i) for i, size in enumerate((70, 37, 37)))
    p = dispatch.reference.attention(q.astype("f8"), key.astype("f8"), v.astype("f8"), 3, 0.2)[1].astype(t)
    return k.attention_grad(large((3, 70, 66), t, 9), p, q, key, v, 3, 0.2)


KEY = np.asarray(2**61 + 12345)
M = 300_001  # long enough to be cut into many chunks, and no multiple of anything
THREADED = {
    "exp": lambda k, t: k.exp(large(M, t)),
    "erf": lambda k, t: k.erf(large(M, t)),
    "add": lambda k, t: k.add(large(M, t), large(M, t, 1)),
    "add row": lambda k, t: k.add(large((3001, 101), t), large(101, t, 1)),
    "mul channel": lambda k, t: k.mul(large((5, 7, 101, 103), t), large((7, 1, 1), t, 1)),
    "outer": lambda k, t: k.sub(large((501, 1), t), large((1, 603), t, 1)),
    "gt": lambda k, t: k.gt(large(M, t), 0.0),
    "where": lambda k, t: k.where(large(M, t), large(M, t, 1), 0.0),
    "tanh_grad": lambda k, t: k.tanh_grad(large(M, t), large(M, t, 1)),
    "gelu": lambda k, t: k.gelu(large(M, t)),
    "gelu_grad": lambda k, t: k.gelu_grad(large(M, t), large(M, t, 1)),
    "add_": update("add_", M, M),
    "sum": lambda k, t: k.sum(large(M, t), None, False),
    "sum rows": lambda k, t: k.sum(large((3001, 101), t), (1,), False),
    "sum long rows": lambda k, t: k.sum(large((3, 100_003), t), (1,), False),
    "sum columns": lambda k, t: k.sum(large((3001, 101), t), (0,), False),
    "sum wide columns": lambda k, t: k.sum(large((101, 3001), t), (0,), False),
    "mean channels": lambda k, t: k.mean(large((50, 3, 41, 47), t), (0, 2, 3), False),
    "sum tall and wide": lambda k, t: k.sum(large((1030, 2100), t), (0,), False),
    "sum middle": lambda k, t: k.sum(large((7, 401, 113), t), (1,), False),
    "max": lambda k, t: k.max(large(M, t), None, False),
    "min columns": lambda k, t: k.min(large((3001, 101), t), (0,), False),
    "softmax": lambda k, t: k.softmax(large((3001, 101), t), 1),
    "log_softmax": lambda k, t: k.log_softmax(large((301, 1001), t), 1),
    "softmax_grad": lambda k, t: k.softmax_grad(large((3001, 101), t), large((3001, 101), t, 1), 1),
    "cross_entropy": lambda k, t: k.cross_entropy(large((30_001, 10), t), np.arange(30_001) % 10),
    "batch_norm": lambda k, t: k.batch_norm(large((16, 5, 63, 65), t), large(5, t, 1), large(5, t, 2), 1e-5),
    "batch_norm columns": lambda k, t: k.batch_norm(large((1001, 301), t), None, None, 1e-5),
    "batch_norm_grad": lambda k, t: k.batch_norm_grad(
        large((16, 5, 63, 65), t), large((16, 5, 63, 65), t, 1), None, large(5, t), large(5, t)
    ),
    "layer_norm": lambda k, t: k.layer_norm(large((3001, 101), t), large(101, t, 1), large(101, t, 2), 1, 1e-5),
    "layer_norm_grad": lambda k, t: k.layer_norm_grad(
        large((3001, 101), t), large((3001, 101), t, 1), large(101, t, 2), large(3001, t, 3), large(3001, t, 4), 1
    ),
    **{name: call for kind in ("rnn", "lstm", "gru", "gru after") for name, call in sequences(kind)},
    "attention": lambda k, t: k.attention(large((3, 70, 66), t), large((3, 37, 66), t, 1), large((3, 37, 66), t, 2), 3, 0.2),
    "attention grad": attention_grad,
    "embedding": lambda k, t: k.embedding(large((301, 203), t), np.arange(3001) % 301 - 100, None),
    "embedding_grad": lambda k, t: k.embedding_grad(large((3001, 203), t), np.arange(3001) % 301 - 100, 301, 7),
    "uniform": lambda k, t: k.uniform(KEY, (M,), t),
    "dropout_mask": lambda k, t: k.dropout_mask(KEY, (M,), 0.4, t),
    "ema_": update("ema_", M, M, momentum=0.1),
    "sgd_": update("sgd_", M, M, M, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam_": update("adam_", M, M, M, M, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, decoupled=True),
}


@pytest.fixture
def any_number_of_threads():
    before = get_threads()
    yield set_threads
    set_threads(before)


def as_bytes(result):
    return [np.asarray(y).tobytes() for y in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
@pytest.mark.parametrize("name", THREADED)
def test_bits_do_not_depend_on_the_number_of_threads(name, dtype, any_number_of_threads):
    results = []
    for n in (1, 2, 3):
        any_number_of_threads(n)
        results.append(as_bytes(THREADED[name](DIRECT, dtype)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
@pytest.mark.parametrize("name", THREADED)
def test_large_results_agree_with_the_reference_in_double(name, dtype):
    """Every chunk, every edge of a chunk: the reference gets the same operands in float64."""
    got = THREADED[name](DIRECT, dtype)
    wide = SimpleNamespace(**{kernel: widened(getattr(dispatch.reference, kernel)) for kernel in vars(DIRECT)})
    want = THREADED[name](wide, dtype)
    for y, expected in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True):
        scale = max(1.0, float(np.abs(expected).max()))
        tolerance = 2e-6 if dtype is np.float32 else 2e-13
        np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=tolerance, atol=tolerance * scale)


def widened(kernel):
    """The kernel on its floating operands in float64; what it writes is written back."""

    def call(*operands, **params):
        wide = [np.asarray(x, np.float64) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in operands]
        out = kernel(*wide, **params)
        for old, new in zip(operands, wide, strict=True):
            if new is not old and old.flags.writeable and out is None:
                old[...] = new
        return out

    return call


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 255, 256, 257, 20_003])
def test_random_bits_are_those_of_the_reference(key, n):
    for dtype in (np.float32, np.float64):
        for kernel, params in {"uniform": (), "dropout_mask": (0.3,)}.items():
            args = (np.asarray(key), (n,), *params, dtype)
            np.testing.assert_array_equal(getattr(DIRECT, kernel)(*args), getattr(dispatch.reference, kernel)(*args))


def test_dropout_keeps_what_it_should_at_the_edge():
    """Half-open and exact: u < 1 - p, with 1 - p between, and on, multiples of 2^-24."""
    u = dispatch.reference.uniform(np.asarray(5), (4096,), np.float32).astype(np.float64)
    for keep in (float(u[17]), float(np.nextafter(u[17], 0)), float(np.nextafter(u[17], 1)), 1.0):
        mask = DIRECT.dropout_mask(np.asarray(5), (4096,), 1 - keep, np.float64)
        np.testing.assert_array_equal(mask != 0, u < 1 - (1 - keep))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
def test_rows_with_infinities_and_nan(dtype):
    inf, nan = np.inf, np.nan
    x = np.array([[0, -inf, 1], [-inf, -inf, 0], [nan, 0, 1], [1e4, 0, -1e4], [-inf] * 3, [inf, 0, 1]], dtype)
    with np.errstate(invalid="ignore"):
        want = dispatch.reference.softmax(x.astype(np.float64), 1)
        logs = dispatch.reference.log_softmax(x.astype(np.float64), 1)
    np.testing.assert_allclose(DIRECT.softmax(x, 1), want, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(DIRECT.log_softmax(x, 1), logs, rtol=1e-6, atol=1e-7)
    assert np.isnan(DIRECT.max(x, None, False)) and np.isnan(DIRECT.sum(x, None, False))
    assert DIRECT.max(x, (1,), False).tolist()[3] == 1e4


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
def test_nan_wins_wherever_it_stands(dtype):
    for n in (5, 40, 200):
        for at in (0, n // 2, n - 1):
            x = np.zeros(n, dtype)
            x[at] = np.nan
            assert np.isnan(DIRECT.max(x, None, False)) and np.isnan(DIRECT.min(x, None, False))
            assert np.isnan(DIRECT.max(np.stack([x, x], 1), (0,), False)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
def test_variance_of_numbers_far_from_zero(dtype):
    """Nothing cancels: the mean is 2^10 (f4) or 2^20 (f8) times the spread."""
    shift = 1024.0 if dtype is np.float32 else 2.0**20
    x = (np.random.default_rng(0).standard_normal((64, 3, 20, 20)) + shift).astype(dtype)
    exact = x.astype(np.longdouble).var(axis=(0, 2, 3)).astype(np.float64)
    np.testing.assert_allclose(DIRECT.batch_norm(x, None, None, 0.0)[2], exact, rtol=1e-6 if dtype is np.float32 else 1e-9)


def test_overlapping_operands_go_to_the_reference():
    x = np.arange(8.0)
    with pytest.raises(Refused):
        DIRECT.add_(x[1:], x[:-1])
    with pytest.raises(Refused):
        DIRECT.add_(x.reshape(2, 4), x[:4])
    assert x.tolist() == list(range(8))
    DIRECT.add_(x, x)
    assert x.tolist() == [2 * i for i in range(8)]


def test_read_only_and_strided_destinations_are_refused():
    x = np.ones(4)
    x.flags.writeable = False
    for dst in (x, np.ones(8)[::2]):
        with pytest.raises(Refused):
            DIRECT.add_(dst, 1.0)
