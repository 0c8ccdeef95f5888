"""Sweeps: order, resuming to the same bytes, foreign and damaged files, tables and diagrams."""

import json

import numpy as np
import pytest

from keydnn.stability import FitHistory, PrecisionSweep, run_config, stack_precision
from keydnn.stability.configs import outcome
from keydnn.stability.dtypes import ap_fixed
from keydnn.stability.sweep import phase_diagram, read_table

AXES = {"a.x": [1, 2, 3], "b": [10, 20]}


def product(cell):
    return {"value": cell["a"]["x"] * cell["b"] + cell["a"]["c"], "diverged": cell["b"] > 10}


class Interrupt(Exception):
    pass


def sweep(out, runs=product, axes=AXES):
    return PrecisionSweep({"a": {"c": 0.5}}, axes, runs, out)


def test_cells_and_table(tmp_path):
    s = sweep(tmp_path / "s.jsonl")
    seen = []
    rows = s.run(progress=lambda done, total: seen.append((done, total)))
    assert [(r["a.x"], r["b"], r["value"]) for r in rows] == [(x, b, x * b + 0.5) for x in (1, 2, 3) for b in (10, 20)]
    assert seen == [(i, 6) for i in range(1, 7)] and s.divergence_fraction() == 0.5 and read_table(tmp_path / "s.jsonl") == rows
    xs, ys, matrix = s.phase_diagram("a.x", "b", "value")
    assert (xs, ys) == ([1, 2, 3], [10, 20]) and matrix.tolist() == [[10.5, 20.5, 30.5], [20.5, 40.5, 60.5]]
    assert "time" not in (tmp_path / "s.jsonl").read_text()
    listed = PrecisionSweep({}, [{"p": 1}, {"p": 7}], lambda cell: {"q": -cell["p"]}, tmp_path / "l.jsonl")
    assert [r["q"] for r in listed.run()] == [-1, -7]


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("cut", [0, 7])
def test_interrupted_and_resumed_gives_the_same_bytes(tmp_path, after, cut):
    whole = tmp_path / "whole.jsonl"
    sweep(whole).run()
    calls = []

    def dies(cell):
        calls.append(cell)
        if len(calls) > after:
            raise Interrupt
        return product(cell)

    out = tmp_path / "part.jsonl"
    with pytest.raises(Interrupt):
        sweep(out, dies).run()
    if cut:  # killed while it wrote a line
        out.write_bytes(out.read_bytes()[:-cut])
    again = []
    sweep(out, lambda cell: again.append(cell) or product(cell)).run(resume=True)
    assert out.read_bytes() == whole.read_bytes()
    assert len(again) == 6 - after + (1 if cut and after else 0)
    sweep(out, lambda cell: pytest.fail("a finished cell was computed again")).run(resume=True)


def test_files_of_others(tmp_path):
    out = tmp_path / "s.jsonl"
    sweep(out).run()
    with pytest.raises(FileExistsError, match="exists"):
        sweep(out).run()
    with pytest.raises(ValueError, match="another sweep"):
        sweep(out, axes={"a.x": [1], "b": [10]}).run(resume=True)
    lines = out.read_text().splitlines()
    out.write_text("\n".join([lines[0], lines[2], *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match="line 2 is of another cell"):
        sweep(out).run(resume=True)
    out.write_text("\n".join([lines[0], lines[1], "{broken", *lines[3:]]) + "\n")
    with pytest.raises(ValueError, match="line 3 is damaged"):
        sweep(out).run(resume=True)
    (tmp_path / "n.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="no sweep file"):
        read_table(tmp_path / "n.jsonl")
    for axes in ({}, {"a": []}, []):
        with pytest.raises(ValueError, match="axes"):
            PrecisionSweep({}, axes, product, out)


def test_pareto_and_missing_columns(tmp_path):
    points = [{"bits": b, "err": e} for b, e in [(4, 9.0), (6, 3.0), (8, 5.0), (10, 1.0), (6, 2.0), (12, None)]]
    s = PrecisionSweep({}, points, lambda cell: {}, tmp_path / "p.jsonl")
    s.run()
    assert [(r["bits"], r["err"]) for r in s.pareto("bits", "err")] == [(4, 9.0), (6, 2.0), (10, 1.0)]
    with pytest.raises(ValueError, match="'size'"):
        phase_diagram(s.to_table(), "bits", "size", "err")


BASE = {
    "dataset": {"num_samples": 40, "seed": 1, "use_bias": False},
    "model": {"num_hidden": [], "use_bias": False, "seed": 0},
    "train": {"epochs": 40, "batch_size": 40, "learning_rate": 1.0},
}


@pytest.mark.slow
def test_a_sweep_of_runs_in_two_processes_is_that_in_one(tmp_path):
    axes = {"precision.stack.WL": [4, 12], "train.learning_rate": [1.0, 2.5]}
    base = BASE | {"precision": {"stack": {"IWL": 3}}}
    one, two = (PrecisionSweep(base, axes, out=tmp_path / name) for name in ("1.jsonl", "2.jsonl"))
    rows = one.run()
    two.run(workers=2)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    by = {(r["precision.stack.WL"], r["train.learning_rate"]): r for r in rows}
    assert by[12, 1.0]["verdict"] == "healthy" and by[12, 1.0]["rmse"] < by[4, 1.0]["rmse"]
    assert by[12, 2.5]["rmse"] > by[12, 1.0]["rmse"]


def test_configs():
    h = run_config(BASE)
    assert isinstance(h, FitHistory) and h.steps == 40 and h.meta["config"] == BASE and not np.isnan(h["weight_error_fro"]).any()
    drifted = run_config(BASE | {"drift": {"gain": 2.0, "target": "clean"}})
    assert drifted["hessian_lambda_max"][0] == pytest.approx(4 * h["hessian_lambda_max"][0], rel=1e-5)
    assert json.loads(json.dumps(outcome(h))) == outcome(h)
    for bad, text in (
        ({"optimizer": {}}, "unknown section 'optimizer'"),
        ({"train": {"lr": 1.0}}, "unknown train.lr"),
        ({"dataset": {"samples": 3}}, "unknown dataset.samples"),
        ({"precision": {"dense7": {"weight": "ap_int<3>"}}}, "dense7"),
    ):
        with pytest.raises(ValueError, match=text):
            run_config(BASE | bad)


def test_stack_precision():
    p = stack_precision(8, 2, {"update": (6, -1)}, "AP_TRN", "AP_WRAP", ["dense0"])
    expected = {"weight": (8, 2), "bias": (8, 2), "activation": (8, 4), "gradient": (12, 4), "update": (14, 1), "accumulator": (20, 10)}
    assert p["dense0"] == {name: ap_fixed(*widths) for name, widths in expected.items()}
    assert p["input"] == {"value": ap_fixed(8, 4)} and p["loss"] == {"value": ap_fixed(16, 12)}
    assert stack_precision(8, 2)["__default__"]["weight"] == ap_fixed(8, 2, "AP_RND", "AP_SAT")
    with pytest.raises(ValueError, match="unknown field speed"):
        stack_precision(8, 2, {"speed": (0, 0)})
