"""IDX files, CIFAR files and archives: round trips, and clear errors for what is damaged or hostile."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn.data import CIFAR10, CIFAR100, MNIST, DataLoader, extract_tar, load_cifar10, load_cifar100, load_mnist
from keydnn.data.idx import read_idx, write_idx
from keydnn.data.pickled import read_plain
from keydnn.domain.errors import CheckpointError

# -- IDX


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_round_trip(tmp_path, dtype, suffix):
    array = (np.arange(24) - 5).astype(dtype).reshape(2, 3, 4)
    write_idx(tmp_path / f"a{suffix}", array)
    found = read_idx(tmp_path / f"a{suffix}")
    assert found.dtype == array.dtype and found.dtype.isnative and np.array_equal(found, array)


def test_idx_bytes_are_those_of_the_description(tmp_path):
    write_idx(tmp_path / "a", np.array([[1, 2], [3, -4]], np.int16))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("00000b02 00000002 00000002 0001 0002 0003 fffc".replace(" ", ""))
    with pytest.raises(TypeError, match="no int64"):
        write_idx(tmp_path / "b", np.arange(3))


HEAD = struct.pack(">HBB2I", 0, 8, 2, 2, 3)
BAD_IDX = {
    "empty": b"",
    "other": b"\x01\x02\x03\x04",
    "type": struct.pack(">HBBI", 0, 7, 1, 1) + b"\0",
    "cut header": HEAD[:9],
    "cut": HEAD + b"12345",
    "more": HEAD + b"1234567",
    "huge": struct.pack(">HBB3I", 0, 14, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    "axes": struct.pack(">HBB", 0, 8, 255) + b"\0\0\0\1" * 255 + b"1",
    "gzip cut": gzip.compress(HEAD + b"123456")[:-10],
    "gzip crc": gzip.compress(HEAD + b"123456")[:-8] + b"12345678",
    "gzip bomb": gzip.compress(struct.pack(">HBBI", 0, 8, 1, 100) + bytes(10**7)),
}


@pytest.mark.parametrize("name", BAD_IDX)
def test_bad_idx(tmp_path, name):
    (tmp_path / "a").write_bytes(BAD_IDX[name])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        read_idx(tmp_path / "a")


@given(data=st.binary(max_size=40), is_packed=st.booleans())
def test_any_bytes_give_an_array_or_a_clear_error(tmp_path_factory, data, is_packed):
    path = tmp_path_factory.getbasetemp() / "fuzz.idx"
    path.write_bytes(gzip.compress(b"\0\0" + data) if is_packed else b"\0\0" + data)
    try:
        assert isinstance(read_idx(path), np.ndarray)
    except CheckpointError:
        pass


# -- pickles


def python2_pickle(data, labels, key=b"labels"):
    """As the CIFAR files were written: protocol 2, byte strings, an array through numpy.core.multiarray."""
    out = [b"\x80\x02}(", b"U\x04data", b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nK\x00\x85U\x01b\x87R"]
    raw = data.tobytes()
    out += [b"(K\x01", struct.pack("<BiBiB", ord("J"), data.shape[0], ord("J"), data.shape[1], 0x86)]
    out += [b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"]
    out += [b"T", struct.pack("<i", len(raw)), raw, b"tb"]
    out += [b"U", bytes([len(key)]), key, b"](", b"".join(b"K" + bytes([n]) for n in labels), b"eu."]
    return b"".join(out)


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)


def test_the_handmade_pickle_is_one():
    with warnings.catch_warnings(action="ignore"):  # of NumPy, about the old name of its module
        found = pickle.loads(python2_pickle(IMAGES, [1, 2, 3, 4]), encoding="bytes")
    assert np.array_equal(found[b"data"], IMAGES) and found[b"labels"] == [1, 2, 3, 4]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_values_of_every_protocol(protocol):
    value = {"a": [1, -2, 3000000000, 1 << 70, 1.5, None, True, False], "b": ({}, [], ()), "c": {"x": "ä"}, "d": ("t", 1, 2, 3)}
    assert read_plain(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_bytes(protocol):
    found = read_plain(pickle.dumps({"data": IMAGES, "f": np.asfortranarray(IMAGES)}, protocol))
    assert np.array_equal(found["data"], IMAGES) and np.array_equal(found["f"], IMAGES)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/keydnn-was-here",)


HOSTILE = {
    "call": pickle.dumps({"data": Evil()}),
    "call 2": pickle.dumps([Evil()], 2),
    "eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "object array": pickle.dumps(np.array([{}], dtype=object)),
    "float array": pickle.dumps(np.ones(3)),
    "huge array": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01J\xff\xff\xff\x7f\x85"
    b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87RU\x01Xtb.",
    "bare name": b"cnumpy\nndarray\n.",
    "array without contents": b"cnumpy.core.multiarray\n_reconstruct\n)R.",
    "persistent": b"Pabc\n.",
    "empty": b"",
    "cut": pickle.dumps({"a": list(range(50))})[:-9],
    "no stop": b"]",
    "under": b"a.",
    "append to dict": b"}K\x01a.",
    "unhashable": b"}]K\x01s.",
    "memo": b"h\x05.",
    "cycle": b"]q\x00h\x00a.",
    "long text": b"T\xff\xff\xff\x7fabc.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name):
    with pytest.raises(CheckpointError, match="no plain pickle"):
        read_plain(HOSTILE[name])
    assert not os.path.exists("/tmp/keydnn-was-here")


@given(st.data())
def test_flipped_pickles_give_a_value_or_a_clear_error(data):
    whole = bytearray(python2_pickle(IMAGES[:1, :50], [1]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_plain(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except CheckpointError:
        pass


# -- the data sets


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(1)
    for part, n in (("train", 6), ("t10k", 3)):
        write_idx(tmp_path / f"mnist/raw/{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / f"mnist/raw/{part}-labels-idx1-ubyte.gz", (np.arange(n) % 10).astype(np.uint8))
    ten, hundred = tmp_path / "cifar10/raw/cifar-10-batches-py", tmp_path / "cifar100/raw/cifar-100-python"
    ten.mkdir(parents=True)
    hundred.mkdir(parents=True)
    for i, name in enumerate([*CIFAR10.files[0], *CIFAR10.files[1]]):
        (ten / name).write_bytes(python2_pickle(IMAGES[:2], [i, 9]))
    for name in ("train", "test"):
        (hundred / name).write_bytes(python2_pickle(IMAGES, [3, 99, 0, 7], b"fine_labels"))
    return tmp_path


def test_mnist(root):
    train, test = load_mnist(root_path=root), load_mnist(train=False, root_path=root, normalize=False, return_numpy=True)
    assert (len(train), len(test)) == (6, 3) and train.images.shape == (6, 1, 28, 28) and train.labels.tolist() == list(range(6))
    x, label = train[4]
    assert isinstance(x, keydnn.Tensor) and x.shape == (1, 28, 28) and x.dtype == np.float32 and type(label) is int and label == 4
    np.testing.assert_allclose(x.numpy(), (train.images[4] / 255 - 0.1307) / 0.3081, rtol=1e-5)
    plain, _ = test[0]
    assert isinstance(plain, np.ndarray) and np.array_equal(plain, test.images[0].astype(np.float32) / np.float32(255))
    batch, labels = next(iter(DataLoader(train, 4)))
    np.testing.assert_array_equal(batch.numpy()[3], train[3][0].numpy())
    assert labels.tolist() == [0, 1, 2, 3]
    wide = load_mnist(root_path=root, dtype="float64", transform=lambda x: x[:, :2], target_transform=lambda y: y + 100)
    assert wide[1][0].shape == (1, 2, 28) and wide[1][0].dtype == np.float64 and wide[1][1] == 101
    assert next(iter(DataLoader(wide, 2)))[1].tolist() == [100, 101]
    assert keydnn.datasets.MNIST is MNIST and keydnn.load_mnist is load_mnist


def test_cifar(root):
    ten, hundred = load_cifar10(root_path=root), load_cifar100(root_path=root, train=False)
    assert len(ten) == 10 and ten.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] and ten[0][0].shape == (3, 32, 32)
    assert np.array_equal(ten.images[3].ravel(), IMAGES[1])
    want = (ten.images[0] / 255 - np.reshape(CIFAR10.mean, (3, 1, 1))) / np.reshape(CIFAR10.std, (3, 1, 1))
    np.testing.assert_allclose(ten[0][0].numpy(), want, rtol=2e-4, atol=1e-5)
    assert len(hundred) == 4 and hundred.labels.tolist() == [3, 99, 0, 7]
    assert len(load_cifar10(train=False, root_path=root)) == 2


def test_missing_and_damaged_files(root, tmp_path):
    for cls in (MNIST, CIFAR10, CIFAR100):
        with pytest.raises(FileNotFoundError, match="download=True"):
            cls(tmp_path / "nothing")
    (root / "cifar10/raw/cifar-10-batches-py/data_batch_3").write_bytes(python2_pickle(IMAGES, [1, 2]))
    with pytest.raises(CheckpointError, match="data_batch_3.*labels"):
        load_cifar10(root_path=root)
    write_idx(root / "mnist/raw/train-labels-idx1-ubyte.gz", np.zeros(5, np.uint8))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_mnist(root_path=root)


# -- archives


def tar_of(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_unpacked(tmp_path, mode):
    made = tar_of(
        tmp_path / "a.tar", ("d", b"", tarfile.DIRTYPE), ("d/x", b"one", tarfile.REGTYPE), ("e/y", b"", tarfile.REGTYPE), mode=mode
    )
    out = extract_tar(made, tmp_path / "new" / "out")
    assert (out / "d/x").read_bytes() == b"one" and (out / "e/y").read_bytes() == b""
    assert sorted(os.listdir(out.parent)) == ["out"]


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("../out.txt", tarfile.REGTYPE, b"x"),
        ("a/../../out.txt", tarfile.REGTYPE, b"x"),
        ("/out.txt", tarfile.REGTYPE, b"x"),
        ("a\\..\\b", tarfile.REGTYPE, b"x"),
        ("C:out", tarfile.REGTYPE, b"x"),
        ("link", tarfile.SYMTYPE, b""),
        ("hard", tarfile.LNKTYPE, b""),
        ("pipe", tarfile.FIFOTYPE, b""),
        ("node", tarfile.CHRTYPE, b""),
        ("big", tarfile.REGTYPE, bytes(2000)),
    ],
)
def test_what_an_archive_may_not_hold(tmp_path, name, kind, data):
    inner = tmp_path / "in"
    inner.mkdir()
    made = tar_of(inner / "a.tar.gz", ("good", b"1", tarfile.REGTYPE), (name, data, kind))
    with pytest.raises(ValueError, match=r"a\.tar\.gz"):
        extract_tar(made, inner / "out", max_bytes=1000)
    assert os.listdir(inner) == ["a.tar.gz"] and os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_long_name_that_is_no_name_takes_no_memory(tmp_path, mode):
    """A header of the kind of long names that says it has 4 GiB."""
    import tracemalloc

    with tarfile.open(tmp_path / "a.tar", mode, format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**32
        tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
        tar.fileobj.write(bytes(2048))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.tar is damaged: it says that a header has 4294967296 bytes"):
        extract_tar(tmp_path / "a.tar", tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    assert not (tmp_path / "out").exists()


def test_damaged_archives(tmp_path):
    made = tar_of(tmp_path / "a.tar.gz", ("x", os.urandom(5000), tarfile.REGTYPE))
    whole = made.read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + b"\xff" * 50 + whole[250:]):
        made.write_bytes(data)
        with pytest.raises(ValueError, match="damaged or truncated|cut short"):
            extract_tar(made, tmp_path / "out")
        assert os.listdir(tmp_path) == ["a.tar.gz"]
