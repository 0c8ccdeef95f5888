"""KeyDNN: a deep learning engine written to be read."""

__version__ = "0.1.0"
