"""Modules: parameters, initializers, layers and losses.

>>> from keydnn import nn
>>> layer = nn.Linear(4, 3)
>>> layer(keydnn.ones((2, 4))).shape
(2, 3)
"""

from keydnn.nn import layers
from keydnn.nn.initializers import WeightInitializer
from keydnn.nn.layers import *  # noqa: F403 - the names are listed there
from keydnn.nn.module import Module, latest_stamp, structure_stamp
from keydnn.nn.parameter import Parameter

__all__ = [*layers.__all__, "Module", "Parameter", "WeightInitializer", "latest_stamp", "layers", "structure_stamp"]
