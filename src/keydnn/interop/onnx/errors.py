"""What can go wrong with ONNX."""

from __future__ import annotations

from typing import Any

from keydnn.domain.errors import KeyDNNError, MissingExtraError


class OnnxError(KeyDNNError, ValueError):
    """A file or graph that is damaged or makes no sense."""


class UnsupportedOnnxError(OnnxError):
    """An operator, a setting of it or a type that has no counterpart here."""


def import_onnx(what: str) -> Any:
    """The package ``onnx``.

    Raises:
        ImportError: It is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(what, "onnx", "onnx") from error
    return onnx
