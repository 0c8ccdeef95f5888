"""Another path to the classes of the library."""

from keydnn.nn import Conv2d

__all__ = ["Conv2d"]
