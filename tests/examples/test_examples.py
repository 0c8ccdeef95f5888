"""Every script of examples/ runs to its end and says something."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"digits_cnn.py": ("sklearn", "needs the sklearn extra: pip install '.[sklearn]'")}


def test_there_are_examples():
    assert len(SCRIPTS) >= 5
    assert set(NEEDS) <= {script.name for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example(script, tmp_path):
    module, reason = NEEDS.get(script.name, ("keydnn", ""))
    if importlib.util.find_spec(module) is None:
        pytest.skip(reason)
    command = [sys.executable, "-W", "error", "-W", "default:KeyDNN has no native kernels:RuntimeWarning", str(script)]
    result = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert os.listdir(tmp_path) == []
