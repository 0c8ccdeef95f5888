"""What every test starts from: seed 0, a Hypothesis profile that repeats, and skips that name what is missing."""

import importlib.util
import os
import random
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("ci"), max_examples=8)
settings.register_profile("search", settings.get_profile("ci"), derandomize=False, max_examples=1000)  # for an idle evening
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

REQUIRED = [marker for marker in ("torch", "chromium") if os.environ.get(f"KEYDNN_REQUIRE_{marker.upper()}") == "1"]


@pytest.fixture(autouse=True)
def seeds():
    """Python's and NumPy's global generators start at 0 in every test."""
    random.seed(0)
    np.random.seed(0)


def _cuda_is_missing():
    if importlib.util.find_spec("cupy") is None:
        return True
    import cupy

    try:
        return cupy.cuda.runtime.getDeviceCount() == 0
    except cupy.cuda.runtime.CUDARuntimeError:
        return True


MISSING = {
    "chromium": (lambda: shutil.which("chromium") is None, "needs the browser Chromium: apt install chromium"),
    "torch": (lambda: importlib.util.find_spec("torch") is None, "needs the torch extra: pip install torch==2.13.0"),
    "cuda": (_cuda_is_missing, "needs an NVIDIA GPU and the cuda12 or cuda13 extra: pip install '.[cuda13]'"),
}


def pytest_collection_modifyitems(items):
    for marker, (is_missing, reason) in MISSING.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and is_missing():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With KEYDNN_REQUIRE_TORCH=1 or KEYDNN_REQUIRE_CHROMIUM=1 (CI) a test so marked that skips is a failure."""
    report = yield
    required = [marker for marker in REQUIRED if item.get_closest_marker(marker)]
    if required and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"KEYDNN_REQUIRE_{required[0].upper()}=1, yet this test skipped: {report.longrepr}"
    return report


def pytest_configure():
    for marker in REQUIRED:
        if MISSING[marker][0]():
            pytest.exit(f"KEYDNN_REQUIRE_{marker.upper()}=1, yet {marker} is not installed: {MISSING[marker][1]}", returncode=1)
