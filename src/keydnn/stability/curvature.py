"""Curvature of any model: Hessian-vector products, extreme eigenvalues, spectral density.

    H v = d/dtheta <grad L, v>                       Pearlmutter 1994, https://doi.org/10.1162/neco.1994.6.1.147
    fd:  (grad L(theta + h v) - grad L(theta - h v)) / (2 h),   h = eps^(1/3) (1 + ||theta||) / ||v||
    Lanczos with full re-orthogonalisation:  A Q = Q T + beta q e^T,   residual ``|beta s_last|`` of a Ritz pair

Everything runs on a float64 copy of the network, so the model itself is not touched.  For one point the graph of the gradient is
made once; a product is one more sweep through it.  Vectors are flat, in the order of ``model.parameters()``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.backward import grad
from keydnn.nn.layers.bidirectional import Bidirectional
from keydnn.nn.layers.recurrent import Recurrent
from keydnn.stability.precision import ensure_precision_dict, network_of

METHODS = ("lanczos", "power")
LOSS_MODES = ("half_mse", "keras_mse")
_SMALL = 1e-12


def loss_of(prediction: Tensor, target: Tensor, loss_mode: Any) -> Tensor:
    """Half-MSE ``sum r^2 / (2 N)``, the mean of r^2 over all elements, or a function (prediction, target)."""
    if callable(loss_mode):
        return loss_mode(prediction, target)
    residual = prediction - target
    squares = (residual * residual).sum()
    return squares / (2.0 * target.shape[0]) if loss_mode == "half_mse" else squares / float(np.prod(target.shape))


class Hessian:
    """The Hessian of a loss at the present parameters, as an operator on flat float64 vectors.

    Args:
        model: A network, or an object whose attribute ``model`` is one.
        X: Inputs.
        Y: Targets.
        loss_mode: ``"half_mse"``, ``"keras_mse"``, or a differentiable function (prediction, target).
        mode: ``"autograd"`` differentiates twice, ``"fd"`` takes central differences, ``"auto"`` is autograd, but differences for
            networks with recurrent layers, whose second derivatives run step by step and cost more than two gradients.
        precision: Formats for the straight-through graph of a `BaseModel`; None is the float graph.

    Attributes:
        products: How many products were made.

    Raises:
        ValueError: An unknown loss_mode or mode.

    Example:
        >>> from keydnn.stability import AffineDataset, LinearBlockModel
        >>> from keydnn.stability.curvature import Hessian
        >>> data = AffineDataset(50, seed=0)
        >>> H = Hessian(LinearBlockModel(data, num_hidden=[], seed=0), *data.get())
        >>> H(np.ones(10)).shape
        (10,)
    """

    def __init__(self, model: Any, X: Any, Y: Any, *, loss_mode: Any = "half_mse", mode: str = "auto", precision: Any = None) -> None:
        if not callable(loss_mode) and loss_mode not in LOSS_MODES:
            raise ValueError(f"loss_mode must be one of {', '.join(LOSS_MODES)}, got {loss_mode!r}")
        if mode not in ("auto", "autograd", "fd"):
            raise ValueError(f"mode must be auto, autograd or fd, got {mode!r}")
        self.loss_mode, self.products = loss_mode, 0
        is_recurrent = any(isinstance(module, Recurrent | Bidirectional) for module in network_of(model).modules())
        self.mode = mode if mode != "auto" else "fd" if is_recurrent else "autograd"
        self.precision = ensure_precision_dict(precision)
        self.model = copy.copy(model)
        network = copy.deepcopy(network_of(model))
        if network_of(model) is model:
            self.model = network
        else:
            self.model.model = network
        self.network = network
        self.params = list(network.parameters())
        for tensor in (*self.params, *network.buffers()):
            if tensor.dtype.kind == "f":
                tensor._data = tensor._data.astype(np.float64)
        self.x, self.y = (Tensor(data=np.asarray(a, np.float64)) for a in (X, Y))
        self._gradient: list[Any] | None = None

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.params)

    def output(self) -> Tensor:
        """The network's prediction, in its graph."""
        if self.precision is None:
            return self.network(self.x)
        return self.model._forward_with_precision(self.x, self.precision, training=self.network.training)

    def loss(self) -> Tensor:
        """The loss, in its graph."""
        return loss_of(self.output(), self.y, self.loss_mode)

    def gradient(self) -> np.ndarray:
        """The flat gradient."""
        return _flat(self.params, grad(self.loss(), self.params, allow_unused=True))

    def __call__(self, v: Any) -> np.ndarray:
        """``H v``.

        Args:
            v: Flat vector of :attr:`size` entries.

        Raises:
            ValueError: v has another size.
        """
        v = np.asarray(v, np.float64)
        if v.shape != (self.size,):
            raise ValueError(f"Hessian: expected a flat vector of {self.size} entries, got shape {v.shape}")
        self.products += 1
        return self._difference(v) if self.mode == "fd" else self._second(v)

    def _second(self, v: np.ndarray) -> np.ndarray:
        if self._gradient is None:
            self._gradient = list(grad(self.loss(), self.params, create_graph=True, allow_unused=True))
        dot = None
        for g, part in zip(self._gradient, _split(self.params, v), strict=True):
            if g is not None and g.requires_grad:
                term = (g * Tensor(data=part)).sum()
                dot = term if dot is None else dot + term
        if dot is None:
            return np.zeros(self.size)
        return _flat(self.params, grad(dot, self.params, allow_unused=True))

    def _difference(self, v: np.ndarray) -> np.ndarray:
        length = float(np.linalg.norm(v))
        if length == 0.0:
            return np.zeros(self.size)
        before = [p._data for p in self.params]
        theta = np.concatenate([a.reshape(-1) for a in before])
        h = np.finfo(np.float64).eps ** (1 / 3) * (1.0 + float(np.linalg.norm(theta))) / length
        ends = []
        for moved in (theta + h * v, theta - h * v):
            for p, part in zip(self.params, _split(self.params, moved), strict=True):
                p._data = part
            ends.append(self.gradient())
        for p, a in zip(self.params, before, strict=True):
            p._data = a
        return (ends[0] - ends[1]) / (2.0 * h)

    def gauss_newton(self, v: Any) -> np.ndarray:
        """``J^T (d2L/dy2) J v``: the Hessian without the curvature of the network itself."""
        if callable(self.loss_mode):
            raise ValueError("gauss_newton: knows the losses half_mse and keras_mse only")
        parts = _split(self.params, np.asarray(v, np.float64))
        y = self.output()
        u = Tensor(data=np.zeros(y.shape), requires_grad=True)
        pulled = grad(y, self.params, grad_outputs=u, create_graph=True, allow_unused=True)
        terms = [(g * Tensor(data=part)).sum() for g, part in zip(pulled, parts, strict=True) if g is not None and g.requires_grad]
        if not terms:
            return np.zeros(self.size)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        (pushed,) = grad(total, u)
        scale = 1.0 / y.shape[0] if self.loss_mode == "half_mse" else 2.0 / float(np.prod(y.shape))
        self.products += 1
        return _flat(self.params, grad(y, self.params, grad_outputs=pushed * scale, allow_unused=True))


def _flat(params: list[Any], grads: Any) -> np.ndarray:
    parts = [np.zeros(p.shape) if g is None else g.numpy() for p, g in zip(params, grads, strict=True)]
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def _split(params: list[Any], v: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum([p.numel() for p in params])[:-1]
    return [part.reshape(p.shape).copy() for p, part in zip(params, np.split(v, ends), strict=True)]


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
    """
    rng = np.random.default_rng(seed)
    q = rng.standard_normal(n) if v0 is None or not np.any(v0) else np.array(v0, np.float64)
    basis = [q / np.linalg.norm(q)]
    diagonal: list[float] = []
    off: list[float] = []
    limit = min(max_iter, n)
    while True:
        w = product(basis[-1])
        diagonal.append(float(basis[-1] @ w))
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
    v = rng.standard_normal(n) if v0 is None or not np.any(v0) else np.array(v0, np.float64)
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
