"""Another path to the classes of the library."""

from keydnn.nn import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh

__all__ = ["LeakyReLU", "ReLU", "Sigmoid", "Softmax", "Tanh"]
