"""Random numbers of nodes: what a node draws in the runs of an experiment depends on the seed and its label alone."""

import contextlib

import numpy as np
import pytest

import keydnn
from keydnn.experiment import AppliedLoss, Experiment, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer, TrainPhase
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.random_states import Stream
from keydnn.experiment.samplers import SimpleSampler
from keydnn.kernels import keys
from tests.native.common import needs_native

BACKENDS = ["keydnn", pytest.param("torch", marks=pytest.mark.torch), "tensorflow"]
QUIET = {"show_sampler_progress": False, "show_training_progress": False}


def model(backend, hidden):
    """A model with dropout, of a framework, for rows of six features."""
    if backend == "tensorflow":
        layers = pytest.importorskip("keras", reason="needs tensorflow").layers
        stack = [layers.Flatten(), layers.Dense(hidden), layers.Dropout(0.5), layers.Dense(1)]
        made = pytest.importorskip("keras").Sequential(stack)
        made.build((None, 1, 6))
        return made
    nn = pytest.importorskip("torch").nn if backend == "torch" else keydnn.nn
    kind = nn.Sequential if backend == "torch" else keydnn.Sequential
    return kind(nn.Flatten(), nn.Linear(6, hidden), nn.Dropout(0.5), nn.Linear(hidden, 1))


def squared(backend):
    return (
        Loss("mse", backend=backend)
        if backend != "tensorflow"
        else Loss(lambda outputs, targets: (outputs - targets) ** 2, backend=backend)
    )


class Drawing(Callback):
    """Draws random numbers of its own at every epoch."""

    def on_epoch_start(self, **arguments):
        np.random.rand(5)
        keydnn.rand((3,))

    def get_config(self):
        return {}


def trained(backend, labels, seed=1, n_epochs=3, callbacks=(), runs=1, before=None, during=None, preview=False):
    """Weights of node "net" after phases over graphs whose nodes stand side by side."""
    with ExperimentContext(registration_policy="error").activate():
        rng = np.random.default_rng(0)
        fs = FeatureSet.from_dict("rows", {"x": rng.normal(size=(40, 6)).astype("f4"), "y": rng.normal(size=40).astype("f4")}, "x", "y")
        nodes = {label: ModelNode(label, model(backend, 5 if label == "net" else 7), fs) for label in labels}
        with pytest.warns(UserWarning, match="connected to no other") if len(labels) > 1 else contextlib.nullcontext():
            graph = ModelGraph(
                list(nodes.values()),
                Optimizer("adam", opt_kwargs={"learning_rate" if backend == "tensorflow" else "lr": 0.01}, backend=backend),
            )
        graph.build()
        for node in nodes.values():
            start = np.random.default_rng(1)
            node.model.set_weights({k: start.normal(0, 0.5, v.shape).astype(v.dtype) for k, v in node.model.get_weights().items()})
        exp = Experiment.from_active_context("e", seed=seed)
        losses = [AppliedLoss(squared(backend), node, ["outputs", "targets"], label=label) for label, node in nodes.items()]
        sampler = SimpleSampler(batch_size=8, seed=3)
        phase = TrainPhase.from_split("t", split=None, sampler=sampler, losses=losses, n_epochs=n_epochs, callbacks=list(callbacks))
        if before is not None:
            before(exp)
        if preview:
            exp.preview_phase(phase, **QUIET)
        for _ in range(runs):
            exp.run_phase(phase, **QUIET)
        return nodes["net"].model.get_weights(), exp


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))  # Keras counts names


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_of_a_node_is_the_same_whatever_runs_beside_it(backend):
    alone, _ = trained(backend, ["net"])
    assert same(alone, trained(backend, ["other", "net"])[0])
    assert same(alone, trained(backend, ["net"], callbacks=[Drawing()])[0])
    assert same(alone, trained(backend, ["net"], preview=True)[0])
    assert not same(alone, trained(backend, ["net"], seed=2)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_go_on_where_the_streams_were(backend):
    whole, _ = trained(backend, ["net"], n_epochs=4)
    assert not same(whole, trained(backend, ["net"], n_epochs=2)[0])
    parts, exp = trained(backend, ["net"], n_epochs=2, runs=2)
    assert same(whole, parts)
    kept = exp.get_state()["random"]
    after, exp = trained(backend, ["net"], n_epochs=2, before=lambda exp: exp.set_state({**exp.get_state(), "random": kept}))
    assert not same(after, trained(backend, ["net"], n_epochs=2)[0])
    assert same(after, trained(backend, ["net"], n_epochs=2, before=lambda exp: exp.set_state({**exp.get_state(), "random": kept}))[0])


@needs_native
def test_plans_draw_what_single_eager_steps_draw(monkeypatch):
    planned, _ = trained("keydnn", ["other", "net"], n_epochs=5)
    with monkeypatch.context() as patch:
        patch.setattr(ModelGraph, "train_steps", lambda *args, **kwargs: None)
        assert same(planned, trained("keydnn", ["other", "net"], n_epochs=5)[0])
    monkeypatch.setattr("keydnn.experiment.graph.recorded.usable", lambda: False)
    eager = trained("keydnn", ["net"], n_epochs=5)[0]
    for name, value in planned.items():
        np.testing.assert_allclose(value, eager[name], rtol=1e-4, atol=1e-6)


def test_the_state_of_a_stream_inside_a_block_is_where_it_is():
    stream = Stream(5, "s")

    def draws(n):
        with keys.named("net"):
            return [*(keydnn.rand((2,)).tolist() for _ in range(n)), *np.random.rand(1)]

    with stream.active():
        draws(1)
        state = stream.get_state()
        first = draws(3)
        stream.set_state(state)
        assert draws(3) == first
        stream.set_state(state)
    with stream.active():
        assert draws(3) == first
    other = Stream(5, "s")
    other.set_state(state)
    with other.active():
        assert draws(3) == first
    with Stream(5, "t").active():
        assert not set(map(str, draws(4))) & set(map(str, first))


# -- keys


def test_the_keys_of_a_stream_are_a_function_of_their_number():
    words = np.arange(8, dtype=np.uint32)
    whole = keys.KeyStream(words).draw(23)
    assert whole.dtype == np.int64 and whole.min() >= 0 and len(set(whole.tolist())) == 23
    parts = keys.KeyStream(words)
    assert np.concatenate([parts.draw(n) for n in (1, 4, 0, 7, 11)]).tolist() == whole.tolist() and parts.count == 23
    for count in (9, 0, 4, 22):
        parts.go_to(count)
        assert parts.draw(1)[0] == whole[count] and parts.count == count + 1
    assert keys.KeyStream(words + 1).draw(1)[0] != whole[0]


class Kept:
    """Streams by name."""

    def __init__(self):
        self.streams = {}

    def key_stream(self, name):
        return self.streams.setdefault(name, keys.KeyStream(np.frombuffer(name.ljust(16).encode(), np.uint32)))


@pytest.mark.parametrize("names", [["a", "b", "a", None], [None, None], ["a"], []])
def test_keys_of_many_steps_are_those_of_single_ones(names):
    def single(steps):
        np.random.seed(3)
        found = []
        for name in names * steps:
            with keys.named(name) if name else contextlib.nullcontext():
                found.append(int(keys.draw_one()))
        return found

    def many(steps):
        np.random.seed(3)
        return keys.draw(names, steps).tolist()

    for streams in (None, Kept):
        found = []
        for draws in (single, many):
            with keys.kept_by(streams()) if streams else contextlib.nullcontext():
                found.append(draws(3))
        assert found[0] == found[1] and len(set(found[0])) == 3 * len(names)
        with keys.kept_by(streams()) if streams else contextlib.nullcontext():
            first = many(1)
            mark = keys.Mark(names)
            second = keys.draw(names, 2).tolist()
            mark.go_back()
            assert keys.draw(names, 2).tolist() == second and [*first, *second] == found[0]
            assert keys.from_numpy(names) == (names.count(None) if streams else len(names))


@pytest.mark.torch
def test_only_models_that_may_draw_exchange_generators():
    nn = pytest.importorskip("torch").nn
    from keydnn.experiment.backends.torch_random import draws

    quiet = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.LayerNorm(2))
    assert not draws(quiet) and not draws(nn.Linear(2, 2))
    for one in (nn.Dropout(), nn.RReLU(), nn.LSTM(2, 2), nn.FractionalMaxPool2d(2, output_size=1), type("Own", (nn.Module,), {})()):
        assert draws(nn.Sequential(quiet, one)), one
    quiet[1].register_forward_hook(lambda *arguments: None)
    assert draws(quiet)
