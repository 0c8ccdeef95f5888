"""``keydnn convert``: a model from one kind of file to another, by their suffixes.

From ``.keras``, ``.h5`` (Keras Sequential), ``.json``, ``.json.gz`` or ``.msgpack`` (KeyDNN) to ``.json``, ``.json.gz``, ``.msgpack``,
``.onnx`` or ``.safetensors`` (weights alone).
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
    for path, known in ((src, READ), (dst, WRITTEN)):
        if not path.name.endswith(known):
            raise ConfigError(f"{path}: convert reads {', '.join(READ)} and writes {', '.join(WRITTEN)}")
    if dst.suffix == ".onnx" and input_shape is None:
        raise ConfigError("an ONNX file needs --input-shape, the full shape of a batch such as 1,3,32,32")
    if src.suffix == ".msgpack":
        model = from_payload(read_msgpack(src), keydnn.Sequential)
        model._mark_built()
    elif src.name.endswith(OURS):
        model = keydnn.Sequential.load_json(src)
    else:
        model = from_keras(str(src), device=device, dtype=dtype, strict=strict, allow_non_linear_activation=allow_non_linear_activation)
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


def _write_config(model: keydnn.Sequential, dst: Path) -> None:
    modules: list[dict[str, Any]] = []
    for layer in model:
        node = module_to_config(layer)
        modules.append({"type": node["type"], "config": node["config"]})
    text = json.dumps({"format": "keydnn.model.v1", "modules": modules}, indent=2, sort_keys=True)
    write_atomically(dst, text.encode())
