"""Prepared steps: what a kind of step looks up once, and what every step looks at again."""

import sys

import numpy as np
import pytest

from keydnn.experiment import AppliedLoss, Experiment, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer, TrainPhase
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.execution.phase_running import run_phase
from keydnn.experiment.results import TrainResults
from keydnn.experiment.samplers import SimpleSampler

torch = pytest.importorskip("torch", reason="needs torch")
pytestmark = pytest.mark.torch
QUIET = {"show_sampler_progress": False, "show_training_progress": False}
MOST_CALLS = {"none": 75, "all": 97}  # of functions of this library in a step; 61 and 82 when this was written


@pytest.fixture(autouse=True)
def alone():
    with ExperimentContext(registration_policy="error").activate():
        yield


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def prepared(node_class=ModelNode, optimizer="sgd", **options):
    """An experiment with one node, the node, and a phase of ten steps an epoch."""
    rng = np.random.default_rng(0)
    fs = FeatureSet.from_dict("rows", {"x": rng.normal(size=(80, 4)).astype("f4"), "y": rng.normal(size=80).astype("f4")}, "x", "y")
    node = node_class("net", network(), fs)
    ModelGraph([node], Optimizer(optimizer, opt_kwargs={"lr": 0.1}, backend="torch"))
    loss = AppliedLoss(Loss("mse", backend="torch"), node, ["outputs", "targets"])
    sampler = SimpleSampler(batch_size=8, seed=0)
    phase = TrainPhase.from_split("train", split=None, sampler=sampler, losses=[loss], n_epochs=3, **options)
    return Experiment.from_active_context("e", seed=0), node, phase


def epoch_losses(results):
    return [results.metric_store.of_epoch("train_loss", epoch)[-1].value for epoch in range(3)]


@pytest.mark.parametrize("recording", MOST_CALLS)
def test_a_step_makes_few_calls(recording):
    exp, _, phase = prepared(result_recording=recording)
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call" and "/keydnn/" in frame.f_code.co_filename

    exp.run_phase(phase, **QUIET)  # builds
    before, counts = sys.getprofile(), []
    for n_epochs in (2, 4):
        phase.n_epochs, calls = n_epochs, 0
        sys.setprofile(count)
        try:
            exp.run_phase(phase, **QUIET)
        finally:
            sys.setprofile(before)
        counts.append(calls)
    assert (counts[1] - counts[0]) / 20 < MOST_CALLS[recording]


def test_zero_grad_of_a_users_optimizer_is_called():
    class Counting(torch.optim.SGD):
        cleared = 0

        def zero_grad(self, set_to_none=True):
            Counting.cleared += 1
            super().zero_grad(set_to_none)

    exp, _, phase = prepared(optimizer=Counting)
    own = epoch_losses(exp.run_phase(phase, **QUIET))
    assert Counting.cleared == 30
    with ExperimentContext().activate():
        exp, _, phase = prepared()
        assert epoch_losses(exp.run_phase(phase, **QUIET)) == own


def test_a_node_of_a_users_class_runs_its_own_forward_pass():
    class Doubling(ModelNode):
        def forward_single(self, x, **kwargs):
            made = super().forward_single(x, **kwargs)
            return made.with_samples({role: one.with_outputs(one.features * 2) for role, one in made.role_data.items()})

    exp, _, phase = prepared(Doubling)
    doubled = exp.run_phase(phase, **QUIET).context_store
    with ExperimentContext().activate():
        exp, node, phase = prepared()
        first = next(exp.run_phase(phase, **QUIET).context_store.places(epoch=0, batch=0)).output(node.node_id).features
    made = next(doubled.places(epoch=0, batch=0)).context().outputs.popitem()[1].features
    assert torch.equal(made, first * 2)


class Between(Callback):
    """Changes something between the epochs."""

    def __init__(self, change):
        super().__init__("between")
        self._change = change

    def on_epoch_end(self, *, exec_ctx, **arguments):
        self._change(exec_ctx.epoch_idx)

    def get_config(self):
        return {}


def test_what_a_callback_changes_counts_from_the_next_step_on():
    exp, node, phase = prepared()
    weight = phase.losses[0]
    module, seen = node.model.module, []
    exp.model_graph.build()  # whose trial is made in evaluation mode
    module.register_forward_pre_hook(lambda one, given: seen.append(all(part.training for part in one.modules())))

    def change(epoch):
        if epoch == 0:
            module[1].eval()  # the next step puts it back
            weight.weight = 0.5
        if epoch == 1:
            weight.loss.build(force_rebuild=True)

    phase.callbacks.append(Between(change))
    told = epoch_losses(exp.run_phase(phase, **QUIET))
    assert seen == [True] * 30
    assert told[1] < 0.6 * told[0]


def test_what_is_recorded_is_safe_from_later_steps_and_there_after_a_failure():
    exp, node, phase = prepared()
    exp.model_graph.build()
    made, results = [], TrainResults("train")

    def overwrite(module, given, output):
        """Of 30 steps the 26th fails, and every output is overwritten in the step after it."""
        if len(made) == 25:
            raise RuntimeError("enough")
        if made:
            made[-1][1].zero_()
        made.append((output.detach().clone(), output.detach()))

    node.model.module.register_forward_hook(overwrite)
    with pytest.raises(RuntimeError, match="enough"):
        run_phase(phase, experiment=exp, results=results, show_sampler_progress=False, show_training_progress=False)
    told = [place.output(node.node_id).features for place in results.context_store.places()]
    assert len(told) == 25
    assert all(torch.equal(mine, before) for mine, (before, _) in zip(told, made, strict=True))
