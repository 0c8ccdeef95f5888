"""Embedding: a learned row for each of a set of numbers."""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.nn.arguments import floating_dtype, integer, positive_int
from keydnn.nn.initializers import as_initializer
from keydnn.nn.layers.layer import Layer, initializer_config, layer_device, without_defaults
from keydnn.nn.parameter import Parameter
from keydnn.ops.lookup import embedding
from keydnn.saving.registry import register_module

INITIALIZER: Any = {"name": "normal", "std": 1.0}
LARGEST_WHOLE = {2: 1 << 11, 4: 1 << 24, 8: 1 << 53}  # bytes of a floating dtype: up to here it holds every whole number
EXTRAS = {"device": "cpu", "dtype": "float32", "initializer": INITIALIZER}


@register_module()
class Embedding(Layer):
    """The rows of a table by number: ``y[...] = weight[index[...]]``.

    Args:
        num_embeddings: Rows of the table, at least 1.
        embedding_dim: Features of each, at least 1.
        padding_idx: A row that starts as zeros and gets no gradient; negative ones count from the end.  None is none.
        device: Where the table lives; None is the cpu.
        dtype: float32 (default) or float64.
        initializer: Name, config, WeightInitializer or function that fills the table; standard normal by default.

    Shapes: index (...) -> (..., embedding_dim).  weight (num_embeddings, embedding_dim).  The index holds whole numbers; those of
    a floating dtype, to which ``fit`` and ``predict`` cast what they are given, are cut to whole ones.

    Raises:
        ValueError: A size below 1, or padding_idx outside the table.
        TypeError: The index is no Tensor, or of a floating dtype that does not tell all rows apart.
        IndexError: The index holds a number outside the table.

    Example:
        >>> from keydnn.nn import Embedding
        >>> Embedding(10, 3)(keydnn.tensor([[1, 2], [4, 1]])).shape
        (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: Device | str | None = None,
        dtype: Any = None,
        initializer: Any = INITIALIZER,
    ) -> None:
        super().__init__()
        self.num_embeddings = n = positive_int("num_embeddings", num_embeddings, self)
        self.embedding_dim = positive_int("embedding_dim", embedding_dim, self)
        self.padding_idx = None if padding_idx is None else integer("padding_idx", padding_idx, self)
        if self.padding_idx is not None and not -n <= self.padding_idx < n:
            raise ValueError(f"Embedding: padding_idx must be a row of {n}, got {padding_idx}")
        if self.padding_idx is not None:
            self.padding_idx %= n
        self.device, self.dtype = layer_device(device, self), floating_dtype(dtype, self)
        self.initializer = as_initializer(initializer)
        self.weight = Parameter((n, self.embedding_dim), self.device, dtype=self.dtype, initializer=self.initializer)
        if self.padding_idx is not None:
            values = self.weight.numpy()
            values[self.padding_idx] = 0.0
            self.weight.copy_from_numpy(values)

    def forward(self, index: Tensor) -> Tensor:
        """The rows at ``index``.

        Args:
            index: Tensor of any shape that holds whole numbers.
        """
        if not isinstance(index, Tensor):
            raise TypeError(f"Embedding: expected a Tensor of integers, got {type(index).__name__}")
        if index.dtype.kind == "f":
            if self.num_embeddings > LARGEST_WHOLE[index.dtype.itemsize]:
                raise TypeError(
                    f"Embedding: {index.dtype} does not tell {self.num_embeddings} rows apart; give a Tensor of integers"
                    " (keydnn.tensor(index, dtype='int64'))"
                )
            index = index.astype("int64")
        return embedding(self.weight, index, self.padding_idx)

    def get_config(self) -> dict[str, Any]:
        """``num_embeddings, embedding_dim, padding_idx``, and further ones that are not as usual."""
        config = {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim, "padding_idx": self.padding_idx}
        extras = {"device": str(self.device), "dtype": self.dtype.name, "initializer": initializer_config(self.initializer, INITIALIZER)}
        return config | without_defaults(extras, EXTRAS)
