"""Runs side by side: each has the bits it has alone, whatever stands beside it and on however many threads."""

import numpy as np
import pytest

import keydnn
from keydnn.compiler.step import usable
from keydnn.stability import PrecisionSweep, configs, run_config, sweep
from keydnn.stability.configs import _run_of, outcome, run_cells
from keydnn.stability.nn.stacked import run_side_by_side, stack_key

pytestmark = pytest.mark.skipif(not usable(), reason="plans need the native kernels")
STACK = {"stack": {"WL": 8, "IWL": 3}}
RATES = [0.05, 0.4, 1.1, 3.0, 0.7]


def cell(rate, *, hidden=(), activation=None, precision=None, n=40, model=None, **train):
    return {
        "dataset": {"num_samples": n, "seed": 1},
        "model": {"num_hidden": list(hidden), "activation": activation, "seed": 0, **(model or {})},
        "train": {"epochs": 12, "batch_size": n, "learning_rate": rate, "controller": "gt-order-0", **train},
        "precision": precision,
    }


KINDS = {
    "one layer": {},
    "one layer, quantised": {"precision": STACK, "n": 1000},
    "no bias, quantised": {"precision": STACK, "model": {"use_bias": False}},
    "truncating": {"precision": {"stack": {"WL": 6, "IWL": 3, "QMODE": "AP_TRN", "OMODE": "AP_WRAP"}}},
    "tanh net": {"hidden": (5,), "activation": "tanh"},
    "tanh net, quantised": {"hidden": (5, 3), "activation": "tanh", "precision": STACK},
    "relu net in float64": {"hidden": (6,), "activation": "relu", "model": {"dtype": "float64", "use_bias": False}},
    "some formats": {"hidden": (5,), "activation": "tanh", "precision": {"dense1": {"gradient": "ap_fixed<12,4>", "weight": None}}},
    "trainable arrays": {"precision": {"__default__": {"value": "ap_fixed<10,4,AP_RND,AP_SAT>"}}},
    "mean over all elements": {"loss_mode": "keras_mse"},
    "order 1": {"controller": "gt-order-1"},
    "order 2, quantised": {"controller": "gt-order-2", "precision": STACK},
    "quantisation aware": {"controller": "gt-order-2-qa", "precision": STACK},
    "rational": {"controller": "gt-rational"},
    "no throttle": {"controller": None},
}


def alone(cells):
    return [run_config(c) for c in cells]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_the_bits_it_has_alone(kind):
    cells = [cell(rate, **KINDS[kind]) for rate in RATES]
    expected = alone(cells)
    before = keydnn.get_threads()
    try:
        for threads, size in ((1, 5), (2, 2), (2, 3)):
            keydnn.set_threads(threads)
            for i in range(0, len(cells), size):
                runs = [_run_of(c) for c in cells[i : i + size]]
                assert len({repr(stack_key(run)) for run in runs}) == 1 and stack_key(runs[0]) is not None
                for found, want in zip(run_side_by_side(runs), expected[i:], strict=False):
                    assert list(found) == list(want)
                    for key in want:
                        np.testing.assert_array_equal(found[key], want[key], err_msg=f"{kind} {key}")
    finally:
        keydnn.set_threads(before)


def test_runs_end_one_by_one():
    """One diverges, one is good enough, one stands still, one goes on."""
    rules = [{"learning_rate": 60.0, "controller": None, "epochs": 300}, {"stop_loss": 0.05}, {"min_loss_change": 1e9}, {}]
    cells = [cell(0.5, **{"controller": None, "epochs": 300, **{k: v for k, v in rule.items() if k != "learning_rate"}}) for rule in rules]
    cells[0]["train"]["learning_rate"] = 60.0
    expected = [outcome(h) for h in alone(cells)]
    assert run_cells(cells) == expected
    assert expected[0]["diverged"] and expected[0]["steps"] < 300 and 1 < expected[1]["steps"] < 300
    assert expected[2]["steps"] <= 2 and expected[3]["steps"] == 300


def test_first_weights_may_differ():
    cells = [cell(0.3, precision=STACK) for _ in range(3)]
    for i, c in enumerate(cells):
        c["model"]["seed"] = i
    assert run_cells(cells) == [outcome(h) for h in alone(cells)]


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 10}, {"hessian": "lanczos"}, {"first_step": "probe"}, {"loss_scale": 8.0}, {"verbose": True}],
    ids=lambda change: next(iter(change)),
)
def test_what_cannot_stand_side_by_side_runs_alone(change, capsys):
    cells = [cell(rate, **change) for rate in RATES[:2]]
    assert stack_key(_run_of(cells[0])) is None
    assert run_cells(cells) == [outcome(h) for h in alone(cells)]


def test_other_formats_data_and_models_are_of_another_kind():
    base = cell(0.1, precision=STACK)
    others = [
        cell(0.1, precision={"stack": {"WL": 9, "IWL": 3}}), cell(0.1), cell(0.1, n=41, precision=STACK),
        cell(0.1, hidden=(3,), precision=STACK), cell(0.1, precision=STACK, epochs=13), cell(0.1, precision=STACK, controller=None),
        cell(0.1, model={"use_batchnorm": True}, hidden=(3,)),
    ]  # fmt: skip
    keys = [repr(stack_key(_run_of(c))) for c in (base, *others)]
    assert len(set(keys)) == len(keys)
    assert run_cells([base, others[0]]) == [outcome(h) for h in alone([base, others[0]])]


def points():
    return [
        {"precision.stack.WL": wl, "train.learning_rate": rate, "train.controller": c}
        for wl in (6, 8) for c in (None, "gt-order-0") for rate in RATES
    ]  # fmt: skip


def test_the_file_of_a_sweep_does_not_depend_on_blocks(tmp_path, monkeypatch):
    base = cell(0.1, precision=STACK)
    PrecisionSweep(base, points(), lambda c: outcome(run_config(c)), tmp_path / "ones.jsonl").run()
    for size in (1, 2, 3, 4, 64):
        monkeypatch.setattr(sweep, "SIDE_BY_SIDE", size)
        PrecisionSweep(base, points(), out=tmp_path / f"{size}.jsonl").run()
        assert (tmp_path / f"{size}.jsonl").read_bytes() == (tmp_path / "ones.jsonl").read_bytes(), size


def test_a_sweep_killed_inside_a_block_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    base = cell(0.1, precision=STACK)
    whole = PrecisionSweep(base, points(), out=tmp_path / "whole.jsonl")
    whole.run()

    class Killed(Exception):
        pass

    def progress(done, total):
        if done == 3:
            raise Killed

    part = PrecisionSweep(base, points(), out=tmp_path / "part.jsonl")
    with pytest.raises(Killed):
        part.run(progress=progress)
    sizes = []
    original = configs.run_side_by_side
    monkeypatch.setattr(configs, "run_side_by_side", lambda runs: sizes.append(len(runs)) or original(runs))
    part.run(resume=True)
    assert (tmp_path / "part.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sizes == [2, 5, 5, 5]  # what was finished is not computed again


def test_a_bad_cell_does_not_take_the_cells_before_it(tmp_path):
    base = cell(0.1)
    bad = PrecisionSweep(base, {"train.learning_rate": [0.1, 0.2, -1.0]}, out=tmp_path / "bad.jsonl")
    with pytest.raises(ValueError, match="learning_rate"):
        bad.run()
    assert len(bad.to_table()) == 2
