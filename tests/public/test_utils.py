"""one_hot and numpy_to_tensor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn.utils import numpy_to_tensor, one_hot


@given(labels=st.lists(st.integers(0, 6), max_size=20))
def test_one_hot(labels):
    rows = one_hot(labels, 7)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.eye(7)[np.array(labels, dtype=int)])


def test_one_hot_takes_any_shape_and_whole_floats():
    expected = np.eye(3, dtype=np.float32)[[2, 0]]
    for labels in ([[2], [0]], np.array([2.0, 0.0]), np.array([2, 0], np.uint8), keydnn.tensor([2, 0])):
        np.testing.assert_array_equal(one_hot(labels, 3), expected)


@pytest.mark.parametrize(
    "labels, classes, error",
    [
        ([3], 3, ValueError),
        ([-1], 3, ValueError),
        ([0], 0, ValueError),
        ([0.5], 3, TypeError),
        (["a"], 3, TypeError),
        ([np.nan], 3, TypeError),
    ],
)
def test_one_hot_refuses(labels, classes, error):
    with pytest.raises(error, match="one_hot"):
        one_hot(labels, classes)


def test_numpy_to_tensor():
    array = np.arange(6).reshape(2, 3)
    t = numpy_to_tensor(array, keydnn.Device("cpu"), requires_grad=True)
    assert t.dtype == np.float32 and t.requires_grad and t.tolist() == array.tolist()
    array[0, 0] = 9
    assert t.tolist()[0][0] == 0
    with pytest.warns(UserWarning, match="using 'cpu'"):
        assert not numpy_to_tensor(np.float64(2.0)).requires_grad
