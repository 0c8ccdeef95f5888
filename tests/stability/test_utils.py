"""Norms and the Hessian of one Dense layer, against definitions written out."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor
from keydnn.stability import (
    analytic_dense_hessian,
    analytic_single_dense_hessian,
    flatten_tensors,
    half_mse_batch_loss,
    hessian_metrics_np,
    matrix_norms_np,
    safe_cosine,
    spectral_norm_np,
    stability_metrics_from_hessian,
    tensor_l2_norm,
)


def test_flatten():
    a, b = np.arange(6.0).reshape(2, 3), np.ones(2, np.float32)
    flat = flatten_tensors([Tensor(data=a), None, Tensor(data=b)])
    assert isinstance(flat, Tensor) and flat.dtype == np.float32
    np.testing.assert_array_equal(flat.numpy(), flatten_tensors([a, None, b]))
    assert flatten_tensors([]).shape == (0,) and flatten_tensors([a, b]).tolist() == [0, 1, 2, 3, 4, 5, 1, 1]


def test_norms_and_cosine():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(9), rng.standard_normal(9)
    norm = lambda x: np.sqrt(np.sum(x * x) + 1e-12)  # noqa: E731
    expected = a @ b / (norm(a) * norm(b) + 1e-12)
    assert safe_cosine(a, b) == pytest.approx(expected, rel=1e-14)
    assert safe_cosine(Tensor(data=a), Tensor(data=b)).item() == pytest.approx(expected, rel=1e-14)
    assert tensor_l2_norm(np.zeros(3)) == 1e-6 and tensor_l2_norm(Tensor(data=a)).item() == pytest.approx(norm(a))


def test_matrix_norms():
    W = np.random.default_rng(0).standard_normal((3, 5))
    found = matrix_norms_np(W)
    assert found["fro"] == pytest.approx(np.sqrt((W**2).sum()))
    assert found["spectral"] == pytest.approx(np.sqrt(np.linalg.eigvalsh(W @ W.T)[-1]))
    assert found["l1"] == max(abs(W[:, j]).sum() for j in range(5)) and found["linf"] == max(abs(W[i]).sum() for i in range(3))
    assert spectral_norm_np([3.0, 4.0]) == 5 and np.isnan(spectral_norm_np([[np.inf, 1.0]]))
    assert np.isnan(list(matrix_norms_np([[np.nan, 1.0]]).values())).all()


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("keras", [False, True])
def test_dense_hessian_is_the_second_derivative(use_bias, keras):
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    layer = keydnn.Linear(3, 2, bias=use_bias, dtype="float64")
    params = list(layer.parameters())

    def loss():
        residual = layer(Tensor(data=X)) - Tensor(data=Y)
        return (residual * residual).mean() if keras else half_mse_batch_loss(Tensor(data=Y), layer(Tensor(data=X)))

    columns = []
    sizes = [p.numel() for p in params]
    for i in range(sum(sizes)):
        e = np.zeros(sum(sizes))
        e[i] = 1
        parts = [Tensor(data=part.reshape(p.shape)) for part, p in zip(np.split(e, np.cumsum(sizes)[:-1]), params, strict=True)]
        columns.append(np.concatenate([h.numpy().reshape(-1) for h in keydnn.hvp(loss(), params, parts)]))
    np.testing.assert_allclose(analytic_dense_hessian(X, 2, use_bias, keras), np.array(columns).T, atol=1e-12)
    if not use_bias:
        np.testing.assert_allclose(analytic_single_dense_hessian(X, 2, keras), np.array(columns).T, atol=1e-12)


def test_metrics_of_a_hessian():
    H = np.array([[2.0, 1.0], [0.0, -5.0]])  # symmetrised
    eigenvalues = np.linalg.eigvalsh([[2.0, 0.5], [0.5, -5.0]])
    found = hessian_metrics_np(H)
    assert list(found.values()) == pytest.approx([eigenvalues[1], eigenvalues[0], -eigenvalues[0]])
    stability = stability_metrics_from_hessian(H, 0.5, 0.5)
    assert list(stability.values()) == pytest.approx([0.25 * eigenvalues[1], -0.25 * eigenvalues[0], max(abs(1 - 0.25 * eigenvalues))])
