"""Loggers and small callbacks: what they write is what was measured, training does not notice, a run taken up again goes on in the file."""

import csv
import json
import struct
from importlib.util import find_spec

import numpy as np
import pytest

import keydnn
from keydnn.experiment import Experiment, ExperimentContext, FeatureSet, ModelGraph, ModelNode, Optimizer, TrainPhase
from keydnn.experiment.callbacks import (
    Callback,
    CSVLogger,
    EvalLossMetric,
    Evaluation,
    GradientClipping,
    JSONLogger,
    LearningRateLogger,
    ModelSummary,
    ProgressPrinter,
    TensorBoardLogger,
    TimeLimit,
)
from keydnn.experiment.callbacks.tensorboard import crc32c
from keydnn.experiment.phases import Checkpointing, EvalPhase
from keydnn.experiment.samplers import SimpleSampler
from keydnn.experiment.training import AppliedLoss, Loss
from tests.experiment.run_copies import copies_at_checkpoints

BACKENDS = ["keydnn", pytest.param("torch", marks=pytest.mark.torch)]
QUIET = {"show_sampler_progress": False, "show_training_progress": False}


class World:
    """Rows, a linear net of known weights, its loss."""

    def __init__(self, backend="keydnn", **options):
        keydnn.seed(3)
        rng = np.random.default_rng(0)
        data = {"x": rng.standard_normal((12, 3)).astype("f4"), "y": 9 * rng.standard_normal(12).astype("f4")}
        self.rows, self.backend = FeatureSet.from_dict("rows", data, "x", "y"), backend
        self.net = ModelNode("net", self.module(), self.rows)
        self.graph = ModelGraph([self.net], Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend=backend, **options))
        self.experiment = Experiment.from_active_context("bench", seed=3)

    def module(self):
        weight = np.array([[0.5, -1.0, 2.0]], "f4")
        if self.backend == "torch":
            import torch

            net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 1, bias=False))
            with torch.no_grad():
                net[1].weight.copy_(torch.from_numpy(weight))
            return net
        net = keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(3, 1, bias=False))
        net[1].weight.copy_from_numpy(weight)
        return net

    def loss(self):
        return AppliedLoss(Loss("mse", backend=self.backend), "net", ["outputs", "targets"])

    def evaluation(self, every=2):
        phase = EvalPhase.from_split("val", split=None)
        return Evaluation(eval_phase=phase, metrics=[EvalLossMetric(loss=self.loss())], every_n_epochs=every)

    def phase(self, *callbacks, n_epochs=4, **options):
        sampler = SimpleSampler(batch_size=4, shuffle=True, seed=5, show_progress=False)
        given = {"sampler": sampler, "losses": [self.loss()], "n_epochs": n_epochs, **options}
        return TrainPhase.from_split("train", split=None, callbacks=callbacks, **given)

    def run(self, phase):
        return self.experiment.run_phase(phase, **QUIET)

    def weight(self):
        (value,) = self.net.get_state()["model"]["weights"].values()
        return np.asarray(value)


def scalars(path):
    """(tag, step, value) of an event file, and what its first record says; checks every checksum."""

    def varint(data, at):
        n = shift = 0
        while True:
            byte = data[at]
            n, shift, at = n | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                return n, at

    def fields(data):
        at, found = 0, []
        while at < len(data):
            key, at = varint(data, at)
            if key & 7 == 0:
                value, at = varint(data, at)
            else:
                size, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
                value, at = data[at : at + size], at + size
            found.append((key >> 3, value))
        return found

    def masked(data):
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    data, at, events = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 8) == (masked(data[at : at + 8]),)
        assert struct.unpack_from("<I", data, at + 12 + size) == (masked(event),)
        events.append(dict(fields(event)))
        at += 16 + size
    found = []
    for event in events[1:]:
        for _, value in fields(event[5]):
            told = dict(fields(value))
            found.append((told[1].decode(), event.get(2, 0), struct.unpack("<f", told[2])[0]))
    return events[0][3], found


def loggers(folder):
    return [CSVLogger(folder / "m.csv"), JSONLogger(folder / "deep" / "m.jsonl"), TensorBoardLogger(folder / "tb")]


def contents(folder):
    return (folder / "m.csv").read_text(), (folder / "deep" / "m.jsonl").read_text(), scalars(folder / "tb" / "events.out.tfevents.keydnn")


def test_files_hold_every_metric_of_every_epoch(tmp_path):
    world = World()
    results = world.run(world.phase(world.evaluation(), LearningRateLogger(), *loggers(tmp_path)))
    assert results.metric_store.names[:2] == ["train_loss", "learning_rate"]
    told = {
        (name, epoch): results.metric_store.of_epoch(name, epoch)[-1].value
        for epoch in range(4)
        for name in results.metric_store.names
        if results.metric_store.of_epoch(name, epoch)
    }
    assert len(told) == 10 and told["learning_rate", 3] == pytest.approx(0.05)
    text, lines, (version, events) = contents(tmp_path)
    head, *rows = csv.reader(text.splitlines())
    assert head == ["phase", "epoch", "train_loss", "learning_rate", "val_loss"] and [row[:2] for row in rows] == [
        ["train", str(i)] for i in range(4)
    ]
    assert {(n, int(row[1])): float(v) for row in rows for n, v in zip(head[2:], row[2:], strict=True) if v} == told
    lines = [json.loads(line) for line in lines.splitlines()]
    assert {(n, line["epoch"]): v for line in lines for n, v in line["metrics"].items()} == told
    assert version == b"brain.Event:2" and {(tag, step): v for tag, step, v in events} == {
        (f"train/{name}", epoch): np.float32(value) for (name, epoch), value in told.items()
    }


def test_batches_phases_and_numbers_that_are_not_finite(tmp_path):
    world = World()

    class Odd(Callback):
        def on_batch_end(self, *, exec_ctx, results, **rest):
            results.metric_store.log(name="odd", value=exec_ctx.batch_idx, epoch_idx=0, batch_idx=exec_ctx.batch_idx)

        def on_phase_end(self, *, results, **rest):
            results.metric_store.log(name='bad, or "not"', value=np.nan, epoch_idx=None)

        def get_config(self):
            return super().get_config()

    path = tmp_path / "m.csv"
    for append in (False, True):
        callbacks = [Odd(), CSVLogger(path, append=append), JSONLogger(tmp_path / "j", append=append)]
        world.experiment.run_phase(EvalPhase.from_split("eval", split=None, losses=[world.loss()], batch_size=4, callbacks=callbacks))
    head, *rows = csv.reader(path.read_text().splitlines())
    assert head == ["phase", "epoch", "odd", "eval_loss/mse", 'bad, or "not"']
    assert [(row[1], row[2], row[4]) for row in rows] == [("0", "1.0", ""), ("", "", "nan")] * 2
    assert [json.loads(line)["metrics"] for line in (tmp_path / "j").read_text().splitlines()][3] == {'bad, or "not"': "nan"}


def kill_and_resume(tmp_path, monkeypatch, phase_of):
    """Results, weight and files of a run; then again of one that goes on from its second checkpoint."""
    run = tmp_path / "run"
    copies = copies_at_checkpoints(monkeypatch, run, tmp_path)
    with ExperimentContext().activate():
        world = World()
        world.experiment.execution_plan.add_phase(phase_of(world))
        world.experiment.run(run, **QUIET)
        first = world.weight(), contents(tmp_path)
    with ExperimentContext().activate():
        resumed = Experiment.resume(copies[2], **QUIET)
        (weight,) = resumed.model_graph.get_state()["nodes"].values()
        (weight,) = weight["model"]["weights"].values()
    return first, (np.asarray(weight), contents(tmp_path))


def test_a_run_taken_up_again_goes_on_in_the_files(tmp_path, monkeypatch):
    def phase(world):
        saving = Checkpointing(mode="disk", save_on="epoch_end")
        return world.phase(world.evaluation(), GradientClipping(0.1), *loggers(tmp_path), checkpointing=saving)

    (weight, files), (again, files_again) = kill_and_resume(tmp_path, monkeypatch, phase)
    assert files == files_again and len(files[0].splitlines()) == 5 and weight.tobytes() == again.tobytes()
    with ExperimentContext().activate():  # nobody but the clipping changes a bit
        world = World(clip_norm=0.1)
        world.run(world.phase())
        assert world.weight().tobytes() == weight.tobytes()


def test_previews_leave_no_file_and_folds_have_their_own(tmp_path):
    world = World()
    phase = world.phase(*loggers(tmp_path))
    world.run(phase)
    before = contents(tmp_path)
    world.experiment.preview_phase(phase, **QUIET)
    assert contents(tmp_path) == before
    world.experiment.run_apart(phase, label="fold 0", reset_weights=True, **QUIET)
    own = [
        tmp_path / "fold 0" / "m.csv",
        tmp_path / "deep" / "fold 0" / "m.jsonl",
        tmp_path / "tb" / "fold 0" / "events.out.tfevents.keydnn",
    ]
    assert contents(tmp_path) == before and all(path.exists() for path in own) and len(own[0].read_text().splitlines()) == 5
    assert [callback.path for callback in phase.callbacks] == [one.path for one in loggers(tmp_path)]


def test_a_file_that_lost_lines_is_told(tmp_path):
    logger = CSVLogger(tmp_path / "m.csv")
    logger.write("train", 0, {"a": 1.0})
    state = logger.get_state()
    (tmp_path / "m.csv").write_text("")
    logger.set_state(state)
    with pytest.warns(UserWarning, match="has 0 bytes and had"):
        logger.write("train", 1, {"a": 2.0})
    assert (tmp_path / "m.csv").read_text().splitlines()[-1] == "train,1,2.0"


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_clipped_in_the_phase_alone(backend):
    world = World(backend)
    world.run(world.phase(GradientClipping(0.5), n_epochs=2))
    assert world.graph.optimizer.clip_norm is None
    weight = np.array([[0.5, -1.0, 2.0]])
    x, y = world.rows.get_features(fmt="np").reshape(12, 3).astype("f8"), world.rows.get_targets(fmt="np").reshape(12, 1).astype("f8")
    for _ in range(2):
        for batch in world.phase().input_sources[0].materialize_batches().default:
            rows = batch.role_indices["default"]
            gradient = 2 / 4 * (x[rows] @ weight.T - y[rows]).T @ x[rows]
            norm = np.linalg.norm(gradient)
            assert norm > 0.5
            weight -= 0.05 * gradient * 0.5 / (norm + 1e-6)
    assert world.weight() == pytest.approx(weight, rel=1e-5)


@pytest.mark.torch
def test_clipping_is_that_of_torch():
    torch = pytest.importorskip("torch")
    world = World("torch")
    net = world.module()
    phase = world.phase(GradientClipping(0.5), n_epochs=1)
    world.run(phase)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for batch in phase.input_sources[0].materialize_batches().default:
        made = batch.materialize_batch(fmt="torch").role_data["default"]
        optimizer.zero_grad()
        out = net(made.features)
        ((out - made.targets.reshape(out.shape)) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
    assert world.weight() == pytest.approx(net[1].weight.detach().numpy(), rel=1e-6)


def test_a_limit_of_time_and_lines_of_text(capsys):
    world = World()
    limit = TimeLimit(0.0)
    results = world.run(world.phase(limit, ModelSummary(), ProgressPrinter(3), n_epochs=5))
    assert limit.stopped_epoch == 0 and len(results.metric_store.of_epoch("train_loss", 1)) == 0
    loss = results.metric_store.of_epoch("train_loss", 0)[-1].value
    assert capsys.readouterr().out == f"{world.graph.summary()}\ntrain: epoch 1/5: train_loss={loss:.6g}\n"
    world.run(world.phase(TimeLimit(1e9), ProgressPrinter(3), n_epochs=5))
    assert [line.split(":")[1] for line in capsys.readouterr().out.splitlines()] == [" epoch 3/5", " epoch 5/5"]
    fresh = TimeLimit(1e3)
    fresh.set_state({"gone": 1e4, "stopped_epoch": None})
    assert 1e4 <= fresh.get_state()["gone"] < 1.1e4


def test_rates_of_every_node():
    world = World()
    rows = world.rows
    with ExperimentContext().activate():
        fs = FeatureSet.from_dict("rows", {"x": rows.get_features(fmt="np").reshape(12, 3), "y": np.ones(12)}, "x", "y")
        own = Optimizer("sgd", opt_kwargs={"lr": 0.1}, backend="keydnn", schedule=lambda step: 0.5**step)
        ModelGraph([ModelNode("lone", world.module(), fs, own)])
        loss = AppliedLoss(Loss("mse", backend="keydnn"), "lone", ["outputs", "targets"])
        sampler = SimpleSampler(batch_size=12, show_progress=False)
        phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=[loss], n_epochs=3, callbacks=[LearningRateLogger()])
        results = Experiment.from_active_context("e").run_phase(phase, **QUIET)
    assert [entry.value for entry in results.metric_store.entries() if entry.name == "learning_rate/lone"] == [0.1, 0.05, 0.025]


def test_configs(tmp_path):
    world = World()
    small = [LearningRateLogger(label="rates"), GradientClipping(0.5), TimeLimit(60), ProgressPrinter(2), ModelSummary()]
    phase = world.phase(*small, *loggers(tmp_path))
    assert TrainPhase.from_config(phase.get_config()) == phase
    assert TrainPhase.from_yaml(phase.to_yaml(tmp_path / "phase.yaml")) == phase
    for bad in (lambda: GradientClipping(0), lambda: TimeLimit(-1), lambda: ProgressPrinter(0)):
        with pytest.raises(ValueError):
            bad()


def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    from keydnn.experiment.callbacks import MLflowLogger

    world, uri = World(), (tmp_path / "runs").as_uri()
    logger = MLflowLogger(tracking_uri=uri)
    results = world.run(world.phase(logger))
    client = mlflow.MlflowClient(tracking_uri=uri)
    told = [(one.step, one.value) for one in client.get_metric_history(logger.run_id, "train_loss")]
    assert told == [(i, results.metric_store.of_epoch("train_loss", i)[-1].value) for i in range(4)]
    assert client.get_run(logger.run_id).info.status == "FINISHED"
    logger.set_state({"next": 1, "run_id": logger.run_id})
    logger.write("train", 3, {"train_loss": 7.0})
    assert len(client.get_metric_history(logger.run_id, "train_loss")) == 4


def test_mlflow_that_is_not_there():
    if find_spec("mlflow") is not None:
        pytest.skip("mlflow is installed")
    from keydnn.experiment.callbacks import MLflowLogger

    with pytest.raises(ImportError, match="MLflowLogger needs mlflow"):
        MLflowLogger()
