"""The suite for layers finds what is wrong: each layer here breaks one promise of `check_layer`."""

import dataclasses

import numpy as np
import pytest

from keydnn import Function, Tensor, ops
from keydnn.nn import Layer, Parameter
from keydnn.saving import register_module
from keydnn.testing.layers import LayerCase, check_layer, normal


@register_module("tests.Scale")
class Scale(Layer):
    """y = factor * weight * x; keeps every promise."""

    def __init__(self, factor=2.0, dtype=np.float32):
        super().__init__()
        self.factor = factor
        self.dtype = np.dtype(dtype)
        self.weight = Parameter((4,), dtype=dtype, initializer="ones")

    def forward(self, x):
        return x * self.weight * self.factor

    def get_config(self):
        return {"factor": self.factor, "dtype": self.dtype.name}


def case_of(cls, **changes):
    case = LayerCase("broken", cls, lambda dtype: cls(3.0, dtype), (normal(3, 4),), (3, 4), lambda x, weight: 3.0 * weight * x)
    return dataclasses.replace(case, **changes)


def broken(**members):
    """A registered subclass of Scale with some members replaced."""
    cls = type("Broken", (Scale,), members)
    return register_module(f"tests.Broken{id(cls)}")(cls)


def test_a_layer_that_keeps_them_passes():
    check_layer(case_of(Scale))


class _WrongGradient(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, grad_out):
        return grad_out * 1.01


class _NoSlope(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad_out):
        return Tensor(data=2.0 * ctx.saved_tensors[0].to_numpy() * grad_out.to_numpy(), dtype=grad_out.dtype)


def _cycle(self, x):
    y = x * self.weight * self.factor
    y.myself = y
    return y


def _wide(self, x):
    return (x * self.weight * self.factor).astype("float64")


def _scribbles(self, x):
    y = x * self.weight * self.factor
    if not x.requires_grad:
        ops.inplace.fill_(x, value=0.0)
    return y


def _by_mode(self, x):
    return x * self.weight * (self.factor if self.training else 1.0)


def _always_a_graph(self, x):
    y = x * self.weight * self.factor
    y.requires_grad = True
    return y


def tripled(x, weight):
    return 3.0 * weight * x


def squared(x, weight):
    return (x * weight) ** 2


NO_PROMISE = {"definition": None}
BY_MODE = {"train_differs": True, "eval_definition": tripled}
PAIR = {"factor": 3.0, "dtype": "float64", "pair": (1, 2)}

BROKEN = {  # what breaks -> the case, the error, what it says
    "value": (case_of(Scale, definition=lambda x, weight: 2.999 * weight * x), AssertionError, "broken"),
    "shape": (case_of(Scale, output=(4, 3)), AssertionError, "promised"),
    "dtype": (case_of(broken(forward=_wide)), AssertionError, "dtype"),
    "input changed": (case_of(broken(forward=_scribbles)), AssertionError, "input was changed"),
    "undeclared mode": (case_of(broken(forward=_by_mode), **NO_PROMISE), AssertionError, "not declared"),
    "mode without effect": (case_of(Scale, **BY_MODE), AssertionError, "differ"),
    "gradient": (case_of(broken(forward=lambda self, x: _WrongGradient.apply(x * self.weight * 3.0))), RuntimeError, "gradcheck"),
    "slope": (case_of(broken(forward=lambda self, x: _NoSlope.apply(x * self.weight)), definition=squared), RuntimeError, "gradcheck"),
    "graph": (case_of(broken(forward=_always_a_graph)), AssertionError, "graph"),
    "cycle": (case_of(broken(forward=_cycle)), AssertionError, "cycle"),
    "config forgets": (case_of(broken(get_config=lambda self: {"dtype": self.dtype.name})), AssertionError, "differs"),
    "config not JSON": (case_of(broken(get_config=lambda self: PAIR)), AssertionError, "JSON"),
    "state": (case_of(broken(load_state_dict=lambda self, state: None)), AssertionError, "differs"),
    "copy": (case_of(broken(__deepcopy__=lambda self, memo: self)), AssertionError, "shares memory"),
    "repr": (case_of(broken(__repr__=lambda self: "<layer>")), AssertionError, "repr"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(name):
    case, error, match = BROKEN[name]
    with pytest.raises(error, match=match):
        check_layer(case)
