"""Products of a loss's Hessian, or its Gauss-Newton part, with vectors.

    H v = d/dtheta <grad L, v>                       Pearlmutter 1994, https://doi.org/10.1162/neco.1994.6.1.147
    fd:  (grad L(theta + h v) - grad L(theta - h v)) / (2 h),   h = eps^(1/3) (1 + ||theta||) / ||v||

Everything runs on a float64 copy of the network, so the model itself is not touched.  What does not depend on v, the forward pass
and the gradient, is computed once per point; from the third product on both parts run as plans (`keydnn.compiler.staged`).
Vectors are flat, in the order of ``model.parameters()``.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.backward import grad
from keydnn.autograd.modes import no_grad
from keydnn.compiler.staged import StagedStep
from keydnn.nn.layers.recurrent import RNN, Recurrent
from keydnn.ops import concat
from keydnn.ops.inplace import assign_
from keydnn.stability.precision import ensure_precision_dict, network_of

_CUBE_ROOT = float(np.finfo(np.float64).eps ** (1 / 3))
_NO_LENGTH = 1e-300  # so that the product with 0 is 0
LOSS_MODES = ("half_mse", "keras_mse")


def loss_of(prediction: Tensor, target: Tensor, loss_mode: Any) -> Tensor:
    """Half-MSE ``sum r^2 / (2 N)``, the mean of r^2 over all elements, or a function (prediction, target)."""
    if callable(loss_mode):
        return loss_mode(prediction, target)
    residual = prediction - target
    squares = (residual * residual).sum()
    return squares / (2.0 * target.shape[0]) if loss_mode == "half_mse" else squares / float(np.prod(target.shape))


def check_shapes(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless the network gives what the targets are."""
    if prediction.shape != target.shape:
        raise ValueError(f"the network gives {prediction.shape}, Y has {target.shape}; both need the same shape")


def _finite(name: str, a: Any) -> np.ndarray:
    """A float64 copy."""
    array = np.array(a.numpy() if isinstance(a, Tensor) else a, np.float64)
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(f"Hessian: {name} has {bad} values that are not finite")
    return array


class Hessian:
    """The Hessian of a loss at the parameters of a model, as an operator on flat float64 vectors.

    Args:
        model: A network, or an object whose attribute ``model`` is one.
        X: Inputs.
        Y: Targets.
        loss_mode: ``"half_mse"``, ``"keras_mse"``, or a differentiable function (prediction, target).
        mode: ``"autograd"`` differentiates twice, ``"fd"`` takes central differences, ``"auto"`` is autograd, but differences for
            networks with LSTM or GRU layers, whose second derivatives run step by step and cost more than two gradients.
        precision: Formats for the straight-through graph of a `BaseModel`; None is the float graph.

    Attributes:
        products: How many products were made.
        size: Number of parameters.

    Raises:
        ValueError: An unknown loss_mode or mode; X or Y has values that are not finite.

    Example:
        >>> from keydnn.stability import AffineDataset, LinearBlockModel
        >>> from keydnn.stability.products import Hessian
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
        has_gates = any(isinstance(module, Recurrent) and not isinstance(module, RNN) for module in network_of(model).modules())
        self.mode = mode if mode != "auto" else "fd" if has_gates else "autograd"
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
        self.size = sum(p.numel() for p in self.params)
        self.theta, self._relative_step = self._in_one_piece(), Tensor.full((), 0.0, dtype=np.float64)
        self._arrived()
        self.x, self.y = (Tensor(data=_finite(name, a)) for name, a in (("X", X), ("Y", Y)))
        self._gradients = StagedStep(self._flat_gradient, hoist=False)
        self._seconds = StagedStep(self._recorded_second, eager=self._second)
        self._differences = StagedStep(self._central)

    def _in_one_piece(self) -> Tensor:
        """All parameters, which become parts of one array."""
        theta = Tensor(data=np.concatenate([p._data.reshape(-1) for p in self.params]))
        for p, part in zip(self.params, self._split(theta._data), strict=True):
            p._data = part
        return theta

    def _arrived(self) -> None:
        """Remember where this is."""
        self._here = self.theta._data.copy()
        self._relative_step.fill(_CUBE_ROOT * (1.0 + float(np.linalg.norm(self._here))))
        self._gradient: list[Any] | None = None

    def move(self, model: Any, X: Any, Y: Any) -> None:
        """Go to the present parameters of a model of the same form, and to other data of the same shapes.

        Raises:
            ValueError: Other shapes; nothing has changed then.
        """
        network, data = network_of(model), [np.asarray(a, np.float64) for a in (X, Y)]
        pairs = [*zip(self.params, network.parameters(), strict=True), *zip(self.network.buffers(), network.buffers(), strict=True)]
        arrays = [*((mine._data, t.numpy()) for mine, t in pairs), (self.x._data, data[0]), (self.y._data, data[1])]
        if any(mine.shape != other.shape for mine, other in arrays):
            raise ValueError(f"Hessian.move: expected shapes {[a.shape for a, _ in arrays]}, got {[b.shape for _, b in arrays]}")
        for mine, other in arrays:
            np.copyto(mine, other)
        self._arrived()
        for step in (self._gradients, self._seconds, self._differences):
            step.refresh()

    def output(self) -> Tensor:
        """The network's prediction, in its graph."""
        if self.precision is None:
            return self.network(self.x)
        return self.model._forward_with_precision(self.x, self.precision, training=self.network.training)

    def loss(self) -> Tensor:
        """The loss, in its graph."""
        prediction = self.output()
        if not callable(self.loss_mode):
            check_shapes(prediction, self.y)
        return loss_of(prediction, self.y, self.loss_mode)

    def gradient(self) -> np.ndarray:
        """The flat gradient."""
        return self._gradients()

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
        if self.mode == "fd":
            return self._difference(v)
        found = self._seconds(v)
        if self._seconds.plan is not None:
            self._gradient = None  # the plan keeps what it needs
        return found

    def plan_report(self) -> str:
        """The operations of a gradient and of a product, or why they run eagerly."""
        product = self._differences if self.mode == "fd" else self._seconds
        return f"gradient\n{self._gradients.plan_report()}\nproduct\n{product.plan_report()}"

    # -- twice

    def _second(self, v: Tensor) -> Tensor:
        """Through the graph of the gradient, which is made once."""
        if self._gradient is None:
            self._gradient = list(grad(self.loss(), self.params, create_graph=True, allow_unused=True))
        return self._through(self._gradient, v)

    def _recorded_second(self, v: Tensor) -> Tensor:
        return self._through(grad(self.loss(), self.params, create_graph=True, allow_unused=True), v)

    def _through(self, gradient: Any, v: Tensor) -> Tensor:
        parts = self._split(v)
        pairs = [(g, part) for g, part in zip(gradient, parts, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return v * 0.0
        graphs, seeds = zip(*pairs, strict=True)
        return self._joined(grad(graphs, self.params, grad_outputs=seeds, allow_unused=True))

    def _split(self, v: Any) -> list[Any]:
        """A flat tensor or array in the shapes of the parameters."""
        ends = np.cumsum([0, *(p.numel() for p in self.params)]).tolist()
        return [v[a:b].reshape(p.shape) for p, a, b in zip(self.params, ends, ends[1:], strict=False)]

    def _joined(self, grads: Any) -> Tensor:
        pairs = zip(self.params, grads, strict=True)
        flat = [Tensor((p.numel(),), dtype=p.dtype) if g is None else g.detach().reshape(-1) for p, g in pairs]
        return flat[0] if len(flat) == 1 else concat(flat, axis=0)

    # -- differences

    def _flat_gradient(self) -> Tensor:
        return self._joined(grad(self.loss(), self.params, allow_unused=True))

    def _difference(self, v: np.ndarray) -> np.ndarray:
        with contextlib.ExitStack() as undo:
            undo.callback(np.copyto, self.theta._data, self._here)
            found = self._differences(v)
            undo.pop_all()
        return found

    def _central(self, v: Tensor) -> Tensor:
        """The gradient a step ahead less that a step behind, over two steps."""
        with no_grad():
            h = self._relative_step / ((v * v).sum() + _NO_LENGTH).sqrt()
            here, step = self.theta.clone(), v * h
            assign_(self.theta, here + step)
        ahead = self._flat_gradient()
        with no_grad():
            assign_(self.theta, here - step)
        behind = self._flat_gradient()
        with no_grad():
            assign_(self.theta, here)
            return (ahead - behind) * (0.5 / h)

    # -- Gauss-Newton

    def gauss_newton(self, v: Any) -> np.ndarray:
        """``J^T (d2L/dy2) J v``: the Hessian without the curvature of the network itself."""
        if callable(self.loss_mode):
            raise ValueError("gauss_newton: knows the losses half_mse and keras_mse only")
        parts = self._split(Tensor(data=np.array(v, np.float64)))
        y = self.output()
        u = Tensor(data=np.zeros(y.shape), requires_grad=True)
        pulled = grad(y, self.params, grad_outputs=u, create_graph=True, allow_unused=True)
        terms = [(g * part).sum() for g, part in zip(pulled, parts, strict=True) if g is not None and g.requires_grad]
        if not terms:
            return np.zeros(self.size)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        (pushed,) = grad(total, u)
        scale = 1.0 / y.shape[0] if self.loss_mode == "half_mse" else 2.0 / float(np.prod(y.shape))
        self.products += 1
        return self._joined(grad(y, self.params, grad_outputs=pushed * scale, allow_unused=True)).numpy().copy()
