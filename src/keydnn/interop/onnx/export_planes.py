"""How layers that work on planes and lines are written: convolutions, pools, norms over them, changes of size."""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn import nn
from keydnn.interop.onnx.errors import UnsupportedOnnxError
from keydnn.interop.onnx.writer import Rule, State, Writer


def _list(size: Any) -> list[int]:
    """A number or several as a list: layers along one axis have numbers."""
    return [int(size)] if isinstance(size, int) else list(size)


def _weights(g: Writer, m: Any, where: str) -> list[str]:
    return [g.constant(m.weight, f"{where}.weight"), *([] if m.bias is None else [g.constant(m.bias, f"{where}.bias")])]


def _geometry(m: Any) -> dict[str, Any]:
    sizes = {"kernel_shape": _list(m.kernel_size), "strides": _list(m.stride), "dilations": _list(m.dilation), "group": m.groups}
    if m.padding == "same":
        return {**sizes, "auto_pad": "SAME_UPPER"}
    return {**sizes, "pads": _list(m.padding) * 2}


def _conv(g: Writer, m: Any, x: State, where: str) -> State:
    return State(g.node("Conv", x.name, *_weights(g, m, where), **_geometry(m)), m(x.value))


def _conv_transpose(g: Writer, m: Any, x: State, where: str) -> State:
    extra: dict[str, Any] = {"output_padding": _list(m.output_padding)}
    return State(g.node("ConvTranspose", x.name, *_weights(g, m, where), **_geometry(m), **extra), m(x.value))


def _pool(op: str, **extra: Any) -> Rule:
    def rule(g: Writer, m: Any, x: State, where: str) -> State:
        options: dict[str, Any] = {"kernel_shape": _list(m.kernel_size), "strides": _list(m.stride), "pads": _list(m.padding) * 2}
        return State(g.node(op, x.name, **options, **extra), m(x.value))

    return rule


def _global_pool(g: Writer, m: Any, x: State, where: str) -> State:
    return State(g.node("GlobalAveragePool", x.name), m(x.value))


def _shares(size: int, count: int) -> np.ndarray:
    """(count, size): how much each element counts in each of the windows that divide an axis."""
    found = np.zeros((count, size))
    for i in range(count):
        first, last = i * size // count, -(-(i + 1) * size // count)
        found[i, first:last] = 1.0 / (last - first)
    return found


def _adaptive_pool(g: Writer, m: nn.AdaptiveAvgPool2d, x: State, where: str) -> State:
    """Products with matrices of shares, which hold for planes of this size alone."""
    y = m(x.value)
    if tuple(m.output_size) == (1, 1):
        return State(g.node("GlobalAveragePool", x.name), y)
    (_, _, h, w), (rows, columns) = x.value.shape, m.output_size
    tall = g.node("MatMul", g.constant(_shares(h, rows), f"{where}.rows"), x.name)
    return State(g.node("MatMul", tall, g.constant(_shares(w, columns).T.copy(), f"{where}.columns")), y)


def _even_pool(op: str, global_op: str) -> Rule:
    """An adaptive pool as one node: of the whole, or of windows of one size."""

    def rule(g: Writer, m: Any, x: State, where: str) -> State:
        sizes = x.value.shape[2:]
        if set(m.output_size) == {1}:
            return State(g.node(global_op, x.name), m(x.value))
        if any(n % k for n, k in zip(sizes, m.output_size, strict=True)):
            raise UnsupportedOnnxError(f"windows of different sizes are not written: {sizes} does not divide by {m.output_size}")
        window = [n // k for n, k in zip(sizes, m.output_size, strict=True)]
        return State(g.node(op, x.name, kernel_shape=window, strides=window), m(x.value))

    return rule


def _zero_pad(g: Writer, m: nn.ZeroPad2d, x: State, where: str) -> State:
    left, right, top, bottom = m.padding
    return State(g.node("Pad", x.name, g.constant_of(np.array([0, 0, top, left, 0, 0, bottom, right]))), m(x.value))


def _per_channel(g: Writer, m: nn.Normalization, name: str, rank: int, where: str) -> str:
    """``gamma y + beta`` with one of each per channel."""
    if m.gamma is None or m.beta is None:
        return name
    shape = g.constant(np.array([-1, *[1] * (rank - 2)]))
    gamma = g.node("Reshape", g.constant(m.gamma, f"{where}.gamma"), shape)
    beta = g.node("Reshape", g.constant(m.beta, f"{where}.beta"), shape)
    return g.node("Add", g.node("Mul", name, gamma), beta)


def _group_norm(g: Writer, m: nn.GroupNorm, x: State, where: str) -> State:
    """The groups as the channels of InstanceNormalization; GroupNormalization of set 18 has one gamma per group."""
    rows = g.node("Reshape", x.name, g.constant(np.array([0, m.num_groups, -1])))
    ones, zeros = g.constant(np.ones(m.num_groups)), g.constant(np.zeros(m.num_groups))
    y = g.node("InstanceNormalization", rows, ones, zeros, epsilon=m.eps)
    back = g.node("Reshape", y, g.node("Shape", x.name))
    return State(_per_channel(g, m, back, x.value.ndim, where), m(x.value))


def _instance_norm(g: Writer, m: nn.InstanceNorm2d, x: State, where: str) -> State:
    gamma = g.constant(np.ones(m.num_features) if m.gamma is None else m.gamma, f"{where}.gamma")
    beta = g.constant(np.zeros(m.num_features) if m.beta is None else m.beta, f"{where}.beta")
    return State(g.node("InstanceNormalization", x.name, gamma, beta, epsilon=m.eps), m(x.value))


def _rms_norm(g: Writer, m: nn.RMSNorm, x: State, where: str) -> State:
    axes = g.constant(np.arange(-len(m.normalized_shape), 0))
    square = g.node("ReduceMean", g.node("Mul", x.name, x.name), axes, keepdims=1)
    y = g.node("Div", x.name, g.node("Sqrt", g.node("Add", square, g.constant(m.eps))))
    return State(y if m.gamma is None else g.node("Mul", y, g.constant(m.gamma, f"{where}.gamma")), m(x.value))


def _upsample(g: Writer, m: nn.Upsample, x: State, where: str) -> State:
    scales = g.constant_of(np.array([1.0, 1.0, *m.scale_factor], np.float32))  # float32 whatever the graph computes in
    how: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if m.mode == "bilinear":
        how = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if m.align_corners else "half_pixel"}
    return State(g.node("Resize", x.name, "", scales, **how), m(x.value))


def _pixel_shuffle(g: Writer, m: nn.PixelShuffle, x: State, where: str) -> State:
    return State(g.node("DepthToSpace", x.name, blocksize=m.upscale_factor, mode="CRD"), m(x.value))


PLANES: dict[type, Rule] = {
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv2dTranspose: _conv_transpose,
    nn.MaxPool1d: _pool("MaxPool"),
    nn.MaxPool2d: _pool("MaxPool"),
    nn.AvgPool1d: _pool("AveragePool", count_include_pad=1),
    nn.AvgPool2d: _pool("AveragePool", count_include_pad=1),
    nn.GlobalAvgPool2d: _global_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.AdaptiveAvgPool1d: _even_pool("AveragePool", "GlobalAveragePool"),
    nn.AdaptiveAvgPool3d: _even_pool("AveragePool", "GlobalAveragePool"),
    nn.AdaptiveMaxPool1d: _even_pool("MaxPool", "GlobalMaxPool"),
    nn.AdaptiveMaxPool2d: _even_pool("MaxPool", "GlobalMaxPool"),
    nn.AdaptiveMaxPool3d: _even_pool("MaxPool", "GlobalMaxPool"),
    nn.Conv3d: _conv,
    nn.MaxPool3d: _pool("MaxPool"),
    nn.AvgPool3d: _pool("AveragePool", count_include_pad=1),
    nn.ZeroPad2d: _zero_pad,
    nn.GroupNorm: _group_norm,
    nn.InstanceNorm2d: _instance_norm,
    nn.RMSNorm: _rms_norm,
    nn.Upsample: _upsample,
    nn.PixelShuffle: _pixel_shuffle,
}
