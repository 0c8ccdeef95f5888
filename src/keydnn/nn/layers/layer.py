"""What the built-in layers share: how a config becomes a layer, how it is shown, how errors name the layer."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.device import Device, as_device
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import FLOAT32, floating_dtype
from keydnn.nn.hooks import CastingHooks
from keydnn.nn.initializers import as_initializer
from keydnn.nn.module import Module
from keydnn.saving.config import known_arguments

C = TypeVar("C")


class ConfigMixin:
    """The keys of a config are the names of constructor arguments."""

    @classmethod
    def from_config(cls: type[C], config: dict[str, Any]) -> C:
        """A new object from its config; unknown keys are ignored, missing ones take the constructor's defaults.

        Raises:
            KeyError: A key without default is missing.
            TypeError: The config is no dict, or a value has a wrong type.
            ValueError: A value is out of range.
        """
        if not isinstance(config, dict):
            raise TypeError(f"{cls.__name__}.from_config: expected a dict, got {type(config).__name__}")
        for name, parameter in inspect.signature(cls).parameters.items():
            if parameter.default is parameter.empty and name not in config:
                raise KeyError(f"{cls.__name__}.from_config: {name!r} is missing from {config}")
        return cls(**known_arguments(cls, config))


class Layer(ConfigMixin, Module):
    """Base of the built-in layers."""

    def extra_repr(self) -> str:
        """The config, less what the constructor assumes anyway."""
        defaults = {name: parameter.default for name, parameter in inspect.signature(type(self)).parameters.items()}
        return ", ".join(f"{k}={v}" for k, v in self.get_config().items() if not _is_default(k, v, defaults.get(k)))

    def _explained(self, error: Exception, args: tuple[Any, ...]) -> Exception | None:
        name = type(self).__name__
        if not args or isinstance(args[0], Tensor) or str(error).startswith(f"{name}: "):
            return None
        mend = ""
        if isinstance(args[0], tuple):
            mend = "; a recurrent layer before it gives its outputs alone with return_state=False"
        elif isinstance(args[0], np.ndarray):
            mend = "; make one with keydnn.tensor(array)"
        return TypeError(f"{name}: expected a Tensor, got {type(args[0]).__name__}{mend}")

    def _blamed(self, error: Exception) -> ShapeError:
        """A shape error of an operation, under the name of this layer."""
        return ShapeError(f"{type(self).__name__}: {str(error).partition(': ')[2]}")


class Weightless(Layer):
    """Base of the layers without parameters: they compute in the dtype of x, or in one that was chosen.

    Args:
        dtype: float32 or float64, to which x is cast before ``forward``; None keeps its dtype.
    """

    def __init__(self, dtype: Any = None) -> None:
        super().__init__()
        self.dtype = None
        if dtype is not None:
            self.dtype, self._hooks = floating_dtype(dtype, self), CastingHooks()

    def extra_repr(self) -> str:
        """The settings, with ``dtype`` where one was chosen."""
        rest = super().extra_repr()
        return rest if self.dtype != FLOAT32 else ", ".join(filter(None, (rest, "dtype=float32")))

    def get_config(self) -> dict[str, Any]:
        """``dtype`` where one was chosen."""
        return {} if self.dtype is None else {"dtype": self.dtype.name}


class StatelessConfigMixin(ConfigMixin):
    """For layers without hyperparameters: the config is empty."""

    def get_config(self) -> dict[str, Any]:
        """An empty dict."""
        return {}


def _is_default(key: str, value: Any, default: Any) -> bool:
    if key == "device":
        return value in (None, "cpu")
    if key == "dtype":
        return value == "float32"
    return value == default or value == [default, default]


def layer_device(device: Device | str | None, owner: object) -> Device:
    """The device a layer was asked for; None is the cpu.

    Raises:
        TypeError: It is no Device, string or None.
        ValueError: The string names no device.
    """
    return as_device(device, owner=type(owner).__name__)


def initializer_config(initializer: Any, default: str | None) -> Any:
    """How a config names an initializer; a function without a name becomes ``default``: weights are loaded over it anyway."""
    if initializer is None:
        return default
    return as_initializer(initializer).config or default


def without_defaults(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``config`` without those entries that equal their default: keys that older readers do not know are written only if they matter."""
    return {key: value for key, value in config.items() if key not in defaults or value != defaults[key]}
