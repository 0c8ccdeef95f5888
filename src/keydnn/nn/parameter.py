"""Parameter: a tensor that a model learns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keydnn._tensor import Tensor, checked_shape
from keydnn.domain.budget import charge
from keydnn.domain.device import Device
from keydnn.nn.initializers import WeightInitializer, as_initializer


class Parameter(Tensor):
    """A Tensor that a module registers and an optimizer steps.  Operations on it give plain Tensors.

    Args:
        shape: Sizes of the axes.
        device: Device, device string or None (cpu).
        requires_grad: Whether it is trained.
        initializer: Name, WeightInitializer or callable that fills it; None leaves zeros.
        dtype: float32 (default) or float64; None is float32.
        ctx: Context to attach.

    Raises:
        TypeError: The shape, dtype or initializer is of a wrong type.
        ValueError: A negative size, a bad device, or an unknown initializer.

    Example:
        >>> from keydnn.nn import Parameter
        >>> Parameter((2, 3), initializer="ones").sum().item()
        6.0
    """

    _initializer: WeightInitializer | None = None

    def __init__(
        self,
        shape: Iterable[int],
        device: Device | str | None = None,
        *,
        requires_grad: bool = True,
        initializer: Any = None,
        dtype: Any = np.float32,
        ctx: Any = None,
    ) -> None:
        if isinstance(shape, np.ndarray | Tensor):
            raise TypeError(f"Parameter: takes a shape, got data; make Parameter({shape.shape}) and call its copy_from_numpy(data)")
        shape = checked_shape(shape)
        charge(shape)
        super().__init__(shape, device, requires_grad=requires_grad, dtype=dtype, ctx=ctx)
        if initializer is not None:
            self._initializer = as_initializer(initializer)
            self._initializer(self)

    @property
    def initializer(self) -> WeightInitializer:
        """What filled the parameter.

        Raises:
            ValueError: None was given.
        """
        if self._initializer is None:
            raise ValueError("this parameter was made without an initializer")
        return self._initializer

    def set_grad(self, grad: Tensor | None) -> None:
        """Replace ``grad``."""
        self.grad = grad

    def accumulate_grad(self, grad: Tensor) -> None:
        """Add to ``grad``; nothing happens if the parameter does not require a gradient."""
        if self.requires_grad:
            self._accumulate_grad_(grad)

    def to(self, device: Device | str, *, copy: bool = False) -> Tensor:
        """The parameter on ``device``: itself if it is there already and no copy is wanted, else a new Parameter that trains alike."""
        moved = super().to(device, copy=copy)
        if moved is self:
            return self
        twin = Parameter.__new__(Parameter)
        twin.__dict__.update(moved.__dict__, requires_grad=self.requires_grad, _initializer=self._initializer)
        return twin
