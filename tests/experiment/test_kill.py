"""``kill -9`` at events spread over run and saves, in processes of their own; see :mod:`tests.experiment.kill_trials`.

Two kills a backend are tests; KEYDNN_KILLS=1 asks for fifty.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="trials are forked")]
ROOT = Path(__file__).parents[2]
BACKENDS = ["keydnn", pytest.param("torch", marks=pytest.mark.torch)]
FEW, MANY = 2, 50


def trials(backend, kills, *options):
    """What the trials print."""
    command = [sys.executable, "-m", "tests.experiment.kill_trials", backend, str(kills), *options]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert told.returncode == 0, told.stdout + told.stderr
    lines = told.stdout.splitlines()
    assert lines[-1] == f"{backend}: {kills} of {kills} equal" and sum(line.endswith(": equal") for line in lines) == kills


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_few_kills(backend):
    trials(backend, FEW)


if "KEYDNN_KILLS" in os.environ:  # half an hour

    @pytest.mark.long
    @pytest.mark.parametrize("options", [[], ["--twice"], ["--whole-epochs"]], ids=["once", "twice", "whole epochs"])
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_many_kills(backend, options):
        trials(backend, MANY, *options)
