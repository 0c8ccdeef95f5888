"""Running phases: order of events, metrics, exceptions, places, and that nothing beside the steps changes a bit of training."""

import types

import numpy as np
import pytest

import keydnn
from keydnn.experiment import Accelerator, AppliedLoss, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.execution.phase_running import run_phase
from keydnn.experiment.phases import Checkpointing, EvalPhase, FitPhase, TrainPhase
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler
from tests.native.common import needs_native

BACKENDS = ["keydnn", pytest.param("torch", marks=pytest.mark.torch)]


@pytest.fixture
def line():
    fs = FeatureSet.from_dict("line", {"x": np.arange(8.0), "y": 2 * np.arange(8.0)}, "x", "y")
    fs.split_random({"train": 0.5, "val": 0.5}, seed=0)
    return fs


@pytest.fixture
def wide():
    rng = np.random.default_rng(3)
    data = {"x": rng.standard_normal((70, 6)).astype("f4"), "y": rng.standard_normal(70).astype("f4")}
    return FeatureSet.from_dict("wide", data, "x", "y")


def model(backend, n_in=1, dropout=0.0, hidden=0):
    nn = pytest.importorskip("torch").nn if backend == "torch" else keydnn.nn
    kind = nn.Sequential if backend == "torch" else keydnn.Sequential
    if not hidden:
        return kind(nn.Flatten(), nn.Linear(n_in, 1))
    return kind(nn.Flatten(), nn.Linear(n_in, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1))


def one_node(fs, backend="keydnn", optimizer="sgd", lr=0.01, register=True, **options):
    """A graph of one node; a linear unit starts with w = 1, b = 0."""
    node = ModelNode("net", model(backend, **options), fs, register=register)
    graph = ModelGraph([node], Optimizer(optimizer, opt_kwargs={"lr": lr}, backend=backend), register=register)
    graph.build()
    rng = np.random.default_rng(1)
    told = node.model.get_weights()
    if options.get("hidden"):
        fresh = {k: rng.normal(0, 0.5, v.shape).astype(v.dtype) if k.split(".")[0] in "15" else v for k, v in told.items()}
    else:
        fresh = {k: np.full_like(v, k.endswith("weight")) for k, v in told.items()}
    node.model.set_weights(fresh)
    return node, graph


def mse(node, backend="keydnn", **options):
    return AppliedLoss(Loss("mse", backend=backend), node, ["outputs", "targets"], **options)


def lab(graph, **more):
    return types.SimpleNamespace(model_graph=graph, **more)


class Watcher(Callback):
    """Notes what it is told, with what is recorded by then."""

    def __init__(self, log, label=None, order=0, fail_at=None, stop_at=None):
        super().__init__(label, order)
        self.log, self.fail_at, self.stop_at = log, fail_at, stop_at

    def _note(self, what, phase, ctx, results):
        place = None if ctx is None else (ctx.epoch_idx, ctx.batch_idx)
        self.log.append((what, place, len(results.execution_contexts()), len(results.metrics())))
        if self.fail_at == (what, place):
            raise RuntimeError("on purpose")
        if self.stop_at == (what, place):
            phase.request_stop()

    def get_config(self):
        return {}


def _hook(name):
    def hook(self, *, experiment, phase, results, exec_ctx=None, exception=None):
        self._note(name.removeprefix("on_"), phase, exec_ctx, results)

    return hook


for _name in ("on_phase_start", "on_phase_end", "on_epoch_start", "on_epoch_end", "on_batch_start", "on_batch_end", "on_exception"):
    setattr(Watcher, _name, _hook(_name))


def weights(node):
    return {name: value.copy() for name, value in node.model.get_weights().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# -- worked numbers


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_by_hand(line, backend):
    node, graph = one_node(line, backend)
    loss = mse(node, backend)
    phase = TrainPhase.from_split("train", split="train", sampler=SimpleSampler(batch_size=2), losses=[loss], n_epochs=2)
    results = run_phase(phase, experiment=lab(graph))
    told = {(e.epoch_idx, e.batch_idx): e.value for e in results.metrics().where(name="train_loss").values()}
    expected = {(0, 0): 6.5, (0, 1): 19.2469, (0, None): 12.87345, (1, 0): 0.89197, (1, 1): 3.0914, (1, None): 1.99168}
    assert told.keys() == expected.keys()
    np.testing.assert_allclose([told[key] for key in expected], list(expected.values()), rtol=1e-5)
    np.testing.assert_allclose([float(np.ravel(v)[0]) for v in weights(node).values()], [1.804817, 0.188768], rtol=1e-6)
    evaluation = run_phase(EvalPhase.from_split("val", split="val", losses=[loss], batch_size=3), experiment=lab(graph))
    np.testing.assert_allclose([r.to_float() for r in evaluation.losses(node).values()], [0.21842, 1.38653], rtol=1e-4)
    assert evaluation.aggregated_losses(node)["mse"] == pytest.approx(0.51045, rel=1e-4)
    (entry,) = evaluation.metrics().values()
    assert (entry.name, entry.epoch_idx, entry.batch_idx) == ("eval_loss/mse", 0, None)
    assert entry.value == pytest.approx(0.51045, rel=1e-4)


# -- order


def test_order_of_events(line):
    node, graph = one_node(line)
    log = []
    watchers = [Watcher(log)]
    sampler = SimpleSampler(batch_size=2)
    keeping = Checkpointing(save_on="batch_end")
    phase = TrainPhase.from_split(
        "t", split="train", sampler=sampler, losses=[mse(node)], n_epochs=2, callbacks=watchers, checkpointing=keeping
    )
    run_phase(phase, experiment=lab(graph))
    expected = [("phase_start", None, 0, 0)]
    for e in range(2):
        n, m = 2 * e, 3 * e  # recorded steps and metrics of the epochs before
        expected += [("epoch_start", (e, 0), n, m), ("batch_start", (e, 0), n, m), ("batch_end", (e, 0), n + 1, m + 1)]
        expected += [("batch_start", (e, 1), n + 1, m + 1), ("batch_end", (e, 1), n + 2, m + 2), ("epoch_end", (e, 1), n + 2, m + 3)]
    assert log == [*expected, ("phase_end", None, 4, 6)]
    assert list(keeping.saved_keys) == ["0_0", "0_1", "1_0", "1_1"]


def test_order_of_callbacks_and_of_an_evaluation(line):
    node, graph = one_node(line)
    log = []
    callbacks = [Watcher(log, "late", 2), Watcher(log, "first"), Watcher(log, "second")]
    phase = EvalPhase.from_split("e", split="val", losses=[mse(node)], batch_size=3, callbacks=callbacks)
    assert [cb.label for cb in phase.callbacks] == ["first", "second", "late"] and callbacks[0].phase is phase
    run_phase(phase, experiment=lab(graph))
    told = [what for what, *_ in log[::3]]
    assert told == ["phase_start", "batch_start", "batch_end", "batch_start", "batch_end", "phase_end"] and len(log) == 18
    with pytest.raises(ValueError, match="has a Watcher 'first' already"):
        phase.add_callback(Watcher(log, "first"))
    assert len(phase.callbacks) == 3


def test_a_stop_ends_after_the_epoch(line):
    node, graph = one_node(line)
    log = []
    watcher = Watcher(log, stop_at=("batch_end", (1, 0)))
    phase = TrainPhase.from_split(
        "t", split="train", sampler=SimpleSampler(batch_size=2), losses=[mse(node)], n_epochs=5, callbacks=[watcher]
    )
    results = run_phase(phase, experiment=lab(graph))
    assert results.n_epochs == 2 and log[-1][0] == "phase_end" and phase.stop_requested
    watcher.stop_at = None
    assert run_phase(phase, experiment=lab(graph)).n_epochs == 5


@pytest.mark.parametrize("where", [("phase_start", None), ("batch_start", (0, 1)), ("batch_end", (0, 1)), ("epoch_end", (0, 1))])
def test_an_exception_is_told_to_all_and_passed_on(line, where):
    node, graph = one_node(line)
    log = []
    callbacks = [Watcher(log, "a", fail_at=where), Watcher(log, "b")]
    phase = TrainPhase.from_split(
        "t", split="train", sampler=SimpleSampler(batch_size=2), losses=[mse(node)], n_epochs=2, callbacks=callbacks
    )
    with pytest.raises(RuntimeError, match="on purpose"):
        run_phase(phase, experiment=lab(graph))
    assert [what for what, *_ in log[-2:]] == ["exception", "exception"]
    assert log[-1][1] == (None if where[0] == "phase_start" else (0, 1))


def test_a_keyboard_interrupt_in_a_step_is_told_and_leaves_flags(line, monkeypatch):
    hidden = ModelNode("hidden", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(1, 2)), line)
    node = ModelNode("net", keydnn.Sequential(keydnn.nn.Linear(2, 1)), hidden)
    graph = ModelGraph([hidden, node], Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    log = []
    phase = TrainPhase.from_split(
        "t", split=None, sampler=SimpleSampler(batch_size=2), losses=[mse(node)], active_nodes=["net"], callbacks=[Watcher(log)]
    )

    def interrupted(*args, **kwargs):
        assert hidden.is_frozen and not node.is_frozen
        raise KeyboardInterrupt

    monkeypatch.setattr(graph, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_phase(phase, experiment=lab(graph))
    assert log[-1][:2] == ("exception", (0, 0)) and not hidden.is_frozen


def test_what_cannot_run(line):
    node, graph = one_node(line)
    phase = EvalPhase.from_split("e", split="val")
    with pytest.raises(TypeError, match="expected a TrainPhase"):
        run_phase("phase", experiment=lab(graph))
    with pytest.raises(RuntimeError, match="no model graph"):
        run_phase(phase, experiment=lab(None))
    with pytest.raises(TypeError, match="show_training_progress"):
        run_phase(phase, experiment=lab(graph), show_training_progress=True)


def test_a_device_that_is_not_there_is_named_with_its_node(line):
    node, graph = one_node(line)
    phase = EvalPhase.from_split("e", split="val", accelerator="cuda:93")
    with pytest.raises(RuntimeError, match="node 'net': device 'cuda:93' is not available"):
        run_phase(phase, experiment=lab(graph))
    run_phase(EvalPhase.from_split("e", split="val", accelerator="cpu"), experiment=lab(graph))


def test_an_inner_phase_stands_where_the_outer_one_does(line, monkeypatch):
    node, graph = one_node(line)
    seen = []
    real = graph.eval_step
    monkeypatch.setattr(graph, "eval_step", lambda *a, **k: (seen.append(k["accelerator"]), real(*a, **k)))
    inner = EvalPhase.from_split("inner", split="val")

    class Inside(Callback):
        def on_epoch_end(self, *, experiment, **rest):
            run_phase(inner, experiment=experiment)

        def get_config(self):
            return {}

    sampler, here = SimpleSampler(batch_size=2), Accelerator("cpu")
    phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=[mse(node)], callbacks=[Inside()], accelerator=here)
    run_phase(phase, experiment=lab(graph))
    run_phase(inner, experiment=lab(graph))
    assert seen == [here, None]


# -- nothing beside the steps changes a bit


def trained(fs, context, backend="keydnn", n_epochs=3, callbacks=(), dropout=0.3, optimizer="adam", batch_size=16, **options):
    """Weights and results after a training of a network with dropout and batch statistics."""
    context.clear_registries()
    context.register_experiment_node(fs)
    node, graph = one_node(fs, backend, optimizer, 0.01, n_in=6, hidden=5, dropout=dropout)
    keydnn.seed(7)
    if backend == "torch":
        pytest.importorskip("torch").manual_seed(7)
    sampler = SimpleSampler(batch_size=batch_size, shuffle=True, seed=2)
    losses = [mse(node, backend), mse(node, backend, label="again", weight=0.25)]
    phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=losses, n_epochs=n_epochs, callbacks=list(callbacks), **options)
    results = run_phase(phase, experiment=lab(graph))
    return weights(node), [(e.name, e.epoch_idx, e.batch_idx, e.value) for e in results.metrics().values()], results, node


@pytest.mark.parametrize("backend", BACKENDS)
def test_hooks_recording_and_prefetch_change_no_bit(wide, context, backend):
    plain, metrics, _, _ = trained(wide, context, backend, result_recording="none")
    for options in (
        {"result_recording": "all"},
        {"result_recording": "last"},
        {"prefetch": "lazy"},
        {"prefetch": "all"},
        {"callbacks": [Watcher([])]},
        {"checkpointing": Checkpointing(save_on="batch_start")},
    ):
        again, told, _, _ = trained(wide, context, backend, **options)
        assert same(plain, again), options
        assert told == metrics


def test_recording_modes(wide, context):
    *_, results, node = trained(wide, context, result_recording="last")
    assert results.n_epochs == 1 and set(results.execution_contexts().axis_values("epoch")) == {2}
    *_, results, node = trained(wide, context, result_recording="none")
    assert len(results.execution_contexts()) == 0 and len(results.metrics().where(name="train_loss", batch=None)) == 3


# -- fitting


def test_a_fit_phase_fits_freezes_and_is_not_undone(line):
    linear_model = pytest.importorskip("sklearn.linear_model")
    ridge = ModelNode("ridge", linear_model.LinearRegression(), line)
    net = ModelNode("net", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(1, 1)), ridge)
    graph = ModelGraph([ridge, net], Optimizer("sgd", opt_kwargs={"lr": 0.001}, backend="keydnn"))
    fit = FitPhase.from_split(
        "fit",
        split="train",
        losses=[AppliedLoss(Loss(lambda o, t: (o - t) ** 2, backend="scikit"), ridge, ["outputs", "targets"], label="sq")],
        active_nodes=["ridge"],
    )
    results = run_phase(fit, experiment=lab(graph))
    assert ridge.is_frozen and results.stacked_tensors(ridge, "outputs", fmt="np").shape[0] == 4
    assert results.metrics().at(name="eval_loss/sq", epoch=0, batch=None).value == pytest.approx(0.0, abs=1e-8)
    run_phase(TrainPhase.from_split("t", split="train", sampler=SimpleSampler(batch_size=2), losses=[mse(net)]), experiment=lab(graph))
    assert ridge.is_frozen


# -- many steps in one call


def counting(monkeypatch, forbid=False):
    """How many steps graphs make in native calls; ``forbid`` allows none."""
    from keydnn.experiment.graph import ModelGraph

    real, made = ModelGraph.train_steps, []

    def train_steps(self, *args, **kwargs):
        found = None if forbid else real(self, *args, **kwargs)
        made.append(0 if found is None else len(found))
        return found

    monkeypatch.setattr(ModelGraph, "train_steps", train_steps)
    return made


def recorded(results, node):
    """All that is recorded of a training but ids, which depend on the feature set."""
    tensors = {d: {k: np.asarray(v) for k, v in results.tensors(node, d, fmt="np").items()} for d in ("outputs", "targets")}
    rows = {k: ctx.input_views for k, ctx in results.execution_contexts().items()}
    places = {k: [view.rows("default").tolist() for view in views.values()] for k, views in rows.items()}
    losses = {k: record.to_float() for k, record in results.losses(node).items()}
    return tensors, places, losses


@needs_native
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 7, "resample": "epoch"},
        {"optimizer": "sgd", "batch_schedule": "zip_cycle"},
        {"prefetch": "lazy"},
        {"prefetch": "lazy", "resample": "epoch"},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["all", "last"])
def test_native_epochs_are_the_steps_bit_for_bit(wide, context, options, mode, monkeypatch):
    with monkeypatch.context() as patch:
        never = counting(patch, forbid=True)
        plain, metrics, results, node = trained(wide, context, result_recording=mode, n_epochs=4, **options)
        told = recorded(results, node)
    assert never and not any(never)
    made = counting(monkeypatch)
    again, same_metrics, results, node = trained(wide, context, result_recording=mode, n_epochs=4, **options)
    assert sum(made) > len(metrics) // 2  # metrics of all steps and four epochs
    assert same(plain, again) and same_metrics == metrics
    tensors, places, losses = recorded(results, node)
    assert places == told[1] and losses == told[2]
    for domain in tensors:
        assert tensors[domain].keys() == told[0][domain].keys()
        assert all(np.array_equal(tensors[domain][key], told[0][domain][key]) for key in tensors[domain])


@needs_native
def test_native_epochs_of_class_numbers_and_of_pairs(context, monkeypatch):
    rng = np.random.default_rng(5)
    data = {"x": rng.standard_normal((60, 4)).astype("f4"), "y": rng.integers(0, 3, 60)}

    def run(kind, forbid):
        context.clear_registries()
        fs = FeatureSet.from_dict("rows", data, "x", "y")
        keydnn.seed(0)
        node = ModelNode("net", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(4, 3)), fs)
        graph = ModelGraph([node], Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn"))
        graph.build()
        start = np.random.default_rng(0)
        node.model.set_weights({k: start.standard_normal(v.shape).astype(v.dtype) for k, v in node.model.get_weights().items()})
        if kind == "classes":
            sampler = SimpleSampler(batch_size=10, seed=1)
            loss = AppliedLoss(Loss("CrossEntropy", backend="keydnn"), node, ["outputs", "targets"])
        else:
            sampler = PairedSampler({"y": SimilarityCondition()}, max_pairs_per_anchor=1, batch_size=10, seed=1)
            loss = AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs.anchor", "outputs.pair"])
        phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=[loss], n_epochs=4)
        with monkeypatch.context() as patch:
            made = counting(patch, forbid)
            results = run_phase(phase, experiment=lab(graph))
        roles = ["default"] if kind == "classes" else ["anchor", "pair"]
        told = [{k: np.asarray(v) for k, v in results.tensors(node, "outputs", role=r, fmt="np").items()} for r in roles]
        return weights(node), [e.value for e in results.metrics().values()], told, sum(made)

    for kind in ("classes", "pairs"):
        a, b = run(kind, True), run(kind, False)
        assert a[3] == 0 < b[3] and same(a[0], b[0]) and a[1] == b[1]
        assert all(np.array_equal(x[k], y[k]) for x, y in zip(a[2], b[2], strict=True) for k in x)


@pytest.mark.parametrize("reason", ["hooks", "checkpoints", "schedule", "weights"])
def test_what_needs_python_between_steps_runs_step_by_step(wide, context, reason, monkeypatch):
    made = counting(monkeypatch)
    if reason == "schedule":
        monkeypatch.setattr(Optimizer, "is_constant", False)
    options = {
        "hooks": {"callbacks": [Watcher([])]},
        "checkpoints": {"checkpointing": Checkpointing(save_on="batch_end")},
    }.get(reason, {})
    if reason == "weights":  # those of pairs by similarity
        pairs_with_weights(context)
    else:
        trained(wide, context, **options)
    assert not any(made)
    if reason == "weights":
        pairs_with_weights(context, weight_mode="binary")  # those of all pairs are 1
        assert sum(made) > 0


def pairs_with_weights(context, weight_mode="linear"):
    """A training over pairs of neighbours; in linear mode those farther apart count less."""
    context.clear_registries()
    rng = np.random.default_rng(5)
    fs = FeatureSet.from_dict("rows", {"x": rng.standard_normal((60, 4)).astype("f4"), "y": np.arange(60.0)}, "x", "y")
    node, graph = one_node(fs, n_in=4)
    near = SimilarityCondition(
        tolerance=2.0, weight_mode=weight_mode, allow_fallback=weight_mode == "linear", max_weight=10.0, min_weight=0.1
    )
    sampler = PairedSampler({"y": near}, max_pairs_per_anchor=2, batch_size=10, seed=1)
    loss = AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs.anchor", "outputs.pair"])
    run_phase(TrainPhase.from_split("t", split=None, sampler=sampler, losses=[loss], n_epochs=3), experiment=lab(graph))


@needs_native
def test_an_epoch_hook_after_native_steps_sees_the_last_step(wide, context, monkeypatch):
    made = counting(monkeypatch)
    seen = []

    class Last(Callback):
        def on_epoch_end(self, *, exec_ctx, results, **rest):
            seen.append((exec_ctx.epoch_idx, exec_ctx.batch_idx, set(exec_ctx.outputs), len(results.execution_contexts())))
            assert exec_ctx.losses.to_float() > 0

        def get_config(self):
            return {}

    *_, node = trained(wide, context, callbacks=[Last()])
    assert sum(made) > 0 and seen == [(e, 4, {node.node_id}, 5 * (e + 1)) for e in range(3)]


@needs_native
def test_bystanders_stay_still_in_native_epochs(wide, monkeypatch):
    made = counting(monkeypatch)
    hidden = ModelNode("hidden", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.BatchNorm1d(6), keydnn.nn.Linear(6, 3)), wide)
    node = ModelNode("net", keydnn.Sequential(keydnn.nn.Linear(3, 1)), hidden)
    graph = ModelGraph([hidden, node], Optimizer("adam", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    graph.build()
    before = weights(hidden), weights(node)
    phase = TrainPhase.from_split(
        "t", split=None, sampler=SimpleSampler(batch_size=10), losses=[mse(node)], active_nodes=["net"], n_epochs=3
    )
    run_phase(phase, experiment=lab(graph))
    assert sum(made) > 0 and same(before[0], weights(hidden)) and not same(before[1], weights(node)) and not hidden.is_frozen


# -- several steps per update


@pytest.mark.parametrize("backend", BACKENDS)
def test_accumulated_steps_are_one_large_batch(wide, context, backend):
    def run(batch_size, accumulate, optimizer="adam"):
        context.clear_registries()
        context.register_experiment_node(wide)
        node, graph = one_node(wide, backend, optimizer, 0.05, n_in=6)
        sampler = SimpleSampler(batch_size=batch_size)
        losses = [mse(node, backend), mse(node, backend, label="more", weight=0.5)]
        phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=losses, n_epochs=2, accumulate=accumulate)
        results = run_phase(phase, experiment=lab(graph))
        return weights(node), len(results.metrics().where(name="train_loss"))

    large, n_large = run(40, 1)  # batches of 40 and 30
    small, n_small = run(10, 4)  # groups of 4 and 3
    assert (n_large, n_small) == (2 * 3, 2 * 8)
    for name in large:
        np.testing.assert_allclose(small[name], large[name], rtol=1e-5, atol=1e-6)
    assert not same(run(10, 1)[0], small)
    uneven, _ = run(30, 2)  # 30 and 30, then 10 alone
    assert not any(np.isnan(value).any() for value in uneven.values())


def test_accumulation_needs_one_backend_under_one_optimizer(line):
    node = ModelNode("net", model("keydnn"), line, Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend="keydnn"))
    graph = ModelGraph([node])
    phase = TrainPhase.from_split("t", split=None, sampler=SimpleSampler(batch_size=2), losses=[mse(node)], accumulate=2)
    with pytest.raises(RuntimeError, match="cannot accumulate"):
        run_phase(phase, experiment=lab(graph))
