"""Models and what their training leaves."""

from keydnn.training import History, Model, Sequential

__all__ = ["History", "Model", "Sequential"]
