"""Modules: parameters, initializers, layers and losses.

>>> from keydnn import nn
>>> layer = nn.Linear(4, 3)
>>> layer(keydnn.ones((2, 4))).shape
(2, 3)
"""

from keydnn.nn.initializers import WeightInitializer
from keydnn.nn.layers import Dense, Layer, LazyLinear, Linear
from keydnn.nn.module import Module, latest_stamp, structure_stamp
from keydnn.nn.parameter import Parameter

__all__ = [
    "Dense",
    "Layer",
    "LazyLinear",
    "Linear",
    "Module",
    "Parameter",
    "WeightInitializer",
    "latest_stamp",
    "structure_stamp",
]
