"""``import keydnn`` loads the standard library, NumPy and the native module, and nothing else."""

import subprocess
import sys

import pytest

LIST_NEW_PACKAGES = """
import sys
import numpy
before = set(sys.modules)
import keydnn
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.mark.slow
def test_import_loads_no_optional_package():
    result = subprocess.run([sys.executable, "-c", LIST_NEW_PACKAGES], capture_output=True, text=True, check=True)
    packages = set(result.stdout.split())
    assert "keydnn" in packages
    assert packages - sys.stdlib_module_names <= {"keydnn", "numpy"}


@pytest.mark.slow
def test_import_leaves_the_generators_alone():
    code = "import random, numpy as np; random.seed(1); np.random.seed(1); {}; print(random.random(), np.random.rand())"
    plain, imported = (
        subprocess.run([sys.executable, "-c", code.format(line)], capture_output=True, text=True, check=True)
        for line in ("pass", "import keydnn")
    )
    assert imported.stdout == plain.stdout
