"""What a throttle is compared with: clipping and projection, as update rules that tell how far they bend an update.

    clip_norm       g <- g min(1, c / ||g||)                      over all parameters
    clip_gradient   g <- min(max(g, -c), c)                       element by element; direction changes
    clip_update     the same of -eta g
    clip_weight     theta + delta <- min(max(theta + delta, -c), c)
    kappa           W + delta <- (W + delta) min(1, kappa / ||W + delta||)      per layer, row or column

Inputs are clipped by `DriftModel(clip=...)`.  Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063 (clip_norm).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keydnn.stability.rules import UpdateRule

_NORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "layer": lambda w: np.linalg.norm(w),
    "row": lambda w: np.linalg.norm(w.reshape(len(w), -1), axis=1).reshape(-1, *(1,) * (w.ndim - 1)),
    "column": lambda w: np.linalg.norm(w, axis=0, keepdims=True),
}


class ClipRule(UpdateRule):
    """Gradient descent with bounds; those that are None do nothing.

    Args:
        clip_norm: Largest norm of the whole gradient.
        clip_gradient: Largest size of an entry of the gradient.
        clip_update: Largest size of an entry of an update.
        clip_weight: Largest size of a weight.
        kappa: Largest norm of a parameter with two or more axes, or of its rows or columns.
        project: What kappa bounds: ``"layer"``, ``"row"`` or ``"column"``.
        learning_rate: eta; None takes that of the run.

    Attributes:
        cosines: Per step the cosine between the proposal and ``-eta g``; 1 where one of them is 0.

    Raises:
        ValueError: A bound that is not above 0, or an unknown ``project``.

    Example:
        >>> from keydnn.stability import ClipRule
        >>> rule = ClipRule(clip_gradient=1.0, learning_rate=0.5)
        >>> rule.propose([np.array([3.0, 4.0])], [np.zeros(2)])[0].tolist(), round(rule.cosines[0], 4)
        ([-0.5, -0.5], 0.9899)
    """

    def __init__(
        self,
        *,
        clip_norm: float | None = None,
        clip_gradient: float | None = None,
        clip_update: float | None = None,
        clip_weight: float | None = None,
        kappa: float | None = None,
        project: str = "layer",
        learning_rate: float | None = None,
    ) -> None:
        bounds = {"clip_norm": clip_norm, "clip_gradient": clip_gradient, "clip_update": clip_update, "clip_weight": clip_weight}
        for name, bound in {**bounds, "kappa": kappa}.items():
            if bound is not None and not bound > 0.0:
                raise ValueError(f"ClipRule: {name} must be above 0, got {bound}")
        if project not in _NORMS:
            raise ValueError(f"ClipRule: project must be one of {', '.join(_NORMS)}, got {project!r}")
        self.clip_norm, self.clip_gradient, self.clip_update, self.clip_weight = clip_norm, clip_gradient, clip_update, clip_weight
        self.kappa, self.project = kappa, project
        super().__init__(learning_rate)

    def reset(self) -> None:
        """Forget all state."""
        super().reset()
        self.cosines: list[float] = []

    def propose(self, grads: Sequence[np.ndarray], params: Sequence[np.ndarray]) -> list[np.ndarray]:
        """-eta g within the bounds."""
        exact = [g.astype(np.float64) for g in grads]
        total = float(np.sqrt(sum(float((g * g).sum()) for g in exact)))
        scale = 1.0 if self.clip_norm is None or total <= self.clip_norm else self.clip_norm / total
        deltas = [self._bounded(scale * g, p.astype(np.float64)) for g, p in zip(exact, params, strict=True)]
        dot = -sum(float((d * g).sum()) for d, g in zip(deltas, exact, strict=True))
        size = total * float(np.sqrt(sum(float((d * d).sum()) for d in deltas)))
        self.cosines.append(dot / size if size > 0.0 else 1.0)
        return deltas

    def _bounded(self, g: np.ndarray, theta: np.ndarray) -> np.ndarray:
        delta = -self.eta * _clipped(g, self.clip_gradient)
        moved = _clipped(theta + _clipped(delta, self.clip_update), self.clip_weight)
        if self.kappa is not None and moved.ndim >= 2:
            size = _NORMS[self.project](moved)
            moved = moved * np.minimum(1.0, self.kappa / np.maximum(size, np.finfo(float).tiny))
        return moved - theta


def _clipped(a: np.ndarray, bound: float | None) -> np.ndarray:
    return a if bound is None else np.clip(a, -bound, bound)
