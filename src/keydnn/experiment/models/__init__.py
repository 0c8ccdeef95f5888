"""Models: bases for your own, wrappers for those of a framework, and :func:`wrap_model`."""

from __future__ import annotations

import importlib
from typing import Any

from keydnn.experiment.models.base import BaseModel
from keydnn.experiment.models.keydnn_model import KeydnnBaseModel
from keydnn.experiment.models.scikit import ScikitModelWrapper, ScikitTrainingMode
from keydnn.experiment.models.wrap import wrap_model
from keydnn.experiment.models.wrapper import KeydnnModelWrapper, TensorflowModelWrapper, TorchModelWrapper
from keydnn.experiment.optional import is_installed, need

_FRAMEWORK_BASES = {"TorchBaseModel": ("torch", "torch_model"), "TensorflowBaseModel": ("tensorflow", "tensorflow_model")}

__all__ = [
    "BaseModel",
    "KeydnnBaseModel",
    "KeydnnModelWrapper",
    "ScikitModelWrapper",
    "ScikitTrainingMode",
    "TensorflowBaseModel",  # noqa: F822 - through __getattr__
    "TensorflowModelWrapper",
    "TorchBaseModel",  # noqa: F822 - through __getattr__
    "TorchModelWrapper",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    """The bases that need a framework; where it is absent, classes that say so when they are used."""
    if name not in _FRAMEWORK_BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package, module = _FRAMEWORK_BASES[name]
    if is_installed(package):
        found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    else:
        found = _absent(name, package)
    globals()[name] = found
    return found


def _absent(name: str, package: str) -> type:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        need(package, name)

    return type(name, (), {"__init__": __init__, "__doc__": f"{name}, which needs {package}."})
