"""What every number format offers, fixed point or floating point: the protocol that quantisers and rail statistics use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class NumberFormat(ABC):
    """A finite set of numbers, and the rule that sends every real number to one of them."""

    is_stochastic: Any = False  # whether rounding draws random numbers, from the key it is given

    @property
    @abstractmethod
    def bits(self) -> Any:
        """Bits of storage of one number."""

    @abstractmethod
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest finite value."""

    @abstractmethod
    def quantum_at(self, x: Any) -> Any:
        """The distance of neighbouring values around x, elementwise."""

    @abstractmethod
    def rounded(self, x: np.ndarray, key: int = 0) -> np.ndarray:
        """The array with every element replaced by its value in the format, in the same dtype.

        Args:
            x: float32 or float64.
            key: What random numbers are drawn from where the format needs them.
        """

    def __call__(self, value: Any, *, key: int = 0) -> Any:
        """float for a scalar, else a float64 array of the same shape."""
        x = np.asarray(value, np.float64)
        y = self.rounded(x, key)
        return y if x.ndim else float(y)
