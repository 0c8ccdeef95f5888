"""Importing the wing: what it loads, and what it says when pyarrow is missing."""

import subprocess
import sys

import pytest

from keydnn.experiment.io.classes import BUILTINS, REGISTRIES, import_string
from keydnn.experiment.optional import is_installed

WITHOUT_PYARROW = """
import sys
sys.modules["pyarrow"] = None
import keydnn
try:
    import keydnn.experiment
except ImportError as error:
    print(error)
"""
LOADED = "import sys, keydnn.experiment, keydnn.experiment.samplers, keydnn.experiment.utils; print(*sorted(sys.modules))"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_without_pyarrow_one_error_names_the_extra():
    assert run(WITHOUT_PYARROW).strip() == "keydnn.experiment needs pyarrow; from the checkout: pip install '.[experiment]'"


@pytest.mark.slow
def test_no_optional_package_is_loaded():
    loaded = set(run(LOADED).split())
    assert "keydnn.experiment.data.feature_set" in loaded
    assert not loaded & {"pandas", "sklearn", "torch", "tensorflow", "polars", "rich", "yaml", "IPython", "skops"}


def test_every_class_that_files_name_is_there():
    for key, path in BUILTINS.items():
        if key.startswith("torch.") and not is_installed("torch"):
            continue
        assert import_string(path).__name__ == key.rpartition(".")[2]
    for path in REGISTRIES.values():
        registry = import_string(path)
        assert [registry[name].__name__ for name in registry] == list(registry)
