"""KeyDNN: a deep learning engine written to be read.

>>> import keydnn
>>> x = keydnn.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad.tolist()
[2.0, 4.0, 6.0]
"""

from keydnn._tensor import Tensor, from_dlpack, tensor
from keydnn.autograd import Context, Function, enable_grad, grad, gradcheck, hvp, is_grad_enabled, no_grad
from keydnn.domain.device import Device
from keydnn.ops import concat, einsum, matmul, stack, where

__version__ = "0.1.0"

zeros, ones, full, rand, randn = Tensor.zeros, Tensor.ones, Tensor.full, Tensor.rand, Tensor.randn
arange, linspace, eye, empty = Tensor.arange, Tensor.linspace, Tensor.eye, Tensor.empty
zeros_like, ones_like, full_like = Tensor.zeros_like, Tensor.ones_like, Tensor.full_like
rand_like, randn_like = Tensor.rand_like, Tensor.randn_like
