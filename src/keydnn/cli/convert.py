"""``keydnn convert``: a model from one kind of file to another, by their suffixes.

From ``.keras``, ``.h5`` (Keras Sequential), ``.json``, ``.json.gz`` or ``.msgpack`` (KeyDNN) to ``.json``, ``.json.gz``, ``.msgpack``,
``.onnx`` or ``.safetensors`` (weights alone); from ``.onnx`` to ``.safetensors``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keydnn
from keydnn.cli.job.config import ConfigError
from keydnn.interop.keras import from_keras
from keydnn.saving import from_payload, module_to_config, read_msgpack, write_atomically, write_msgpack

OURS = (".json", ".json.gz", ".msgpack")
READ, WRITTEN = (".keras", ".h5", *OURS), (*OURS, ".onnx", ".safetensors")


def convert(
    src: Path,
    dst: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    strict: bool = True,
    allow_non_linear_activation: bool = False,
    config_only: bool = False,
    input_shape: tuple[int, ...] | None = None,
) -> None:
    """Read ``src`` and write ``dst``.

    Args:
        src: File to read.
        dst: File to write.
        device: Keras: where the parameters live meanwhile.
        dtype: Keras: ``float32`` or ``float64``.
        strict: Keras: whether a layer without counterpart is an error; else it is left out with a warning.
        allow_non_linear_activation: Keras: whether an activation inside a layer becomes a layer of its own; else it is an error.
        config_only: Whether to write types and configs of the layers alone, as JSON.
        input_shape: ONNX: full shape of an input, with the batch.

    Raises:
        ConfigError: A suffix that is not known, or ONNX without an input shape.
        KeyDNNError: The file is damaged, or holds what has no counterpart.
        ImportError: The package that the conversion needs is missing.
        OSError: A file cannot be read or written.
    """
    if not dst.name.endswith(WRITTEN) or not src.name.endswith((*READ, ".onnx")):
        known = f"convert reads {', '.join(READ)} and .onnx, and writes {', '.join(WRITTEN)}"
        raise ConfigError(f"{src if dst.name.endswith(WRITTEN) else dst}: {known}")
    if src.suffix == ".onnx":
        _weights_of_onnx(src, dst)
        return
    if dst.suffix == ".onnx" and input_shape is None:
        raise ConfigError("an ONNX file needs --input-shape, the full shape of a batch such as 1,3,32,32")
    keras = {"device": device, "dtype": dtype, "strict": strict, "allow_non_linear_activation": allow_non_linear_activation}
    model = read_model(src, **keras)
    if config_only:
        _write_config(model, dst)
    elif dst.suffix == ".onnx":
        from keydnn.interop.onnx import save_onnx

        save_onnx(model, dst, input_shape or ())
    elif dst.suffix == ".msgpack":
        write_msgpack(dst, model.to_json_payload())
    elif dst.suffix == ".safetensors":
        model.save_weights(dst)
    else:
        model.save_json(dst)


def read_model(src: Path, **keras: Any) -> keydnn.Sequential:
    """The model in a file, by its suffix.

    Args:
        src: One of ``READ``.
        keras: Arguments of :func:`keydnn.from_keras`, for its files.

    Raises:
        ConfigError: Another suffix.
        KeyDNNError: The file is damaged, or holds what has no counterpart.
        OSError: It cannot be read.
    """
    if not src.name.endswith(READ):
        raise ConfigError(f"{src}: models are read from {', '.join(READ)}")
    if src.suffix == ".msgpack":
        model: keydnn.Sequential = from_payload(read_msgpack(src), keydnn.Sequential)
        model._mark_built()
        return model
    return keydnn.Sequential.load_json(src) if src.name.endswith(OURS) else from_keras(str(src), **keras)


def _weights_of_onnx(src: Path, dst: Path) -> None:
    """A graph is no model with a config of ours, but its weights have names."""
    if dst.suffix != ".safetensors":
        raise ConfigError(f"{dst}: of an ONNX file the weights alone are written, to .safetensors")
    from keydnn.interop.onnx import load_onnx

    load_onnx(src).save_weights(dst)


def _write_config(model: keydnn.Sequential, dst: Path) -> None:
    modules: list[dict[str, Any]] = []
    for layer in model:
        node = module_to_config(layer)
        modules.append({"type": node["type"], "config": node["config"]})
    text = json.dumps({"format": "keydnn.model.v1", "modules": modules}, indent=2, sort_keys=True)
    write_atomically(dst, text.encode())
