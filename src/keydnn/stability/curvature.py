"""Curvature of any model: extreme eigenvalues and spectral density from Hessian-vector products.

    Lanczos with full re-orthogonalisation:  A Q = Q T + beta q e^T,   residual ``|beta s_last|`` of a Ritz pair

The products are those of `keydnn.stability.products.Hessian`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.stability.products import Hessian

METHODS = ("lanczos", "power")
_SMALL = 1e-12


def hvp(model: Any, X: Any, Y: Any, v: Any, *, loss_mode: str = "half_mse", mode: str = "auto", precision: Any = None) -> np.ndarray:
    """One Hessian-vector product; arguments as for `Hessian`, for several products use that."""
    return Hessian(model, X, Y, loss_mode=loss_mode, mode=mode, precision=precision)(v)


def ggn_vp(model: Any, X: Any, Y: Any, v: Any, *, loss_mode: str = "half_mse") -> np.ndarray:
    """One product with the Gauss-Newton matrix."""
    return Hessian(model, X, Y, loss_mode=loss_mode).gauss_newton(v)


@dataclass(frozen=True)
class Extremes:
    """Eigenvalues at the ends of a spectrum.

    Attributes:
        values: The largest, algebraically, descending.
        vectors: Their unit eigenvectors, one per row.
        residuals: ``||A v - lambda v||`` of each pair.
        products: Products used.
        lambda_min: The smallest algebraic value found (an upper bound of the true one).
        spectral_norm: The largest absolute value found (a lower bound of the true one).
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    products: int
    lambda_min: float
    spectral_norm: float

    @property
    def lambda_max(self) -> float:
        """The largest algebraic eigenvalue."""
        return float(self.values[0])


Product = Callable[[np.ndarray], np.ndarray]


def lanczos(product: Product, n: int, *, k: int = 1, tol: float = 1e-3, max_iter: int = 100, v0: Any = None, seed: int = 0) -> Extremes:
    """The k largest eigenvalues of a symmetric operator.

    Args:
        product: Maps a vector to its product.
        n: Size of the vectors.
        k: How many eigenpairs.
        tol: Stop when all residuals are at most ``tol`` times the largest absolute value.
        max_iter: Most products.
        v0: Start vector; None is random.
        seed: Of that.

    Returns:
        The eigenpairs; all NaN once a product is not finite.
    """
    rng = np.random.default_rng(seed)
    q = rng.standard_normal(n) if v0 is None or not np.any(v0) or not np.isfinite(v0).all() else np.array(v0, np.float64)
    basis = [q / np.linalg.norm(q)]
    diagonal: list[float] = []
    off: list[float] = []
    limit = min(max_iter, n)
    while True:
        w = product(basis[-1])
        diagonal.append(float(basis[-1] @ w))
        if not np.isfinite(w).all():
            nan = float("nan")
            return Extremes(np.full(k, nan), np.full((k, n), nan), np.full(k, nan), len(diagonal), nan, nan)
        Q = np.array(basis)
        for _ in range(2):  # twice is enough to be orthogonal to rounding
            w = w - Q.T @ (Q @ w)
        beta = float(np.linalg.norm(w))
        values, s = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
        size = max(float(np.abs(values).max()), _SMALL)
        m = len(values)
        residuals = beta * np.abs(s[-1, ::-1][:k])
        done = m >= k and bool(np.all(residuals <= tol * size))
        if done or m >= limit or beta <= _SMALL * size:
            top = slice(None, -k - 1, -1)
            return Extremes(values[top], (s[:, top].T @ Q), residuals, m, float(values[0]), size)
        off.append(beta)
        basis.append(w / beta)


def power(product: Product, n: int, *, tol: float = 1e-3, max_iter: int = 100, v0: Any = None, seed: int = 0) -> Extremes:
    """The eigenvalue of largest absolute value, by power iteration; `values` holds it with its sign."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(n) if v0 is None or not np.any(v0) or not np.isfinite(v0).all() else np.array(v0, np.float64)
    v = v / np.linalg.norm(v)
    for i in range(max_iter):
        w = product(v)
        value = float(v @ w)
        residual = float(np.linalg.norm(w - value * v))
        length = float(np.linalg.norm(w))
        if residual <= tol * max(abs(value), _SMALL) or length == 0.0 or i == max_iter - 1:
            break
        v = w / length
    return Extremes(np.array([value]), v[None], np.array([residual]), i + 1, value, abs(value))


def lambda_max(
    model: Any,
    X: Any,
    Y: Any,
    *,
    method: str = "lanczos",
    k: int = 1,
    tol: float = 1e-3,
    max_iter: int = 100,
    v0: Any = None,
    seed: int = 0,
    loss_mode: str = "half_mse",
    precision: Any = None,
) -> Extremes:
    """The largest eigenvalues of the Hessian of a model's loss.

    Args:
        model: A network, or an object whose attribute ``model`` is one.
        X: Inputs.
        Y: Targets.
        method: ``"lanczos"``, or ``"power"`` (largest absolute value, k = 1).
        k: How many eigenpairs.
        tol: Of the residuals, relative to the largest absolute eigenvalue.
        max_iter: Most products.
        v0: Start vector, such as an eigenvector of an earlier step.
        seed: Of a random start.
        loss_mode: ``"half_mse"`` or ``"keras_mse"``.
        precision: Formats for the straight-through graph; None is the float graph.

    Raises:
        ValueError: An unknown method or loss_mode, or k other than 1 with power iteration.

    Example:
        >>> from keydnn.stability import AffineDataset, LinearBlockModel, lambda_max
        >>> data = AffineDataset(1000, seed=1)
        >>> model = LinearBlockModel(data, num_hidden=[], use_bias=False, seed=0)
        >>> round(lambda_max(model, *data.get(), tol=1e-9).lambda_max, 6)
        1.072789
    """
    if method not in METHODS:
        raise ValueError(f"lambda_max: method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "power" and k != 1:
        raise ValueError("lambda_max: power iteration finds one eigenvalue; use method='lanczos' for more")
    operator = Hessian(model, X, Y, loss_mode=loss_mode, precision=precision)
    if method == "power":
        return power(operator, operator.size, tol=tol, max_iter=max_iter, v0=v0, seed=seed)
    return lanczos(operator, operator.size, k=k, tol=tol, max_iter=max_iter, v0=v0, seed=seed)


def preconditioned_lambda_max(
    model: Any, X: Any, Y: Any, preconditioner: Any, *, tol: float = 1e-3, max_iter: int = 100, seed: int = 0, loss_mode: str = "half_mse"
) -> float:
    """The largest eigenvalue of ``P^-1 H`` for a diagonal P, that of the symmetric ``P^-1/2 H P^-1/2``.

    Args:
        model: As for `lambda_max`.
        X: Inputs.
        Y: Targets.
        preconditioner: The diagonal of P as a list of arrays shaped like the parameters, or flat; above 0.
        tol: As for `lambda_max`.
        max_iter: As for `lambda_max`.
        seed: As for `lambda_max`.
        loss_mode: As for `lambda_max`.
    """
    parts = [
        np.asarray(p, np.float64).reshape(-1) for p in (preconditioner if isinstance(preconditioner, list | tuple) else [preconditioner])
    ]
    root = np.sqrt(np.concatenate(parts))
    operator = Hessian(model, X, Y, loss_mode=loss_mode)
    return lanczos(lambda v: operator(v / root) / root, operator.size, tol=tol, max_iter=max_iter, seed=seed).lambda_max


@dataclass(frozen=True)
class Spectrum:
    """The density of a spectrum, and its trace.

    Attributes:
        nodes: Ritz values of all probes.
        weights: Their weights; they sum to 1.
        trace: Hutchinson's estimate.
        trace_error: Its standard error.
    """

    nodes: np.ndarray
    weights: np.ndarray
    trace: float
    trace_error: float

    def density(self, grid: Any, width: float) -> np.ndarray:
        """The density on a grid, each node widened to a Gaussian."""
        z = (np.asarray(grid)[:, None] - self.nodes) / width
        return np.asarray((np.exp(-0.5 * z * z) * self.weights).sum(1) / (width * np.sqrt(2 * np.pi)))


def hessian_spectrum(
    model: Any, X: Any, Y: Any, *, probes: int = 8, steps: int = 30, seed: int = 0, loss_mode: str = "half_mse"
) -> Spectrum:
    """Stochastic Lanczos quadrature, and Hutchinson's trace from the same random signs.

    Args:
        model: As for `lambda_max`.
        X: Inputs.
        Y: Targets.
        probes: Random vectors.
        steps: Lanczos steps for each.
        seed: Of the vectors.
        loss_mode: As for `lambda_max`.

    Source: Ghorbani et al. 2019, arXiv:1901.10159.
    """
    operator = Hessian(model, X, Y, loss_mode=loss_mode)
    rng, n = np.random.default_rng(seed), operator.size
    nodes, weights, traces = [], [], []
    for _ in range(probes):
        v = rng.choice([-1.0, 1.0], n)
        values, squares = _quadrature(operator, v / np.sqrt(n), min(steps, n))
        nodes.append(values)
        weights.append(squares / probes)
        traces.append(n * float(values @ squares))
    error = float(np.std(traces, ddof=1) / np.sqrt(probes)) if probes > 1 else float("nan")
    return Spectrum(np.concatenate(nodes), np.concatenate(weights), float(np.mean(traces)), error)


def _quadrature(product: Product, q: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss quadrature for the spectral measure of q."""
    basis, diagonal, off = [q], [], []
    for i in range(steps):
        w = product(basis[-1])
        diagonal.append(float(basis[-1] @ w))
        Q = np.array(basis)
        for _ in range(2):
            w = w - Q.T @ (Q @ w)
        beta = float(np.linalg.norm(w))
        if i == steps - 1 or beta <= _SMALL * max(map(abs, diagonal)):
            break
        off.append(beta)
        basis.append(w / beta)
    values, s = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return values, s[0] ** 2
