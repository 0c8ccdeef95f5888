"""Another path to the classes of the library."""

from keydnn.training import Model, Sequential

__all__ = ["Model", "Sequential"]
