"""Keras: Sequential models of Keras 2 and 3 become ours.

A path is read without TensorFlow: ``.keras`` (a zip with ``config.json`` and ``model.weights.h5``) and ``.h5`` (``model_config`` and
``model_weights``); only h5py is needed.  A model in memory is asked for its config and weights, whichever Keras it comes from.

How each layer is converted stands in :mod:`keydnn.interop.keras_rules`.

Sources: https://keras.io/api/layers/ ; keras/src/saving/saving_lib.py (names of groups) and legacy/hdf5_format.py.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from keydnn.interop.keras_files import RECURRENT_LAYERS, KerasLayer, read_layers, with_inputs
from keydnn.interop.keras_rules import RULES, KerasInteropError, UnsupportedKerasLayerError, activation_of
from keydnn.nn import Module
from keydnn.training import Sequential
from keydnn.training.building import generator_restored

__all__ = ["KerasInteropError", "UnsupportedKerasLayerError", "from_keras", "layers_of"]


def from_keras(
    model_or_path: Any, *, device: Any = "cpu", dtype: Any = np.float32, strict: bool = True, allow_non_linear_activation: bool = False
) -> Sequential:
    """A built :class:`~keydnn.Sequential` with the layers and weights of a Keras Sequential.

    Args:
        model_or_path: A Keras Sequential, or the path of a ``.keras`` or ``.h5`` file of one.
        device: Where the parameters shall live.
        dtype: float32 or float64.
        strict: Whether a layer without a counterpart is an error; else it is left out with a warning.
        allow_non_linear_activation: Whether an activation inside a layer may become a layer of its own; else it is an error.

    Returns:
        The model, in evaluation as the original (``channels_first`` images).

    Raises:
        UnsupportedKerasLayerError: A layer or a setting has no counterpart.
        KerasInteropError: The model is no Sequential, or the file is damaged.
        ImportError: A file needs h5py.
        OSError: The file cannot be read.
    """
    is_path = isinstance(model_or_path, str | os.PathLike)
    layers = read_layers(model_or_path, KerasInteropError) if is_path else with_inputs(layers_of(model_or_path))
    model = Sequential()
    options = {"device": device, "dtype": np.dtype(dtype)}
    with generator_restored():
        for layer in layers:
            for part in _converted(layer, options, strict, allow_non_linear_activation):
                model.add(part)
    model._mark_built()
    return model.eval()


def layers_of(model: Any) -> Iterator[KerasLayer]:
    """The layers of a Keras Sequential in memory, nested ones in line.

    Raises:
        KerasInteropError: It is no Sequential.
    """
    if not any(base.__name__ == "Sequential" and base.__module__.split(".")[0] in ("keras", "tf_keras", "tensorflow")
               for base in type(model).__mro__):  # fmt: skip
        raise KerasInteropError(f"from_keras: expected a Keras Sequential or the path of a file, got {type(model).__name__}")
    shape = getattr(model, "input_shape", None)  # a model that was never built has none
    yield KerasLayer("InputLayer", "input", {"batch_shape": shape}, [])
    for layer in model.layers:
        if type(layer).__name__ == "Sequential":
            yield from layers_of(layer)
        else:
            yield KerasLayer(type(layer).__name__, layer.name, layer.get_config(), [np.asarray(w) for w in layer.get_weights()])


def _converted(layer: KerasLayer, options: dict[str, Any], strict: bool, allow: bool) -> list[Module]:
    rule = RULES.get(layer.kind)
    try:
        if rule is None:
            raise UnsupportedKerasLayerError(
                f"from_keras: layer {layer.name!r}: {layer.kind} has no counterpart; known: {', '.join(RULES)}"
            )
        parts = rule(layer, options)
        activation = None if layer.kind in {"Activation", *RECURRENT_LAYERS} else activation_of(layer)
    except UnsupportedKerasLayerError as error:
        if strict:
            raise
        warnings.warn(f"{error}; it is left out", UserWarning, stacklevel=4)
        return []
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise KerasInteropError(f"from_keras: layer {layer.name!r} ({layer.kind}) cannot be converted: {error!r}") from error
    if activation is not None and not allow:
        raise UnsupportedKerasLayerError(
            f"from_keras: layer {layer.name!r} ({layer.kind}) has the activation {layer.config.get('activation')!r};"
            " allow_non_linear_activation=True makes it a layer of its own"
        )
    return parts if activation is None else [*parts, activation]
