"""Rows of the op table: elementwise operations and activations."""

import math
import operator

import numpy as np

from keydnn import Tensor, ops
from keydnn.kernels.reference.quantize import OVERFLOW, ROUNDING
from keydnn.ops import quantize
from tests.ops.op_cases import Case, distinct, given, normal, positive, uniform

S = (3, 4)
erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def unary(name, define, operand=None, torch=None, op=None, **more):
    if torch is None and more.pop("torch_too", True):
        torch = lambda t, x: getattr(t, name)(x)  # noqa: E731
    op = op or (lambda x: getattr(x, name)())
    return Case(name, op, (operand or normal(*S),), define, torch, elementwise=True, **more)


def binary(name, op, define, left=None, right=None, torch=None, **more):
    operands = (left or normal(*S), right or normal(*S))
    return Case(name, op, operands, define, torch or (lambda t, x, y: op(x, y)), elementwise=True, **more)


def number(name, op, operand=None, **more):
    """An operator with a Python number: the same expression serves NumPy and PyTorch."""
    return Case(name, op, (operand or normal(*S),), op, lambda t, x: op(x), elementwise=True, **more)


def mask(compare):
    return lambda *xs: np.asarray(compare(*xs), np.float64)


class Identity:
    """A number format that has every number."""

    def rounded(self, x, key):
        return x


def no_torch(t, *xs):
    raise NotImplementedError


BINARY = [
    binary("add", operator.add, np.add),
    binary("sub", operator.sub, np.subtract),
    binary("mul", operator.mul, np.multiply),
    binary("div", operator.truediv, np.divide, right=positive(*S)),
    binary("pow", operator.pow, np.power, left=positive(*S), rtol=(1e-5, 1e-13)),
    binary("maximum", Tensor.maximum, np.maximum, distinct(*S), normal(*S), torch=lambda t, x, y: t.maximum(x, y)),
    binary("minimum", Tensor.minimum, np.minimum, distinct(*S), normal(*S), torch=lambda t, x, y: t.minimum(x, y)),
    binary("floordiv", operator.floordiv, np.floor_divide, order=0),
    binary("mod", operator.mod, np.mod, order=0, atol=(1e-5, 1e-13)),
]

COMPARISONS = [
    Case(c, getattr(operator, c), (normal(*S), normal(*S)), mask(getattr(operator, c)), order=0, typed=(0,))
    for c in ("gt", "ge", "lt", "le", "eq", "ne")
] + [number(f"{c}-number", lambda x, c=c: getattr(operator, c)(x, 0.25) * 1.0, order=0) for c in ("gt", "ge", "lt", "le", "eq", "ne")]

NUMBERS = [
    number("x+c", lambda x: x + 1.5),
    number("c+x", lambda x: 1.5 + x),
    number("x-c", lambda x: x - 1.5),
    number("c-x", lambda x: 1.5 - x),
    number("x*c", lambda x: x * 1.5),
    number("c*x", lambda x: 1.5 * x),
    number("x/c", lambda x: x / 1.5),
    number("c/x", lambda x: 1.5 / x, positive(*S)),
    number("x**3", lambda x: x**3),
    number("x**2", lambda x: x**2),
    number("x**1", lambda x: x**1),
    number("x**0", lambda x: x**0),
    number("x**-1.5", lambda x: x**-1.5, positive(*S), rtol=(1e-5, 1e-13)),
    number("c**x", lambda x: 1.5**x),
    number("x//c", lambda x: x // 1.5, order=0),
    number("c//x", lambda x: 1.5 // x, positive(*S), order=0),
    number("x%c", lambda x: x % 1.5, order=0),
    number("c%x", lambda x: 1.5 % x, positive(*S), order=0),
]

UNARY = [
    unary("neg", np.negative, op=operator.neg),
    unary("abs", np.abs, distinct(*S), op=abs),
    unary("exp", np.exp),
    unary("expm1", np.expm1),
    unary("log", np.log, positive(*S)),
    unary("log1p", np.log1p, positive(*S)),
    unary("sqrt", np.sqrt, positive(*S)),
    unary("rsqrt", lambda x: 1 / np.sqrt(x), positive(*S)),
    unary("reciprocal", lambda x: 1 / x, positive(*S)),
    unary("square", np.square),
    unary("sin", np.sin),
    unary("cos", np.cos),
    unary("erf", erf),
    unary("tanh", np.tanh),
    unary("sigmoid", sigmoid),
    unary("sign", np.sign, order=0),
    unary("floor", np.floor, order=0),
    unary("ceil", np.ceil, order=0),
    unary("round", np.round, order=0),
]

SELECTIONS = [
    unary("clamp-min", lambda x: np.maximum(x, -0.5), distinct(*S), lambda t, x: x.clamp(min=-0.5), lambda x: x.clamp(min=-0.5)),
    unary("clamp-max", lambda x: np.minimum(x, 0.5), distinct(*S), lambda t, x: x.clamp(max=0.5), lambda x: x.clamp(max=0.5)),
    unary("clamp", lambda x: np.clip(x, -1, 0.5), distinct(*S), lambda t, x: x.clamp(-1, 0.5), lambda x: x.clamp(min=-1, max=0.5)),
    Case("limit_through", lambda x: ops.elementwise.limit_through(x, low=-9.0, high=9.0), (normal(*S),), lambda x: x),
    Case(
        "where",
        ops.where,
        (given([[1, 0, 1, 0]] * 3), normal(*S), normal(*S)),
        lambda m, x, y: np.where(m != 0, x, y),
        lambda t, m, x, y: t.where(m != 0, x, y),
        fixed=(0,),
        elementwise=True,
        typed=(1, 2),
    ),
    Case(
        "where-x-c",
        lambda m, x: ops.where(m, x, 2.5),
        (given([1.0, 0, 1, 0]), normal(*S)),
        lambda m, x: np.where(m != 0, x, 2.5),
        fixed=(0,),
        typed=(1,),
    ),
    Case(
        "where-c-x",
        lambda m, x: ops.where(m, 2.5, x),
        (given([1.0, 0, 1, 0]), normal(*S)),
        lambda m, x: np.where(m != 0, 2.5, x),
        fixed=(0,),
        typed=(1,),
    ),
    Case(
        "where-c-c", lambda m: ops.where(m, 2.5, np.float32(1.5)), (given([1.0, 0, 1, 0]),), lambda m: np.where(m != 0, 2.5, 1.5), order=0
    ),
    Case(
        "x.where",
        lambda x, m: x.where(m, -1),
        (normal(*S), given([1.0, 0, 1, 0])),
        lambda x, m: np.where(m != 0, x, -1),
        fixed=(1,),
        typed=(0,),
    ),
]

ACTIVATIONS = [
    unary("relu", lambda x: np.maximum(x, 0), distinct(*S)),
    unary(
        "leaky_relu",
        lambda x: np.where(x > 0, x, 0.2 * x),
        distinct(*S),
        lambda t, x: t.nn.functional.leaky_relu(x, 0.2),
        lambda x: x.leaky_relu(0.2),
    ),
    unary("softplus", lambda x: np.logaddexp(x, 0), torch=lambda t, x: t.nn.functional.softplus(x)),
    unary("gelu", lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))), torch=lambda t, x: t.nn.functional.gelu(x)),
    unary("silu", lambda x: x * sigmoid(x), torch=lambda t, x: t.nn.functional.silu(x)),
    unary(
        "elu",
        lambda x: np.where(x > 0, x, 1.3 * np.expm1(np.minimum(x, 0))),
        distinct(*S),
        lambda t, x: t.nn.functional.elu(x, 1.3),
        lambda x: x.elu(1.3),
    ),
]


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


SOFTMAX = [
    Case(
        f"{name}-axis{axis}",
        lambda x, name=name, axis=axis: getattr(x, name)(axis),
        (normal(2, 3, 4),),
        lambda x, f=f, axis=axis: f(softmax(x, axis)),
        lambda t, x, name=name, axis=axis: getattr(t, name)(x, axis),
    )
    for name, f in (("softmax", np.array), ("log_softmax", np.log))
    for axis in (0, 1, -1)
]

# The pieces of the gradients are primitives too; they are functions of the upstream gradient g as well.
PIECES = [
    Case("relu_grad", ops.activation.relu_grad, (distinct(*S), normal(*S)), lambda y, g: np.where(y > 0, g, 0), typed=()),
    Case(
        "leaky_relu_grad",
        lambda x, g: ops.activation.leaky_relu_grad(x, g, alpha=0.2),
        (distinct(*S), normal(*S)),
        lambda x, g: np.where(x > 0, g, 0.2 * g),
        typed=(),
    ),
    Case("tanh_grad", ops.activation.tanh_grad, (uniform(-0.9, 0.9, *S), normal(*S)), lambda y, g: g * (1 - y * y), typed=()),
    Case("sigmoid_grad", ops.activation.sigmoid_grad, (uniform(0.1, 0.9, *S), normal(*S)), lambda y, g: g * y * (1 - y), typed=()),
    Case(
        "gelu_grad",
        ops.activation.gelu_grad,
        (normal(*S), normal(*S)),
        lambda x, g: g * ((1 + erf(x / math.sqrt(2))) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
        typed=(),
    ),
    Case(
        "silu_grad",
        ops.activation.silu_grad,
        (normal(*S), normal(*S)),
        lambda x, g: g * sigmoid(x) * (1 + x * sigmoid(-x)),
        typed=(),
    ),
    Case("softplus_grad", ops.activation.softplus_grad, (normal(*S), normal(*S)), lambda x, g: g * sigmoid(x), typed=()),
    Case(
        "elu_grad",
        lambda x, g: ops.activation.elu_grad(x, g, alpha=1.3),
        (distinct(*S), normal(*S)),
        lambda x, g: g * np.where(x > 0, 1, 1.3 * np.exp(np.minimum(x, 0))),
        typed=(),
    ),
    Case(
        "softmax_grad",
        lambda y, g: ops.activation.softmax_grad(y, g, axis=1),
        (uniform(0.1, 0.9, *S), normal(*S)),
        lambda y, g: y * (g - (g * y).sum(1, keepdims=True)),
        typed=(),
    ),
    Case(
        "log_softmax_grad",
        lambda y, g: ops.activation.log_softmax_grad(y, g, axis=1),
        (uniform(-3, 0, *S), normal(*S)),
        lambda y, g: g - np.exp(y) * g.sum(1, keepdims=True),
        typed=(),
    ),
]

# Rounding to a grid so fine that the straight-through gradient is the gradient; coarse grids have tests of their own.
FINE = {"wl": 52, "iwl": 4, "signed": True, "omode": "AP_SAT", "sat_bits": 0}
KEY = Tensor(data=np.asarray(5), dtype=np.int64)
FORMAT = Tensor(data=np.array([52, 4, 1, ROUNDING.index("AP_RND"), OVERFLOW.index("AP_SAT"), 0]), dtype=np.int64)
QUANTIZERS = [
    Case(name, op, (normal(*S),), lambda x: x)
    for name, op in {
        "quantize_fixed": lambda x: quantize.quantize_fixed(x, clip=None, qmode="AP_RND", **FINE),
        "quantize_fixed-clipped": lambda x: quantize.quantize_fixed(x, clip=(-8.0, 8.0), qmode="AP_RND", **FINE),
        "quantize_by": lambda x: quantize.quantize_by(x, FORMAT),
        "quantize_stochastic": lambda x: quantize.quantize_stochastic(x, KEY, clip=None, sr_bits=None, **FINE),
        "quantize_with": lambda x: quantize.quantize_with(x, KEY, clip=None, format=Identity()),
    }.items()
]

CASES = QUANTIZERS + BINARY + COMPARISONS + NUMBERS + UNARY + SELECTIONS + ACTIVATIONS + SOFTMAX + PIECES
