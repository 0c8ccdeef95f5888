"""Packages that may be absent: imported when first needed, looked for once per process."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType

from keydnn.domain.errors import MissingExtraError

EXTRAS = {  # package -> the extra of this distribution that brings it
    "pyarrow": "experiment",
    "pandas": "experiment",
    "yaml": "experiment",
    "joblib": "experiment",
    "cloudpickle": "experiment",
    "ray": "ray",
    "sklearn": "sklearn",
    "torch": "torch",
    "tensorflow": "tensorflow",
}


@functools.cache
def _load(name: str) -> ModuleType | ImportError:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        return error


def need(name: str, what: str) -> ModuleType:
    """The module ``name``, for the sake of ``what``.

    Raises:
        ImportError: It cannot be imported; the message names package and extra.
    """
    module = _load(name)
    if isinstance(module, ModuleType):
        return module
    package = name.partition(".")[0]
    if package in EXTRAS:
        raise MissingExtraError(what, package, EXTRAS[package]) from module
    raise ImportError(f"{what} needs {package}: pip install {package}") from module


@functools.cache
def is_installed(name: str) -> bool:
    """Whether a package could be imported; nothing is imported."""
    return importlib.util.find_spec(name) is not None
