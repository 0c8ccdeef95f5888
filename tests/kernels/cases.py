"""Example operands for every row of the kernel contract: what `test_tables.py` walks, for every kernel table.

A case makes operands from a generator and a dtype; `define` is the meaning in float64 (see `definitions.py`).  A kernel
without a case is a failing test, so adding a kernel means adding a case here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.kernels import definitions as d
from tests.kernels import sequence_cases

Make = Callable[[np.random.Generator, type], tuple[list[Any], dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """Operands for one kernel, and what must come out; tolerances are (float32, float64)."""

    kernel: str
    make: Make
    define: Callable[..., Any]
    label: str = ""
    rtol: tuple[float, float] = (4e-6, 1e-13)
    atol: tuple[float, float] = (4e-6, 1e-13)

    def __str__(self) -> str:
        return f"{self.kernel}{'-' if self.label else ''}{self.label}"


def normal(*shape):
    return lambda rng, dtype: np.asarray(rng.standard_normal(shape), dtype)


def positive(*shape):
    return lambda rng, dtype: np.asarray(rng.uniform(0.3, 4.0, shape), dtype)


def tied(*shape):
    """Few different values, so that equal ones and zeros are common."""
    return lambda rng, dtype: np.asarray(rng.integers(-2, 3, shape), dtype)


def eighths(*shape):
    """Multiples of 1/64 on both sides of zero: exact ties are common for quanta from 1/32 on."""
    return lambda rng, dtype: np.asarray(rng.integers(-300, 300, shape) / 64, dtype)


def integers(low, high, *shape):
    return lambda rng, dtype: np.asarray(rng.integers(low, high, shape), np.int64)


def value(x):
    return lambda rng, dtype: x


def scalar(x, dtype):
    return lambda rng, _: np.asarray(x, dtype)


def case(kernel, define, /, *operands, label="", rtol=(4e-6, 1e-13), atol=(4e-6, 1e-13), **params):
    """A case from one maker per operand; a parameter `dtype` is that of the case."""

    def make(rng, dtype):
        given = {name: dtype if isinstance(v, str) and v == "same" else v for name, v in params.items()}
        return [operand(rng, dtype) for operand in operands], given

    return Case(kernel, make, define, label, rtol, atol)


def unary_cases():
    shapes = {"matrix": (3, 37), "one": (1,), "scalar": (), "empty": (2, 0, 3)}
    for kernel, f in d.UNARY.items():
        for label, shape in shapes.items():
            operand = positive(*shape) if kernel in d.POSITIVE else normal(*shape)
            yield case(kernel, d.unary(f), operand, label=label)


def binary_cases():
    pairs = {"same": ((4, 9), (4, 9)), "row": ((4, 9), (9,)), "both": ((4, 1), (1, 9)), "scalars": ((), ()), "empty": ((0, 3), (3,))}
    for kernel, f in d.BINARY.items():
        operand = positive if kernel in ("div", "floordiv", "mod", "pow") else tied if kernel in ("eq", "ne", "ge", "le") else normal
        for label, (left, right) in pairs.items():
            yield case(kernel, d.binary(f), operand(*left), operand(*right), label=label)
        yield case(kernel, d.binary(f), operand(4, 9), value(2.0), label="number")
        yield case(kernel, d.binary(f), value(1.5), operand(4, 9), label="number-left")


def small_cases():
    """Elementwise kernels with parameters, and the gradients of activations."""
    for label, shape in {"matrix": (5, 21), "one": (1,), "scalar": (), "empty": (0, 4)}.items():
        leaky = d.binary(lambda x, alpha: x if x > 0 else alpha * x)
        yield case("leaky_relu", lambda x, alpha, f=leaky: f(x, alpha), tied(*shape), alpha=0.25, label=label)
        yield case("relu_grad", d.binary(lambda y, g: g if y > 0 else 0.0), tied(*shape), normal(*shape), label=label)
        grad = np.vectorize(lambda x, g, alpha: g if x > 0 else alpha * g, otypes=[float])
        yield case("leaky_relu_grad", lambda x, g, alpha, f=grad: f(x, g, alpha), tied(*shape), normal(*shape), alpha=0.25, label=label)
        yield case("tanh_grad", d.binary(lambda y, g: g * (1 - y * y)), normal(*shape), normal(*shape), label=label)
        yield case("sigmoid_grad", d.binary(lambda y, g: g * y * (1 - y)), normal(*shape), normal(*shape), label=label)
        yield case("gelu_grad", d.binary(d.gelu_grad), normal(*shape), normal(*shape), label=label)
        silu_grad = d.binary(lambda x, g: g * d.sigmoid(x) * (1 + x * d.sigmoid(-x)))
        yield case("silu_grad", silu_grad, normal(*shape), normal(*shape), label=label)
        yield case("softplus_grad", d.binary(lambda x, g: g * d.sigmoid(x)), normal(*shape), normal(*shape), label=label)
        elu = d.binary(lambda x, alpha: x if x > 0 else alpha * math.expm1(x))
        yield case("elu", lambda x, alpha, f=elu: f(x, alpha), tied(*shape), alpha=0.7, label=label)
        grad = np.vectorize(lambda x, g, alpha: g if x > 0 else g * alpha * math.exp(x), otypes=[float])
        yield case("elu_grad", lambda x, g, alpha, f=grad: f(x, g, alpha), tied(*shape), normal(*shape), alpha=0.7, label=label)
        yield case("copy", lambda x: x, normal(*shape), label=label)
        yield case("cast", lambda x, dtype: x, normal(*shape), dtype="same", label=label)
    where = np.vectorize(lambda m, x, y: x if m != 0 else y, otypes=[float])
    yield case("where", where, tied(4, 5), normal(4, 5), normal(4, 5))
    yield case("where", where, tied(4, 1), normal(5), value(2.5), label="broadcast")
    yield case("where", where, tied(4, 5), value(1.0), value(-1.0), label="numbers")
    clamp = lambda x, low, high: np.array([[min(max(v, low), high) for v in row] for row in x])  # noqa: E731
    yield case("clamp", clamp, normal(4, 5), low=-0.5, high=0.25)
    yield case("clamp", lambda x, low, high: clamp(x, low, 1e9), normal(4, 5), low=0.0, high=None, label="low")
    yield case("clamp", lambda x, low, high: clamp(x, -1e9, high), normal(4, 5), low=None, high=0.0, label="high")
    yield case("clamp", lambda x, low, high: x, normal(4, 5), low=None, high=None, label="neither")


def in_place_cases():
    yield case("assign_", lambda dst, src: (src + 0 * dst,), normal(3, 4), normal(4), label="row")
    yield case("assign_", lambda dst, src: (src,), normal(3, 4), normal(3, 4))
    yield case("fill_", lambda dst, value: (np.full(dst.shape, value),), normal(3, 4), value=2.5)
    for kernel, f in {
        "add_": lambda a, b: a + b,
        "sub_": lambda a, b: a - b,
        "mul_": lambda a, b: a * b,
        "div_": lambda a, b: a / b,
    }.items():
        for label, other in {"same": positive(4, 7), "row": positive(7), "column": positive(4, 1), "number": value(3.0)}.items():
            yield case(kernel, lambda a, b, f=f: (f(a, b),), normal(4, 7), other, label=label)
        yield case(kernel, lambda a, b, f=f: (f(a, b),), normal(), positive(), label="scalars")
        yield case(kernel, lambda a, b, f=f: (f(a, b),), normal(0, 2), positive(2), label="empty")
    put = lambda dst, v, key: (np.array([[v[j] if i == 1 else dst[i, j] for j in range(4)] for i in range(3)]),)  # noqa: E731
    yield case("put_", put, normal(3, 4), normal(4), key=1)
    yield case("ema_", lambda r, b, momentum: ((1 - momentum) * r + momentum * b,), normal(7), normal(7), momentum=0.1)


def reduction_cases():
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    rows = {
        "sum": (sum, normal),
        "mean": (mean, normal),
        "prod": (lambda v: float(np.prod(v)), positive),
        "max": (max, normal),
        "min": (min, normal),
        "any": (lambda v: float(any(v)), tied),
        "all": (lambda v: float(all(v)), tied),
    }
    for kernel, (f, operand) in rows.items():
        define = d.reduction(f)
        for axis in [None, (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2), ()]:
            yield case(kernel, define, operand(3, 4, 5), axis=axis, keepdims=False, label=f"axis={axis}")
        yield case(kernel, define, operand(3, 4, 5), axis=(0, 2), keepdims=True, label="keepdims")
        yield case(kernel, define, operand(2, 3, 4, 5), axis=(0, 2, 3), keepdims=False, label="channels")
        yield case(kernel, define, operand(), axis=None, keepdims=False, label="scalar")
        yield case(kernel, define, operand(0, 3), axis=(1,), keepdims=False, label="empty")
    for kernel in ("sum", "any", "all", "prod"):
        yield case(kernel, d.reduction(rows[kernel][0]), normal(0, 3), axis=(0,), keepdims=False, label="of-nothing")
    for kernel, best in {"argmax": max, "argmin": min}.items():
        for axis in (None, 0, 1, 2):
            yield case(kernel, d.arg(best), tied(3, 4, 5), axis=axis, label=f"axis={axis}")
    for axis in (0, 1, 2):
        yield case("cumsum", d.cumsum, normal(3, 4, 5), axis=axis, label=f"axis={axis}")


def movement_cases():
    yield case("full", lambda shape, value, dtype: np.array([[value] * 3] * 2), shape=(2, 3), value=1.5, dtype="same")
    yield case("broadcast_to", lambda x, shape: x + np.zeros(shape), normal(4, 1), shape=(2, 4, 3))
    yield case("transpose", lambda x, axes: np.einsum("abc->cab", x), normal(2, 3, 4), axes=(2, 0, 1))
    yield case("transpose", lambda x, axes: x.T, normal(5, 7), axes=(1, 0), label="matrix")
    yield case("concat", lambda x, y, axis: np.array([[*a, *b] for a, b in zip(x, y, strict=True)]), normal(2, 3), normal(2, 4), axis=1)
    yield case("concat", lambda x, axis: x, normal(2, 3), axis=0, label="single")
    yield case("stack", lambda x, y, axis: np.array([[a, b] for a, b in zip(x, y, strict=True)]), normal(2, 3), normal(2, 3), axis=1)
    yield case("pad", d.pad, normal(2, 3), widths=((1, 0), (2, 3)), value=0.5)
    yield case("take", lambda x, key: np.array([x[2], x[0], x[2]]), normal(3, 4), key=np.array([2, 0, 2]))
    yield case(
        "take", lambda x, key: np.array([row[::-2] for row in x]), normal(3, 4), key=(slice(None), slice(None, None, -2)), label="slice"
    )
    yield case("take", lambda x, key: x[1, 2], normal(3, 4), key=(1, 2), label="element")
    yield case("take_grad", d.take_grad, normal(3, 4), key=np.array([2, 0, 2]), shape=(3, 4), label="repeats")
    yield case("take_grad", d.take_grad, normal(3), key=((0, 0, 1), (1, 1, 2)), shape=(3, 4), label="tuple-of-tuples")
    yield case("take_grad", d.take_grad, normal(3, 2), key=(Ellipsis, slice(None, None, 3)), shape=(3, 4), label="slice")
    yield case("take_grad", d.take_grad, normal(4), key=1, shape=(3, 4), label="int")
    yield case("take_grad", d.take_grad, normal(2, 4), key=np.array([True, False, True]), shape=(3, 4), label="mask")
    yield case("gather", d.gather, normal(3, 4), integers(0, 4, 3, 6), axis=1)
    yield case("scatter_add", d.scatter_add, normal(3, 4), integers(0, 4, 3, 6), normal(3, 6), axis=1)
    yield case("scatter_add", d.scatter_add, normal(3, 4), integers(0, 3, 5, 4), normal(5, 4), axis=0, label="axis=0")
    yield case("flip", lambda x, axis: x[::-1, :, ::-1], normal(3, 4, 5), axis=(0, 2))
    yield case("roll", lambda x, shift, axis: np.array([[x[(i - 1) % 3, (j + 2) % 4] for j in range(4)] for i in range(3)]), normal(3, 4),
               shift=(1, -2), axis=(0, 1))  # fmt: skip
    for k in (-1, 0, 2):
        yield case("tril", d.triangle(lambda j, k: j <= k), normal(2, 4, 5), k=k, label=f"k={k}")
        yield case("triu", d.triangle(lambda j, k: j >= k), normal(2, 4, 5), k=k, label=f"k={k}")
    yield case("one_hot", d.one_hot, integers(0, 5, 2, 3), n=5, dtype="same")


def linalg_cases():
    for a, b in [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((1, 7), (7, 1)), ((2, 0), (0, 3)), ((0, 2), (2, 3))]:
        yield case("matmul", d.matmul, normal(*a), normal(*b), transpose_a=False, transpose_b=False, label=f"{a}x{b}")
    yield case("matmul", d.matmul, normal(3, 2), normal(3, 4), transpose_a=True, transpose_b=False, label="ta")
    yield case("matmul", d.matmul, normal(2, 3), normal(4, 3), transpose_a=False, transpose_b=True, label="tb")
    yield case("matmul", d.matmul, normal(5, 3, 2), normal(5, 4, 3), transpose_a=True, transpose_b=True, label="tatb")
    yield case("linear", d.linear, normal(5, 3), normal(4, 3), normal(4))
    yield case("linear", d.linear, normal(5, 3), normal(4, 3), value(None), label="no-bias")
    yield case("einsum", lambda a, b, subscripts: d.matmul(a, b, False, True), normal(2, 3), normal(4, 3), subscripts="ij,kj->ik")
    yield case("einsum", lambda a, subscripts: a.T, normal(2, 3), subscripts="ij->ji", label="view")
    yield case("einsum", lambda a, b, c, subscripts: d.matmul(d.matmul(a, b, False, False), c, False, False), normal(2, 3), normal(3, 4),
               normal(4, 5), subscripts="ij,jk,kl->il", label="three")  # fmt: skip


CONVOLUTIONS = {  # x (N, C, H, W), w (O, C/groups, kh, kw), stride, padding, dilation, groups
    "plain": ((2, 3, 6, 5), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1),
    "padded": ((2, 3, 6, 5), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "odd": ((1, 2, 7, 9), (3, 2, 2, 3), (2, 3), (1, 2), (1, 1), 1),
    "dilated": ((1, 2, 9, 8), (3, 2, 3, 2), (1, 2), (2, 1), (2, 3), 1),
    "groups": ((2, 4, 5, 5), (6, 2, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    "depthwise": ((1, 3, 5, 6), (3, 1, 3, 3), (2, 2), (1, 1), (1, 1), 3),
    "pointwise": ((2, 5, 3, 4), (7, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "one": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "no-images": ((0, 2, 5, 5), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),
}
POOLS = {  # x, kernel, stride, padding
    "halves": ((2, 3, 6, 8), (2, 2), (2, 2), (0, 0)),
    "overlapping": ((1, 2, 7, 6), (3, 3), (2, 1), (1, 1)),
    "odd": ((2, 1, 5, 9), (2, 3), (3, 2), (0, 1)),
    "one": ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)),
    "no-images": ((0, 2, 4, 4), (2, 2), (2, 2), (0, 0)),
}


def conv_cases():
    for label, (x, w, stride, padding, dilation, groups) in CONVOLUTIONS.items():
        how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        g = (x[0], w[0], *d.out_size(x[2:], w[2:], stride, padding, dilation))
        yield case("conv2d", d.conv2d, normal(*x), normal(*w), normal(w[0]), **how, label=label)
        yield case("conv2d", d.conv2d, normal(*x), normal(*w), value(None), **how, label=f"{label}-no-bias")
        yield case("conv2d_grad_x", d.conv2d_grad_x, normal(*g), normal(*w), size=x[2:], **how, label=label)
        yield case("conv2d_grad_w", d.conv2d_grad_w, normal(*x), normal(*g), kernel=w[2:], **how, label=label, atol=(2e-5, 1e-13))


def pool_cases():
    for label, (x, kernel, stride, padding) in POOLS.items():
        how = {"kernel": kernel, "stride": stride, "padding": padding}
        out = (*x[:2], *d.out_size(x[2:], kernel, stride, padding))

        def argmax(rng, dtype, x=x, how=how):
            return d.maxpool2d(rng.integers(-2, 3, x).astype(float), **how)[1]

        yield case("maxpool2d", d.maxpool2d, normal(*x), **how, label=label)
        yield case("maxpool2d_values", lambda x, **how: d.maxpool2d(x, **how)[0], tied(*x), **how, label=label)
        yield case("maxpool2d", d.maxpool2d, tied(*x), **how, label=f"{label}-ties")
        yield case("maxpool2d", d.maxpool2d, lambda rng, dtype, x=x: -positive(*x)(rng, dtype), **how, label=f"{label}-negative")
        yield case("maxpool2d_grad", d.maxpool2d_grad, normal(*out), argmax, size=x[2:], padding=padding, label=label)
        yield case("maxpool2d_take", d.maxpool2d_take, normal(*x), argmax, padding=padding, label=label)
        yield case("avgpool2d", d.avgpool2d, normal(*x), **how, label=label)
        yield case("avgpool2d_grad", d.avgpool2d_grad, normal(*out), size=x[2:], **how, label=label)
    yield case("global_avgpool2d", d.global_avgpool2d, normal(2, 3, 5, 4))
    yield case("global_avgpool2d", d.global_avgpool2d, normal(0, 3, 5, 4), label="no-images")


def softmax_cases():
    def probabilities(*shape):
        return lambda rng, dtype: d.per_row(d.softmax_row)(rng.standard_normal(shape), axis=-1).astype(dtype)

    for shape, axis in [((4, 7), 1), ((4, 7), 0), ((2, 3, 5), 1), ((1, 1), 1), ((0, 3), 1), ((5,), 0)]:
        label = f"{shape}-{axis}"
        yield case("softmax", d.per_row(d.softmax_row), normal(*shape), axis=axis, label=label)
        yield case("log_softmax", d.per_row(d.log_softmax_row), normal(*shape), axis=axis, label=label)
        yield case("softmax_grad", d.per_row(d.softmax_grad_row), probabilities(*shape), normal(*shape), axis=axis, label=label)
        yield case("log_softmax_grad", d.per_row(d.log_softmax_grad_row), normal(*shape), normal(*shape), axis=axis, label=label,
                   atol=(4e-5, 1e-12))  # fmt: skip
    yield case("softmax", d.per_row(d.softmax_row), lambda rng, dtype: 300 * normal(4, 7)(rng, dtype), axis=1, label="large")
    yield case("log_softmax", d.per_row(d.log_softmax_row), lambda rng, dtype: 300 * normal(4, 7)(rng, dtype), axis=1, label="large")
    for n, c in [(6, 5), (1, 1), (0, 4)]:
        yield case("cross_entropy", d.cross_entropy, normal(n, c), integers(0, c, n), label=f"{n}x{c}")
        yield case("cross_entropy_grad", d.cross_entropy_grad, probabilities(n, c), integers(0, c, n), normal(n), label=f"{n}x{c}")


def norm_cases():
    for shape in [(6, 3), (4, 3, 5, 2), (2, 1, 1, 1)]:
        c = shape[1]
        for label, gamma, beta in [("affine", normal(c), normal(c)), ("bare", value(None), value(None))]:
            yield case("batch_norm", d.batch_norm, normal(*shape), gamma, beta, eps=1e-5, label=f"{shape}-{label}")
            yield case("batch_norm_grad", d.batch_norm_grad, normal(*shape), normal(*shape), gamma, normal(c), positive(c),
                       label=f"{shape}-{label}", atol=(2e-4, 1e-11), rtol=(1e-5, 1e-12))  # fmt: skip
    for shape, n_axes in [((6, 5), 1), ((4, 3, 5), 2), ((2, 3, 4), 1), ((7,), 1), ((0, 4), 1)]:
        last = shape[len(shape) - n_axes :]
        leading = shape[: len(shape) - n_axes]
        for label, gamma, beta in [("affine", normal(*last), normal(*last)), ("bare", value(None), value(None))]:
            yield case("layer_norm", d.layer_norm, normal(*shape), gamma, beta, n_axes=n_axes, eps=1e-5, label=f"{shape}-{label}")
            yield case("layer_norm_grad", d.layer_norm_grad, normal(*shape), normal(*shape), gamma, normal(*leading), positive(*leading),
                       n_axes=n_axes, label=f"{shape}-{label}", atol=(2e-4, 1e-11), rtol=(1e-5, 1e-12))  # fmt: skip


def random_cases():
    for key in (0, 1, 2**40 + 12345, 2**63 - 1):
        for shape in [(3, 5), (), (1,), (0,), (130,)]:
            label = f"{key:#x}-{shape}"
            yield case("uniform", d.uniform, scalar(key, np.int64), shape=shape, dtype="same", label=label, rtol=(0, 0), atol=(0, 0))
            yield case("normal", d.normal, scalar(key, np.int64), shape=shape, dtype="same", label=label)
            yield case("dropout_mask", d.dropout_mask, scalar(key, np.int64), shape=shape, p=0.3, dtype="same", label=label)


def quantize_cases():
    exactly = {"rtol": (0, 0), "atol": (0, 0)}
    for qmode in d.QMODES:
        for omode, signed, n in [(o, True, 0) for o in d.OMODES] + [("AP_WRAP", True, 2), ("AP_WRAP_SM", True, 1), ("AP_WRAP", False, 1)]:
            how = {"wl": 5, "iwl": 2, "signed": signed, "qmode": qmode, "omode": omode, "sat_bits": n}
            yield case("quantize_fixed", d.quantize_fixed, eighths(7, 11), **how, label=f"{qmode}-{omode}-{signed}-{n}", **exactly)
    for wl, iwl, label in [(3, 5, "wide-quantum"), (30, 4, "30-bits"), (70, 6, "70-bits"), (12, -3, "negative-iwl")]:
        how = {"wl": wl, "iwl": iwl, "signed": True, "qmode": "AP_RND", "omode": "AP_SAT", "sat_bits": 0}
        yield case("quantize_fixed", d.quantize_fixed, normal(3, 5), **how, label=label, rtol=(1e-7, 0), atol=(0, 0))
        yield case("quantize_fixed", d.quantize_fixed, normal(0, 5), **how, label=f"{label}-empty", **exactly)
    for bits in (None, 3):
        how = {"wl": 6, "iwl": 3, "signed": True, "omode": "AP_SAT", "sat_bits": 0, "sr_bits": bits}
        yield case("quantize_stochastic", d.quantize_stochastic, normal(3, 5), scalar(77, np.int64), **how, label=f"{bits}", **exactly)
    for codes in [(5, 2, 1, 2, 1, 0), (6, 2, 0, 0, 0, 1), (9, 3, 1, 6, 4, 2)]:
        form = lambda rng, dtype, codes=codes: np.array(codes, np.int64)  # noqa: E731
        yield case("quantize_by", d.quantize_by, eighths(7, 11), form, label=str(codes), **exactly)
    yield case("quantize_with", lambda x, key, format: 2.0 * x + float(key), normal(3, 5), scalar(3, np.int64), format=d.Doubling())


def update_cases():
    lr = scalar(0.05, np.float64)
    for label, momentum, nesterov, weight_decay in [("plain", 0.9, False, 0.0), ("nesterov", 0.9, True, 0.01), ("decay", 0.5, False, 0.1)]:
        how = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        yield case("sgd_", d.sgd_, normal(3, 7), normal(3, 7), normal(3, 7), lr, **how, label=label)
    yield case("sgd_", d.sgd_, normal(3, 7), normal(3, 7), value(None), lr, momentum=0.0, nesterov=False, weight_decay=0.0, label="bare")
    yield case("sgd_", d.sgd_, normal(5), normal(5), value(None), lr, momentum=0.0, nesterov=False, weight_decay=0.1, label="bare-decay")
    for label, t, weight_decay, decoupled in [("first", 0, 0.0, False), ("l2", 3, 0.1, False), ("adamw", 1000, 0.1, True)]:
        how = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": weight_decay, "decoupled": decoupled}
        yield case("adam_", d.adam_, normal(3, 7), normal(3, 7), normal(3, 7), positive(3, 7), scalar(t, np.int64), lr, **how, label=label)


FAMILIES = (
    unary_cases,
    binary_cases,
    small_cases,
    in_place_cases,
    reduction_cases,
    movement_cases,
    linalg_cases,
    conv_cases,
    pool_cases,
    softmax_cases,
    norm_cases,
    random_cases,
    quantize_cases,
    update_cases,
    lambda: sequence_cases.cases(Case),
)
CASES: list[Case] = [one for family in FAMILIES for one in family()]
