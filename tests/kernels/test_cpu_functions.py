"""The published plain functions: checks, dtypes, and the same values as the definitions."""

import numpy as np
import pytest

from keydnn.kernels import cpu
from tests.kernels import definitions as d

RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float64):
    return RNG.standard_normal(shape).astype(dtype)


CONV = {"dilation": (1, 1), "groups": 1}


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float16, 4e-3), (np.float32, 1e-5), (np.float64, 1e-12)])
def test_convolution_keeps_its_dtype(dtype, rtol):
    x, w, b = normal(2, 3, 6, 5, dtype=dtype), normal(4, 3, 3, 2, dtype=dtype), normal(4, dtype=dtype)
    wide = [a.astype(float) for a in (x, w, b)]
    y = cpu.conv2d_forward_cpu(x, w, b, 2, (1, 0))
    assert y.dtype == dtype
    np.testing.assert_allclose(y, d.conv2d(*wide, (2, 2), (1, 0), **CONV), rtol=rtol, atol=2 * rtol)
    g = normal(*y.shape, dtype=dtype)
    dx, dw, db = cpu.conv2d_backward_cpu(x, w, b, g, 2, (1, 0))
    assert dx.dtype == dw.dtype == db.dtype == dtype
    g = g.astype(float)
    np.testing.assert_allclose(dx, d.conv2d_grad_x(g, wide[1], (6, 5), (2, 2), (1, 0), **CONV), rtol=rtol, atol=2 * rtol)
    np.testing.assert_allclose(dw, d.conv2d_grad_w(wide[0], g, (3, 2), (2, 2), (1, 0), **CONV), rtol=rtol, atol=2 * rtol)
    np.testing.assert_allclose(db, g.sum((0, 2, 3)), rtol=rtol, atol=2 * rtol)
    assert cpu.conv2d_backward_cpu(x, w, None, g.astype(dtype), 2, (1, 0))[2] is None


def transposed_by_scattering(x, w, b, stride, padding, output_padding):
    """Every input element adds its weighted kernel to the output."""
    (n_, _, h, wd), (_, o_, kh, kw) = x.shape, w.shape
    full = np.zeros((n_, o_, (h - 1) * stride + kh + output_padding, (wd - 1) * stride + kw + output_padding))
    for n, c, i, j in np.ndindex(*x.shape):
        full[n, :, i * stride : i * stride + kh, j * stride : j * stride + kw] += x[n, c, i, j] * w[c]
    height, width = full.shape[2] - 2 * padding, full.shape[3] - 2 * padding
    return full[:, :, padding : padding + height, padding : padding + width] + b[:, None, None]


@pytest.mark.parametrize(("stride", "padding", "extra"), [(1, 0, 0), (2, 1, 1), (3, 2, 2)])
def test_transposed_convolution_and_its_gradients(stride, padding, extra):
    x, w, b = normal(2, 3, 4, 5), normal(3, 2, 3, 4), normal(2)
    y = cpu.conv2d_transpose_forward_cpu(x, w, b, stride, padding, extra)
    np.testing.assert_allclose(y, transposed_by_scattering(x, w, b, stride, padding, extra), rtol=1e-12, atol=1e-12)
    g = normal(*y.shape)
    dx, dw, db = cpu.conv2d_transpose_backward_cpu(x, w, b, g, stride, padding, extra)
    step_x, step_w, step_b = normal(*x.shape), normal(*w.shape), normal(*b.shape)
    zero = np.zeros(2)
    change = transposed_by_scattering(step_x, w, zero, stride, padding, extra) + transposed_by_scattering(
        x, step_w, step_b, stride, padding, extra
    )
    np.testing.assert_allclose((dx * step_x).sum() + (dw * step_w).sum() + (db * step_b).sum(), (g * change).sum(), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pools_keep_their_dtype(dtype):
    x = RNG.integers(-4, 5, (2, 3, 6, 5)).astype(dtype)
    how = {"kernel_size": (2, 3), "stride": 2, "padding": 1}
    pairs = {"kernel": (2, 3), "stride": (2, 2), "padding": (1, 1)}
    y, argmax = cpu.maxpool2d_forward_cpu(x, **how)
    want = d.maxpool2d(x, **pairs)
    assert y.dtype == dtype and argmax.dtype == np.int64
    np.testing.assert_array_equal(y, want[0])
    np.testing.assert_array_equal(argmax, want[1])
    dx = cpu.maxpool2d_backward_cpu(y, argmax, x_shape=x.shape, **how)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, d.maxpool2d_grad(y.astype(float), argmax, (6, 5), (1, 1)))
    mean = cpu.avgpool2d_forward_cpu(x, **how)
    dx = cpu.avgpool2d_backward_cpu(mean, x_shape=x.shape, **how)
    assert mean.dtype == dx.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(mean, d.avgpool2d(x.astype(float), **pairs), rtol=eps, atol=eps)
    np.testing.assert_allclose(dx, d.avgpool2d_grad(mean.astype(float), (6, 5), **pairs), rtol=4 * eps, atol=4 * eps)
    plane = cpu.global_avgpool2d_forward_cpu(x)
    assert plane.dtype == dtype and plane.shape == (2, 3, 1, 1)
    spread = cpu.global_avgpool2d_backward_cpu(plane, x_shape=x.shape)
    assert spread.dtype == dtype
    np.testing.assert_array_equal(spread, np.broadcast_to((plane / 30).astype(dtype), x.shape))


def test_stride_defaults_to_the_window():
    x = normal(1, 1, 6, 6)
    np.testing.assert_array_equal(cpu.avgpool2d_forward_cpu(x, kernel_size=3), cpu.avgpool2d_forward_cpu(x, kernel_size=3, stride=3))


def test_integers_are_refused_except_by_the_gradient_of_maxpool():
    x = np.arange(16).reshape(1, 1, 4, 4)
    for call in (
        lambda: cpu.maxpool2d_forward_cpu(x, kernel_size=2),
        lambda: cpu.avgpool2d_forward_cpu(x, kernel_size=2),
        lambda: cpu.avgpool2d_backward_cpu(x[:, :, :2, :2], x_shape=x.shape, kernel_size=2),
        lambda: cpu.global_avgpool2d_forward_cpu(x),
    ):
        with pytest.raises(TypeError, match="floating"):
            call()
    g, argmax = np.array([[[[1, 2], [3, 4]]]]), np.array([[[[5, 7], [13, 15]]]])
    dx = cpu.maxpool2d_backward_cpu(g, argmax, x_shape=x.shape, kernel_size=2)
    assert dx.dtype == g.dtype and dx[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 0], [0, 3, 0, 4]]


X, W, B = normal(2, 3, 6, 6), normal(4, 3, 3, 3), normal(4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: cpu.conv2d_forward_cpu(X[0], W, B, 1, 0), "4 axes"),
        (lambda: cpu.conv2d_forward_cpu(X, W[:, :2], B, 1, 0), "in_channels = 2"),
        (lambda: cpu.conv2d_forward_cpu(X, W, B[:3], 1, 0), "bias must have shape"),
        (lambda: cpu.conv2d_forward_cpu(X[:, :, :2, :2], W, B, 1, 0), "larger than the input"),
        (lambda: cpu.conv2d_forward_cpu(X, W, B, 0, 0), "stride"),
        (lambda: cpu.conv2d_forward_cpu(X, W, B, 1, -1), "padding"),
        (lambda: cpu.conv2d_forward_cpu(X, W, B, (1, 2, 3), 0), "stride"),
        (lambda: cpu.conv2d_backward_cpu(X, W, B, normal(2, 4, 3, 3), 1, 0), "grad_out must have shape"),
        (lambda: cpu.conv2d_transpose_forward_cpu(X, W, B, 1, 0), "in_channels = 4"),
        (lambda: cpu.conv2d_transpose_forward_cpu(normal(1, 4, 2, 2), W, B, 1, 0), "bias must have shape"),
        (lambda: cpu.conv2d_transpose_forward_cpu(normal(1, 4, 2, 2), W, None, 2, 0, 2), "smaller than stride"),
        (lambda: cpu.conv2d_transpose_forward_cpu(normal(1, 4, 1, 1), W, None, 1, 2), "would have size"),
        (lambda: cpu.maxpool2d_forward_cpu(X[0], kernel_size=2), "4 axes"),
        (lambda: cpu.maxpool2d_forward_cpu(X, kernel_size=7), "larger than the input"),
        (lambda: cpu.maxpool2d_forward_cpu(X, kernel_size=0), "kernel_size"),
        (lambda: cpu.avgpool2d_backward_cpu(normal(2, 3, 2, 2), x_shape=X.shape, kernel_size=2), "grad_out must have shape"),
        (lambda: cpu.global_avgpool2d_backward_cpu(normal(2, 3, 2, 2), x_shape=X.shape), "grad_out must have shape"),
    ],
)
def test_bad_input_is_a_value_error_that_says_what(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_argmax_outside_the_plane_is_refused():
    g, argmax = normal(1, 1, 2, 2), np.full((1, 1, 2, 2), 99)
    with pytest.raises(ValueError, match="argmax"):
        cpu.maxpool2d_backward_cpu(g, argmax, x_shape=(1, 1, 4, 4), kernel_size=2)
