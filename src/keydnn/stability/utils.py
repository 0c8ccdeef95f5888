"""Norms, the Hessian of one Dense layer, and what it says about gradient descent.

    theta' = theta - a eta grad,   perturbations follow M = I - a eta H,   stable iff 0 < a eta lambda_i < 2 for all i

For one Dense layer and half-MSE, H = I (x) X^T X / N in the order of row-major (out, in) weights; mean-squared error over all
elements scales it by 2 / d_out.  Source: LeCun et al. 1998, "Efficient BackProp", section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.ops import concat


def flatten_tensors(tensors: Iterable[Any]) -> Any:
    """One float32 vector of all entries; None is skipped.

    Args:
        tensors: Tensors (the result is a Tensor, in the graph) or arrays (the result is an array).

    Example:
        >>> from keydnn.stability import flatten_tensors
        >>> flatten_tensors([np.eye(2), None, np.ones(1)]).tolist()
        [1.0, 0.0, 0.0, 1.0, 1.0]
    """
    parts = [t for t in tensors if t is not None]
    if parts and all(isinstance(t, Tensor) for t in parts):
        return concat([t.reshape(-1).astype(np.float32) for t in parts], axis=0)
    arrays = [np.asarray(t.numpy() if isinstance(t, Tensor) else t, np.float32).reshape(-1) for t in parts]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


def tensor_l2_norm(x: Any, eps: float = 1e-12) -> Any:
    """``sqrt(sum x^2 + eps)``: differentiable everywhere, so 1e-6 for a zero vector.

    Args:
        x: Tensor (the result is a Tensor) or array.
        eps: Floor of the squared norm.
    """
    if isinstance(x, Tensor):
        return ((x * x).sum() + eps).sqrt()
    return float(np.sqrt(np.sum(np.asarray(x, np.float64) ** 2) + eps))


def safe_cosine(a: Any, b: Any, eps: float = 1e-12) -> Any:
    """``a.b / (norm(a) norm(b) + eps)`` with the norms of `tensor_l2_norm`; Tensor or float."""
    if isinstance(a, Tensor):
        return (a * b).sum() / (tensor_l2_norm(a, eps) * tensor_l2_norm(b, eps) + eps)
    dot = float(np.dot(np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)))
    return dot / (tensor_l2_norm(a, eps) * tensor_l2_norm(b, eps) + eps)


def spectral_norm_np(W: Any) -> float:
    """Largest singular value of a matrix; the 2-norm of anything else, flattened; NaN if an entry is not finite."""
    a = np.asarray(W, np.float64)
    if not np.all(np.isfinite(a)):
        return float("nan")
    if a.size == 0:
        return 0.0
    if a.ndim != 2:
        return float(np.linalg.norm(a.reshape(-1)))
    try:
        return float(np.linalg.svd(a, compute_uv=False)[0])
    except np.linalg.LinAlgError:
        return float("nan")


def matrix_norms_np(W: Any) -> dict[str, float]:
    """``fro``, ``l1`` (largest column sum), ``linf`` (largest row sum) and ``spectral``; all NaN if an entry is not finite."""
    a = np.atleast_2d(np.asarray(W, np.float64))
    if not np.all(np.isfinite(a)):
        return dict.fromkeys(("fro", "l1", "linf", "spectral"), float("nan"))
    size = np.abs(a)
    return {
        "fro": float(np.linalg.norm(a)),
        "l1": float(size.sum(axis=0).max(initial=0.0)),
        "linf": float(size.sum(axis=1).max(initial=0.0)),
        "spectral": spectral_norm_np(a),
    }


def half_mse_batch_loss(y_true: Any, y_pred: Any) -> Any:
    """``sum((y_pred - y_true)^2) / (2 N)``, differentiable; N is the length of the first axis."""
    residual = y_pred - y_true
    return (residual * residual).sum() / (2.0 * y_true.shape[0])


def gram_matrix(X: Any, use_bias: bool = False) -> np.ndarray:
    """``X^T X / N`` in float64, with a column of ones appended for a bias: one diagonal block of the half-MSE Hessian."""
    x = np.asarray(X, np.float64)
    x = x.reshape(len(x), -1)
    if use_bias:
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return np.asarray(x.T @ x / len(x))


def hessian_scale(loss_mode: str, d_out: int) -> float:
    """What the loss multiplies the half-MSE Hessian by: 1, or 2 / d_out for the mean over all elements."""
    return 1.0 if loss_mode == "half_mse" else 2.0 / d_out


def analytic_single_dense_hessian(X_batch: Any, d_out: int, keras_mse_scaling: bool = True) -> np.ndarray:
    """Hessian of one Dense layer without bias, ``s I (x) X^T X / N``, float64.

    Args:
        X_batch: (N, d_in).
        d_out: Outputs.
        keras_mse_scaling: s = 2 / d_out (mean over all elements) instead of 1 (half-MSE).

    Returns:
        (d_out d_in, d_out d_in), for the row-major vector of the weight (out, in).
    """
    return analytic_dense_hessian(X_batch, d_out, use_bias=False, keras_mse_scaling=keras_mse_scaling)


def analytic_dense_hessian(X_batch: Any, d_out: int, use_bias: bool = True, keras_mse_scaling: bool = True) -> np.ndarray:
    """The same with a bias: exact for the parameters in the order weight (row-major), bias.

    Args:
        X_batch: (N, d_in).
        d_out: Outputs.
        use_bias: Whether the layer has a bias.
        keras_mse_scaling: s = 2 / d_out instead of 1.
    """
    scale = 2.0 / d_out if keras_mse_scaling else 1.0
    h = scale * np.kron(np.eye(d_out), gram_matrix(X_batch, use_bias))
    if not use_bias:
        return np.asarray(h)
    d_in = gram_matrix(X_batch).shape[0]
    rows = np.arange(d_out * (d_in + 1)).reshape(d_out, d_in + 1)  # [weights, bias] of each output
    order = np.concatenate([rows[:, :d_in].reshape(-1), rows[:, d_in]])
    return np.asarray(h[np.ix_(order, order)])


def _eigenvalues(H: Any) -> np.ndarray:
    h = np.asarray(H, np.float64)
    return np.linalg.eigvalsh((h + h.T) / 2)


def metrics_from_eigenvalues(eigenvalues: np.ndarray) -> dict[str, float]:
    """``hessian_lambda_max``, ``hessian_lambda_min``, ``hessian_spectral_norm`` of ascending eigenvalues."""
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    return {"hessian_lambda_max": high, "hessian_lambda_min": low, "hessian_spectral_norm": max(abs(low), abs(high))}


def hessian_metrics_np(H: Any) -> dict[str, float]:
    """The extreme eigenvalues of the symmetrised H, and max ``|lambda|``."""
    return metrics_from_eigenvalues(_eigenvalues(H))


def stability_metrics_from_hessian(H: Any, eta: float, alpha: float = 1.0) -> dict[str, float]:
    """What H says about gradient descent with step ``alpha * eta``.

    Returns:
        ``stability_margin_lambda`` = alpha eta lambda_max (stable below 2), ``stability_margin_norm`` = alpha eta max ``|lambda|``,
        ``spectral_radius_update_map`` = max ``|1 - alpha eta lambda_i|`` (stable below 1).

    Example:
        >>> from keydnn.stability import stability_metrics_from_hessian
        >>> stability_metrics_from_hessian(np.diag([1.0, 4.0]), eta=0.25)
        {'stability_margin_lambda': 1.0, 'stability_margin_norm': 1.0, 'spectral_radius_update_map': 0.75}
    """
    eigenvalues = _eigenvalues(H)
    step = float(alpha) * float(eta)
    return {
        "stability_margin_lambda": step * float(eigenvalues[-1]),
        "stability_margin_norm": step * float(np.max(np.abs(eigenvalues))),
        "spectral_radius_update_map": float(np.max(np.abs(1.0 - step * eigenvalues))),
    }
