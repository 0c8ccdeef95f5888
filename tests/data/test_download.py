"""Downloads from a server in a thread: whole, resumed, cut, wrong, too large."""

import hashlib
import http.server
import os
import re
import tarfile
import threading

import numpy as np
import pytest

from keydnn.data import CIFAR10, MNIST, download_url, images, load_cifar10, load_mnist
from keydnn.data.idx import write_idx

DATA = os.urandom(3000)
DIGEST = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.seen.append((self.path, wanted))
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        data = server.files.get(self.path)
        if data is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        if start and start >= len(data):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        rest = data[start:]
        self.wfile.write(rest[: server.cut] if server.cut else rest)


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.files, found.seen, found.cut, found.ranges = {"/a.bin": DATA}, [], 0, True
        found.url = f"http://127.0.0.1:{found.server_address[1]}"
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_whole(server, tmp_path, capsys):
    path = download_url(server.url + "/a.bin", tmp_path / "x" / "a.bin", expected_sha256=DIGEST.upper(), verbose=True)
    assert path.read_bytes() == DATA and os.listdir(path.parent) == ["a.bin"]
    assert "100%" in capsys.readouterr().out
    download_url(server.url + "/a.bin", path, expected_sha256=DIGEST)
    assert len(server.seen) == 1  # it was there
    download_url(server.url + "/a.bin", path)
    assert len(server.seen) == 2  # without a digest nobody knows


def test_resumed_after_a_break(server, tmp_path):
    server.cut = 1000
    target = tmp_path / "a.bin"
    with pytest.raises(RuntimeError, match="broke off after 1000 of 3000 bytes"):
        download_url(server.url + "/a.bin", target, expected_sha256=DIGEST)
    assert os.listdir(tmp_path) == ["a.bin.part"]
    server.cut = 0
    assert download_url(server.url + "/a.bin", target, expected_sha256=DIGEST).read_bytes() == DATA
    assert [r for _, r in server.seen] == [None, "bytes=1000-"] and os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_whole_part_and_a_server_without_ranges(server, tmp_path, ranges):
    server.ranges = ranges
    (tmp_path / "a.bin.part").write_bytes(DATA if ranges else DATA[:500])
    assert download_url(server.url + "/a.bin", tmp_path / "a.bin", expected_sha256=DIGEST).read_bytes() == DATA


def test_a_part_of_another_file_is_found_out(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"other" * 10)
    with pytest.raises(RuntimeError, match=f"expected {DIGEST}"):
        download_url(server.url + "/a.bin", tmp_path / "a.bin", expected_sha256=DIGEST)
    assert os.listdir(tmp_path) == []
    (tmp_path / "a.bin.part").write_bytes(b"other" * 10)
    assert download_url(server.url + "/a.bin", tmp_path / "a.bin").read_bytes() == DATA  # without a digest it starts anew


def test_what_fails_leaves_what_was_there(server, tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    for url, options, error, text in [
        (server.url + "/none", {}, RuntimeError, "404"),
        (server.url + "/a.bin", {"expected_sha256": "0" * 64}, RuntimeError, "SHA-256"),
        (server.url + "/a.bin", {"max_bytes": 2999}, RuntimeError, "at most 2999"),
        (server.url + "/away", {}, RuntimeError, "302|not allowed|file:"),
        ("http://127.0.0.1:1/x", {}, RuntimeError, "download failed"),
        ("file:///etc/passwd", {}, ValueError, "http or https"),
        ("ftp://127.0.0.1/x", {}, ValueError, "http or https"),
    ]:
        with pytest.raises(error, match=text):
            download_url(url, target, **options)
        assert target.read_bytes() == b"old"


def test_data_sets_are_downloaded_where_they_are_absent(server, tmp_path, monkeypatch):
    source, root = tmp_path / "source", tmp_path / "data"
    digests = {}
    for name in images.MNIST_FILES:
        n = 5 if name.startswith("train") else 2
        write_idx(source / name, np.zeros((n, 28, 28) if "images" in name else (n,), np.uint8))
        server.files["/" + name] = (source / name).read_bytes()
        digests[name] = hashlib.sha256(server.files["/" + name]).hexdigest()
    monkeypatch.setattr(images, "MNIST_FILES", digests)
    monkeypatch.setattr(images.download_mnist, "__kwdefaults__", {"url": server.url + "/"})
    assert len(load_mnist(root_path=root)) == 5 and len(MNIST(root, train=False)) == 2
    assert len(server.seen) == 4
    load_mnist(root_path=root)
    assert len(server.seen) == 4


def test_cifar_is_downloaded_and_unpacked(server, tmp_path, monkeypatch):
    import pickle

    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    for name in [*CIFAR10.files[0], *CIFAR10.files[1]]:
        (inner / name).write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, 2))
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        tar.add(inner, inner.name)
    server.files["/cifar-10-python.tar.gz"] = (tmp_path / "c.tar.gz").read_bytes()
    digest = hashlib.sha256(server.files["/cifar-10-python.tar.gz"]).hexdigest()
    monkeypatch.setitem(images.CIFAR_FILES, "cifar10", ("cifar-10-python.tar.gz", digest))
    monkeypatch.setattr(images.download_cifar10, "__kwdefaults__", {"url": server.url + "/"})
    assert len(load_cifar10(root_path=tmp_path / "data")) == 10
    with pytest.raises(FileNotFoundError):
        CIFAR10(tmp_path / "elsewhere")
