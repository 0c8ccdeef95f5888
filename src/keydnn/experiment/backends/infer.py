"""Whose object something is: a tensor, a module, an optimizer class, a loss, an estimator."""

from __future__ import annotations

import inspect
from typing import Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import backend_of, is_tensor

_PACKAGES = {
    "torch": Backend.TORCH,
    "keras": Backend.TENSORFLOW,
    "tensorflow": Backend.TENSORFLOW,
    "tf_keras": Backend.TENSORFLOW,
    "sklearn": Backend.SCIKIT,
    "keydnn": Backend.KEYDNN,
}


_NEUTRAL = ("keydnn.experiment", "keydnn.testing")  # of this package, yet not the engine


def infer_backend(value: Any) -> Backend | None:
    """The backend a tensor, object, class or function belongs to: by the packages of its class and the bases; None if they tell nothing.

    Example:
        >>> from keydnn.experiment.backends.infer import infer_backend
        >>> infer_backend(keydnn.optimizers.Adam).value
        'keydnn'
        >>> infer_backend(print) is None
        True
    """
    if is_tensor(value):
        return backend_of(value)
    kinds = [value] if inspect.isfunction(value) else (value if isinstance(value, type) else type(value)).__mro__
    for kind in kinds:
        package = str(kind.__module__).partition(".")[0]
        if package in _PACKAGES and not str(kind.__module__).startswith(_NEUTRAL):
            return _PACKAGES[package]
    return None
