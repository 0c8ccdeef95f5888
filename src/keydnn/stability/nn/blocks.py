"""LinearBlockModel: Dense, activation, normalisation, repeated."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keydnn.nn import BatchNorm1d, Linear, Module
from keydnn.nn.layers import activation as activations
from keydnn.stability.nn.base import BaseModel
from keydnn.training import Sequential

ACTIVATIONS = {
    name.lower(): cls
    for name, cls in vars(activations).items()
    if isinstance(cls, type) and cls.__module__ == activations.__name__ and not name.startswith("_")
}


@dataclass(eq=False, repr=False)
class LinearBlockModel(BaseModel):
    """Blocks of Dense, activation and BatchNorm, and a Dense to the width of the targets if the last block has another one.

    Layers are called ``dense0, dense1, ...``, ``activation0, ...``, ``batchnorm0, ...``, so parameters read ``dense0.weight``.
    Weights start Glorot uniform, biases at 0.

    Args:
        num_hidden: Widths of the blocks; an empty list is a single ``dense0``.
        activation: None, a name such as ``"tanh"``, or an activation module, copied for each block.
        use_batchnorm: Whether blocks end with BatchNorm.
        use_bias: Whether Dense layers have a bias.
        dtype: Of the parameters: float32, or float64 for formats of more than 24 bits.

    Raises:
        ValueError: An unknown activation, a width below 1, or data whose samples are no vectors.

    Example:
        >>> from keydnn.stability import AffineDataset, LinearBlockModel
        >>> model = LinearBlockModel(AffineDataset(100, seed=0), num_hidden=[8], activation="tanh", seed=1)
        >>> model
        LinearBlockModel((4,) -> (2,), 58 parameters; dense0: Linear, activation0: Tanh, dense1: Linear)
    """

    num_hidden: Any = field(default_factory=lambda: [64, 64])
    activation: Any = None
    use_batchnorm: bool = False
    use_bias: bool = True
    name: str = "LinearBlockModel"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._build_model(self.input_shape, self.output_shape, verbose=self.verbose)

    def _build_model(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], verbose: bool = True) -> None:
        """Make the network; the seed is used here and NumPy's global generator is left as it was."""
        if len(input_shape) != 1 or len(output_shape) != 1:
            raise ValueError(f"LinearBlockModel: samples must be vectors, got inputs {input_shape} and outputs {output_shape}")
        before = np.random.get_state()
        if self.seed is not None:
            np.random.seed(self.seed % 2**32)
        try:
            self.model = self._chain(input_shape[0], output_shape[0])
        finally:
            if self.seed is not None:
                np.random.set_state(before)
        self._remember()
        if verbose:
            self.summary()

    def _chain(self, width: int, n_out: int) -> Sequential:
        network = Sequential()
        widths = list(self.num_hidden)
        for i, n in enumerate(widths):
            network.add(Linear(width, n, bias=self.use_bias, dtype=self.dtype), name=f"dense{i}")
            if self.activation is not None:
                network.add(self._activation(), name=f"activation{i}")
            if self.use_batchnorm:
                network.add(BatchNorm1d(n, dtype=self.dtype), name=f"batchnorm{i}")
            width = n
        if not widths or width != n_out:
            network.add(Linear(width, n_out, bias=self.use_bias, dtype=self.dtype), name=f"dense{len(widths)}")
        return network

    def _activation(self) -> Module:
        if isinstance(self.activation, Module):
            return copy.deepcopy(self.activation)
        key = str(self.activation).lower().replace("_", "")
        if key not in ACTIVATIONS:
            raise ValueError(f"LinearBlockModel: unknown activation {self.activation!r}; there are {', '.join(sorted(ACTIVATIONS))}")
        return ACTIVATIONS[key]()
