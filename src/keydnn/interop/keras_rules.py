"""How each layer of Keras becomes one of ours: class name to function ``(layer, options) -> parts without the activation``.

Dense kernel (in, out) -> weight (out, in);  convolution kernels, axes (3, 2, 0, 1);  batch normalisation momentum m, the share of the
old value that is kept -> 1 - m, the share of the new;  a fused activation becomes a layer;  recurrent layers get batch_first=True
(their gates are in our order) and their one bias as b_ih.

Source: https://keras.io/api/layers/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn.domain.errors import KeyDNNError
from keydnn.interop.keras_files import KerasLayer
from keydnn.nn import (
    ELU,
    GELU,
    GRU,
    LSTM,
    RNN,
    SELU,
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Bidirectional,
    Conv1d,
    Conv2d,
    Conv2dTranspose,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    HardSigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool1d,
    MaxPool2d,
    Mish,
    Module,
    PReLU,
    ReLU,
    ReLU6,
    RMSNorm,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    Upsample,
)


class KerasInteropError(KeyDNNError, RuntimeError):
    """A Keras model cannot be converted, or its file cannot be read."""


class UnsupportedKerasLayerError(KerasInteropError):
    """A layer, or a setting of it, has no counterpart."""


ACTIVATIONS: dict[str, Callable[[], Module] | None] = {
    "linear": None, "relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh, "softmax": Softmax, "elu": ELU, "selu": SELU, "silu": SiLU,
    "swish": SiLU, "softplus": Softplus, "softsign": Softsign, "mish": Mish, "relu6": ReLU6, "log_softmax": LogSoftmax,
    "leaky_relu": lambda: LeakyReLU(0.2), "hard_tanh": Hardtanh, "hard_sigmoid": HardSigmoid, "hard_silu": Hardswish,
    "hard_swish": Hardswish,
}  # fmt: skip


def activation_of(layer: KerasLayer) -> Module | None:
    """The activation inside a layer as a layer, None for the identity."""
    given = layer.config.get("activation")
    if isinstance(given, dict):  # an activation object
        name = given.get("config", {}).get("activation") if isinstance(given.get("config"), dict) else None
        given = name or given.get("class_name")
    if given is None:
        return None
    key = str(given)
    key = {"ReLU": "relu", "Softmax": "softmax"}.get(key, key)
    if key == "gelu":  # their default is the exact one, as is ours
        return GELU()
    if key not in ACTIVATIONS:
        raise UnsupportedKerasLayerError(f"from_keras: layer {layer.name!r}: activation {given!r} has no counterpart")
    make = ACTIVATIONS[key]
    return None if make is None else make()


def _refuse(layer: KerasLayer, **wanted: Any) -> None:
    """Raise unless the settings have the values that ours can express (a setting that is absent has them)."""
    for key, value in wanted.items():
        found = layer.config.get(key, value)
        found = tuple(found) if isinstance(found, list) else found
        if found != value:
            raise UnsupportedKerasLayerError(
                f"from_keras: layer {layer.name!r} ({layer.kind}): {key}={found!r}, only {value!r} can be converted"
            )


def _single(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(value[0])


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _filled(module: Module, weights: list[np.ndarray], *names: str) -> Module:
    if len(weights) != len(names):
        raise ValueError(f"has {len(weights)} weights, expected {', '.join(names) or 'none'}")
    module.load_state_dict(dict(zip(names, weights, strict=True)))
    return module


def _dense(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    kernel, *bias = layer.weights
    made = Linear(kernel.shape[0], kernel.shape[1], bias=bool(bias), any_rank=layer.rank not in (None, 2), **options)
    return [_filled(made, [kernel.T, *bias], "weight", *["bias"][: len(bias)])]


def _convolution(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    kernel, *bias = layer.weights
    stride, size = _pair(layer.config.get("strides", 1)), _pair(layer.config["kernel_size"])
    _refuse(layer, data_format="channels_first", dilation_rate=(1, 1), groups=1)
    padding: Any = layer.config.get("padding", "valid")
    is_same = padding == "same"
    if padding not in ("same", "valid") or (is_same and (stride != (1, 1) or size[0] % 2 == 0 or size[1] % 2 == 0)):
        raise UnsupportedKerasLayerError(
            f"from_keras: layer {layer.name!r}: padding={padding!r} with kernel {size} and strides {stride};"
            " 'same' can be converted for stride 1 and odd kernels"
        )
    pads = (size[0] // 2, size[1] // 2) if is_same else (0, 0)
    weight = kernel.transpose(3, 2, 0, 1)  # (kh, kw, in, out) -> (out, in, kh, kw); transposed: (kh, kw, out, in) -> (in, out, kh, kw)
    kind: Any = Conv2d
    extra: dict[str, Any] = {}
    if layer.kind == "Conv2DTranspose":
        kind = Conv2dTranspose
        _refuse(layer, output_padding=None)
        if any(s > k for s, k in zip(stride, size, strict=True)):  # they pad the output up to n * s
            extra["output_padding"] = tuple(max(s - k, 0) for s, k in zip(stride, size, strict=True))
    channels = (weight.shape[0], weight.shape[1]) if kind is Conv2dTranspose else (weight.shape[1], weight.shape[0])
    made = kind(*channels, size, stride, pads, bias=bool(bias), **extra, **options)
    return [_filled(made, [weight, *bias], "weight", *["bias"][: len(bias)])]


def _line_convolution(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    kernel, *bias = layer.weights
    _refuse(layer, data_format="channels_first", dilation_rate=(1,), groups=1)
    stride, size, padding = _single(layer.config.get("strides", 1)), kernel.shape[0], layer.config.get("padding", "valid")
    if padding not in ("same", "valid") or (padding == "same" and (stride != 1 or size % 2 == 0)):
        raise UnsupportedKerasLayerError(
            f"from_keras: layer {layer.name!r}: padding={padding!r} with kernel {size} and strides {stride};"
            " 'same' can be converted for stride 1 and odd kernels"
        )
    weight = kernel.transpose(2, 1, 0)  # (k, in, out) -> (out, in, k)
    pad = size // 2 if padding == "same" else 0
    made = Conv1d(weight.shape[1], weight.shape[0], size, stride, pad, bias=bool(bias), **options)
    return [_filled(made, [weight, *bias], "weight", *["bias"][: len(bias)])]


def _line_pool(kind: Any) -> Callable[[KerasLayer, dict[str, Any]], list[Module]]:
    def rule(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
        _refuse(layer, data_format="channels_first", padding="valid")
        size = _single(layer.config["pool_size"])
        return [kind(size, _single(layer.config.get("strides") or size))]

    return rule


def _upsample(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, data_format="channels_first", interpolation="nearest")
    return [Upsample(_pair(layer.config["size"]))]


def _adaptive_pool(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, data_format="channels_first")
    return [AdaptiveAvgPool2d(_pair(layer.config["output_size"]))]


def _pool(kind: Any) -> Callable[[KerasLayer, dict[str, Any]], list[Module]]:
    def rule(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
        _refuse(layer, data_format="channels_first", padding="valid")
        size = _pair(layer.config["pool_size"])
        return [kind(size, _pair(layer.config.get("strides") or size))]

    return rule


def _global_pool(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, data_format="channels_first")
    kept = [] if layer.config.get("keepdims") else [Flatten()]
    return [GlobalAvgPool2d(), *kept]


def _batch_norm(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    scale, centre = layer.config.get("scale", True), layer.config.get("center", True)
    names = [name for name, has in (("gamma", scale), ("beta", centre), ("running_mean", True), ("running_var", True)) if has]
    weights = dict(zip(names, layer.weights, strict=True))
    n = len(weights["running_mean"])
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list | tuple) else axis
    images = layer.rank == 4
    if layer.rank == 3:
        raise UnsupportedKerasLayerError(f"from_keras: layer {layer.name!r} (BatchNormalization) of 3 axes, only 2 and 4 can be converted")
    if axis not in ((1,) if images else (1, -1)):
        raise UnsupportedKerasLayerError(f"from_keras: layer {layer.name!r} (BatchNormalization): axis={axis}, only 1 can be converted")
    kind = BatchNorm2d if images else BatchNorm1d
    settings: dict[str, Any] = {
        "eps": float(layer.config.get("epsilon", 1e-3)),
        "momentum": 1.0 - float(layer.config.get("momentum", 0.99)),
    }
    made = kind(n, affine=True, **settings, **options)
    weights = {"gamma": np.ones(n), "beta": np.zeros(n)} | weights
    return [_filled(made, list(weights.values()), *weights)]


def _layer_norm(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, rms_scaling=False)
    axis = layer.config.get("axis", -1)
    axes = [axis] if isinstance(axis, int) else list(axis)
    names = [name for name, key in (("gamma", "scale"), ("beta", "center")) if layer.config.get(key, True)]
    weights = dict(zip(names, layer.weights, strict=True))
    if not weights:
        raise UnsupportedKerasLayerError(f"from_keras: layer {layer.name!r} (LayerNormalization) without scale and center")
    shape = next(iter(weights.values())).shape
    trailing = list(range(-len(axes), 0))
    if axes != trailing and (layer.rank is None or axes != [layer.rank + a for a in trailing]):
        raise UnsupportedKerasLayerError(
            f"from_keras: layer {layer.name!r} (LayerNormalization): axis={axis}, only trailing axes can be converted"
        )
    made = LayerNorm(shape, eps=float(layer.config.get("epsilon", 1e-3)), **options)
    weights = {"gamma": np.ones(shape), "beta": np.zeros(shape)} | weights
    return [_filled(made, list(weights.values()), *weights)]


def _group_norm(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, axis=1)
    names = [name for name, key in (("gamma", "scale"), ("beta", "center")) if layer.config.get(key, True)]
    weights = dict(zip(names, layer.weights, strict=True))
    if not weights:
        raise UnsupportedKerasLayerError(f"from_keras: layer {layer.name!r} (GroupNormalization) without scale and center")
    n = len(next(iter(weights.values())))
    groups = int(layer.config.get("groups", 32))
    made = GroupNorm(n if groups == -1 else groups, n, eps=float(layer.config.get("epsilon", 1e-3)), **options)
    weights = {"gamma": np.ones(n), "beta": np.zeros(n)} | weights
    return [_filled(made, list(weights.values()), *weights)]


def _rms_norm(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    axis = layer.config.get("axis", -1)
    if (axis if isinstance(axis, int) else list(axis)) not in (-1, [-1]):
        raise UnsupportedKerasLayerError(f"from_keras: layer {layer.name!r} (RMSNormalization): axis={axis}, only -1 can be converted")
    (scale,) = layer.weights
    return [_filled(RMSNorm(scale.shape, eps=float(layer.config.get("epsilon", 1e-6)), **options), [scale], "gamma")]


def _prelu(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    (slope,) = layer.weights
    if slope.size not in (1, slope.shape[0]):
        raise UnsupportedKerasLayerError(
            f"from_keras: layer {layer.name!r} (PReLU): slopes of shape {slope.shape}, not one or one per channel (shared_axes)"
        )
    return [_filled(PReLU(slope.size, **options), [slope.reshape(-1)], "weight")]


def _dropout(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, noise_shape=None)
    return [Dropout(float(layer.config["rate"]))]


def _relu(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    slope, top = layer.config.get("negative_slope") or 0.0, layer.config.get("max_value")
    _refuse(layer, threshold=0.0)
    if top not in (None, 6.0) or (slope and top):
        raise UnsupportedKerasLayerError(f"from_keras: layer {layer.name!r} (ReLU): max_value={top}, negative_slope={slope}")
    return [ReLU6() if top else LeakyReLU(float(slope)) if slope else ReLU()]


def _leaky_relu(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    return [LeakyReLU(float(layer.config.get("negative_slope", layer.config.get("alpha", 0.3))))]


def _softmax(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    axis = layer.config.get("axis", -1)
    return [Softmax(axis if isinstance(axis, int) else axis[0])]


def _flatten(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    if layer.rank != 2:
        _refuse(layer, data_format="channels_last")  # the other one puts the channels last before it flattens
    return [Flatten()]


def _embedding(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, mask_zero=False)
    (table,) = layer.weights
    return [_filled(Embedding(*table.shape, **options), [table], "weight")]


KINDS: dict[str, Any] = {"SimpleRNN": RNN, "LSTM": LSTM, "GRU": GRU}


def _recurrent(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    _refuse(layer, activation="tanh", go_backwards=False, return_state=False, dropout=0.0, recurrent_dropout=0.0, time_major=False)
    kernel, recurrent, *bias = layer.weights
    settings = dict(options)
    if layer.kind != "SimpleRNN":
        _refuse(layer, recurrent_activation="sigmoid")
    if layer.kind == "GRU":
        settings["reset_after"] = bool(layer.config.get("reset_after", True))
    sequences = bool(layer.config.get("return_sequences", False))
    made = KINDS[layer.kind](
        len(kernel), len(recurrent), bias=bool(bias), return_sequences=sequences, return_state=False, batch_first=True, **settings
    )
    both = [] if not bias else list(bias[0]) if bias[0].ndim == 2 else [bias[0], np.zeros_like(bias[0])]
    names = ("cell.W_ih", "cell.W_hh", "cell.b_ih", "cell.b_hh")[: 2 + len(both)]
    return [_filled(made, [kernel, recurrent, *both], *names)]


def _bidirectional(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    inner, backward = layer.config["layer"], layer.config.get("backward_layer")
    ahead = dict(inner["config"])
    other = ahead if backward is None else {**backward["config"], "go_backwards": False}
    mode = layer.config.get("merge_mode", "concat")
    if inner["class_name"] not in KINDS or mode is None or (backward or inner)["class_name"] != inner["class_name"]:
        raise UnsupportedKerasLayerError(
            f"from_keras: layer {layer.name!r} (Bidirectional) of {inner['class_name']} with merge_mode={mode!r}"
        )
    half = len(layer.weights) // 2
    parts = [
        _recurrent(KerasLayer(inner["class_name"], layer.name, settings, weights), options)[0]
        for settings, weights in ((ahead, layer.weights[:half]), (other, layer.weights[half:]))
    ]
    made = Bidirectional(parts[0], mode, return_sequences=bool(ahead.get("return_sequences", False)))
    made.forward_layer.load_state_dict(parts[0].state_dict())
    made.backward_layer.load_state_dict(parts[1].state_dict())
    return [made]


def _own_activation(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    made = activation_of(layer)
    return [] if made is None else [made]


def _plain(kind: Callable[[], Module]) -> Callable[[KerasLayer, dict[str, Any]], list[Module]]:
    return lambda layer, options: [kind()]


RULES: dict[str, Callable[[KerasLayer, dict[str, Any]], list[Module]]] = {
    "InputLayer": lambda layer, options: [],
    "Dense": _dense,
    "Conv2D": _convolution,
    "Conv2DTranspose": _convolution,
    "Flatten": _flatten,
    "Dropout": _dropout,
    "MaxPooling2D": _pool(MaxPool2d),
    "AveragePooling2D": _pool(AvgPool2d),
    "GlobalAveragePooling2D": _global_pool,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm,
    "Conv1D": _line_convolution,
    "MaxPooling1D": _line_pool(MaxPool1d),
    "AveragePooling1D": _line_pool(AvgPool1d),
    "UpSampling2D": _upsample,
    "AdaptiveAveragePooling2D": _adaptive_pool,
    "PReLU": _prelu,
    "Identity": _plain(Identity),
    "ActivityRegularization": lambda layer, options: [],
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": lambda layer, options: [ELU(float(layer.config.get("alpha", 1.0)))],
    "Sigmoid": _plain(Sigmoid),
    "Tanh": _plain(Tanh),
    "Softmax": _softmax,
    "Activation": _own_activation,
    "Embedding": _embedding,
    "SimpleRNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "Bidirectional": _bidirectional,
}
