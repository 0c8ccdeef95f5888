"""``keydnn doctor``: what this installation has, and how to get what it lacks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys

import numpy as np

import keydnn
from keydnn.cli.table import table
from keydnn.kernels.dispatch import native_status

EXTRAS = {  # extra -> distribution and module of each package it brings
    "experiment": [
        ("pyarrow", "pyarrow"),
        ("pandas", "pandas"),
        ("pyyaml", "yaml"),
        ("joblib", "joblib"),
        ("cloudpickle", "cloudpickle"),
        ("psutil", "psutil"),
    ],
    "sklearn": [("scikit-learn", "sklearn"), ("skops", "skops")],
    "plot": [("matplotlib", "matplotlib")],
    "torch": [("torch", "torch")],
    "tensorflow": [("tensorflow", "tensorflow")],
    "keras": [("h5py", "h5py")],
    "ray": [("ray", "ray")],
    "mpi": [("mpi4py", "mpi4py"), ("mpich", "mpich")],
    "tune": [("optuna", "optuna")],
    "msgpack": [("msgpack", "msgpack")],
    "onnx": [("onnx", "onnx"), ("onnxruntime", "onnxruntime")],
    "lowp": [("ml_dtypes", "ml_dtypes")],
    "cuda12": [("cupy-cuda12x", "cupy")],
    "cuda13": [("cupy-cuda13x", "cupy")],
}


def report() -> str:
    """Versions, native kernels, threads and extras, as text."""
    return "\n\n".join([_versions(), _kernels(), _extras()])


def _versions() -> str:
    system = f"{platform.system()} {platform.machine()}"
    return f"keydnn {keydnn.__version__}, Python {platform.python_version()} ({sys.executable}), NumPy {np.__version__}, {system}"


def _kernels() -> str:
    status = native_status()
    if status.loaded:
        return f"native kernels: yes, {status.isa}, threads: {status.threads} ({status.parallel})\n  {status.path}"
    return (
        "native kernels: no, NumPy does the work (correct, but slower)\n"
        f"  {status.reason}\n"
        "  to build them: apt install python3-dev g++, then from the checkout: pip install --force-reinstall --no-deps ."
    )


def _extras() -> str:
    rows = []
    for extra, packages in EXTRAS.items():
        found = {distribution: _version(distribution, module) for distribution, module in packages}
        missing = [distribution for distribution, version in found.items() if version is None]
        have = ", ".join(f"{distribution} {version}" for distribution, version in found.items() if version is not None)
        rows.append((extra, have or "-", f"pip install '.[{extra}]'" if missing else ""))
    return f"{table(('extra', 'installed', 'to install, from the checkout'), rows)}"


def _version(distribution: str, module: str) -> str | None:
    """The version of an installed package, None if it is not there; the package is not imported."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(no version)" if importlib.util.find_spec(module) and "cupy" not in module else None
