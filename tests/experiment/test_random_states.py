"""Random states: kept, put back, and derived from a seed and the labels of nodes."""

import random

import numpy as np
import pytest

import keydnn
from keydnn.experiment import ModelGraph, ModelNode, Optimizer, random_states
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
