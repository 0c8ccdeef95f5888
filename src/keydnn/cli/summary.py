"""``keydnn summary FILE``: the layers of a model, with shapes and numbers of parameters where the shape of an input is known."""

from __future__ import annotations

import json
from pathlib import Path

from keydnn.cli.convert import read_model
from keydnn.cli.job.config import ConfigError
from keydnn.training.summary import shape_rows


def report(file: Path, input_shape: tuple[int, ...] | None = None, as_json: bool = False) -> str:
    """The text to print.

    Args:
        file: A file that :func:`keydnn.cli.convert.read_model` reads.
        input_shape: Full shape of an input, with the batch.
        as_json: Whether as JSON: ``type``, ``layers`` (``name``, ``type``, ``parameters`` and, with an input shape,
            ``output_shape``), ``parameters``, ``trained``.

    Raises:
        ConfigError: Another suffix, or a shape that the model does not take.
        KeyDNNError: The file is damaged.
        OSError: It cannot be read.
    """
    model = read_model(file, allow_non_linear_activation=True)
    try:
        if not as_json:
            return model.summary(input_shape)
        if input_shape is not None:
            return json.dumps(shape_rows(model, input_shape))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} does not take inputs of shape {input_shape}: {error}") from error
    layers = [
        {"name": name, "type": type(layer).__name__, "parameters": sum(p.numel() for p in layer.parameters())}
        for name, layer in model.named_children()
    ]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    return json.dumps({"type": type(model).__name__, "layers": layers, "parameters": every, "trained": trained})
