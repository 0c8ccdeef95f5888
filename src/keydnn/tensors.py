"""Tensors and where they live."""

from keydnn._tensor import Tensor
from keydnn.domain.device import Device

__all__ = ["Device", "Tensor"]
