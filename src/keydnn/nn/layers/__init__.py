"""The layers, one file per family."""

from keydnn.nn.layers.activation import (
    ELU,
    GELU,
    SELU,
    HardSigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Swish,
    Tanh,
)
from keydnn.nn.layers.adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from keydnn.nn.layers.attention import MultiHeadAttention, TransformerEncoderLayer
from keydnn.nn.layers.bidirectional import Bidirectional
from keydnn.nn.layers.cells import GRUCell, LSTMCell, RNNCell
from keydnn.nn.layers.conv import Conv2D, Conv2d, Conv2DTranspose, Conv2dTranspose
from keydnn.nn.layers.dropout import Dropout
from keydnn.nn.layers.embedding import Embedding
from keydnn.nn.layers.groups import GroupNorm, InstanceNorm2d, RMSNorm
from keydnn.nn.layers.layer import Layer, StatelessConfigMixin
from keydnn.nn.layers.linear import Dense, LazyLinear, Linear
from keydnn.nn.layers.norm import BatchNorm1D, BatchNorm1d, BatchNorm2D, BatchNorm2d, LayerNorm, Normalization
from keydnn.nn.layers.one_axis import AvgPool1d, Conv1d, MaxPool1d
from keydnn.nn.layers.pool import (
    AvgPool2D,
    AvgPool2d,
    GlobalAvgPool2D,
    GlobalAvgPool2d,
    MaxPool2D,
    MaxPool2d,
    Pool2dConfigMixin,
)
from keydnn.nn.layers.recurrent import GRU, LSTM, RNN
from keydnn.nn.layers.resize import Identity, PixelShuffle, Upsample, ZeroPad2d
from keydnn.nn.layers.shape import Flatten
from keydnn.nn.layers.three_axes import AvgPool3d, Conv3d, MaxPool3d

__all__ = [
    "GroupNorm", "InstanceNorm2d", "RMSNorm", "AvgPool1d", "Conv1d", "MaxPool1d", "AdaptiveAvgPool2d", "Identity",
    "PixelShuffle", "Upsample", "Hardtanh",
    "AvgPool2D", "AvgPool2d", "BatchNorm1D", "BatchNorm1d", "BatchNorm2D", "BatchNorm2d", "Bidirectional", "Conv2D", "Conv2DTranspose",
    "Conv2d", "Conv2dTranspose", "Dense", "Dropout", "ELU", "Embedding", "Flatten", "GELU", "GRU", "GRUCell", "GlobalAvgPool2D",
    "GlobalAvgPool2d", "HardSigmoid", "Hardswish", "LSTM", "LSTMCell", "Layer", "LayerNorm", "LazyLinear", "LeakyReLU", "Linear",
    "LogSoftmax", "MaxPool2D", "MaxPool2d", "Mish", "MultiHeadAttention", "Normalization", "PReLU", "Pool2dConfigMixin", "RNN", "RNNCell",
    "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Softsign", "StatelessConfigMixin", "Tanh",
    "TransformerEncoderLayer", "AdaptiveAvgPool1d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d",
    "AvgPool3d", "Conv3d", "MaxPool3d", "Swish", "ZeroPad2d",
]  # fmt: skip
