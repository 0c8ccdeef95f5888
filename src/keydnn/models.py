"""Models and what their training leaves."""

from keydnn.training import History, MixedPrecision, Model, Sequential

__all__ = ["History", "MixedPrecision", "Model", "Sequential"]
