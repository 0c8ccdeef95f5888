"""The layers, one file per family."""

from keydnn.nn.layers.layer import Layer, StatelessConfigMixin
from keydnn.nn.layers.linear import Dense, LazyLinear, Linear

__all__ = ["Dense", "Layer", "LazyLinear", "Linear", "StatelessConfigMixin"]
