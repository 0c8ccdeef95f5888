"""Automatic differentiation: primitives, the graph, the way back.  Knows no Tensor class and no kernel."""

from keydnn.autograd.backward import grad, hvp
from keydnn.autograd.context import Context, Function
from keydnn.autograd.gradcheck import gradcheck
from keydnn.autograd.modes import enable_grad, is_grad_enabled, no_grad
from keydnn.autograd.primitive import Primitive, bind

__all__ = ["Context", "Function", "Primitive", "bind", "enable_grad", "grad", "gradcheck", "hvp", "is_grad_enabled", "no_grad"]
