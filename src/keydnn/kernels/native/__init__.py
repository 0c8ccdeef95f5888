"""The compiled kernels: loading `keydnn._native`, and the functions it puts over the reference table.

A compiled function has the row's operands and parameters, takes C-contiguous float32 or float64 operands and answers None
to anything else; its guard then makes strided operands contiguous, or calls the reference function (other dtypes, rare
shapes), silently.  Rows in ``GUARDED`` need no more than that; a family whose small calls must be cheap has a module with
``functions(native, reference)``, a dict from row to function.

Environment: ``KEYDNN_NUM_THREADS`` (default: the processors this process may use) and ``KEYDNN_ISA`` (``baseline``,
``avx2`` or ``avx512``; default: the best of this machine), both read once.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from keydnn.kernels.native import direct
from keydnn.kernels.native.guard import guarded

MODULE = "keydnn._native"
GUARDED = (
    "matmul",
    "linear",
    "conv2d",
    "conv2d_grad_x",
    "conv2d_grad_w",
)
FAMILIES = (direct,)


class NativeUnavailable(Exception):
    """The native module cannot be loaded; the text says what was tried."""


def requested_threads() -> int:
    """Threads that kernels use unless told otherwise: ``KEYDNN_NUM_THREADS``, else the processors we may run on.

    Raises:
        ValueError: The variable is set and no positive integer.
    """
    text = os.environ.get("KEYDNN_NUM_THREADS", "").strip()
    if not text:
        allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
        return len(allowed(0)) if allowed else os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"KEYDNN_NUM_THREADS must be a positive integer, got {text!r}")
    return int(text)


@functools.cache
def load() -> ModuleType:
    """The native module, with its threads set.

    Raises:
        NativeUnavailable: It is not there or does not load.
        ValueError: ``KEYDNN_ISA`` or ``KEYDNN_NUM_THREADS`` ask for something that does not exist.
    """
    try:
        native = importlib.import_module(MODULE)
    except ImportError as error:
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        raise NativeUnavailable(f"import {MODULE} (in {package}) failed with {type(error).__name__}: {error}") from error
    wanted = os.environ.get("KEYDNN_ISA", "").strip()
    if wanted and wanted != native.isa():
        known = [name for name in ("baseline", "avx2", "avx512") if native.isa_available(name)]
        raise ValueError(f"KEYDNN_ISA={wanted!r}: this machine and this build have {', '.join(known)}")
    native.set_threads(requested_threads())
    return native


def functions(native: ModuleType, reference: Any) -> dict[str, Callable[..., Any]]:
    """Every contract row that the native module serves.

    Args:
        native: The loaded module.
        reference: The table to fall back to.
    """
    table = {name: guarded(getattr(native, name), getattr(reference, name)) for name in GUARDED}
    for family in FAMILIES:
        table |= family.functions(native, reference)
    return table
