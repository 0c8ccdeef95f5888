"""Powers as a function; the rules stand with the operators, in `keydnn.ops.elementwise`."""

from numbers import Number


def pow(x, exponent):
    """``x ** exponent``, element by element.

    Args:
        x: Tensor, or a number if the exponent is a Tensor.
        exponent: Tensor whose shape broadcasts with that of x, or a number.

    Returns:
        A Tensor of the common shape.

    Raises:
        TypeError: Neither is a Tensor, or one is something else.
        ValueError: The shapes do not broadcast.

    Example:
        >>> keydnn.ops.pow(keydnn.tensor([1.0, 2.0, 3.0]), 2).tolist()
        [1.0, 4.0, 9.0]
    """
    if isinstance(x, Number) and isinstance(exponent, Number):
        raise TypeError(f"pow: expected a Tensor, got {type(x).__name__} and {type(exponent).__name__}")
    return x**exponent
