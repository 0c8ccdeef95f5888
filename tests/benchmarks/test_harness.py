"""The benchmarks' own promises: who disagrees or crashes is reported and not timed, and tables come from figures.  Nothing is timed."""

import json
import math

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import contestants, definition, goals, measure, options, remote, steps, tables, workloads
from benchmarks.measure import Result
from benchmarks.remote import Local, NotOfferedError, Remote, Session
from benchmarks.workloads import Case

HERE = "tests.benchmarks.crashing:"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Turns take no time: each call counts as a second."""
    monkeypatch.setattr(measure, "SETTLE_S", 0.0)
    monkeypatch.setattr(remote, "seconds_per_call", lambda session, budget_s: 1.0)


def giving(name, answer):
    return Local(name, lambda case: Session(lambda: answer))


def contest(*who, **options):
    return measure.contest("case", list(who), rounds=2, budget_s=0.0, rtol=2e-3, **options)


def test_those_who_agree_are_timed_once_a_round():
    result = contest(giving("a", np.ones(3)), giving("b", np.ones(3) + 1e-3))
    assert result.notes == {} and result.seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


@pytest.mark.parametrize("answer", [[1.0, 1.003], [np.nan, 1.0], [1.0], [np.inf, 1.0]])
def test_a_wrong_answer_is_reported_and_not_timed(answer):
    result = contest(giving("a", np.ones(2)), giving("b", np.array(answer)), each=True)
    assert list(result.seconds) == ["a"] and result.notes["b"].startswith("disagrees: ")


def test_losses_are_compared_each_on_its_own_scale():
    want, got = np.array([1e3, 1.0]), np.array([1e3, 1.1])
    assert measure.difference(got, want, 2e-3, each=False) is None
    assert "1.1 where 1 is expected" in measure.difference(got, want, 2e-3, each=True)


def test_the_right_answer_may_be_given():
    result = contest(giving("a", np.zeros(2)), want=np.ones(2))
    assert result.seconds == {} and "a" in result.notes


def test_lists_of_answers_are_compared_one_by_one():
    big, small = np.full(2, 1e6), np.ones(2)
    assert measure.difference([big, small], [big, small], 1e-3, each=False) is None
    assert measure.difference([big, small + 0.1], [big, small], 1e-3, each=False)


def test_who_does_not_offer_a_case_is_absent_not_failed():
    def make(case):
        raise NotOfferedError("no such layer")

    result = contest(giving("a", np.ones(1)), Local("b", make))
    assert result.absent == {"b": "no such layer"} and result.notes == {}


def test_answers_may_come_from_another_case_than_the_timed_one():
    seen = []

    def make(case):
        seen.append(case)
        return Session(lambda: np.ones(1))

    contest(Local("a", make), checked="gentler")
    assert seen == ["gentler", "case"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "reason"), [("raising", "ValueError: no luck"), ("leaving", "ended with code 7"), ("importing", "not_there_at_all")]
)
def test_a_process_that_crashes_is_reported_and_the_others_go_on(function, reason):
    crashing = Remote("b", HERE + function)
    try:
        result = contest(giving("a", np.ones(1)), crashing)
    finally:
        crashing.close()
    assert list(result.seconds) == ["a"] and reason in result.notes["b"]


@pytest.mark.slow
def test_a_process_that_crashed_is_started_again_for_the_next_case():
    process = Remote("a", HERE + "raising_once")
    try:
        assert "ValueError" in measure.contest("bad", [process], rounds=1, budget_s=0.0, rtol=0.0).notes["a"]
        assert process.prepare("good") == 4.0
    finally:
        process.close()


def test_what_a_process_prints_does_not_disturb_it():
    process = Remote("a", HERE + "printing", packages=("numpy",))
    try:
        assert process.prepare("case") == 4.0 and process.versions["numpy"] == np.__version__
        process.repeat(3)
    finally:
        process.close()


def test_missing_peers_come_with_a_reason():
    entries = [contestants.Entry("x", "x", "benchmarks.no_such_module:make"), contestants.Entry("y", "y", "benchmarks.measure:difference")]
    running, missing = contestants.started(entries, {"y": "/no/such/python"}, threads=1)
    assert running == [] and missing["x"] == "not installed: benchmarks.no_such_module" and "/no/such/python" in missing["y"]


# -- workloads and their definition


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_weights_and_batches_repeat(name):
    work = workloads.WORKLOADS[name]
    for a, b in zip(workloads.weights(work), workloads.weights(work), strict=True):
        assert a.keys() == b.keys() and all((a[k] == b[k]).all() and a[k].dtype == np.float32 for k in a)
    (x, t), (other, _) = workloads.batches(work)[:2]
    assert x.shape == work.shape and len(t) == work.shape[0] and not (x == other).all()
    assert (t.dtype.kind == "i") == bool(work.classes)


def test_our_losses_are_those_of_the_definition():
    from benchmarks.peers import ours

    for make in (ours.recorded, ours.eager):
        for case in (Case("W5", "step"), Case("W5", "epoch", 640)):
            got, want = make(case).answer(), definition.losses(case)
            assert measure.difference(got, want, 1e-4, each=True) is None


@pytest.fixture
def one_torch_thread():
    """On a busy machine PyTorch's threads wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_images(monkeypatch):
    """A workload with every layer that has a definition, too small to take time."""
    conv = [workloads.Layer("conv", (3, 4, 1)), workloads.Layer("relu"), workloads.Layer("max_pool")]
    norm = [workloads.Layer("conv", (4, 5, 0)), workloads.Layer("batch_norm", (5,)), workloads.Layer("relu")]
    flat = [workloads.Layer("flatten", (5, 2, 4)), workloads.Layer("linear", (40, 6)), workloads.Layer("linear", (6, 10))]
    pooled = [workloads.Layer("global_avg_pool"), workloads.Layer("linear", (5, 10))]
    for name, layers, optimizer in (("flat", [*conv, *norm, *flat], "adam"), ("pooled", [*conv, *norm, *pooled], "sgd")):
        work = workloads.Workload(tuple(layers), (6, 3, 4, 8), optimizer=optimizer, lr=1e-3)
        monkeypatch.setitem(workloads.WORKLOADS, name, work)
    return [Case("flat", "step"), Case("pooled", "step"), Case("flat", "epoch", 240)]


@pytest.mark.slow
def test_our_losses_of_images_are_those_of_the_definition(monkeypatch):
    from benchmarks.peers import ours

    for case in small_images(monkeypatch):
        for make in (ours.recorded, ours.eager):
            assert measure.difference(make(case).answer(), definition.losses(case), 1e-4, each=True) is None


@pytest.mark.torch
def test_the_definition_of_images_is_pytorchs(monkeypatch, one_torch_thread):
    from benchmarks.peers import in_torch

    for case in small_images(monkeypatch):
        for make in (in_torch.eager, in_torch.tuned):
            assert measure.difference(make(case).answer(), definition.losses(case), 1e-4, each=True) is None


@pytest.mark.torch
def test_recurrent_layers_and_attention_have_pytorchs_losses(monkeypatch, one_torch_thread):
    from benchmarks.peers import in_torch, ours

    small = {"W4-LSTM": (4, 5, 32), "W4-GRU": (4, 5, 32), "W6": (2, 6, 128)}
    for name, shape in small.items():
        monkeypatch.setitem(workloads.WORKLOADS, name, workloads.replace(workloads.WORKLOADS[name], shape=shape))
        case = Case(name, "step")
        assert measure.difference(ours.recorded(case).answer(), in_torch.eager(case).answer(), 1e-3, each=True) is None


def test_a_wrong_update_is_seen(monkeypatch):
    case = Case("W5", "step")
    right = definition.losses(case)
    monkeypatch.setitem(workloads.WORKLOADS, "W5", workloads.replace(workloads.WORKLOADS["W5"], lr=2e-3))
    assert measure.difference(definition.losses(case), right, steps.TOLERANCE, each=True)


def test_layers_without_definition_are_named():
    with pytest.raises(NotOfferedError, match="lstm"):
        definition.losses(Case("W4-LSTM", "step"))


@pytest.mark.parametrize("name", ["W1", "W2", "W3"])
def test_weights_for_channels_last_belong_to_the_same_function(name):
    work = workloads.WORKLOADS[name]
    plain, last = workloads.weights(work), workloads.channels_last(work)
    rng = np.random.default_rng(3)
    flat = [i for i, layer in enumerate(work.layers) if layer.kind == "flatten"]
    for i, layer in enumerate(work.layers):
        if layer.kind != "linear":
            continue
        x = rng.standard_normal((2, layer.sizes[0]))
        shape = work.layers[i - 1].sizes
        seen = workloads.images_last(x.reshape(2, *shape)).reshape(2, -1) if i - 1 in flat else x
        np.testing.assert_allclose(seen @ last[i]["weight"], x @ plain[i]["weight"].T, rtol=1e-5, atol=1e-4)


def test_only_takes_rows_by_their_names():
    assert [str(case) for case in steps.cases(options.Options(only=("W1",)))] == ["W1 step", "W1 epoch"]
    assert [str(case) for case in steps.cases(options.Options(only=("W4-GRU", "W7")))] == [
        "W4-GRU step", "W7 W1 batch 1", "W7 W2 batch 1", "W7 W3 batch 1",
    ]  # fmt: skip


# -- goals and tables


def row(**seconds):
    return Result("W1 step", {name.replace("_", " "): times for name, times in seconds.items()})


def test_the_best_peer_is_the_fastest_that_is_not_ours():
    at = goals.standing(row(keydnn=[1.0, 1.2, 1.0], keydnn_eager=[0.9, 3.0, 3.0], torch=[4.0, 4.0, 4.0], jax=[1.5, 1.5, 1.5]))
    assert (at.ours, at.peer, at.torch, at.best) == ("keydnn", "jax", 4.0, 1.5)


@pytest.mark.parametrize(("ratio", "shown"), [(3.0, "3 (3: met)"), (2.99, "2.99 (3: missed)"), (math.nan, "- (3: missed)")])
def test_goals_are_met_or_missed(ratio, shown):
    assert goals.verdict(ratio, 3.0) == shown


def test_every_goal_belongs_to_a_row():
    from benchmarks import kernels, ops

    rows = {str(case) for case in [*steps.cases(options.Options()), *kernels.CASES, *kernels.CHAINS, *ops.OPS]}
    assert goals.GOALS.keys() <= rows


def test_a_run_becomes_a_table_and_goes_onto_its_page(tmp_path, capsys, monkeypatch):
    result = row(keydnn=[1e-3, 1e-3], torch=[2e-3, 2e-3], jax=[1.5e-3, 1.6e-3])
    result.notes["tinygrad"] = "failed: ended with code 1: CompileError: x"
    kept = {"name": "steps", "command": "python -m benchmarks steps", "machine": {"cpu": "C", "date": "2026-01-02"}}
    kept |= {"results": command._plain([result]), "versions": {"torch": "2"}, "figures": [{"name": "peak", "mebibytes": {"keydnn": 1.5}}]}
    page, figures = tmp_path / "page.md", tmp_path / "run.json"
    page.write_text("a\n<!-- steps -->\nold\n<!-- end of steps -->\nz\n")
    figures.write_text(json.dumps(kept))
    monkeypatch.setattr("sys.argv", ["benchmarks", "table", str(figures), "--into", str(page)])
    command.main()
    text = page.read_text()
    assert text.startswith("a\n<!-- steps -->\n`python -m benchmarks steps`, 2026-01-02: cpu C; torch 2.") and text.endswith("-->\nz\n")
    assert "| W1 step | 1 ms | 2 ms | 2 (3: missed) | jax 1.55 ms | 1.55 (1.8: missed) |" in text
    assert "* W1 step, tinygrad: failed: ended with code 1: CompileError: x" in text and "| peak | 1.50 MiB |" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="<!-- ops -->"):
        tables.put(page, kept | {"name": "ops"})


def test_a_run_of_steps_becomes_the_table_of_the_readme(tmp_path):
    results = [row(keydnn=[1e-3, 1e-3], torch=[2e-3, 2e-3], jax=[1.5e-3, 1.6e-3]), Result("W7 W1 batch 1", {"keydnn": [1.0]})]
    results[1].notes["tinygrad"] = "failed: no device"
    kept = {
        "name": "steps",
        "machine": {"cpu": "C", "cores": 2, "threads": 2, "date": "2026-01-02"},
        "versions": {"torch": "2", "jax": "1", "tinygrad": "0"},
    }
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured -->\nold\n<!-- end of measured -->\nz\n")
    tables.put(page, kept | {"results": command._plain(results)})
    _, _, head, peers, *rest = page.read_text().splitlines()
    assert head.startswith("2 cores of C, float32, 2 threads, 2026-01-02;") and peers == "Peers: torch 2, jax 1."
    assert rest[3:] == [f"| {tables.SPOKEN['W1 step']} | 1 ms | 2 ms | **2x** | jax 1.55 ms | 1.55x |", "<!-- end of measured -->", "z"]


def test_unknown_peers_are_refused(monkeypatch):
    for arguments in (["--peers", "numpy"], ["--python", "jax"], ["--python", "numpy=/bin/python"]):
        monkeypatch.setattr("sys.argv", ["benchmarks", "steps", *arguments])
        with pytest.raises(SystemExit, match="expected"):
            command.main()
