"""wrap_model: any model as a BaseModel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.models.base import BaseModel
from keydnn.experiment.models.scikit import ScikitModelWrapper
from keydnn.experiment.models.wrapper import KeydnnModelWrapper, TensorflowModelWrapper, TorchModelWrapper

_WRAPPERS: dict[Backend, Callable[..., BaseModel]] = {
    Backend.TORCH: lambda model: TorchModelWrapper(model=model),
    Backend.TENSORFLOW: lambda model: TensorflowModelWrapper(model=model),
    Backend.KEYDNN: lambda model: KeydnnModelWrapper(model=model),
    Backend.SCIKIT: ScikitModelWrapper,
}


def wrap_model(model: Any) -> BaseModel:
    """A model as a BaseModel; one that is stays itself.

    Args:
        model: A BaseModel, torch module, Keras model, scikit-learn estimator or engine module.

    Raises:
        NotImplementedError: Anything else.
    """
    if isinstance(model, BaseModel):
        return model
    for backend, wrapper in _WRAPPERS.items():
        if adapter(backend).is_model(model):
            return wrapper(model)
    raise NotImplementedError(
        f"no wrapper for {type(model).__name__}; expected a BaseModel, or a model of torch, Keras, scikit-learn or keydnn"
    )
