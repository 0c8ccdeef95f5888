"""The table of layers: adding a layer means adding a row.  A registered layer without a row fails the suite."""

from functools import partial

import numpy as np

from keydnn import nn
from keydnn.testing.layers import LayerCase, apart, labels, normal, probabilities
from tests.nn import definitions as d
from tests.nn import sequence_cases


def without_state(cls, definition, *args, draw=normal, name=None, shape=(3, 4, 2)):
    """A row for a layer of the elements of x."""
    return LayerCase(name or cls.__name__, cls, lambda dtype: cls(*args), (draw(*shape),), shape, definition)


def linear(name, make, definition, x=(3, 4), y=(3, 5)):
    return LayerCase(name, type(make(np.float32)), make, (normal(*x),), y, definition)


def conv(name, x, y, definition, **options):
    return LayerCase(name, nn.Conv2d, lambda dtype: nn.Conv2d(x[1], y[1], dtype=dtype, **options), (normal(*x),), y, definition)


def transpose(name, x, y, definition, **options):
    make = lambda dtype: nn.Conv2dTranspose(x[1], y[1], dtype=dtype, **options)  # noqa: E731
    return LayerCase(name, nn.Conv2dTranspose, make, (normal(*x),), y, definition)


def pool(name, cls, x, y, reduce, border, kernel, stride, padding):
    definition = lambda x: d.pool2d(x, reduce, kernel, stride, padding, border)  # noqa: E731
    return LayerCase(name, cls, lambda dtype: cls(kernel, stride, padding), (apart(*x),), y, definition)


def batch_norm(name, cls, x, eps=1e-5, **options):
    return LayerCase(
        name,
        cls,
        lambda dtype: cls(x[1], dtype=dtype, eps=eps, **options),
        (normal(*x),),
        x,
        lambda x, **state: d.batch_norm(x, eps, **state),
        train_differs=True,
        eval_definition=lambda x, **state: d.batch_norm_eval(x, eps, **state),
    )


def layer_norm(name, x, shape, eps=1e-5, **options):
    axes = (-1,) if isinstance(shape, int) else tuple(range(-len(shape), 0))
    definition = lambda x, gamma=None, beta=None: d.normalized(x, axes, eps, gamma, beta)  # noqa: E731
    make = lambda dtype: nn.LayerNorm(shape, eps=eps, dtype=dtype, **options)  # noqa: E731
    return LayerCase(name, nn.LayerNorm, make, (normal(*x),), x, definition)


def loss(name, make, inputs, definition, differentiated=1):
    return LayerCase(name, type(make()), lambda dtype: make(), inputs, (), definition, differentiated=differentiated)


def signs(*shape):
    return lambda rng: np.sign(normal(*shape)(rng))


AFFINE = [
    linear("Linear", lambda dtype: nn.Linear(4, 5, dtype=dtype), lambda x, weight, bias: x @ weight.T + bias),
    linear("Linear-no-bias", lambda dtype: nn.Linear(4, 5, bias=False, dtype=dtype), lambda x, weight: x @ weight.T),
    linear("Linear-one", lambda dtype: nn.Linear(1, 1, dtype=dtype), lambda x, weight, bias: x @ weight.T + bias, (1, 1), (1, 1)),
    linear(
        "Linear-volume",
        lambda dtype: nn.Linear(4, 5, dtype=dtype, any_rank=True),
        lambda x, weight, bias: x @ weight.T + bias,
        (2, 1, 3, 4),
        (2, 1, 3, 5),
    ),
    linear(
        "Dense-vector",
        lambda dtype: nn.Dense(5, bias=False, dtype=dtype, any_rank=True),
        lambda x, weight: weight @ x,
        (4,),
        (5,),
    ),
    linear("Dense", lambda dtype: nn.Dense(5, dtype=dtype, initializer="kaiming"), lambda x, weight, bias: x @ weight.T + bias),
    linear("Dense-no-bias", lambda dtype: nn.Dense(5, bias=False, dtype=dtype), lambda x, weight: x @ weight.T),
]

CONVOLUTIONS = [
    conv("Conv2d", (2, 3, 5, 4), (2, 4, 3, 2), lambda x, weight, bias: d.conv2d(x, weight, bias), kernel_size=3),
    conv(
        "Conv2d-stride-padding-no-bias",
        (2, 2, 6, 5),
        (2, 3, 3, 7),
        lambda x, weight: d.conv2d(x, weight, None, (2, 1), ((1, 1), (2, 2))),
        kernel_size=(3, 3),
        stride=[2, 1],
        padding=(1, 2),
        bias=False,
    ),
    conv(
        "Conv2d-dilation-groups",
        (2, 4, 6, 6),
        (2, 6, 4, 2),
        lambda x, weight, bias: d.conv2d(x, weight, bias, dilation=(1, 2), groups=2),
        kernel_size=3,
        dilation=(1, 2),
        groups=2,
        initializer="xavier",
    ),
    conv(
        "Conv2d-depthwise-same",
        (1, 3, 4, 5),
        (1, 3, 4, 5),
        lambda x, weight, bias: d.conv2d(x, weight, bias, sides=((1, 1), (1, 1)), groups=3),
        kernel_size=3,
        groups=3,
        padding="same",
    ),
    conv(
        "Conv2d-same-even-window",
        (1, 2, 4, 5),
        (1, 2, 4, 5),
        lambda x, weight, bias: d.conv2d(x, weight, bias, sides=((0, 1), (1, 2))),
        kernel_size=(2, 4),
        padding="same",
    ),
    conv(
        "Conv2d-same-stride",
        (1, 2, 5, 6),
        (1, 2, 3, 3),
        lambda x, weight, bias: d.conv2d(x, weight, bias, (2, 2), ((1, 1), (0, 1))),
        kernel_size=3,
        stride=2,
        padding="same",
    ),
    conv("Conv2d-valid", (1, 1, 3, 3), (1, 1, 2, 2), lambda x, weight, bias: d.conv2d(x, weight, bias), kernel_size=2, padding="valid"),
    transpose(
        "Conv2dTranspose",
        (2, 3, 3, 2),
        (2, 2, 5, 4),
        lambda x, weight, bias: d.conv2d_transpose(x, weight, bias, (1, 1), (0, 0), (0, 0)),
        kernel_size=3,
    ),
    transpose(
        "Conv2dTranspose-stride-padding-no-bias",
        (2, 2, 3, 4),
        (2, 3, 6, 9),
        lambda x, weight: d.conv2d_transpose(x, weight, None, (2, 3), (1, 1), (1, 0)),
        kernel_size=(3, 2),
        stride=(2, 3),
        padding=1,
        output_padding=(1, 0),
        bias=False,
    ),
    transpose(
        "Conv2dTranspose-dilation-groups",
        (1, 4, 3, 3),
        (1, 2, 7, 4),
        lambda x, weight, bias: d.conv2d_transpose(x, weight, bias, (1, 1), (0, 0), (0, 0), (2, 1), 2),
        kernel_size=(3, 2),
        dilation=(2, 1),
        groups=2,
        initializer="kaiming",
    ),
]

POOLS = [
    pool("MaxPool2d", nn.MaxPool2d, (2, 2, 4, 6), (2, 2, 2, 3), np.max, -np.inf, (2, 2), (2, 2), (0, 0)),
    pool("MaxPool2d-overlap-padding", nn.MaxPool2d, (1, 2, 4, 5), (1, 2, 4, 3), np.max, -np.inf, (3, 2), (1, 2), (1, 1)),
    pool("AvgPool2d", nn.AvgPool2d, (2, 2, 4, 6), (2, 2, 2, 3), np.mean, 0.0, (2, 2), (2, 2), (0, 0)),
    pool("AvgPool2d-overlap-padding", nn.AvgPool2d, (1, 2, 4, 5), (1, 2, 4, 3), np.mean, 0.0, (3, 2), (1, 2), (1, 1)),
    LayerCase(
        "GlobalAvgPool2d",
        nn.GlobalAvgPool2d,
        lambda dtype: nn.GlobalAvgPool2d(),
        (normal(2, 3, 4, 5),),
        (2, 3, 1, 1),
        lambda x: x.mean((2, 3), keepdims=True),
    ),
]

NORMALIZATIONS = [
    batch_norm("BatchNorm1d", nn.BatchNorm1d, (6, 3)),
    batch_norm("BatchNorm1d-plain", nn.BatchNorm1d, (6, 3), eps=0.1, affine=False),
    batch_norm("BatchNorm2d", nn.BatchNorm2d, (3, 2, 3, 2), momentum=0.3),
    batch_norm("BatchNorm2d-plain", nn.BatchNorm2d, (3, 2, 2, 2), affine=False),
    layer_norm("LayerNorm", (2, 3, 4), (3, 4)),
    layer_norm("LayerNorm-int", (4, 5), 5, eps=0.1),
    layer_norm("LayerNorm-plain", (2, 3, 4), [4], affine=False),
]

ACTIVATIONS = [
    without_state(nn.ReLU, lambda x: np.maximum(x, 0.0)),
    without_state(nn.LeakyReLU, lambda x: np.where(x > 0, x, 0.01 * x)),
    without_state(nn.LeakyReLU, lambda x: np.where(x > 0, x, 0.3 * x), 0.3, name="LeakyReLU-alpha"),
    without_state(nn.Sigmoid, d.sigmoid),
    without_state(nn.Tanh, np.tanh),
    without_state(nn.Softmax, d.softmax),
    without_state(nn.Softmax, lambda x: d.softmax(x, 1), 1, name="Softmax-axis"),
    without_state(nn.LogSoftmax, lambda x: np.log(d.softmax(x))),
    without_state(nn.GELU, d.gelu),
    without_state(nn.SiLU, lambda x: x * d.sigmoid(x)),
    without_state(nn.ELU, lambda x: np.where(x > 0, x, np.expm1(x))),
    without_state(nn.ELU, lambda x: np.where(x > 0, x, 2.5 * np.expm1(x)), 2.5, name="ELU-alpha"),
    without_state(nn.SELU, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    without_state(nn.Softplus, lambda x: np.logaddexp(0.0, x)),
    without_state(nn.Softsign, lambda x: x / (1.0 + np.abs(x))),
    without_state(nn.Mish, lambda x: x * np.tanh(np.logaddexp(0.0, x))),
    without_state(nn.ReLU6, lambda x: np.clip(x, 0.0, 6.0), draw=lambda *s: lambda rng: rng.uniform(-5, 10, s)),
    without_state(nn.Hardtanh, lambda x: np.clip(x, -1, 1), draw=lambda *s: lambda rng: rng.uniform(-3, 3, s)),
    without_state(nn.HardSigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1), draw=lambda *s: lambda rng: rng.uniform(-5, 5, s)),
    without_state(nn.Hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6, draw=lambda *s: lambda rng: rng.uniform(-5, 5, s)),
    LayerCase(
        "PReLU",
        nn.PReLU,
        lambda dtype: nn.PReLU(dtype=dtype),
        (normal(3, 4),),
        (3, 4),
        lambda x, weight: np.where(x > 0, x, weight * x),
    ),
    LayerCase(
        "PReLU-channels",
        nn.PReLU,
        lambda dtype: nn.PReLU(4, init=0.1, dtype=dtype),
        (normal(2, 4, 3),),
        (2, 4, 3),
        lambda x, weight: np.where(x > 0, x, weight[:, None] * x),
    ),
]

OTHERS = [
    LayerCase(
        "Dropout",
        nn.Dropout,
        lambda dtype: nn.Dropout(0.4),
        (normal(5, 6),),
        (5, 6),
        train_differs=True,
        eval_definition=lambda x: x,
    ),
    LayerCase("Dropout-0", nn.Dropout, lambda dtype: nn.Dropout(0.0), (normal(5, 6),), (5, 6), lambda x: x),
    LayerCase("Flatten", nn.Flatten, lambda dtype: nn.Flatten(), (normal(2, 3, 4),), (2, 12), lambda x: x.reshape(2, 12)),
    LayerCase("Flatten-vector", nn.Flatten, lambda dtype: nn.Flatten(), (normal(3),), (3, 1), lambda x: x[:, None]),
]

LOSSES = [
    loss("SSE", nn.SSE, (normal(3, 4), normal(3, 4)), lambda p, y: ((p - y) ** 2).sum(), 2),
    loss("MSE", nn.MSE, (normal(3, 4), normal(3, 4)), lambda p, y: ((p - y) ** 2).mean(), 2),
    loss("BinaryCrossEntropy", nn.BinaryCrossEntropy, (probabilities(3, 4), probabilities(3, 4)), d.bce),
    loss("CategoricalCrossEntropy", nn.CategoricalCrossEntropy, (probabilities(3, 4), probabilities(3, 4)), d.cce),
    loss("BCEWithLogits", nn.BCEWithLogits, (normal(3, 4), probabilities(3, 4)), lambda z, y: d.bce(d.sigmoid(z), y)),
    loss("MSE-sum", partial(nn.MSE, "sum"), (normal(3, 4), normal(3, 4)), lambda p, y: ((p - y) ** 2).sum(), 2),
    loss(
        "BinaryCrossEntropy-sum",
        partial(nn.BinaryCrossEntropy, "sum"),
        (probabilities(3, 4), probabilities(3, 4)),
        lambda p, y: 12 * d.bce(p, y),
    ),
    loss(
        "CategoricalCrossEntropy-sum",
        partial(nn.CategoricalCrossEntropy, "sum"),
        (probabilities(3, 4), probabilities(3, 4)),
        lambda p, y: 3 * d.cce(p, y),
    ),
    loss("CrossEntropy-labels", nn.CrossEntropy, (normal(5, 4), labels(5, 4)), d.cross_entropy),
    loss("CrossEntropy-soft", nn.CrossEntropy, (normal(5, 4), probabilities(5, 4)), d.cross_entropy),
    loss("MAE", nn.MAE, (normal(3, 4), normal(3, 4)), lambda p, y: np.abs(p - y).mean(), 2),
    loss("Huber", partial(nn.Huber, 0.7, "sum"), (normal(3, 4), normal(3, 4)), partial(d.huber, delta=0.7), 2),
    loss("KLDivergence", nn.KLDivergence, (probabilities(3, 4), probabilities(3, 4)), lambda p, y: (y * np.log(y / p)).sum(-1).mean()),
    loss("Hinge", nn.Hinge, (normal(3, 4), signs(3, 4)), lambda p, y: np.maximum(0, 1 - y * p).mean()),
    loss(
        "CrossEntropy-settings",
        partial(nn.CrossEntropy, 0.1, [1.0, 0.5, 2.0, 0.0], 1),
        (normal(5, 4), labels(5, 4)),
        partial(d.cross_entropy_settings, smoothing=0.1, weights=np.array([1.0, 0.5, 2.0, 0.0]), ignored=1),
    ),
    loss(
        "CrossEntropy-soft-settings",
        partial(nn.CrossEntropy, 0.2, [1.0, 0.5, 2.0, 0.0], reduction="sum"),
        (normal(5, 4), probabilities(5, 4)),
        lambda z, y: -((0.8 * y + 0.05) * [1.0, 0.5, 2.0, 0.0] * (z - np.log(np.exp(z).sum(1, keepdims=True)))).sum(),
    ),
]


def group_norm(x, groups, eps, gamma=None, beta=None):
    rows = x.reshape(x.shape[0], groups, -1)
    y = d.normalized(rows, (-1,), eps).reshape(x.shape)
    return y if gamma is None else y * d.channels(gamma, x.ndim) + d.channels(beta, x.ndim)


def rms_norm(x, axes, eps, gamma=1.0):
    return gamma * x / np.sqrt((x**2).mean(axes, keepdims=True) + eps)


def adaptive(cls, output_size, x, reduce, draw=normal):
    wanted = tuple(np.broadcast_to(output_size, len(x) - 2).tolist())
    name = f"{cls.__name__}-{'-'.join(map(str, wanted))}"
    return row(cls, name, lambda t: cls(output_size), x, (*x[:2], *wanted), lambda x: d.adaptive(x, reduce, wanted), draw)


def shuffled(x, r):
    n, c, h, w = x.shape
    y = np.zeros((n, c // r**2, h * r, w * r))
    for k, i, j in np.ndindex(c // r**2, r, r):
        y[:, k, i::r, j::r] = x[:, k * r * r + i * r + j]
    return y


def row(cls, name, make, x, y, definition, draw=normal):
    return LayerCase(name, cls, make, (draw(*x),), y, definition)


def line(x, w, b=None, stride=1, pad=0, dilation=1, groups=1):
    return d.conv2d(x[:, :, None], w[:, :, None], b, (1, stride), ((0, 0), (pad, pad)), (1, dilation), groups)[:, :, 0]


MORE = [
    row(
        nn.GroupNorm,
        "GroupNorm",
        lambda t: nn.GroupNorm(2, 4, dtype=t),
        (3, 4, 2, 3),
        (3, 4, 2, 3),
        lambda x, **s: group_norm(x, 2, 1e-5, **s),
    ),
    row(
        nn.GroupNorm,
        "GroupNorm-plain",
        lambda t: nn.GroupNorm(3, 3, eps=0.1, affine=False, dtype=t),
        (2, 3, 4),
        (2, 3, 4),
        lambda x: group_norm(x, 3, 0.1),
    ),
    row(
        nn.InstanceNorm2d,
        "InstanceNorm2d",
        lambda t: nn.InstanceNorm2d(3, dtype=t),
        (2, 3, 3, 2),
        (2, 3, 3, 2),
        lambda x: group_norm(x, 3, 1e-5),
    ),
    row(
        nn.InstanceNorm2d,
        "InstanceNorm2d-affine",
        lambda t: nn.InstanceNorm2d(3, affine=True, dtype=t),
        (2, 3, 3, 2),
        (2, 3, 3, 2),
        lambda x, **s: group_norm(x, 3, 1e-5, **s),
    ),
    row(nn.RMSNorm, "RMSNorm", lambda t: nn.RMSNorm(4, dtype=t), (2, 3, 4), (2, 3, 4), lambda x, gamma: rms_norm(x, -1, 1e-6, gamma)),
    row(
        nn.RMSNorm,
        "RMSNorm-plain",
        lambda t: nn.RMSNorm((3, 4), eps=0.1, affine=False, dtype=t),
        (2, 3, 4),
        (2, 3, 4),
        lambda x: rms_norm(x, (1, 2), 0.1),
    ),
    row(nn.Conv1d, "Conv1d", lambda t: nn.Conv1d(3, 4, 3, dtype=t), (2, 3, 7), (2, 4, 5), lambda x, weight, bias: line(x, weight, bias)),
    row(
        nn.Conv1d,
        "Conv1d-geometry",
        lambda t: nn.Conv1d(4, 6, 3, 2, 2, False, dilation=2, groups=2, dtype=t),
        (2, 4, 7),
        (2, 6, 4),
        lambda x, weight: line(x, weight, None, 2, 2, 2, 2),
    ),
    row(
        nn.MaxPool1d,
        "MaxPool1d",
        lambda t: nn.MaxPool1d(3, 2, 1),
        (2, 3, 7),
        (2, 3, 4),
        lambda x: d.pool2d(x[:, :, None], np.max, (1, 3), (1, 2), (0, 1), -np.inf)[:, :, 0],
        apart,
    ),
    row(
        nn.AvgPool1d,
        "AvgPool1d",
        lambda t: nn.AvgPool1d(3, 2, 1),
        (2, 3, 7),
        (2, 3, 4),
        lambda x: d.pool2d(x[:, :, None], np.mean, (1, 3), (1, 2), (0, 1), 0.0)[:, :, 0],
    ),
    adaptive(nn.AdaptiveAvgPool1d, 3, (2, 3, 7), np.mean),
    adaptive(nn.AdaptiveAvgPool2d, (2, 3), (2, 2, 5, 7), np.mean),
    adaptive(nn.AdaptiveAvgPool2d, 2, (2, 2, 4, 6), np.mean),
    adaptive(nn.AdaptiveAvgPool2d, (7, 5), (1, 2, 4, 2), np.mean),
    adaptive(nn.AdaptiveAvgPool3d, (2, 3, 1), (1, 2, 3, 4, 5), np.mean),
    adaptive(nn.AdaptiveMaxPool1d, 4, (2, 3, 6), np.max, apart),
    adaptive(nn.AdaptiveMaxPool2d, (3, 2), (2, 2, 5, 7), np.max, apart),
    adaptive(nn.AdaptiveMaxPool2d, 3, (1, 2, 6, 3), np.max, apart),
    adaptive(nn.AdaptiveMaxPool3d, 2, (1, 2, 3, 4, 5), np.max, apart),
    row(
        nn.Conv3d,
        "Conv3d",
        lambda t: nn.Conv3d(2, 3, 2, dtype=t),
        (2, 2, 3, 3, 4),
        (2, 3, 2, 2, 3),
        lambda x, weight, bias: d.conv3d(x, weight, bias),
    ),
    row(
        nn.Conv3d,
        "Conv3d-geometry",
        lambda t: nn.Conv3d(4, 2, (2, 3, 1), (2, 1, 2), (2, 0, 1), False, dilation=(3, 1, 1), groups=2, dtype=t),
        (1, 4, 3, 4, 3),
        (1, 2, 2, 2, 3),
        lambda x, weight: d.conv3d(x, weight, None, (2, 1, 2), (2, 0, 1), (3, 1, 1), 2),
    ),
    row(
        nn.MaxPool3d,
        "MaxPool3d",
        lambda t: nn.MaxPool3d((2, 3, 2), 2, 1),
        (1, 2, 4, 3, 3),
        (1, 2, 3, 2, 2),
        lambda x: d.pool3d(x, np.max, (2, 3, 2), (2, 2, 2), (1, 1, 1), -np.inf),
        apart,
    ),
    row(
        nn.AvgPool3d,
        "AvgPool3d",
        lambda t: nn.AvgPool3d((2, 3, 2), [1, 2, 3], (0, 1, 1)),
        (1, 2, 4, 3, 3),
        (1, 2, 3, 2, 2),
        lambda x: d.pool3d(x, np.mean, (2, 3, 2), (1, 2, 3), (0, 1, 1), 0.0),
    ),
    row(
        nn.ZeroPad2d,
        "ZeroPad2d",
        lambda t: nn.ZeroPad2d((1, 0, 2, 3)),
        (1, 2, 2, 3),
        (1, 2, 7, 4),
        lambda x: np.pad(x, ((0, 0), (0, 0), (2, 3), (1, 0))),
    ),
    row(
        nn.Upsample,
        "Upsample-bilinear",
        lambda t: nn.Upsample((2, 3), "bilinear"),
        (2, 2, 3, 2),
        (2, 2, 6, 6),
        lambda x: d.bilinear(x, 6, 6, False),
    ),
    row(
        nn.Upsample,
        "Upsample-corners",
        lambda t: nn.Upsample((3, 2), "bilinear", align_corners=True),
        (1, 2, 2, 1),
        (1, 2, 6, 2),
        lambda x: d.bilinear(x, 6, 2, True),
    ),
    row(nn.Upsample, "Upsample", lambda t: nn.Upsample((2, 3)), (2, 2, 3, 2), (2, 2, 6, 6), lambda x: x.repeat(2, 2).repeat(3, 3)),
    row(nn.PixelShuffle, "PixelShuffle", lambda t: nn.PixelShuffle(2), (2, 8, 2, 3), (2, 2, 4, 6), lambda x: shuffled(x, 2)),
    row(nn.Identity, "Identity", lambda t: nn.Identity(), (2, 3), (2, 3), lambda x: x),
]

LAYER_CASES = [*AFFINE, *CONVOLUTIONS, *POOLS, *NORMALIZATIONS, *ACTIVATIONS, *OTHERS, *sequence_cases.CASES, *LOSSES, *MORE]
