"""Another path to the classes of the library."""

from keydnn.nn import Dense, Linear

__all__ = ["Dense", "Linear"]
