"""Seeds, determinism and the state of the generators."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

import keydnn
from keydnn.random import generator_state, get_deterministic, get_seed, seed, set_deterministic, set_generator_state
from keydnn.threads import get_threads, set_threads


def draw():
    return [random.random(), random.gauss(0, 1), *np.random.rand(2), np.random.randn(), *keydnn.rand((3,)).tolist()]


def test_a_seed_repeats_both_generators():
    seed(5)
    first = draw()
    seed(np.int64(5))
    assert draw() == first
    assert get_seed() == 5
    seed(6)
    assert draw() != first


@pytest.mark.slow
def test_nobody_has_seeded_at_first():
    code = "from keydnn.random import get_seed, get_deterministic; print(get_seed(), tuple(get_deterministic()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "None (False, 1)\n"


def test_numpys_own_seed_repeats_tensors():
    np.random.seed(3)
    first = keydnn.randn((4,)).tolist()
    np.random.seed(3)
    assert keydnn.randn((4,)).tolist() == first


@pytest.mark.parametrize(
    "bad, error", [("1", TypeError), (1.0, TypeError), (None, TypeError), (True, TypeError), (-1, ValueError), (2**32, ValueError)]
)
def test_bad_seeds_change_nothing(bad, error):
    seed(1)
    first = draw()
    seed(1)
    with pytest.raises(error, match="seed: n must be"):
        seed(bad)
    assert draw() == first
    assert get_seed() == 1


def test_generator_states_go_through_json():
    np.random.randn()  # leaves a cached number behind
    random.gauss(0, 1)
    state = json.loads(json.dumps(generator_state()))
    first = draw()
    set_generator_state(state)
    assert draw() == first


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("numpy"),
        lambda s: s["numpy"]["keys"].pop(),
        lambda s: s["python"]["words"].pop(),
        lambda s: s["numpy"].update(keys=[-1] * 624),
    ],
)
def test_a_bad_generator_state_changes_nothing(damage):
    state = generator_state()
    draw()
    here = generator_state()
    damage(state)
    with pytest.raises(ValueError, match="not a state of the random generators"):
        set_generator_state(state)
    assert generator_state() == here


@pytest.fixture
def restored(monkeypatch):
    for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "9")
    threads = get_threads()
    yield
    set_deterministic(False)
    set_threads(threads)


def test_deterministic_sets_the_threads(restored):
    assert set_deterministic(True, cpu_threads=2) == (True, 2)
    assert get_deterministic().enabled and get_deterministic().cpu_threads == 2
    assert get_threads() == 2
    assert [os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")] == ["2"] * 4
    assert set_deterministic(False) == (False, 1)
    assert get_threads() == 2


@pytest.mark.parametrize(
    "arguments, error",
    [
        (((1,), {}), TypeError),
        (((True,), {"cpu_threads": 1.5}), TypeError),
        (((True,), {"cpu_threads": True}), TypeError),
        (((True,), {"cpu_threads": 0}), ValueError),
    ],
)
def test_bad_determinism_changes_nothing(restored, arguments, error):
    before = get_threads(), get_deterministic()
    with pytest.raises(error, match="set_deterministic"):
        set_deterministic(*arguments[0], **arguments[1])
    assert (get_threads(), get_deterministic()) == before
    assert os.environ["OMP_NUM_THREADS"] == "9"
