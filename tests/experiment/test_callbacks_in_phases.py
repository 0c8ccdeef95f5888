"""Callbacks in phases that run: evaluations, early stopping and checkpoints beside training, which does not notice them."""

import numpy as np
import pytest

import keydnn
from keydnn.experiment import Experiment, ExperimentContext, FeatureSet
from keydnn.experiment.callbacks import (
    F1,
    MAE,
    R2,
    Accuracy,
    Callback,
    EarlyStopping,
    EvalLossMetric,
    Evaluation,
    EvaluationMetric,
    MetricResult,
)
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.phases import Checkpointing, EvalPhase, TrainPhase
from keydnn.experiment.samplers import SimpleSampler
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer

BACKENDS = [pytest.param("torch", marks=pytest.mark.torch), "keydnn"]


def module(backend):
    """A net with dropout, of known weights."""
    rng = np.random.default_rng(1)
    first, last = (rng.standard_normal(shape).astype("f4") for shape in ((6, 3), (1, 6)))
    if backend == "keydnn":
        nn = keydnn.nn
        net = keydnn.Sequential(nn.Flatten(), nn.Linear(3, 6, bias=False), nn.Dropout(0.3), nn.Linear(6, 1, bias=False))
        for layer, value in zip((net[1], net[3]), (first, last), strict=True):
            layer.weight.copy_from_numpy(value)
        return net
    import torch

    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3, 6, bias=False), torch.nn.Dropout(0.3), torch.nn.Linear(6, 1, bias=False)
    )
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), (first, last), strict=True):
            parameter.copy_(torch.from_numpy(value))
    return net


class World:
    """Rows, a graph of one net, its loss; everything that draws starts at the same place."""

    def __init__(self, backend, lr=0.05):
        keydnn.seed(3)
        if backend == "torch":
            import torch

            torch.manual_seed(3)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((24, 3)).astype("f4")
        y = (x @ np.array([1.0, -2.0, 0.5]) + 0.1 * rng.standard_normal(24)).astype("f4")
        self.rows = FeatureSet.from_dict("rows", {"x": x, "y": y}, "x", "y")
        self.rows.split_random({"train": 0.5, "val": 0.5}, seed=0)
        self.net = ModelNode("net", module(backend), self.rows)
        self.graph = ModelGraph([self.net], Optimizer("adam", opt_kwargs={"lr": lr}))
        self.backend, self.experiment = backend, Experiment.from_active_context("bench", seed=3)

    def loss(self, label="mse", weight=1.0):
        return AppliedLoss(Loss("mse", backend=self.backend), "net", ["outputs", "targets"], label=label, weight=weight)

    def train_phase(self, n_epochs=4, **arguments):
        sampler = SimpleSampler(batch_size=4, shuffle=True, seed=5, show_progress=False)
        return TrainPhase.from_split("train", split="train", sampler=sampler, losses=[self.loss()], n_epochs=n_epochs, **arguments)

    def val_phase(self, **arguments):
        return EvalPhase.from_split("val", split="val", batch_size=5, **arguments)

    def run(self, phase, **flags):
        quiet = {"show_sampler_progress": False, "show_training_progress": False}
        return self.experiment.run_phase(phase, **{**quiet, **flags})

    def weights(self):
        return self.net.get_state()["model"]["weights"]


def watched(world):
    """An evaluation with everything on."""
    metrics = [EvalLossMetric(loss=world.loss()), MAE(), R2()]
    return Evaluation(eval_phase=world.val_phase(), metrics=metrics, run_on_start=True)


class EveryBatch(Callback):
    """Keeps epochs from running as one call."""

    def on_batch_end(self, *, exec_ctx, **rest):
        return float(np.asarray(exec_ctx.losses.to_float()))

    def get_config(self):
        return super().get_config()


ADDED = {
    "evaluation": (lambda world: {"callbacks": [watched(world)]}, {}),
    "evaluation, recording none": (lambda world: {"callbacks": [watched(world)], "result_recording": "none"}, {}),
    "early stopping": (lambda world: {"callbacks": [watched(world), EarlyStopping(patience=50)]}, {}),
    "batch hooks": (lambda world: {"callbacks": [EveryBatch(), watched(world)]}, {}),
    "recording none": (lambda world: {"result_recording": "none"}, {}),
    "recording last": (lambda world: {"result_recording": "last"}, {}),
    "checkpoints": (lambda world: {"checkpointing": Checkpointing()}, {}),
    "checkpoints of batches": (lambda world: {"checkpointing": Checkpointing(save_on="batch_end", max_to_keep=2)}, {}),
    "progress": (lambda world: {}, {"show_training_progress": True, "show_sampler_progress": True}),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_does_not_notice(backend):
    def trained(arguments, flags):
        with ExperimentContext(registration_policy="error").activate():
            world = World(backend)
            results = world.run(world.train_phase(**arguments(world)), **flags)
            losses = [(entry.epoch_idx, entry.batch_idx, entry.value) for entry in results.metrics().where(name="train_loss").values()]
            return world.weights(), sorted(losses, key=str)

    weights, losses = trained(lambda world: {}, {})
    assert len(losses) == 4 * 3 + 4
    for name, (arguments, flags) in ADDED.items():
        other, its_losses = trained(arguments, flags)
        assert {key: value.tobytes() for key, value in other.items()} == {key: value.tobytes() for key, value in weights.items()}, name
        assert its_losses == losses, name


def test_worked_loss_is_weighted_by_rows(context):
    """The line of the worked numbers: after two epochs the parts of the evaluation are 0.21842 (3 rows) and 1.38653 (1 row)."""
    rows = FeatureSet.from_dict("rows", {"x": np.arange(8.0), "y": 2 * np.arange(8.0)}, "x", "y")
    rows.split_random({"train": 0.5, "val": 0.5}, seed=0)
    unit = keydnn.nn.Linear(1, 1)
    unit.weight.copy_from_numpy(np.ones((1, 1), "f4"))
    unit.bias.copy_from_numpy(np.zeros(1, "f4"))
    ModelGraph([ModelNode("unit", keydnn.Sequential(keydnn.nn.Flatten(), unit), rows)], Optimizer("sgd", opt_kwargs={"lr": 0.01}))
    loss = AppliedLoss(Loss("mse", backend="keydnn"), "unit", ["outputs", "targets"])
    evaluation = Evaluation(
        eval_phase=EvalPhase.from_split("val", split="val", batch_size=3),
        metrics=[EvalLossMetric(loss=loss), EvalLossMetric(loss=loss, reducer="sum", name="val_sum")],
    )
    sampler = SimpleSampler(batch_size=2, show_progress=False)
    phase = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2, callbacks=[evaluation])
    results = Experiment.from_active_context("bench").run_phase(phase, show_sampler_progress=False, show_training_progress=False)
    value = {name: results.metrics().at(name=name, epoch=1, batch=None).value for name in ("val_loss", "val_sum", "train_loss")}
    assert value["val_loss"] == pytest.approx(0.51045, abs=5e-6)
    assert value["val_sum"] == pytest.approx(0.21842 + 1.38653, abs=1e-5)
    assert value["train_loss"] == pytest.approx(1.99168, abs=1e-5)
    assert len(evaluation.eval_phase.losses) == 1  # both metrics read one loss


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kept", [None, {}, {"max_to_keep": 1}, {"every_n": 3}, {"mode": "disk", "max_to_keep": 1}], ids=str)
def test_the_best_epoch_is_restored(backend, kept, tmp_path):
    if kept and kept.get("mode") == "disk":
        kept["directory"] = tmp_path / "states"
    checkpointing = None if kept is None else Checkpointing(**kept)
    seen = {}

    class Weights(Callback):
        def on_epoch_end(self, *, exec_ctx, **rest):
            seen[exec_ctx.epoch_idx] = world.weights()

        def get_config(self):
            return super().get_config()

    world = World(backend, lr=0.1)  # overshoots
    stopping = EarlyStopping(patience=2, restore_best=True, monitor="val_mae")
    evaluation = Evaluation(eval_phase=world.val_phase(), metrics=[MAE()])
    results = world.run(world.train_phase(n_epochs=40, callbacks=[stopping, evaluation, Weights()], checkpointing=checkpointing))
    values = [results.metrics().at(name="val_mae", epoch=epoch, batch=None).value for epoch in range(len(seen))]
    best = int(np.argmin(values))
    assert (stopping.best_epoch, stopping.best_value, stopping.stopped_epoch) == (best, values[best], best + 2) and len(
        seen
    ) == best + 3 > 4
    now = world.weights()
    assert all(now[name].tobytes() == value.tobytes() for name, value in seen[best].items())
    assert any(now[name].tobytes() != value.tobytes() for name, value in seen[best + 2].items())
    (result,) = results.callbacks(kind="early_stopping").values()
    assert result.restored and result.best_epoch == best


# -- Evaluation


def test_when_it_runs_and_what_is_kept():
    world = World("keydnn")
    evaluation = Evaluation(eval_phase=world.val_phase(), every_n_epochs=2, run_on_start=True, metrics=[MAE(name="far")])
    lean = Evaluation(eval_phase=world.val_phase(losses=[world.loss()]), label="lean", metrics=[MAE()], keep="metrics")
    results = world.run(world.train_phase(n_epochs=5, callbacks=[evaluation, lean]))
    assert evaluation.label == "val"
    assert results.validation("val").keys() == [(None,), (1,), (3,)]
    assert results.metrics().where(name="far").axis_values("epoch") == [None, 1, 3]
    assert [one.scope for one in results.callbacks(kind="evaluation").where(label="val").values()] == [
        (None, None, "start"),
        (1, None, "end"),
        (3, None, "end"),
    ]
    assert {one.callback_label for one in results.callbacks(kind="metric").values()} == {"far", "val_mae"}
    found = results.callbacks(kind="evaluation").where(label="val").values()[-1]
    outputs, targets = (found.stacked_tensors("net", domain, fmt="np").reshape(-1) for domain in ("outputs", "targets"))
    assert results.metrics().at(name="far", epoch=3, batch=None).value == pytest.approx(np.abs(outputs - targets).mean(), rel=1e-6)
    assert found.n_batches == 3 and found.batch_indices == [0, 1, 2] and len(found.source_view("net")) == 12
    assert found.stacked_batches("net").batch_size == 12 and found.aggregated_losses("net") == {}
    assert list(found.source_views("net")) == ["rows"]
    light = results.validation("lean").at(epoch=4)
    assert light.n_batches == 0 and light.metric_names() == ["eval_loss/mse"]


def test_epochs_without_the_evaluation_do_not_count():
    world = World("keydnn")

    class Rising(EvaluationMetric):
        n = 0

        def extract(self, *, eval_result, exec_ctx=None):
            self.n += 1
            return MetricResult(self.name, self.n)

    stopping = EarlyStopping(monitor="up", patience=2)
    evaluation = Evaluation(eval_phase=world.val_phase(), every_n_epochs=3, metrics=[Rising("up")])
    world.run(world.train_phase(n_epochs=20, callbacks=[evaluation, stopping]))
    assert (stopping.best_epoch, stopping.stopped_epoch) == (2, 8)


def test_losses_of_one_label_are_told_apart():
    world = World("keydnn")
    phase = world.val_phase(losses=[world.loss("mse")])
    same, other = EvalLossMetric(loss=world.loss("mse")), EvalLossMetric(loss=world.loss("mse", weight=2.0), name="double")
    evaluation = Evaluation(eval_phase=phase, metrics=[same])
    assert len(phase.losses) == 1  # an equal loss is reused
    evaluation.attach_metric(other)
    evaluation.attach_metric(EvalLossMetric(loss=world.loss("mse", weight=2.0), name="again"))
    assert [loss.label for loss in phase.losses] == ["mse", "mse_double", "mse_again"]
    assert other.loss.label == "mse"  # the user's loss is as it was
    results = world.run(world.train_phase(n_epochs=1, callbacks=[evaluation]))
    value = {name: results.metrics().at(name=name, epoch=0, batch=None).value for name in ("val_loss", "double", "again")}
    assert value["double"] == value["again"] == 2 * value["val_loss"]


def test_callbacks_of_the_inner_phase_do_not_run():
    class Fails(Callback):
        def on_phase_start(self, **given):
            raise AssertionError("the callback of an inner phase was called")

        def get_config(self):
            return super().get_config()

    world = World("keydnn")
    inner = world.val_phase(callbacks=[Fails()])
    with pytest.warns(UserWarning, match="'Fails' of its phase do not run"):
        evaluation = Evaluation(eval_phase=inner)
    results = world.run(world.train_phase(n_epochs=2, callbacks=[evaluation]))
    assert len(results.validation()) == 2 and len(inner.callbacks) == 1


def test_configs_come_back():
    world = World("keydnn")
    metrics = [EvalLossMetric(loss=world.loss("other"), reducer="sum", name="loss_of_val"), MAE("net", unscale=True)]
    evaluation = Evaluation.from_split(
        label="val", split="val", batch_size=5, every_n_epochs=2, run_on_start=True, metrics=metrics, keep="metrics"
    )
    evaluation.execution_order = -3
    config = evaluation.get_config()
    assert {"callback_type", "eval_phase", "every_n_epochs", "run_on_start", "label", "metrics"} <= set(config)
    again = Callback.from_config(config)
    assert again == evaluation and again.execution_order == -3 and again.metrics == evaluation.metrics == metrics
    assert [loss.label for loss in again.eval_phase.losses] == ["other"]
    phase = world.train_phase(callbacks=[evaluation, EarlyStopping(monitor="loss_of_val")], checkpointing=Checkpointing(every_n=2))
    loaded = TrainPhase.from_config(phase.get_config())
    assert loaded == phase and loaded.callbacks[0].phase is loaded
    world.run(loaded)
    assert loaded.checkpointing.saved_keys == [1, 3]


def test_what_is_refused():
    world = World("keydnn")
    phase = world.val_phase()
    for arguments, error in (
        ({"eval_phase": "val"}, TypeError),
        ({"eval_phase": phase, "every_n_epochs": 0}, ValueError),
        ({"eval_phase": phase, "keep": "nothing"}, ValueError),
        ({"eval_phase": phase, "metrics": [EarlyStopping()]}, TypeError),
        ({"eval_phase": phase, "metrics": [MAE(), MAE()]}, ValueError),
    ):
        with pytest.raises(error):
            Evaluation(**arguments)
    with pytest.raises(TypeError, match="AppliedLoss"):
        EvalLossMetric(loss="mse")


# -- exceptions


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exceptions_are_told_and_go_on(error):
    told = []

    class Fails(Callback):
        def on_batch_end(self, *, exec_ctx, **rest):
            if (exec_ctx.epoch_idx, exec_ctx.batch_idx) == (1, 1):
                raise error

        def get_config(self):
            return super().get_config()

    class Told(Callback):
        def on_exception(self, *, exec_ctx, exception, **rest):
            told.append((exec_ctx.epoch_idx, exec_ctx.batch_idx, type(exception)))
            return "seen"

        def get_config(self):
            return super().get_config()

    world = World("keydnn")
    with pytest.raises(error):
        world.run(world.train_phase(callbacks=[Fails(), Told()]))
    results = world.experiment.history[-1].results
    assert told == [(1, 1, error)]
    assert [(one.payload, one.scope) for one in results.callbacks(kind="payload").values()] == [("seen", (1, 1, "exception"))]


# -- ready-made metrics


class Rising(EvaluationMetric):
    """1, 2, .. however often it is asked, also after it was taken up again."""

    n = 0

    def extract(self, *, eval_result, exec_ctx=None):
        self.n += 1
        return MetricResult(self.name, float(self.n))

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


def test_the_state_of_an_evaluation_is_that_of_its_metrics():
    world = World("keydnn")
    first, again = (Evaluation(eval_phase=world.val_phase(), metrics=[MAE(), Rising("up")]) for _ in range(2))
    world.experiment.run_phase(world.train_phase(n_epochs=3, callbacks=[first]))
    assert first.get_state() == {"metrics": {"up": {"n": 3}}}
    again.set_state(first.get_state())
    results = world.experiment.run_phase(world.train_phase(n_epochs=2, callbacks=[again]))
    assert [entry.value for entry in results.metrics().where(name="up").values()] == [4.0, 5.0]


def evaluated(metrics):
    """The values of metrics over the rows of ``val`` in the active context."""
    exp = ExperimentContext.get_active().get_experiment() or Experiment.from_active_context("bench")
    results = exp.run_phase(EvalPhase.from_split("val", split="val", batch_size=5))
    return [metric.extract(eval_result=results).metric_value for metric in metrics], results


def test_scores_of_classes():
    reference = pytest.importorskip("sklearn.metrics", reason="needs the sklearn extra")
    rng = np.random.default_rng(2)
    rows = FeatureSet.from_dict("rows", {"x": rng.standard_normal((40, 3)).astype("f4"), "c": rng.integers(0, 3, 40)}, "x", "c")
    rows.split_random({"train": 0.4, "val": 0.6}, seed=0)
    ModelGraph([ModelNode("net", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(3, 3)), rows)], Optimizer("sgd", backend="keydnn"))
    (accuracy, macro), results = evaluated([Accuracy(), F1("net")])
    found = results.stacked_tensors("net", "outputs", fmt="np").reshape(24, 3).argmax(1)
    truth = rows.get_targets("np").ravel()[np.sort(rows.get_split("val").indices)]
    assert accuracy == reference.accuracy_score(truth, found) and len(set(found.tolist())) > 1
    assert macro == pytest.approx(reference.f1_score(truth, found, average="macro"), rel=1e-14)


def test_scores_in_the_units_of_the_raw_data():
    rng = np.random.default_rng(2)
    raw = rng.standard_normal(40).astype("f4")
    rows = FeatureSet.from_dict("rows", {"x": rng.standard_normal((40, 3)).astype("f4"), "y": raw}, "x", "y")
    rows.split_random({"train": 0.4, "val": 0.6}, seed=0)
    rows.fit_transform("Negate", domain="targets")
    read = rows.reference(features="features.x.raw", targets="targets.y.transformed")
    ModelGraph([ModelNode("net", module("keydnn"), read)], Optimizer("sgd", backend="keydnn"))
    (scaled, unscaled), results = evaluated([MAE(), MAE(unscale=True, name="raw")])
    outputs, truth = results.stacked_tensors("net", "outputs", fmt="np").ravel(), raw[np.sort(rows.get_split("val").indices)]
    assert scaled == pytest.approx(np.abs(outputs - -truth).mean(), rel=1e-6)
    assert unscaled == pytest.approx(np.abs(-outputs - truth).mean(), rel=1e-6)


def test_the_node_has_to_be_named_where_several_could_be_meant():
    world = World("keydnn")
    other = ModelNode("other", module("keydnn"), world.rows)
    world.graph.add_node(other)
    (value,), results = evaluated([MAE("other")])
    part = EvalPhase.from_split("part", split="val", batch_size=5, active_nodes=["net"])
    assert MAE().extract(eval_result=world.experiment.run_phase(part)).metric_value == value
    with pytest.raises(ValueError, match="2 nodes were evaluated"):
        MAE().extract(eval_result=results)
    assert MAE(world.net).extract(eval_result=results).metric_value == value == MAE(other).extract(eval_result=results).metric_value


def test_the_node_at_the_end_of_a_chain_is_meant():
    world = World("keydnn")
    world.graph.add_node(ModelNode("head", keydnn.Sequential(keydnn.nn.Linear(1, 1)), world.net))
    (default, named, inner), _ = evaluated([MAE(), MAE("head"), MAE("net")])
    assert default == named != inner


def test_a_metric_among_the_callbacks_of_an_evaluation_is_its_metric():
    world = World("keydnn")
    phase = world.val_phase(callbacks=[EvalLossMetric(loss=world.loss(), name="error"), MAE(name="mae")])
    results = world.experiment.run_phase(phase)
    outputs, targets = (results.stacked_tensors("net", domain, fmt="np").ravel() for domain in ("outputs", "targets"))
    told = {entry.name: (entry.epoch_idx, entry.value) for entry in results.metrics().values()}
    assert told["error"] == (None, pytest.approx(np.mean((outputs - targets) ** 2)))
    assert told["mae"] == (None, pytest.approx(np.abs(outputs - targets).mean()))
    assert EvalPhase.from_config(phase.get_config()).get_config() == phase.get_config()
    train = world.train_phase()
    with pytest.raises(TypeError, match=r"metrics=\[MAE\(...\)\]"):
        train.add_callback(MAE())
    assert train.callbacks == []
