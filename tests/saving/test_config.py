"""Structure as JSON: order, sharing, devices, user classes."""

import json
import warnings

import numpy as np
import pytest

import keydnn
from keydnn.saving import from_payload, known_arguments, module_from_config, module_to_config, register_module, to_payload
from keydnn.saving.config import in_assumed_order


def through_json(module):
    return module_from_config(json.loads(json.dumps(module_to_config(module))))


def names(model):
    return [name for name, _ in model.named_children()]


def test_the_order_that_is_assumed():
    assert in_assumed_order(["b", "10", "9", "a", "2b"]) == ["9", "10", "2b", "a", "b"]


def test_twelve_layers_come_back_in_order():
    model = keydnn.Sequential(*[keydnn.Linear(i + 1, i + 2) for i in range(12)])
    node = module_to_config(model)
    assert "order" not in node
    again = through_json(model)
    assert [layer.in_features for layer in again.layers()] == list(range(1, 13))
    assert again(keydnn.ones((1, 1))).shape == (1, 13)


def test_named_layers_keep_their_order():
    model = keydnn.Sequential()
    for name, layer in [("stem", keydnn.Linear(2, 3)), ("act", keydnn.ReLU()), ("head", keydnn.Linear(3, 1))]:
        model.add(layer, name)
    node = module_to_config(model)
    assert node["order"] == ["stem", "act", "head"] and node["config"] == {}
    again = through_json(model)
    assert names(again) == ["stem", "act", "head"]
    assert [type(layer).__name__ for layer in again.layers()] == ["Linear", "ReLU", "Linear"]
    assert again(keydnn.ones((1, 2))).shape == (1, 1)


def test_without_order_names_are_sorted():
    node = {"type": "Sequential", "config": {}, "children": {}}
    for name, size in [("b", 4), ("10", 3), ("9", 2), ("a", 5)]:
        node["children"][name] = {"type": "Linear", "config": {"in_features": size, "out_features": size}, "children": {}}
    assert names(module_from_config(node)) == ["9", "10", "a", "b"]


def test_nested_containers():
    inner = keydnn.Sequential(keydnn.Linear(2, 2), keydnn.Tanh())
    model = keydnn.Sequential(inner, keydnn.Sequential(), keydnn.Linear(2, 1))
    again = from_payload(json.loads(json.dumps(to_payload(model))))
    x = keydnn.rand((3, 2))
    np.testing.assert_array_equal(again(x).to_numpy(), model(x).to_numpy())
    assert len(again[0]) == 2 and len(again[1]) == 0


def test_a_layer_used_twice_is_tied_again():
    shared = keydnn.Linear(2, 2)
    model = keydnn.Sequential(shared, keydnn.Sequential(keydnn.ReLU(), shared), shared)
    payload = to_payload(model)
    assert payload["arch"]["children"]["2"]["shared_with"] == "0"
    assert payload["arch"]["children"]["1"]["children"]["1"]["shared_with"] == "0"
    assert set(payload["state"]) == {f"{path}.{name}" for path in ("0", "1.1", "2") for name in ("weight", "bias")}
    again = from_payload(json.loads(json.dumps(payload)))
    assert again[0] is again[2] is again[1][1]
    assert len(list(again.parameters())) == 2
    np.testing.assert_array_equal(again[2].weight.to_numpy(), shared.weight.to_numpy())


def test_sharing_does_not_depend_on_the_order_of_reading():
    shared = keydnn.Sequential(keydnn.Linear(2, 2))
    model = keydnn.Sequential()
    model.add(shared, "z")
    model.add(shared, "a")
    payload = to_payload(model)
    del payload["arch"]["order"]  # now "a", which is shared with "z", is read first
    again = from_payload(payload)
    assert names(again) == ["a", "z"] and again[0] is again[1]


@register_module()
class TwoLayers(keydnn.Module):
    """A user's module: children from attributes, config of its own."""

    def __init__(self, width, scale=1.0):
        super().__init__()
        self.width, self.scale = width, scale
        self.second = keydnn.Linear(width, width)
        self.first = keydnn.Linear(width, width)
        self.loaded = False

    def forward(self, x):
        return x + self.second(self.first(x).relu()) * self.scale

    def get_config(self):
        return {
            "width": np.int64(self.width),
            "scale": self.scale,
            "sizes": (1, 2),
            "dtype": np.dtype("f4"),
            "device": keydnn.Device("cpu"),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**known_arguments(cls, config))

    def _post_load(self):
        self.loaded = True


def test_a_users_module():
    model = keydnn.Sequential(TwoLayers(3, scale=0.5), keydnn.Linear(3, 1))
    node = module_to_config(model)
    assert node["children"]["0"]["config"] == {"width": 3, "scale": 0.5, "sizes": [1, 2], "dtype": "float32", "device": "cpu"}
    assert "order" not in node["children"]["0"]
    again = from_payload(json.loads(json.dumps(to_payload(model))))
    assert again[0].loaded and not model[0].loaded
    assert names(again[0]) == ["second", "first"]  # as the constructor made them
    x = keydnn.rand((2, 3))
    np.testing.assert_array_equal(again(x).to_numpy(), model(x).to_numpy())


def test_a_container_that_fills_itself():
    @register_module()
    class SelfMade(keydnn.Sequential):
        def __init__(self):
            super().__init__(keydnn.Linear(2, 3), keydnn.Tanh(), keydnn.Linear(3, 1))

    model = SelfMade()
    again = from_payload(json.loads(json.dumps(to_payload(model))))
    assert type(again) is SelfMade and names(again) == ["0", "1", "2"]
    x = keydnn.rand((4, 2))
    np.testing.assert_array_equal(again(x).to_numpy(), model(x).to_numpy())


def test_a_shared_parameter_is_tied_again_by_the_module():
    @register_module()
    class Tied(keydnn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = keydnn.Linear(2, 2), keydnn.Linear(2, 2)
            self._post_load()

        def _post_load(self):
            self.b.weight = self.a.weight

        def get_config(self):
            return {}

        @classmethod
        def from_config(cls, config):
            return cls()

    model = Tied()
    again = from_payload(to_payload(model))
    assert again.b.weight is again.a.weight and len(list(again.parameters())) == 3
    np.testing.assert_array_equal(again.b.weight.to_numpy(), model.a.weight.to_numpy())


def test_a_config_that_json_cannot_hold():
    module = TwoLayers(2)
    module.get_config = lambda: {"fn": print}
    with pytest.raises(TypeError, match=r"TwoLayers\['fn'\].*builtin_function"):
        module_to_config(module)


def test_an_unregistered_subclass_loads_through_itself(tmp_path):
    class Net(keydnn.Sequential):
        def twice(self, x):
            return self(self(x))

    Net(keydnn.Linear(2, 2)).save_json(tmp_path / "net.json")
    again = Net.load_json(tmp_path / "net.json")
    assert type(again) is Net and again.twice(keydnn.ones((1, 2))).shape == (1, 2)
    with pytest.raises(ValueError, match="unknown module type 'Net'"):
        keydnn.Sequential.load_json(tmp_path / "net.json")


def test_names_are_taken_once():
    with pytest.raises(ValueError, match="'Linear' is taken"):

        @register_module("Linear")
        class Line(keydnn.Module):
            pass

    @register_module("keydnn-test-other-name")
    class Other(keydnn.Sequential):
        pass

    assert module_to_config(Other())["type"] == "keydnn-test-other-name"
    assert type(through_json(Other())) is Other


def test_a_cuda_device_loads_on_the_cpu_with_one_warning():
    payload = to_payload(keydnn.Sequential(keydnn.Linear(2, 2), keydnn.Linear(2, 2)))
    for child in payload["arch"]["children"].values():
        child["config"]["device"] = "cuda:0"
    with pytest.warns(UserWarning, match="'cuda:0' is not available") as caught:
        model = from_payload(payload)
    assert len(caught) == 1 and str(model[0].weight.device) == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_payload(payload, device="cpu")
