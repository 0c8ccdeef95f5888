"""TensorflowBaseModel: a user's own model, written for Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.models.base import BaseModel
from keydnn.experiment.optional import need

need("tensorflow", "TensorflowBaseModel")


class TensorflowBaseModel(BaseModel):
    """A BaseModel that keeps a Keras model in ``self.model``, which :meth:`build` makes; weights go by place and name of variables.

    Args:
        **init_args: Arguments of the subclass's constructor.
    """

    def __init__(self, **init_args: Any) -> None:
        super().__init__(Backend.TENSORFLOW, **init_args)
        self.model: Any = None

    @property
    def module(self) -> Any:
        """The Keras model."""
        return self.model

    def forward(self, x: Any, training: bool = False) -> Any:
        """The outputs of a batch."""
        return self.model(x, training=training)

    def get_weights(self) -> dict[str, np.ndarray]:
        """Variables by place and name, copied; empty before :meth:`build`."""
        return {} if self.model is None else adapter(Backend.TENSORFLOW).get_weights(self.model)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take back :meth:`get_weights`.

        Raises:
            ValueError: A variable that the model does not have, or one of another shape.
            RuntimeError: There are weights and no model to put them into.
        """
        if self.model is not None:
            adapter(Backend.TENSORFLOW).set_weights(self.model, weights)
        elif weights:
            raise RuntimeError(f"{type(self).__name__} is not built: there is nothing to put {len(weights)} weights into")
