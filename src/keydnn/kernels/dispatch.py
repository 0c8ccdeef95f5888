"""Which kernels serve a device: ``tables[device]`` is its kernel table, made on first use.

The CPU's table is the NumPy reference with the compiled functions put over it.  Without the native module everything
still works: one RuntimeWarning says why, and the reference serves all.  ``KEYDNN_KERNELS=reference`` asks for that
silently.

>>> from keydnn.domain.device import Device
>>> tables[Device("cpu")].relu is tables[Device("cpu")].relu
True
"""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import dataclass
from typing import Any

from keydnn.domain.device import Device
from keydnn.domain.errors import DeviceNotSupportedError
from keydnn.kernels import native, reference
from keydnn.kernels.contract import KERNELS


class KernelTable:
    """One function per contract row, as attributes.

    Args:
        functions: Row name to function; exactly the rows of the contract.

    Raises:
        ValueError: Rows are missing or unknown.
    """

    __slots__ = tuple(KERNELS)

    def __init__(self, functions: dict[str, Any]) -> None:
        if functions.keys() != KERNELS.keys():
            odd = sorted(functions.keys() ^ KERNELS.keys())
            raise ValueError(f"a kernel table needs exactly the rows of the contract; missing or unknown: {', '.join(odd)}")
        for name, function in functions.items():
            setattr(self, name, function)


@dataclass(frozen=True)
class NativeStatus:
    """What ``keydnn doctor`` tells about the compiled kernels.

    Attributes:
        loaded: Whether the CPU table uses them.
        reason: Why not; empty when loaded.
        path: File of the module.
        isa: Instruction set in use: ``baseline``, ``avx2`` or ``avx512``.
        parallel: What stands behind parallel_for: ``pool``, ``openmp`` or ``serial``.
        threads: Threads that kernels use.
    """

    loaded: bool
    reason: str = ""
    path: str = ""
    isa: str = ""
    parallel: str = ""
    threads: int = 1


def native_status() -> NativeStatus:
    """The state of the compiled kernels; loads them if that has not happened, warns about nothing."""
    if _reference_wanted():
        return NativeStatus(False, "KEYDNN_KERNELS=reference asks for the NumPy kernels")
    try:
        module = native.load()
    except native.NativeUnavailable as error:
        return NativeStatus(False, str(error))
    return NativeStatus(True, "", str(module.__file__), module.isa(), module.parallel_backend(), module.get_threads())


def cuda_available() -> bool:
    """Whether tensors can live on a CUDA device; no kernels for it exist yet."""
    return False


def _reference_wanted() -> bool:
    choice = os.environ.get("KEYDNN_KERNELS", "").strip()
    if choice not in ("", "native", "reference"):
        raise ValueError(f"KEYDNN_KERNELS must be 'native' or 'reference', got {choice!r}")
    return choice == "reference"


def cpu_table() -> KernelTable:
    """A fresh CPU table; `tables` keeps the one that ops use.

    Warns:
        RuntimeWarning: The native module cannot be loaded.
    """
    functions = {name: getattr(reference, name) for name in KERNELS}
    if not _reference_wanted():
        try:
            functions |= native.functions(native.load(), reference)
        except native.NativeUnavailable as error:
            warnings.warn(f"KeyDNN has no native kernels, falling back to NumPy: {error}", RuntimeWarning, stacklevel=3)
    return KernelTable(functions)


class _Tables(dict[Device, KernelTable]):
    """Device -> kernel table, made when first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def __missing__(self, device: Device) -> KernelTable:
        if not device.is_cpu():
            raise DeviceNotSupportedError("kernel table", device)
        with self._lock:  # so that two threads do not both warn
            if device not in self:
                self[device] = cpu_table()
        return self[device]


tables = _Tables()
