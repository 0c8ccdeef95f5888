"""KeyDNN: a deep learning engine written to be read.

>>> import keydnn
>>> x = keydnn.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad.tolist()
[2.0, 4.0, 6.0]

>>> model = keydnn.Sequential(keydnn.Dense(8), keydnn.ReLU(), keydnn.Dense(1))
>>> model.build((1, 4))
>>> model(keydnn.ones((5, 4))).shape
(5, 1)
"""

from keydnn import activations, backend, callbacks, layers, losses, models, optimizers, tensors, utils
from keydnn._tensor import Tensor, from_dlpack, tensor
from keydnn.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from keydnn.autograd import Context, Function, enable_grad, grad, gradcheck, hvp, is_grad_enabled, no_grad
from keydnn.backend import cuda_available
from keydnn.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)  # fmt: skip
from keydnn.compiler import compile
from keydnn.domain.device import Device
from keydnn.layers import (
    GRU,
    LSTM,
    RNN,
    AvgPool2D,
    AvgPool2d,
    BatchNorm1D,
    BatchNorm1d,
    BatchNorm2D,
    BatchNorm2d,
    Bidirectional,
    Conv2D,
    Conv2d,
    Conv2DTranspose,
    Conv2dTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool2D,
    GlobalAvgPool2d,
    GRUCell,
    LayerNorm,
    LazyLinear,
    Linear,
    LSTMCell,
    MaxPool2D,
    MaxPool2d,
    MultiHeadAttention,
    RNNCell,
    TransformerEncoderLayer,
)  # fmt: skip
from keydnn.losses import bce_loss, cce_loss, mse_loss, sse_loss
from keydnn.models import History, Model, Sequential
from keydnn.nn import Module, Parameter, WeightInitializer
from keydnn.ops import concat, einsum, matmul, stack, where
from keydnn.optimizers import SGD, Adam, AdamW
from keydnn.saving import module_from_config, module_to_config, register_module
from keydnn.threads import get_threads, set_threads
from keydnn.utils import get_deterministic, get_seed, numpy_to_tensor, one_hot, seed, set_deterministic

__version__ = "0.1.0"

_LATER = {  # loaded when first asked for: name -> module that has it (or is it)
    **dict.fromkeys(("load_mnist", "load_cifar10", "load_cifar100"), "keydnn.datasets"),
    "from_keras": "keydnn.interop.keras",
    **dict.fromkeys(("KeyDNNClassifier", "KeyDNNRegressor"), "keydnn.interop.sklearn"),
    **{name: f"keydnn.{name}" for name in ("data", "datasets", "interop", "metrics")},
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'keydnn' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LATER[name])
    found = module if module.__name__ == f"keydnn.{name}" else getattr(module, name)
    globals()[name] = found
    return found


zeros, ones, full, rand, randn = Tensor.zeros, Tensor.ones, Tensor.full, Tensor.rand, Tensor.randn
arange, linspace, eye, empty = Tensor.arange, Tensor.linspace, Tensor.eye, Tensor.empty
zeros_like, ones_like, full_like = Tensor.zeros_like, Tensor.ones_like, Tensor.full_like
rand_like, randn_like = Tensor.rand_like, Tensor.randn_like

__all__ = [
    # tensors
    "Tensor", "Device", "tensor", "from_dlpack", "zeros", "ones", "full", "empty", "rand", "randn", "arange", "linspace", "eye",
    "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "concat", "stack", "where", "matmul", "einsum",
    # gradients
    "grad", "hvp", "gradcheck", "no_grad", "enable_grad", "is_grad_enabled", "Context", "Function",
    # layers
    "Module", "Parameter", "WeightInitializer", "Dense", "LazyLinear", "Linear", "Conv2d", "Conv2D", "Conv2dTranspose", "Conv2DTranspose",
    "BatchNorm1d", "BatchNorm1D", "BatchNorm2d", "BatchNorm2D", "LayerNorm", "Dropout", "MaxPool2d", "MaxPool2D", "AvgPool2d", "AvgPool2D",
    "GlobalAvgPool2d", "GlobalAvgPool2D", "Flatten", "ReLU", "LeakyReLU", "Sigmoid", "Tanh", "Softmax",
    "RNN", "LSTM", "GRU", "Bidirectional", "RNNCell", "LSTMCell", "GRUCell", "Embedding", "MultiHeadAttention", "TransformerEncoderLayer",
    # training
    "compile", "Model", "Sequential", "History", "SGD", "Adam", "AdamW", "sse_loss", "mse_loss", "bce_loss", "cce_loss",
    "Callback", "CallbackList", "EarlyStopping", "ModelCheckpoint", "LearningRateScheduler", "ReduceLROnPlateau", "CSVLogger",
    "TerminateOnNaN",
    # saving
    "register_module", "module_to_config", "module_from_config",
    # data and machine
    "load_mnist", "load_cifar10", "load_cifar100", "from_keras",
    "one_hot", "numpy_to_tensor", "seed", "get_seed", "set_deterministic", "get_deterministic", "set_threads", "get_threads",
    "cuda_available",
    # the same by topic
    "activations", "backend", "callbacks", "data", "datasets", "layers", "losses", "metrics", "models", "optimizers", "tensors", "utils",
]  # fmt: skip
