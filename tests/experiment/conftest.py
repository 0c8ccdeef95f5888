"""Every test of this folder runs in a context of its own; without pyarrow they all skip."""

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the experiment extra: pip install '.[experiment]'")

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet


@pytest.fixture(autouse=True)
def context():
    with ExperimentContext(registration_policy="error").activate() as ctx:
        yield ctx


@pytest.fixture
def ten():
    """Ten rows: features a (0, 10, ..) and b (0, 1, ..), target y, tag t (x, y, x, ..)."""
    rows = np.arange(10)
    data = {"b": rows.astype(float), "a": 10.0 * rows, "y": 2.0 * rows, "t": ["x", "y"] * 5}
    return FeatureSet.from_dict("ten", data, ["b", "a"], "y", "t")
