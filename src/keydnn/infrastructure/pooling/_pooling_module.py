"""Another path to the classes of the library."""

from keydnn.nn import AvgPool2d, GlobalAvgPool2d, MaxPool2d

__all__ = ["AvgPool2d", "GlobalAvgPool2d", "MaxPool2d"]
