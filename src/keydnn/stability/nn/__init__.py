"""Models of the stability lab: a network with the data it learns, and instrumented training."""

from keydnn.stability.nn.base import BaseModel
from keydnn.stability.nn.blocks import LinearBlockModel

__all__ = ["BaseModel", "LinearBlockModel"]
