"""Gradients held against central differences: df/dx_i = (f(x + eps e_i) - f(x - eps e_i)) / (2 eps) + O(eps^2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn.autograd.backward import grad
from keydnn.autograd.context import Differentiable
from keydnn.domain.errors import GraphError

_DEFAULTS = {"float64": (1e-6, 1e-5, 1e-7), "float32": (1e-2, 2e-2, 2e-3)}


def gradcheck(
    fn: Callable[..., Any], inputs: Any, *, eps: float | None = None, rtol: float | None = None, atol: float | None = None
) -> bool:
    """Compare the gradients of ``fn`` with central differences, for every element of every input.

    Args:
        fn: Maps Tensors to one Tensor of any shape; must be deterministic.
        inputs: A Tensor or a sequence of them; those with ``requires_grad`` are checked.  float64 is advised.
        eps: Step; default 1e-6 (f8), 1e-2 (f4).
        rtol: Relative tolerance; default 1e-5 (f8), 2e-2 (f4).
        atol: Absolute tolerance; default 1e-7 (f8), 2e-3 (f4).

    Returns:
        True; a difference raises.

    Raises:
        ValueError: No input requires a gradient.
        TypeError: One that does holds neither float32 nor float64.
        RuntimeError: A gradient differs; the message names input, element and both numbers.
    """
    inputs = [inputs] if isinstance(inputs, Differentiable) else list(inputs)
    checked = [t for t in inputs if t.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires a gradient; set requires_grad=True on those to check")
    for t in checked:
        if str(t.dtype) not in _DEFAULTS:
            raise TypeError(f"gradcheck: an input requires a gradient but has dtype {t.dtype}; use float64 or float32")
    out = fn(*inputs)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, out.shape)
    seed = out._like_full(0.0)
    seed.copy_from_numpy(weights)
    if out._node is None and all(out is not t for t in checked):
        grads: tuple[Any, ...] = (None,) * len(checked)
    else:
        grads = grad(out, checked, seed, allow_unused=True)

    def value() -> float:  # not under no_grad: fn may itself take a gradient
        return float(np.sum(fn(*inputs).to_numpy().astype(np.float64) * weights))

    for i, (tensor, got) in enumerate(zip(checked, grads, strict=True)):
        step, rel, abs_ = _DEFAULTS[str(tensor.dtype)]
        want = _central_differences(value, tensor, eps or step)
        have = np.zeros(tensor.shape) if got is None else got.to_numpy()
        _compare(i, have, want, rel if rtol is None else rtol, abs_ if atol is None else atol)
    return True


def _central_differences(value: Callable[[], float], tensor: Any, eps: float) -> np.ndarray:
    flat = tensor.to_numpy().flat  # writes the tensor itself, also where its memory has gaps
    want = np.empty(tensor.size)
    for j in range(tensor.size):
        kept = flat[j]
        flat[j] = kept + eps
        up, high = value(), flat[j]
        flat[j] = kept - eps
        down, low = value(), flat[j]
        flat[j] = kept
        want[j] = (up - down) / (float(high) - float(low))
    return want.reshape(tensor.shape)


def _compare(i: int, have: np.ndarray, want: np.ndarray, rtol: float, atol: float) -> None:
    wrong = ~np.isclose(have, want, rtol=rtol, atol=atol)
    if wrong.any():
        where = tuple(int(j) for j in np.argwhere(wrong)[0])
        raise GraphError(
            f"gradcheck: input {i}, element {where}: gradient {have[where]:.8g}, central difference {want[where]:.8g}"
            f" ({int(wrong.sum())} of {wrong.size} elements differ by more than rtol={rtol:g}, atol={atol:g})"
        )
