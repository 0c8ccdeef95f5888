"""What single layers promise beyond their formula: contexts, laziness, ties and traps, running statistics, masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import keydnn
from keydnn import nn
from keydnn.nn import BatchNorm1d, BatchNorm2d, Conv2d, Conv2dTranspose, Dense, Dropout, LayerNorm, LeakyReLU, Linear, MaxPool2d, ReLU
from tests.nn import definitions as d


def wanting(*shape, dtype=np.float32):
    return keydnn.randn(shape, requires_grad=True, dtype=dtype)


# -- contexts


def test_linear_leaves_the_promised_context():
    x, layer = wanting(2, 3), Linear(3, 4)
    ctx = layer(x)._get_ctx()
    assert [a is b for a, b in zip(ctx.parents, (x, layer.weight, layer.bias), strict=True)] == [True] * 3
    assert [a is b for a, b in zip(ctx.saved_tensors, (x, layer.weight), strict=True)] == [True] * 2
    grads = ctx.backward_fn(keydnn.ones((2, 4)))
    assert [g.shape for g in grads] == [(2, 3), (4, 3), (4,)]
    layer.weight.requires_grad = False
    assert layer(x)._get_ctx().backward_fn(keydnn.ones((2, 4)))[1] is None
    y = Linear(3, 4, bias=False)(x)
    assert len(y._get_ctx().parents) == 2 and y._get_ctx() is y._get_ctx()


@pytest.mark.parametrize("cls", [Conv2d, Conv2dTranspose])
def test_convolutions_keep_their_operands_as_parents(cls):
    x, layer = wanting(1, 2, 5, 5), cls(2, 3, 3)
    parents = layer(x)._get_ctx().parents
    assert [a is b for a, b in zip(parents, (x, layer.weight, layer.bias), strict=True)] == [True] * 3
    assert len(cls(2, 3, 3, bias=False)(x)._get_ctx().parents) == 2


@pytest.mark.parametrize(
    "layer", [ReLU(), LeakyReLU(), nn.Sigmoid(), nn.Tanh(), nn.Softmax(), nn.Flatten()], ids=lambda m: type(m).__name__
)
def test_activations_have_the_input_object_as_only_parent(layer):
    x = wanting(2, 3)
    (parent,) = layer(x)._get_ctx().parents
    assert parent is x
    y = layer(x.detach())
    assert not y.requires_grad and y._get_ctx() is None


def test_results_are_plain_tensors_of_the_one_class():
    for y in (Linear(3, 2)(wanting(4, 3)), BatchNorm1d(3)(wanting(4, 3)), LayerNorm(3)(wanting(4, 3))):
        assert type(y) is keydnn.Tensor


# -- aliases and signatures


def test_aliases_are_the_same_objects():
    pairs = "Conv2d Conv2D Conv2dTranspose Conv2DTranspose BatchNorm1d BatchNorm1D BatchNorm2d BatchNorm2D".split()
    pairs += "MaxPool2d MaxPool2D AvgPool2d AvgPool2D GlobalAvgPool2d GlobalAvgPool2D".split()
    for ours, alias in zip(pairs[::2], pairs[1::2], strict=True):
        assert getattr(nn, ours) is getattr(nn, alias) and getattr(nn, ours).__name__ == ours
    assert nn.LazyLinear is Dense and nn.BCE is nn.BinaryCrossEntropy and nn.CCE is nn.CategoricalCrossEntropy
    assert nn.BCEFn is nn.BinaryCrossEntropyFn and nn.CCEFn is nn.CategoricalCrossEntropyFn


def test_arguments_are_taken_in_the_documented_order():
    assert Conv2d(1, 2, 3, 2, 1, False, "cpu", "float64", "xavier").get_config() == {
        "in_channels": 1,
        "out_channels": 2,
        "kernel_size": [3, 3],
        "stride": [2, 2],
        "padding": [1, 1],
        "bias": False,
        "device": "cpu",
        "dtype": "float64",
        "initializer": "xavier",
    }
    assert Conv2dTranspose(1, 2, 3, 2, 1, 1, False, "cpu", "float64").get_config()["output_padding"] == [1, 1]
    assert MaxPool2d(2, 1, 1).get_config() == {"kernel_size": [2, 2], "stride": [1, 1], "padding": [1, 1]}
    assert BatchNorm1d(3, "cpu", 0.1, 0.2, False).get_config() == {
        "num_features": 3,
        "eps": 0.1,
        "momentum": 0.2,
        "affine": False,
        "device": "cpu",
    }
    assert LayerNorm((2, 3), None, 0.1, False).get_config() == {"normalized_shape": [2, 3], "eps": 0.1, "affine": False, "device": "cpu"}


KEYS = {
    "Linear": (Linear(2, 3), "in_features out_features bias device dtype initializer"),
    "Dense": (Dense(3), "in_features out_features bias device dtype initializer"),
    "Conv2d": (Conv2d(1, 2, 3), "in_channels out_channels kernel_size stride padding bias device dtype"),
    "Conv2dTranspose": (Conv2dTranspose(1, 2, 3), "in_channels out_channels kernel_size stride padding bias device dtype output_padding"),
    "BatchNorm1d": (BatchNorm1d(2), "num_features eps momentum affine device"),
    "BatchNorm2d": (BatchNorm2d(2), "num_features eps momentum affine device"),
    "LayerNorm": (LayerNorm(2), "normalized_shape eps affine device"),
    "Dropout": (Dropout(), "p"),
    "MaxPool2d": (MaxPool2d(2), "kernel_size stride padding"),
    "AvgPool2d": (nn.AvgPool2d(2), "kernel_size stride padding"),
    "GlobalAvgPool2d": (nn.GlobalAvgPool2d(), ""),
    "Flatten": (nn.Flatten(), ""),
    "ReLU": (ReLU(), ""),
    "Sigmoid": (nn.Sigmoid(), ""),
    "Tanh": (nn.Tanh(), ""),
    "LeakyReLU": (LeakyReLU(), "alpha"),
    "Softmax": (nn.Softmax(), "axis"),
    "SSE": (nn.SSE(), ""),
    "MSE": (nn.MSE(), ""),
    "BinaryCrossEntropy": (nn.BinaryCrossEntropy(), ""),
    "CategoricalCrossEntropy": (nn.CategoricalCrossEntropy(), ""),
}


@pytest.mark.parametrize("name", KEYS)
def test_configs_with_default_extras_have_exactly_the_keys_of_the_file_format(name):
    layer, keys = KEYS[name]
    assert type(layer).__name__ == name and set(layer.get_config()) == set(keys.split())


def test_extras_are_written_only_where_they_differ():
    config = Conv2d(2, 2, 3, dilation=2, groups=2, initializer="xavier").get_config()
    assert config["dilation"] == [2, 2] and config["groups"] == 2 and config["initializer"] == "xavier"
    assert LayerNorm(2, dtype="float64").get_config()["dtype"] == "float64"


def test_old_configs_lack_keys():
    config = {"in_channels": 1, "out_channels": 2, "kernel_size": [3, 3]}
    for cls in (Conv2d, Conv2dTranspose):
        layer = cls.from_config(config)
        assert layer.bias is not None and layer.stride == (1, 1) and layer.padding == (0, 0) and layer.dtype == np.float32
    assert Linear.from_config({"in_features": 2, "out_features": 1, "device": None, "dtype": None}).device == keydnn.Device("cpu")
    with pytest.raises(KeyError, match="Linear.*out_features"):
        Linear.from_config({"in_features": 2})
    with pytest.raises(TypeError, match="dict"):
        ReLU.from_config([])


def test_devices_are_taken_as_strings_and_objects():
    for device in ("cpu", keydnn.Device("cpu"), None):
        for make in (
            lambda device: Linear(1, 1, device=device),
            lambda device: Conv2d(1, 1, 1, device=device),
            lambda device: BatchNorm1d(1, device=device),
            lambda device: LayerNorm(1, device=device),
        ):
            assert make(device).device is keydnn.Device("cpu")


def test_a_layer_keeps_float64_and_promotes_mixed_operands():
    for layer, shape in ((Linear(4, 2), (3, 4)), (Conv2d(2, 2, 2), (1, 2, 3, 3)), (BatchNorm1d(4), (3, 4)), (LayerNorm(4), (3, 4))):
        x = wanting(*shape, dtype=np.float64)
        y = layer(x)
        y.sum().backward()
        assert y.dtype == np.float64 and x.grad.dtype == np.float64
        assert all(p.grad.dtype == np.float32 == p.dtype for p in layer.parameters())
        assert all(b.dtype == np.float32 for b in layer.buffers())


# -- Linear and Dense


def test_linear_starts_uniform_with_a_zero_bias():
    layer = Linear(30, 20)
    limit = np.sqrt(6 / 50)
    assert np.abs(layer.weight.to_numpy()).max() <= limit and layer.weight.to_numpy().std() > 0.5 * limit
    assert layer.is_built and not layer.bias.to_numpy().any() and Linear(3, 2, bias=False).bias is None


def test_dense_is_empty_until_the_first_batch():
    layer = Dense(5)
    assert not layer.is_built and layer.in_features is layer.weight is layer.bias is layer.device is None
    assert list(layer.parameters()) == [] and layer.get_config()["in_features"] is None and layer.get_config()["device"] is None
    assert layer(wanting(2, 3)).shape == (2, 5)
    assert layer.is_built and layer.in_features == 3 and layer.device is keydnn.Device("cpu")
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    weight = layer.weight
    layer(wanting(4, 3))
    assert layer.weight is weight
    with pytest.raises(RuntimeError, match="3.*7"):
        layer(wanting(2, 7))


def test_dense_and_linear_start_alike():
    np.random.seed(5)
    dense = Dense(4)
    dense(keydnn.ones((2, 3)))
    np.random.seed(5)
    assert_array_equal(dense.weight.to_numpy(), Linear(3, 4).weight.to_numpy())


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (), (2, 0)])
def test_a_refused_first_batch_leaves_dense_unbuilt(shape):
    layer = Dense(5)
    with pytest.raises(ValueError, match="Dense"):
        layer(keydnn.ones(shape))
    assert not layer.is_built
    with pytest.raises(TypeError, match="ndarray"):
        layer(np.ones((2, 3)))
    assert not layer.is_built


def test_dense_asked_for_a_device_refuses_another():
    layer = Dense(5, device="cpu")
    with pytest.raises(RuntimeError, match="'cpu'.*'cuda:0'"):
        layer(keydnn.Tensor((2, 3), "cuda:0"))
    assert not layer.is_built


def test_dense_from_config_is_built_when_the_size_is_known():
    lazy = Dense.from_config({"out_features": 2, "in_features": None, "device": None})
    assert not lazy.is_built
    built = Dense.from_config({"out_features": 2, "in_features": 3, "device": None, "bias": False, "dtype": "float64"})
    assert built.is_built and built.weight.shape == (2, 3) and built.bias is None and built.weight.dtype == np.float64


# -- convolution and pooling


@given(
    n=st.integers(1, 2),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.integers(1, 2),
)
def test_convolutions_of_any_geometry(n, size, kernel, stride, padding, dilation, groups):
    layer = Conv2d(2 * groups, 3 * groups, kernel, stride, padding, dtype="float64", dilation=dilation, groups=groups)
    x = keydnn.randn((n, 2 * groups, *size), dtype="float64")
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    if any(size[i] + 2 * padding[i] < spans[i] for i in (0, 1)):
        with pytest.raises(ValueError, match="Conv2d.*larger than the padded input"):
            layer(x)
        return
    sides = tuple((p, p) for p in padding)
    want = d.conv2d(x.to_numpy(), layer.weight.to_numpy(), layer.bias.to_numpy(), stride, sides, dilation, groups)
    assert_allclose(layer(x).to_numpy(), want, rtol=1e-10, atol=1e-12)


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 2))
def test_same_padding_gives_the_rounded_up_size(size, kernel, stride, dilation):
    layer = Conv2d(1, 1, kernel, stride, "same", dilation=dilation)
    assert layer(keydnn.ones((1, 1, *size))).shape[2:] == tuple(-(-n // stride) for n in size)


def test_same_padding_is_stored_as_a_pair_where_it_is_one():
    assert Conv2d(1, 1, 3, padding="same").get_config()["padding"] == [1, 1]
    assert Conv2d(1, 1, 2, padding="same").get_config()["padding"] == "same"


@given(size=st.integers(1, 4), kernel=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 2), extra=st.integers(0, 3))
def test_transposed_convolutions_of_any_geometry(size, kernel, stride, padding, extra):
    layer = Conv2dTranspose(2, 3, kernel, stride, padding, extra, dtype="float64")
    x = keydnn.randn((2, 2, size, size), dtype="float64")
    out = (size - 1) * stride - 2 * padding + kernel + extra
    if extra >= stride or out < 1:
        with pytest.raises(ValueError, match="Conv2dTranspose"):
            layer(x)
        return
    pairs = [(v, v) for v in (stride, padding, extra)]
    want = d.conv2d_transpose(x.to_numpy(), layer.weight.to_numpy(), layer.bias.to_numpy(), *pairs)
    assert_allclose(layer(x).to_numpy(), want, rtol=1e-10, atol=1e-12)


def test_transposed_convolution_starts_with_its_own_width():
    w = Conv2dTranspose(30, 7, 5).weight.to_numpy()
    assert_allclose(w.std(), np.sqrt(2 / (30 * 25)), rtol=0.1)
    assert w.shape == (30, 7, 5, 5)


def test_max_pooling_ties_go_to_the_first_position():
    x = keydnn.zeros((1, 1, 3, 3), requires_grad=True)
    MaxPool2d(2, 1)(x).sum().backward()
    assert_array_equal(x.grad.to_numpy()[0, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_padding_never_wins_the_maximum():
    x = keydnn.tensor(-np.arange(1.0, 5.0).reshape(1, 1, 2, 2), requires_grad=True)
    y = MaxPool2d(2, 1, 1)(x)
    assert y.tolist() == [[[[-1, -1, -2], [-1, -1, -2], [-3, -3, -4]]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[[4, 2], [2, 1]]]]


def test_average_pooling_divides_by_the_whole_window():
    x = keydnn.ones((1, 1, 2, 2), requires_grad=True)
    y = nn.AvgPool2d(2, 1, 1)(x)
    assert y.tolist() == [[[[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[[1, 1], [1, 1]]]]


@pytest.mark.parametrize("cls", [MaxPool2d, nn.AvgPool2d])
def test_pool_settings_are_read_only_pairs(cls):
    pool = cls([2, 3], padding=1)
    assert pool.kernel_size == pool.stride == (2, 3) and pool.padding == (1, 1)
    for name in ("kernel_size", "stride", "padding"):
        with pytest.raises(AttributeError):
            setattr(pool, name, (1, 1))


def test_gradients_at_the_kinks():
    x = keydnn.zeros((3,), requires_grad=True)
    ReLU()(x).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    x.zero_grad()
    LeakyReLU(0.25)(x).sum().backward()
    assert x.grad.tolist() == [0.25, 0.25, 0.25]


def test_saturation_without_warnings():
    x = keydnn.tensor([-1e4, -100.0, 100.0, 1e4])
    assert nn.Sigmoid()(x).tolist()[0] == 0.0 and nn.Sigmoid()(x).tolist()[3] == 1.0
    assert nn.Tanh()(x).tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert nn.Softmax()(x).tolist() == [0.0, 0.0, 0.0, 1.0]
    assert_allclose(nn.Softplus()(x).to_numpy(), [0.0, 0.0, 100.0, 1e4], atol=1e-30)


# -- normalisation


@pytest.mark.parametrize(("cls", "shape"), [(BatchNorm1d, (5, 3)), (BatchNorm2d, (4, 3, 2, 2))])
@pytest.mark.parametrize("affine", [True, False])
def test_running_statistics_move_by_the_biased_values_of_the_batch(cls, shape, affine):
    layer = cls(3, momentum=0.3, affine=affine)
    assert [name for name, _ in layer.named_parameters()] == (["gamma", "beta"] if affine else [])
    mean, var = layer.running_mean, layer.running_var
    assert mean.tolist() == [0.0] * 3 and var.tolist() == [1.0] * 3
    want_mean, want_var = np.zeros(3), np.ones(3)
    axes = (0, 2, 3)[: len(shape) - 1]
    for _ in range(3):
        x = keydnn.randn(shape)
        layer(x)
        a = x.to_numpy().astype(np.float64)
        want_mean = 0.7 * want_mean + 0.3 * a.mean(axes)
        want_var = 0.7 * want_var + 0.3 * a.var(axes)
    assert layer.running_mean is mean and layer.running_var is var
    assert_allclose(mean.to_numpy(), want_mean, rtol=1e-5, atol=1e-6)
    assert_allclose(var.to_numpy(), want_var, rtol=1e-5)
    layer.eval()(keydnn.randn(shape))
    assert_allclose(mean.to_numpy(), want_mean, rtol=1e-5, atol=1e-6)


def test_running_statistics_carry_no_graph():
    layer = BatchNorm1d(2)
    layer(wanting(4, 2))
    assert not layer.running_mean.requires_grad and layer.running_mean._get_ctx() is None


def test_evaluation_takes_the_statistics_as_constants():
    layer = BatchNorm1d(2, dtype="float64").eval()
    layer.running_var.copy_from_numpy(np.array([4.0, 9.0]))
    layer.gamma.copy_from_numpy(np.array([2.0, 3.0]))
    x = wanting(3, 2, dtype=np.float64)
    layer(x).sum().backward()
    assert_allclose(x.grad.to_numpy(), np.tile([2 / np.sqrt(4 + 1e-5), 3 / np.sqrt(9 + 1e-5)], (3, 1)), rtol=1e-12)


def test_evaluation_has_no_cancellation_at_a_large_mean():
    layer = BatchNorm1d(1).eval()
    layer.running_mean.fill(10000.0)
    layer.running_var.fill(1e-4)
    y = layer(keydnn.tensor([[10000.0], [10000.0 + 2**-7]]))
    assert_allclose(y.to_numpy(), [[0.0], [2**-7 / np.sqrt(1e-4 + 1e-5)]], rtol=1e-5)


def test_one_row_has_no_variance():
    assert_array_equal(BatchNorm1d(2)(keydnn.tensor([[3.0, -7.0]])).to_numpy(), [[0.0, 0.0]])


def test_the_output_wants_a_gradient_when_any_operand_does():
    x = keydnn.randn((4, 2))
    assert BatchNorm1d(2)(x).requires_grad and not BatchNorm1d(2, affine=False)(x).requires_grad
    assert BatchNorm1d(2, affine=False)(wanting(4, 2)).requires_grad


# -- dropout


def test_dropout_returns_the_input_object_where_it_does_nothing():
    x = wanting(3)
    assert Dropout(0.5).eval()(x) is x and Dropout(0.0)(x) is x


def test_dropout_scales_what_it_keeps_and_the_gradient_alike():
    x = keydnn.ones((200, 200), requires_grad=True)
    layer = Dropout(0.3)
    y = layer(x)
    kept = y.to_numpy() != 0
    assert abs(kept.mean() - 0.7) < 0.01
    assert_allclose(y.to_numpy()[kept], 1 / 0.7, rtol=1e-6)
    y.sum().backward()
    assert_array_equal(x.grad.to_numpy(), y.to_numpy())
    assert (layer(x).to_numpy() != y.to_numpy()).any()


def test_the_numpy_seed_repeats_the_mask():
    layer, x = Dropout(0.5), keydnn.ones((50,))
    np.random.seed(1)
    first = layer(x).numpy()
    np.random.seed(1)
    assert_array_equal(layer(x).to_numpy(), first)
