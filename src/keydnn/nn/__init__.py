"""Modules: parameters, initializers, layers and losses.

>>> from keydnn import nn
>>> layer = nn.Linear(4, 3)
>>> layer(keydnn.ones((2, 4))).shape
(2, 3)
"""

from keydnn.nn.functions import (
    AvgPool2dFn,
    Conv2dFn,
    Conv2dTransposeFn,
    ExpFn,
    FlattenFn,
    GlobalAvgPool2dFn,
    LeakyReLUFn,
    MaxPool2dFn,
    ReLUFn,
    SigmoidFn,
    SoftmaxFn,
    TanhFn,
    exp,
)
from keydnn.nn.initializers import WeightInitializer
from keydnn.nn.layers import (
    ELU,
    GELU,
    SELU,
    AvgPool2D,
    AvgPool2d,
    BatchNorm1D,
    BatchNorm1d,
    BatchNorm2D,
    BatchNorm2d,
    Conv2D,
    Conv2d,
    Conv2DTranspose,
    Conv2dTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalAvgPool2d,
    HardSigmoid,
    Hardswish,
    Layer,
    LayerNorm,
    LazyLinear,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool2D,
    MaxPool2d,
    Mish,
    Normalization,
    Pool2dConfigMixin,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    StatelessConfigMixin,
    Tanh,
)
from keydnn.nn.losses import (
    BCE,
    CCE,
    LOSSES,
    MSE,
    SSE,
    BCEFn,
    BCEWithLogits,
    BinaryCrossEntropy,
    BinaryCrossEntropyFn,
    CategoricalCrossEntropy,
    CategoricalCrossEntropyFn,
    CCEFn,
    CrossEntropy,
    LossFromFn,
    MSEFn,
    SSEFn,
    bce_loss,
    cce_loss,
    mse_loss,
    sse_loss,
)
from keydnn.nn.module import Module, latest_stamp, structure_stamp
from keydnn.nn.parameter import Parameter

__all__ = [
    "AvgPool2D", "AvgPool2d", "AvgPool2dFn", "BCE", "BCEFn", "BCEWithLogits", "BatchNorm1D", "BatchNorm1d", "BatchNorm2D",
    "BatchNorm2d", "BinaryCrossEntropy", "BinaryCrossEntropyFn", "CCE", "CCEFn", "CategoricalCrossEntropy",
    "CategoricalCrossEntropyFn", "Conv2D", "Conv2DTranspose", "Conv2d", "Conv2dFn", "Conv2dTranspose", "Conv2dTransposeFn",
    "CrossEntropy", "Dense", "Dropout", "ELU", "ExpFn", "Flatten", "FlattenFn", "GELU", "GlobalAvgPool2D", "GlobalAvgPool2d",
    "GlobalAvgPool2dFn", "HardSigmoid", "Hardswish", "LOSSES", "Layer", "LayerNorm", "LazyLinear", "LeakyReLU", "LeakyReLUFn",
    "Linear", "LogSoftmax", "LossFromFn", "MSE", "MSEFn", "MaxPool2D", "MaxPool2d", "MaxPool2dFn", "Mish", "Module",
    "Normalization", "PReLU", "Parameter", "Pool2dConfigMixin", "ReLU", "ReLU6", "ReLUFn", "SELU", "SSE", "SSEFn", "SiLU",
    "Sigmoid", "SigmoidFn", "Softmax", "SoftmaxFn", "Softplus", "Softsign", "StatelessConfigMixin", "Tanh", "TanhFn",
    "WeightInitializer", "bce_loss", "cce_loss", "exp", "latest_stamp", "mse_loss", "sse_loss", "structure_stamp",
]  # fmt: skip
