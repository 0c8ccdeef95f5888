"""These tests need plans: without the native kernels there are none."""

import pytest

from keydnn.compiler import usable


def pytest_collection_modifyitems(items):
    if not usable():
        skip = pytest.mark.skip(reason="plans need the native kernels")
        for item in items:
            if "tests/compiler" in str(item.path).replace("\\", "/"):
                item.add_marker(skip)
