"""State files: what is written comes back, and damage is noticed wherever it is."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from keydnn.domain.errors import CheckpointError
from keydnn.saving.state import read_state, write_state

ARRAYS = {
    "0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, dtype=np.int64),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 4)),
}
META = {"epoch": 3, "loss": [0.5, float("nan")], "words": list(range(30)), "none": None}


def test_round_trip(tmp_path):
    write_state(tmp_path / "deep" / "run.safetensors", ARRAYS, META)
    arrays, meta = read_state(tmp_path / "deep" / "run.safetensors")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
    assert repr(meta) == repr(META)


@pytest.mark.slow
@given(
    array=hnp.arrays(
        dtype=st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<i8", ">i2", "u1", "?"]),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    transpose=st.booleans(),
)
def test_any_array_comes_back_bit_for_bit(tmp_path_factory, array, transpose):
    array = array.T if transpose else array
    path = tmp_path_factory.mktemp("state") / "x"
    write_state(path, {"x": array}, None)
    found = read_state(path)[0]["x"]
    assert found.shape == array.shape
    assert found.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


def test_arrays_are_writable(tmp_path):
    write_state(tmp_path / "x", ARRAYS, None)
    read_state(tmp_path / "x")[0]["0.weight"][0, 0] = 9


@pytest.mark.slow
def test_every_truncation_and_every_flipped_byte_is_one_clear_error(tmp_path):
    path = tmp_path / "run"
    write_state(path, {"a": np.arange(3.0), "b": np.arange(2)}, {"epoch": 1, "name": "x"})
    data = path.read_bytes()
    for damaged in [data[:n] for n in range(len(data))] + [data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :] for i in range(len(data))]:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"run|checksum"):
            read_state(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(save({"a": np.zeros(2)}))
    with pytest.raises(CheckpointError, match="format None is not supported"):
        read_state(path)
    path.write_bytes(save({"a": np.zeros(2)}, metadata={"format": "keydnn.state", "version": "2", "meta": "{}"}))
    with pytest.raises(CheckpointError, match="version '2'.*reads version 1"):
        read_state(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read_state(path)
    with pytest.raises(FileNotFoundError):
        read_state(tmp_path / "nothing")


@pytest.mark.parametrize("arrays, meta", [({"a": np.array([object()])}, None), ({"a": np.zeros(2, complex)}, None), ({}, object())])
def test_what_cannot_be_stored_is_refused_before_the_disk_is_touched(tmp_path, arrays, meta):
    with pytest.raises(TypeError):
        write_state(tmp_path / "new" / "x", arrays, meta)
    assert os.listdir(tmp_path) == []
