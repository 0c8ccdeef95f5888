"""Another path to the classes of the library."""

from keydnn.nn import Flatten

__all__ = ["Flatten"]
