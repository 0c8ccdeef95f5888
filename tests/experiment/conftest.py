"""Every test of this folder runs in a context of its own; without the experiment extra the folder is left out."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("pyarrow") is None or find_spec("pandas") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def context():
    from keydnn.experiment.context import ExperimentContext

    with ExperimentContext(registration_policy="error").activate() as ctx:
        yield ctx


@pytest.fixture
def ten():
    """Ten rows: features a (0, 10, ..) and b (0, 1, ..), target y, tag t (x, y, x, ..)."""
    from keydnn.experiment.data import FeatureSet

    rows = np.arange(10)
    data = {"b": rows.astype(float), "a": 10.0 * rows, "y": 2.0 * rows, "t": ["x", "y"] * 5}
    return FeatureSet.from_dict("ten", data, ["b", "a"], "y", "t")
