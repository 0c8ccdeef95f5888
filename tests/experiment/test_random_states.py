"""Random states: kept, put back, and derived from a seed and the labels of nodes."""

import random

import numpy as np
import pytest

import keydnn
from keydnn.experiment import Experiment, ModelGraph, ModelNode, Optimizer, random_states
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.models.keydnn import SequentialMLP


def drawn():
    """A number of every generator there is without a framework."""
    return random.random(), float(np.random.rand()), keydnn.rand((2,)).tolist()


def test_kept_puts_everything_back_also_after_an_error():
    random.seed(1)
    np.random.seed(1)
    before = drawn()
    random.seed(1)
    np.random.seed(1)
    with pytest.raises(KeyError), random_states.kept():
        drawn()
        np.random.seed(5)
        raise KeyError("x")
    assert drawn() == before


def test_forks_repeat_and_leave_no_trace():
    np.random.seed(3)
    follows = np.random.rand()
    np.random.seed(3)
    found = []
    for name in ("a", "a", "b"):
        with random_states.forked(11, name):
            found.append(drawn())
    with random_states.forked(12, "a"):
        found.append(drawn())
    assert np.random.rand() == follows
    assert found[0] == found[1]
    assert len({str(one) for one in found}) == 3
    with random_states.forked(None, "a"):
        np.random.seed(3)
        assert np.random.rand() == follows


def test_a_stream_goes_on_where_it_was():
    def take(stream, n):
        with stream.active():
            return [drawn() for _ in range(n)]

    whole = take(random_states.Stream(5, "s"), 3)
    parts = random_states.Stream(5, "s")
    outside = np.random.get_state()[1].tolist()
    assert [*take(parts, 1), *take(parts, 2)] == whole
    assert np.random.get_state()[1].tolist() == outside
    again = random_states.Stream(5, "s")
    take(again, 1)
    kept = again.get_state()
    first = take(again, 1)
    again.set_state(kept)
    assert take(again, 1) == first == whole[1:2]


@pytest.mark.torch
def test_torch_is_kept_and_forked():
    torch = pytest.importorskip("torch")
    torch.manual_seed(4)
    follows = torch.rand(3)
    torch.manual_seed(4)
    with random_states.forked(1, "n"):
        one = torch.rand(3)
    with random_states.forked(1, "n"):
        assert torch.equal(torch.rand(3), one)
    with random_states.kept():
        torch.rand(10)
    assert torch.equal(torch.rand(3), follows)


def weights(ten, entropy, labels):
    with ExperimentContext(registration_policy="overwrite").activate() as ctx:
        ctx.register_experiment_node(ten)
        ctx.set_entropy(entropy)
        nodes = [ModelNode(label, SequentialMLP(hidden_dim=4), ten.reference(features="*.raw", targets="y.raw")) for label in labels]
        with pytest.warns(UserWarning, match="connected") if len(labels) > 1 else random_states.kept():
            graph = ModelGraph(nodes, Optimizer("sgd", opt_kwargs={"lr": 0.1}, backend="keydnn"))
        graph.build()
        first = {node.label: node.model.get_weights() for node in nodes}
        graph.reset_state()
        for node in nodes:
            assert same(node.model.get_weights(), first[node.label]) is (entropy is not None)
        return first


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_layers_that_know_their_sizes_get_the_weights_of_the_seed_when_the_graph_starts_anew(ten):
    made, drawn = [], []
    for _ in range(2):  # between the two the global generator goes on
        with ExperimentContext().activate() as ctx:
            ctx.register_experiment_node(ten)
            net = ModelNode("net", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(2, 1)), ten.reference(features="*.raw"))
            graph = ModelGraph([net], Optimizer("sgd", backend="keydnn"))
            graph.build()
            exp = Experiment("sized", ctx=ctx, seed=7)
            made.append(net.model.get_weights())
            exp.model_graph.reset_state()
            drawn.append(net.model.get_weights())
    assert not same(*made) and same(*drawn)


def test_initial_weights_derive_from_the_seed_and_the_label(ten):
    alone = weights(ten, 9, ["net"])["net"]
    np.random.rand(7)
    among = weights(ten, 9, ["first", "net"])
    assert same(alone, among["net"])
    assert not same(alone, among["first"])
    assert not same(alone, weights(ten, 10, ["net"])["net"])
    weights(ten, None, ["net"])


def test_new_values_go_through_the_stored_scalers(ten):
    ten.fit_transform("PerSampleZeroStart", domain="features", keys="a")
    ten.fit_transform("MinMaxScaler", domain="features", keys=["a", "b"]) if "MINMAXSCALER" in scaler_names() else None
    state = ten.get_state()["scaler_records"]
    raw = {key: ten.values(f"features.{key}.raw")[::-1].copy() for key in ("a", "b")}
    found = ten.scaled("features", raw)
    for key, values in found.items():
        assert np.array_equal(values, ten.values(f"features.{key}.transformed")[::-1])
    assert ten.get_state()["scaler_records"] == state
    assert ten.scaled("targets", {"y": np.ones(3)}) == {}
    if "b" in found:
        with pytest.raises(ValueError, match="together with b"):
            ten.scaled("features", {"a": raw["a"]})


def scaler_names():
    from keydnn.experiment import supported_scalers

    return {name.upper() for name in supported_scalers}


def test_runs_of_keras_models_derive_from_the_seed_too():
    keras = pytest.importorskip("keras", reason="needs tensorflow")
    from keydnn.experiment import AppliedLoss, Experiment, FeatureSet, Loss, TrainPhase
    from keydnn.experiment.models import TensorflowModelWrapper
    from keydnn.experiment.samplers import SimpleSampler

    def trained(seed, noise, preview=False):
        with ExperimentContext(registration_policy="error").activate():
            keras.utils.set_random_seed(noise)
            rng = np.random.default_rng(0)
            fs = FeatureSet.from_dict("rows", {"x": rng.normal(size=(16, 3)), "y": rng.normal(size=16)}, "x", "y")
            fs.split_random({"train": 0.5, "val": 0.5})
            with random_states.forked(seed, "net"):  # Keras draws the seeds of layers when they are made
                layers = [keras.layers.Flatten(), keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
                model = keras.Sequential(layers)
                model.build((None, 1, 3))
            columns = fs.reference(features="x.raw", targets="y.raw")
            net = ModelNode("net", TensorflowModelWrapper(model=model), columns)
            ModelGraph([net], Optimizer("adam", backend="tensorflow"))
            exp = Experiment.from_active_context("keras", seed=seed)
            loss = AppliedLoss(Loss(lambda outputs, targets: (outputs - targets) ** 2, backend="tensorflow"), net, ["outputs", "targets"])
            for run in [exp.preview_phase, exp.run_phase] if preview else [exp.run_phase]:
                sampler = SimpleSampler(batch_size=4, seed=1)
                phase = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=2)
                run(phase, show_sampler_progress=False, show_training_progress=False)
            return [value.tobytes() for value in net.model.get_weights().values()]

    first = trained(1, noise=1)
    assert first == trained(1, noise=2, preview=True)
    assert first != trained(2, noise=1)
