"""Probes of the stability lab inside phases: their values are the lab's own, and training does not notice them."""

import copy

import numpy as np
import pytest

import keydnn
from keydnn.experiment import Experiment, ExperimentContext, FeatureSet, ModelGraph, ModelNode, Optimizer, TrainPhase
from keydnn.experiment.callbacks import Callback, ProbeLogger, probe_registry
from keydnn.experiment.errors import PackagedCodeError
from keydnn.experiment.phases import Checkpointing, EvalPhase
from keydnn.experiment.samplers import SimpleSampler
from keydnn.experiment.training import AppliedLoss, Loss
from keydnn.stability import CurvatureProbe, MarginProbe, MomentumRule, RailProbe
from tests.experiment.run_copies import copies_at_checkpoints

PROBES = {
    "curvature": lambda: CurvatureProbe(tol=1e-5, max_iter=20, seed=3),
    "margin": lambda: MarginProbe(0.05, MomentumRule(0.5), CurvatureProbe(tol=1e-4)),
    "rails": lambda: RailProbe({"1": {"weight": "ap_fixed<4,1,AP_RND,AP_SAT>"}, "4": {"weight": "ap_fixed<3,1,AP_RND,AP_SAT>"}}),
}


class Kept(Callback):
    """Keeps the network and the rows of every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_batch_end(self, *, experiment, exec_ctx, **rest):
        net = copy.deepcopy(experiment.model_graph.get_node("net").model.module)
        net.eval()
        (batch,) = exec_ctx.inputs.values()
        (samples,) = batch.role_data.values()
        self.steps.append((net, (np.array(samples.features), np.array(samples.targets).reshape(-1, 1))))

    def get_config(self):
        return super().get_config()


class World:
    """Rows, a net with dropout and batch norm, its loss."""

    def __init__(self):
        keydnn.seed(3)
        rng = np.random.default_rng(0)
        data = {"x": rng.standard_normal((12, 3)).astype("f4"), "y": rng.standard_normal(12).astype("f4")}
        self.rows = FeatureSet.from_dict("rows", data, "x", "y")
        nn = keydnn.nn
        net = keydnn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 1))
        self.net = ModelNode("net", net, self.rows)
        self.graph = ModelGraph([self.net], Optimizer("sgd", opt_kwargs={"lr": 0.05}, backend="keydnn"))
        self.experiment = Experiment.from_active_context("bench", seed=3)

    def loss(self, name="mse", **options):
        return AppliedLoss(Loss(name, backend="keydnn"), "net", ["outputs", "targets"], **options)

    def phase(self, *callbacks, losses=None, **options):
        sampler = SimpleSampler(batch_size=4, shuffle=True, seed=5, show_progress=False)
        given = {"sampler": sampler, "losses": losses or [self.loss()], "n_epochs": 2, **options}
        return TrainPhase.from_split("train", split=None, callbacks=callbacks, **given)

    def run(self, phase):
        return self.experiment.run_phase(phase, show_sampler_progress=False, show_training_progress=False)

    def weights(self):
        return self.net.get_state()["model"]["weights"]


def logged(results, label):
    """(epoch, batch) to metric to value."""
    found = {}
    for entry in results.metric_store.entries():
        if entry.name.startswith(f"{label}."):
            found.setdefault((entry.epoch_idx, entry.batch_idx), {})[entry.name.removeprefix(f"{label}.")] = entry.value
    return found


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_logs_what_the_lab_measures(name):
    world, kept = World(), Kept()
    found = logged(world.run(world.phase(kept, ProbeLogger(PROBES[name](), world.net, label="p"))), "p")
    lab = PROBES[name]()
    assert list(found) == [(epoch, batch) for epoch in range(2) for batch in range(3)]
    assert list(found.values()) == [lab.measure(net, batch, "mse") for net, batch in kept.steps]


def test_losses_of_a_phase_are_what_the_probe_follows():
    world, kept = World(), Kept()
    losses = [world.loss(), world.loss("mae", weight=0.5), world.loss(label="again", weight=2.0)]
    found = logged(world.run(world.phase(kept, ProbeLogger(CurvatureProbe(), "net"), losses=losses)), "CurvatureProbe")

    def total(y, t):
        return ((y - t) * (y - t)).mean() + (y - t).abs().mean() * 0.5 + ((y - t) * (y - t)).mean() * 2.0

    lab = CurvatureProbe()
    expected = [lab.measure(net, batch, total)["curvature_lambda_max"] for net, batch in kept.steps]
    assert [values["curvature_lambda_max"] for values in found.values()] == pytest.approx(expected, rel=1e-9)


def test_training_does_not_notice(tmp_path):
    plain, watched = [], []
    for into, loggers in ((plain, []), (watched, [ProbeLogger(make(), "net", label=name) for name, make in PROBES.items()])):
        with ExperimentContext().activate():
            world = World()
            results = world.run(world.phase(*loggers))
            into += [world.weights(), [entry for entry in results.metric_store.entries() if entry.name == "train_loss"]]
    assert plain[1] == watched[1] and all(plain[0][key].tobytes() == watched[0][key].tobytes() for key in plain[0])


def test_every_nth_step_and_other_phases():
    world = World()
    phase = world.phase(ProbeLogger(CurvatureProbe(), "net", 4))
    runs = [logged(world.run(phase), "CurvatureProbe") for _ in range(2)]
    assert [list(one) for one in runs] == [[(0, 0), (1, 1)]] * 2
    rest = EvalPhase.from_split("eval", split=None, losses=[world.loss()], batch_size=6, callbacks=[ProbeLogger(CurvatureProbe(), "net")])
    found = logged(world.experiment.run_phase(rest), "CurvatureProbe")
    assert list(found) == [(0, 0), (0, 1)]
    (features, targets) = (world.rows.get_features(fmt="np")[:6], world.rows.get_targets(fmt="np")[:6].reshape(-1, 1))
    net = copy.deepcopy(world.net.model.module)
    net.eval()
    assert found[0, 0] == CurvatureProbe().measure(net, (features, targets), "mse")


@pytest.fixture
def registered():
    probe_registry.register("curvature", CurvatureProbe)
    yield
    del probe_registry["curvature"]


def test_a_run_taken_up_again_logs_the_same(tmp_path, monkeypatch, registered):
    run = tmp_path / "run"
    copies = copies_at_checkpoints(monkeypatch, run, tmp_path)
    with ExperimentContext().activate():
        world = World()
        saving = Checkpointing(mode="disk", save_on="epoch_end")
        world.experiment.execution_plan.add_phase(world.phase(ProbeLogger(CurvatureProbe(), "net"), checkpointing=saving))
        expected = logged(world.experiment.run(run)["train"], "CurvatureProbe")
    with ExperimentContext().activate():
        resumed = Experiment.resume(copies[1])
    assert len(expected) == 6 and logged(resumed.last_run.results["train"], "CurvatureProbe") == expected


def test_configs_of_probes(tmp_path):
    world = World()
    phase = world.phase(*[ProbeLogger(make(), "net", 2, label=name) for name, make in PROBES.items()])
    twin = TrainPhase.from_config(phase.get_config())
    assert twin == phase and twin.callbacks[0].probe is not phase.callbacks[0].probe
    path = phase.to_yaml(tmp_path / "phase.yaml")
    assert TrainPhase.from_yaml(path, allow_packaged_code=True) == phase
    with pytest.raises(PackagedCodeError, match="register"):
        TrainPhase.from_yaml(path)
    for name, make in PROBES.items():
        probe_registry.register(name, type(make()))
    try:
        assert TrainPhase.from_yaml(path) == phase
    finally:
        for name in PROBES:
            del probe_registry[name]


class Bare:
    def measure(self, model, batch, loss):
        return {"n": float(len(batch[0])), "none": float(loss is None)}


def test_what_a_probe_logger_refuses():
    world = World()
    with pytest.raises(TypeError, match="measure"):
        ProbeLogger(3, "net")
    with pytest.raises(TypeError, match="node must be"):
        ProbeLogger(Bare(), 3)
    with pytest.raises(ValueError, match="every_n_steps"):
        ProbeLogger(Bare(), "net", 0)
    with pytest.raises(KeyError, match="gone"):
        world.run(world.phase(ProbeLogger(Bare(), "gone")))
    with pytest.raises(ValueError, match="role 'anchor'"):
        world.run(world.phase(ProbeLogger(Bare(), "net", role="anchor")))
    tags = AppliedLoss(Loss("mse", backend="keydnn"), "net", ["outputs", "outputs"], label="odd")
    with pytest.raises(ValueError, match="'odd' compares"):
        world.run(world.phase(ProbeLogger(Bare(), "net"), losses=[world.loss(), tags]))
    rest = EvalPhase.from_split("eval", split=None, callbacks=[ProbeLogger(Bare(), "net")])
    assert logged(world.experiment.run_phase(rest), "Bare") == {(0, 0): {"n": 12.0, "none": 1.0}}
