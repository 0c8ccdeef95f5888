"""A few damaged files for every reader, and that the search finds what it looks for."""

import time

import pytest

from tests.fuzz.__main__ import SLACK, attempt, fuzz
from tests.fuzz.mutations import MUTATIONS, case
from tests.fuzz.readers import READERS, Reader


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
def test_a_few_files(reader, capfd):
    assert fuzz([reader], seconds=60, first=1000, most=60) == 0, capfd.readouterr().out


def test_cases_repeat_and_differ():
    samples = [bytes(range(256)) * 4]
    assert case(samples, 7) == case(samples, 7)
    assert len({case(samples, i) for i in range(100)}) > 90
    assert len({m.__name__ for m in MUTATIONS}) == len(MUTATIONS)


def fake(read):
    return Reader("fake", ".bin", lambda folder: [b"good"], read)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda path, folder: {}["missing"], "KeyError"),
        (lambda path, folder: int("x"), "ValueError"),  # not by our own `raise`
        (lambda path, folder: bytearray(2 * SLACK), "bytes for a file of"),
        (lambda path, folder: (folder.parent.parent / "out").write_text("x"), "outside"),
    ],
    ids=["strange error", "unworded error", "memory", "outside"],
)
def test_what_is_looked_for_is_found(read, said, tmp_path):
    assert said in attempt(fake(read), b"data", tmp_path)


def test_a_hang_is_found(tmp_path, monkeypatch):
    import signal

    from tests.fuzz import __main__ as search

    monkeypatch.setattr(search, "PATIENCE", 0.2)
    before = signal.signal(signal.SIGALRM, search._give_up)
    try:
        assert "more than" in attempt(fake(lambda path, folder: time.sleep(5)), b"data", tmp_path)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_crash_is_found(capfd):
    import os
    import signal

    def crash(path, folder):
        os.kill(os.getpid(), signal.SIGSEGV)

    assert fuzz([fake(crash)], seconds=5, most=3) > 0
    assert "crashed with SIGSEGV" in capfd.readouterr().out


def test_a_refusal_is_no_finding(tmp_path):
    assert attempt(READERS[0], b"{", tmp_path) is None
