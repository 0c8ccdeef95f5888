"""Parameters and what fills them."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import keydnn
from keydnn import Tensor
from keydnn.nn import Linear, Parameter, WeightInitializer
from keydnn.nn.initializers import as_initializer, fans

# -- Parameter


def test_a_parameter_is_a_zero_tensor_that_trains():
    p = Parameter((2, 3), "cpu")
    assert isinstance(p, Tensor) and p.requires_grad and p.dtype == np.float32 and not p.to_numpy().any()
    assert not Parameter((1,), requires_grad=False).requires_grad
    assert Parameter((1,), dtype=np.float64).dtype == np.float64


def test_data_are_no_shape():
    with pytest.raises(TypeError, match=r"got data; make Parameter\(\(2, 3\)\)"):
        Parameter(np.zeros((2, 3)))


def test_operations_give_plain_tensors():
    p = Parameter((2, 2), initializer="ones")
    for result in (p + 1.0, p @ p, p.reshape(4), p[0], -p, p.sum(), p.clone(), p.detach(), 2.0 * p):
        assert type(result) is Tensor


def test_gradients_accumulate_over_several_uses():
    p = Parameter((2,), initializer="ones")
    (p * 2.0 + p * p).sum().backward()
    assert p.grad.tolist() == [4.0, 4.0]
    p.accumulate_grad(keydnn.ones((2,)))
    assert p.grad.tolist() == [5.0, 5.0]
    p.set_grad(None)
    assert p.grad is None
    p.set_grad(keydnn.ones((2,)))
    p.zero_grad()
    assert p.grad is None


def test_accumulate_grad_leaves_a_frozen_parameter_alone():
    p = Parameter((2,), requires_grad=False)
    p.accumulate_grad(keydnn.ones((2,)))
    assert p.grad is None


def test_the_initializer_is_remembered():
    assert Parameter((2, 2), initializer="xavier").initializer.name == "xavier"
    with pytest.raises(ValueError, match="without an initializer"):
        _ = Parameter((2, 2)).initializer


def test_a_placeholder_on_cuda_can_be_made_and_has_gradients():
    p = Parameter((2,), "cuda:0")
    p.set_grad(Tensor((2,), "cuda:0"))
    assert p.device == keydnn.Device("cuda:0") and p.requires_grad
    p.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize(("arguments", "error"), [(((-1,),), ValueError), (((2,), "gpu"), ValueError), (((2,), 3), ValueError)])
def test_bad_arguments(arguments, error):
    with pytest.raises(error):
        Parameter(*arguments)


def test_copies_and_moves_keep_the_class():
    p = Parameter((2,), initializer="ones")
    assert p.to("cpu") is p
    for twin in (copy.deepcopy(p), p.to("cpu", copy=True)):
        assert type(twin) is Parameter and twin is not p and twin.requires_grad and twin.initializer.name == "ones"
        twin.fill(5.0)
        assert p.tolist() == [1.0, 1.0]


# -- initializers

SPEC = [
    ("kaiming", "normal", lambda i, o: math.sqrt(2 / i)),
    ("kaiming_relu", "normal", lambda i, o: math.sqrt(2 / i)),
    ("kaiming_leaky_relu_0.01", "normal", lambda i, o: math.sqrt(2 / ((1 + 0.01**2) * i))),
    ("kaiming_leaky_relu_0.2", "normal", lambda i, o: math.sqrt(2 / ((1 + 0.2**2) * i))),
    ("kaiming_uniform", "uniform", lambda i, o: math.sqrt(6 / i)),
    ("xavier", "normal", lambda i, o: math.sqrt(2 / (i + o))),
    ("xavier_uniform", "uniform", lambda i, o: math.sqrt(6 / (i + o))),
    ("xavier_relu", "normal", lambda i, o: math.sqrt(2) * math.sqrt(2 / (i + o))),
    ("xavier_tanh", "normal", lambda i, o: 5 / 3 * math.sqrt(2 / (i + o))),
    ("xavier_leaky_relu_0.01", "normal", lambda i, o: math.sqrt(2 / (1 + 0.01**2)) * math.sqrt(2 / (i + o))),
    ("xavier_leaky_relu_0.2", "normal", lambda i, o: math.sqrt(2 / (1 + 0.2**2)) * math.sqrt(2 / (i + o))),
    ("lecun_normal", "normal", lambda i, o: math.sqrt(1 / i)),
    ("lecun_uniform", "uniform", lambda i, o: math.sqrt(3 / i)),
]


@pytest.mark.parametrize(("name", "kind", "width"), SPEC, ids=[row[0] for row in SPEC])
@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), [((80, 120), 120, 80), ((12, 20, 5, 8), 800, 480)])
def test_distributions(name, kind, width, shape, fan_in, fan_out):
    values = Parameter(shape, initializer=name, dtype=np.float64).to_numpy()
    n, w = values.size, width(fan_in, fan_out)
    assert abs(values.mean()) < 5 * w / math.sqrt(n)
    if kind == "uniform":
        assert np.abs(values).max() <= w and np.abs(values).max() > 0.99 * w
        assert_allclose(values.std(), w / math.sqrt(3), rtol=5 / math.sqrt(n))
    else:
        assert_allclose(values.std(), w, rtol=5 / math.sqrt(2 * n))
        assert np.abs(values).max() > 2.5 * w  # no uniform distribution of this width goes there


def test_the_registry_holds_the_names_of_the_interface():
    names = WeightInitializer.available()
    assert list(names) == sorted(names)
    assert {name for name, _, _ in SPEC} | {"zeros", "ones", "normal", "uniform", "truncated_normal", "orthogonal", "identity"} <= set(
        names
    )


@pytest.mark.parametrize(
    ("shape", "want"),
    [((), (1, 1)), ((5,), (5, 5)), ((3, 4), (4, 3)), ((2, 3, 5), (15, 10)), ((2, 3, 4, 5), (60, 40)), ((0, 4), (4, 1)), ((0,), (1, 1))],
)
def test_fans(shape, want):
    assert fans(shape) == want


def test_the_numpy_seed_repeats_them():
    for name in WeightInitializer.available():
        np.random.seed(3)
        first = Parameter((6, 5), initializer=name).numpy()
        np.random.seed(3)
        assert_array_equal(Parameter((6, 5), initializer=name).to_numpy(), first)


def test_float32_is_the_rounded_float64():
    np.random.seed(1)
    wide = Parameter((4, 4), initializer="kaiming", dtype=np.float64).numpy()
    np.random.seed(1)
    assert_array_equal(Parameter((4, 4), initializer="kaiming").to_numpy(), wide.astype(np.float32))


@given(rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_orthogonal_has_orthonormal_rows_or_columns(rows, columns):
    w = Parameter((rows, columns), initializer="orthogonal", dtype=np.float64).to_numpy()
    gram = w @ w.T if rows <= columns else w.T @ w
    assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-12)


def test_parameters_of_the_others():
    assert_allclose(Parameter((2, 3), initializer=WeightInitializer("identity", gain=2.0)).to_numpy(), 2.0 * np.eye(2, 3))
    values = Parameter((100, 100), initializer=WeightInitializer("truncated_normal", mean=1.0, std=0.1)).to_numpy()
    assert np.abs(values - 1.0).max() <= 0.2 + 1e-6 and 0.08 < values.std() < 0.09
    assert np.abs(Parameter((9, 9), initializer=WeightInitializer("uniform", low=2.0, high=3.0)).to_numpy() - 2.5).max() <= 0.5
    assert 1.9 < Parameter((99, 99), initializer=WeightInitializer("normal", std=2.0)).to_numpy().std() < 2.1


def test_a_duck_is_enough():
    class Duck:
        shape, dtype, got = (2, 2), np.dtype(np.float64), None

        def copy_from_numpy(self, array):
            self.got = array

    duck = Duck()
    assert WeightInitializer("xavier")(duck) is duck and duck.got.shape == (2, 2) and duck.got.dtype == np.float64


def test_registering_own_ones():
    @WeightInitializer.register_initializer("tests.three")
    def three(tensor):
        tensor.fill(3.0)

    assert WeightInitializer.get("tests.three") is three
    assert Parameter((2,), initializer="tests.three").tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="registered already"):
        WeightInitializer.register_initializer("tests.three")
    WeightInitializer.register_initializer("tests.three", overwrite=True)(lambda tensor: tensor.fill(4.0))
    assert Parameter((1,), initializer="tests.three").tolist() == [4.0]
    for name in ("", "  ", None, 3):
        with pytest.raises(ValueError, match="name"):
            WeightInitializer.register_initializer(name)


def test_unknown_names_list_the_known():
    for make in (lambda: WeightInitializer("nope"), lambda: Linear(1, 1, initializer="nope"), lambda: WeightInitializer.get("nope")):
        with pytest.raises(ValueError, match="Unsupported initializer name.*nope.*Available:.*xavier_uniform"):
            make()


def test_functions_and_objects_fill_layers_and_configs_stay_json():
    def fours(tensor):
        tensor.fill(4.0)

    layer = Linear(2, 1, initializer=fours)
    assert layer.weight.tolist() == [[4.0, 4.0]] and layer.get_config()["initializer"] == "xavier_uniform"
    layer = Linear(2, 1, initializer=WeightInitializer("uniform", low=5.0, high=5.5))
    config = layer.get_config()
    assert config["initializer"] == {"name": "uniform", "low": 5.0, "high": 5.5}
    assert Linear.from_config(config).weight.to_numpy().min() >= 5.0
    with pytest.raises(TypeError, match="initializer"):
        as_initializer(3)
