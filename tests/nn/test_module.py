"""What a Module is: registries filled by assignment, walks, modes, moving, state, hooks, stamps."""

import copy
import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import keydnn
from keydnn import Tensor
from keydnn.domain.errors import DeviceNotSupportedError
from keydnn.nn import BatchNorm1d, Dense, Dropout, Linear, Module, Parameter, ReLU, latest_stamp, structure_stamp
from keydnn.training import Sequential


class Net(Module):
    def __init__(self):
        super().__init__()
        self.scale = Parameter((2,), initializer="ones")
        self.first = Linear(3, 2)
        self.norm = BatchNorm1d(2)

    def forward(self, x):
        return self.norm(self.first(x)) * self.scale


NAMES = ["scale", "first.weight", "first.bias", "norm.gamma", "norm.beta"]


# -- registries


def test_assignment_registers_in_order():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert list(net._parameters) == ["scale"] and list(net._modules) == ["first", "norm"]
    assert [name for name, _ in net.named_buffers()] == ["norm.running_mean", "norm.running_var"]


def test_a_prefix_stands_before_every_name():
    net = Net()
    assert [name for name, _ in net.named_parameters("model")] == [f"model.{name}" for name in NAMES]
    assert next(iter(net.named_modules("model")))[0] == "model"
    assert [name for name, _ in net.named_modules("model")][1:] == ["model.first", "model.norm"]


@pytest.mark.parametrize("name", ["scale", "first", "norm"])
def test_none_removes_a_name_from_the_registries(name):
    net = Net()
    setattr(net, name, None)
    assert getattr(net, name) is None
    assert not any(path.split(".")[0] == name for path, _ in (*net.named_parameters(), *net.named_buffers(), *net.named_modules()))


def test_a_name_stands_in_one_registry_at_a_time():
    net = Net()
    net.scale = Linear(1, 1)
    assert "scale" not in net._parameters and "scale" in net._modules
    net.scale = Parameter((1,))
    assert "scale" in net._parameters and "scale" not in net._modules
    net.scale = 3.0
    assert net.scale == 3.0 and "scale" not in net._parameters
    del net.first
    assert "first" not in net._modules
    with pytest.raises(AttributeError):
        _ = net.first


def test_replacing_keeps_the_place():
    net = Net()
    net.first = Linear(3, 2, bias=False)
    assert [name for name, _ in net.named_modules()] == ["", "first", "norm"]


def test_register_parameter_module_and_buffer():
    module = Module()
    weight, child, buffer = Parameter((1,)), ReLU(), Tensor((2,))
    module.register_parameter("w", weight)
    module.register_module("act", child)
    module.register_buffer("seen", buffer)
    module.register_parameter("nothing", None)
    module.register_module("nothing", None)
    module.register_buffer("nothing", None)
    assert module.w is weight and module.act is child and module.seen is buffer and "nothing" not in module.__dict__
    other = Parameter((3,))
    module.register_parameter("w", other)
    assert module.w is other and list(module.parameters()) == [other]
    module.seen = Tensor((5,))
    assert dict(module.named_buffers())["seen"].shape == (5,)


@pytest.mark.parametrize("name", ["", "a.b", 3])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        Module().register_parameter(name, Parameter((1,)))


def test_wrong_kinds_are_refused():
    with pytest.raises(TypeError, match="Module, got int"):
        Module().register_module("x", 3)
    with pytest.raises(TypeError, match="plain Tensor, got Parameter"):
        Module().register_buffer("x", Parameter((1,)))
    with pytest.raises(TypeError, match="plain Tensor, got ndarray"):
        Module().register_buffer("x", np.zeros(1))


def test_init_comes_first():
    class Forgetful(Module):
        def __init__(self):
            self.weight = Parameter((1,))

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Forgetful()


# -- walking


def test_shared_modules_and_parameters_come_once_unless_asked():
    net = Module()
    net.a = Linear(2, 2)
    net.b = net.a
    net.tied = net.a.weight
    assert [name for name, _ in net.named_parameters()] == ["tied", "a.bias"]
    assert [name for name, _ in net.named_parameters(unique=False)] == ["tied", "a.weight", "a.bias", "b.weight", "b.bias"]
    assert [name for name, _ in net.named_modules()] == ["", "a"]
    assert [name for name, _ in net.named_modules(unique=False)] == ["", "a", "b"]
    assert len(list(net.parameters())) == 2


def test_children_modules_and_apply():
    net = Net()
    assert list(net.children()) == [net.first, net.norm] and dict(net.named_children()) == {"first": net.first, "norm": net.norm}
    assert list(net.modules()) == [net, net.first, net.norm]
    seen = []
    assert net.apply(seen.append) is net and seen == [net, net.first, net.norm]


def test_modules_hash_and_compare_by_identity():
    a, b = ReLU(), ReLU()
    assert a != b and len({a, b, a}) == 2


# -- modes and gradients


def test_train_and_eval_reach_everything_and_return_self():
    net = Net()
    assert net.training
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())


def test_zero_grad_and_requires_grad():
    net = Net()
    net(keydnn.randn((4, 3))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net and not any(p.requires_grad for p in net.parameters())


# -- calling


def test_the_base_has_no_forward_and_no_config():
    with pytest.raises(NotImplementedError, match="Net2.*forward"):
        type("Net2", (Module,), {})()(1)
    with pytest.raises(NotImplementedError, match="Net.*get_config"):
        Net().get_config()
    with pytest.raises(NotImplementedError, match="Net.*from_config"):
        Net.from_config({})


def test_call_passes_all_arguments():
    class Many(Module):
        def forward(self, *args, **kwargs):
            return args, kwargs

    assert Many()(1, 2, h=3) == ((1, 2), {"h": 3})


def test_call_honours_a_forward_put_on_the_instance():
    layer = ReLU()
    layer.forward = lambda x: "mine"
    assert layer(None) == "mine"


# -- moving


def test_to_the_same_device_changes_nothing():
    net = Net()
    before = dict(net.named_parameters())
    assert net.to("cpu") is net and net.to_(keydnn.Device("cpu")) is net
    assert dict(net.named_parameters()) == before


@pytest.mark.parametrize("device", [None, 3, 1.0, object()])
def test_a_wrong_kind_of_device_is_a_type_error(device):
    with pytest.raises(TypeError, match="Net"):
        Net().to(device)


def test_a_bad_device_string_is_a_value_error():
    with pytest.raises(ValueError, match="Invalid device"):
        Net().to_("gpu")


@pytest.mark.parametrize("move", ["to", "to_"])
def test_a_device_that_is_not_there_leaves_the_module_as_it_was(move):
    net = Net()
    state = net.state_dict()
    with pytest.raises(DeviceNotSupportedError):
        getattr(net, move)("cuda:7")
    assert net.first.device is keydnn.Device("cpu")
    for name, array in net.state_dict().items():
        assert_array_equal(array, state[name])


class _Foreign:
    """A parameter of another make: it can only be replaced."""

    def __init__(self, place="cpu"):
        self.place = place

    def to(self, device):
        return _Foreign(str(device))


class _ForeignInPlace(_Foreign):
    def to_(self, device):
        self.place = str(device)


@pytest.mark.parametrize("move", ["to", "to_"])
def test_moving_rebinds_replaced_parameters_and_tells_the_extras(move):
    class Odd(Module):
        def __init__(self):
            super().__init__()
            self.device = keydnn.Device("cpu")
            self.told = []
            for name, kind in (("a", _Foreign), ("b", _ForeignInPlace)):
                self.register_parameter(name, kind())
            self.inner = Module()
            self.inner.register_parameter("a", self.a)
            self.unregistered = _ForeignInPlace()

        def _to_extra_(self, device):
            self.told.append(str(device))

    odd = Odd()
    a, b = odd.a, odd.b
    assert getattr(odd, move)("cuda:1") is odd
    assert odd.a is not a and odd.a.place == "cuda:1" and odd._parameters["a"] is odd.a is odd.inner.a
    assert odd.b.place == "cuda:1" and (odd.b is b) == (move == "to_")
    assert odd.told == ["cuda:1"] and str(odd.device) == "cuda:1" and odd.unregistered.place == "cpu"


# -- state


def test_state_dict_is_a_copy_under_every_path():
    net = Module()
    net.a = Linear(2, 2, bias=False)
    net.b = net.a
    net.register_buffer("kept", Tensor((1,)))
    net.register_buffer("dropped", Tensor((1,)), persistent=False)
    state = net.state_dict()
    assert list(state) == ["a.weight", "b.weight", "kept"]
    net.a.weight.fill(7.0)
    assert not (state["a.weight"] == 7.0).any()


def test_load_state_dict_restores_in_place_and_casts():
    net = Net()
    net(keydnn.randn((4, 3)))
    state = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
    twin = Net()
    weight = twin.first.weight
    array = weight.to_numpy()
    assert twin.load_state_dict(state) == ([], [])
    assert twin.first.weight is weight and weight.to_numpy() is array and weight.dtype == np.float32
    for name, want in state.items():
        assert_array_equal(twin.state_dict()[name], want)


def test_load_state_dict_is_all_or_nothing():
    net = Net()
    before = net.state_dict()
    good = {name: array + 1.0 for name, array in before.items()}
    cases = [
        ({k: v for k, v in good.items() if k != "scale"}, KeyError, "missing.*scale"),
        ({**good, "extra": np.zeros(1)}, KeyError, "unknown.*extra"),
        ({**good, "norm.beta": np.zeros(3)}, ValueError, r"norm.beta.*\(3,\).*\(2,\)"),
    ]
    for state, error, match in cases:
        with pytest.raises(error, match=match):
            net.load_state_dict(state)
        for name, array in net.state_dict().items():
            assert_array_equal(array, before[name])
    missing, unknown = net.load_state_dict({"scale": np.full(2, 5.0), "extra": np.zeros(1)}, strict=False)
    assert missing == [name for name in before if name != "scale"] and unknown == ["extra"]
    assert_array_equal(net.scale.to_numpy(), [5.0, 5.0])


def test_a_shared_parameter_may_be_missing_under_all_but_one_path():
    net = Module()
    net.a = Linear(2, 2, bias=False)
    net.b = net.a
    net.load_state_dict({"b.weight": np.ones((2, 2))})
    assert_array_equal(net.a.weight.to_numpy(), np.ones((2, 2)))


def test_tensors_are_taken_as_state():
    layer = Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": keydnn.tensor([[1.0, 2.0]])})
    assert layer.weight.tolist() == [[1.0, 2.0]]


def test_an_unbuilt_layer_says_so_when_state_does_not_fit():
    with pytest.raises(KeyError, match="lazy"):
        Dense(3).load_state_dict({"weight": np.zeros((3, 2)), "bias": np.zeros(3)})


def test_deepcopy_keeps_sharing_inside_and_shares_nothing_outside():
    net = Net()
    net.tied = net.first.weight
    twin = copy.deepcopy(net)
    assert type(twin.first.weight) is Parameter and twin.tied is twin.first.weight and twin.tied is not net.tied
    assert twin._modules["first"] is twin.first and twin._parameters["tied"] is twin.tied
    twin.tied.fill(0.0)
    assert net.tied.to_numpy().any()


# -- hooks


def test_forward_hooks_see_and_replace():
    layer, seen = Linear(2, 2), []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: seen.append(("before", args[0].shape)) or (args[0] * 0.0,)),
        layer.register_forward_hook(lambda module, args, y: seen.append(("after", y.shape))),
        layer.register_forward_hook(lambda module, args, y: y + 1.0),
    ]
    assert_array_equal(layer(keydnn.ones((1, 2))).to_numpy(), layer.bias.to_numpy()[None] + 1.0)
    assert seen == [("before", (1, 2)), ("after", (1, 2))]
    for handle in handles:
        handle.remove()
        handle.remove()
    assert layer(keydnn.ones((1, 2))).to_numpy().any() and len(seen) == 2


def test_backward_hooks_see_and_replace_the_gradient_of_the_output():
    layer, seen = Linear(2, 3), []
    layer.register_backward_hook(lambda module, g: seen.append((module is layer, g.tolist())))
    layer.register_backward_hook(lambda module, g: g * 10.0)
    x = keydnn.ones((1, 2), requires_grad=True)
    layer(x).sum().backward()
    assert seen == [(True, [[1.0, 1.0, 1.0]])]
    np.testing.assert_allclose(layer.bias.grad.to_numpy(), [10.0, 10.0, 10.0])
    np.testing.assert_allclose(x.grad.to_numpy(), 10.0 * layer.weight.to_numpy().sum(0, keepdims=True), rtol=1e-6)


def test_bad_hooks_are_refused():
    with pytest.raises(TypeError, match="callable"):
        ReLU().register_forward_hook(3)

    class Pair(Module):
        def forward(self, x):
            return x, x

    pair = Pair()
    pair.register_backward_hook(lambda module, g: None)
    with pytest.raises(TypeError, match="single Tensor"):
        pair(keydnn.ones((1,)))


# -- stamps and repr


def test_stamps_move_with_structure_and_not_with_modes_or_values():
    net, other = Net(), Net()
    stamp, latest = structure_stamp(net), latest_stamp()
    net.eval().train()
    net(keydnn.randn((4, 3)))
    net.scale.fill(3.0)
    net.training = False
    assert structure_stamp(net) == stamp and latest_stamp() == latest
    other.anything = 1
    assert structure_stamp(net) == stamp and latest_stamp() > latest
    changes = [
        lambda: setattr(net.first, "bias", None),
        lambda: setattr(net.norm, "momentum", 0.5),
        lambda: net.register_module("more", ReLU()),
        lambda: net.register_parameter("w", Parameter((1,))),
        lambda: net.more.register_forward_hook(lambda *a: None),
        lambda: delattr(net, "more"),
        lambda: setattr(net, "forward", lambda x: x),
    ]
    for change in changes:
        before = structure_stamp(net)
        change()
        assert structure_stamp(net) > before


def test_repr_shows_the_tree_with_shapes_and_counts():
    assert repr(Net()).split("\n") == [
        "Net(  # scale (2,), 14 parameters",
        "  (first): Linear(in_features=3, out_features=2)  # weight (2, 3), bias (2,), 8 parameters",
        "  (norm): BatchNorm1d(num_features=2)  # gamma (2,), beta (2,), 4 parameters",
        ")",
    ]
    assert repr(ReLU()) == "ReLU()"
    assert repr(Linear(1, 1, bias=False, dtype="float64")) == "Linear(in_features=1, out_features=1, bias=False, dtype=float64)" + (
        "  # weight (1, 1), 1 parameter"
    )


def test_configs_are_json():
    assert json.loads(json.dumps(Linear(1, 2, dtype=np.float64).get_config()))["dtype"] == "float64"


def test_frozen_modules_stay_in_evaluation_mode():
    body = Sequential(Linear(3, 4), BatchNorm1d(4), Dropout(0.5))
    model = Sequential(body, Linear(4, 2))
    assert body.freeze() is body and model.train() is model
    assert [m.training for m in model.modules()] == [True, False, False, False, False, True]
    assert [p.requires_grad for p in model.parameters()] == [False] * 4 + [True] * 2
    assert body.unfreeze() is body
    assert all(m.training for m in model.modules()) and all(p.requires_grad for p in model.parameters())
    assert not model.freeze().training and not model.train().training


@pytest.mark.parametrize("options", [{}, {"compile": False}, {"metrics": ["auc"]}, {"accumulate": 2}], ids=str)
def test_a_frozen_part_is_left_alone_by_fit(options):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), (rng.random((40, 1)) > 0.5) * 1.0
    body = Sequential(Linear(3, 4), BatchNorm1d(4), Dropout(0.5))
    model = Sequential(body, Linear(4, 1))
    model.fit(x, y, loss="bce_logits", optimizer="adam", epochs=2, verbose=0)
    before, head = body.state_dict(), model[1].weight.numpy()
    body.freeze()
    model.fit(x, y, loss="bce_logits", optimizer="adam", epochs=3, batch_size=10, verbose=0, **options)
    assert all((before[name] == value).all() for name, value in body.state_dict().items())
    assert (head != model[1].weight.numpy()).all()
    assert not body.training and model.training and model[1].training
    body.unfreeze()
    model.fit(x, y, loss="bce_logits", optimizer="adam", verbose=0)
    assert all((before[name] != value).any() for name, value in body.state_dict().items() if name != "0.bias")
