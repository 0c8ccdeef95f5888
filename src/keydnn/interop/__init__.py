"""Other libraries: one file for each, which imports it only when it is asked for something."""

from importlib import import_module

__all__ = ["keras", "onnx", "sklearn", "torch"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
