"""Precision maps for convolutions and normalisation: wide formats equal float, what is stored is on the grid."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor
from keydnn.nn import Conv1d, Conv3d, Embedding, MultiHeadAttention, PReLU
from keydnn.stability import BaseDataset, BaseModel, DataType, PrecisionDict
from keydnn.stability.dtypes import ap_fixed
from tests.native.common import needs_native


class Images(BaseDataset):
    def __post_init__(self):
        super().__post_init__()
        rng = np.random.default_rng(self.seed)
        self.X, self.Y = rng.standard_normal((self.num_samples, 2, 6, 6)), rng.standard_normal((self.num_samples, 3))
        self.input_type, self.output_type = DataType.IMAGE_FLOAT, DataType.D2_FLOAT

    reference_weight_matrix = reference_bias_vector = None

    def __repr__(self):
        return "Images()"


class ConvModel(BaseModel):
    def __post_init__(self):
        super().__post_init__()
        np.random.seed(self.seed)
        self.model = keydnn.Sequential()
        for name, layer in {
            "conv0": keydnn.Conv2d(2, 3, 3, padding=1),
            "norm0": keydnn.BatchNorm2d(3),
            "activation0": keydnn.ReLU(),
            "up0": keydnn.Conv2dTranspose(3, 2, 2, stride=2),
            "flat": keydnn.Flatten(),
            "norm1": keydnn.LayerNorm(288),
            "dense0": keydnn.Linear(288, 3),
        }.items():
            self.model.add(layer, name=name)


DATA = Images(8, seed=0)
X = Tensor(data=DATA.X.astype(np.float32))
FIELDS = ("weight", "bias", "accumulator", "activation", "value")


@pytest.mark.parametrize("training", [True, False])
def test_wide_formats_equal_float(training):
    model = ConvModel(DATA, seed=1)
    model.model.train(training)
    wide = PrecisionDict({"__default__": dict.fromkeys(FIELDS, "ap_fixed<50,14,AP_RND,AP_SAT>")})
    found = model._forward_with_precision(X, wide, training=training).numpy()
    np.testing.assert_allclose(found, model.model(X).numpy(), rtol=1e-4, atol=1e-5)
    assert model.model["norm0"].running_mean.numpy().any() == training


def test_an_empty_map_is_the_float_network():
    model = ConvModel(DATA, seed=1)
    model.model.eval()
    found = model._forward_with_precision(X, PrecisionDict(), training=False)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.numpy(), model.model(X).numpy(), rtol=1e-4, atol=1e-5)


def test_convolution_has_the_points_of_a_dense_layer():
    model = ConvModel(DATA, seed=1)
    conv = model.model["conv0"]
    conv.bias.copy_from_numpy(np.array([0.3, -0.2, 0.1], np.float32))
    w, acc, b, act = ap_fixed(6, 2, "AP_RND", "AP_SAT"), ap_fixed(9, 4), ap_fixed(5, 1), ap_fixed(7, 4, "AP_RND", "AP_SAT")
    p = PrecisionDict({"conv0": {"weight": w, "accumulator": acc, "bias": b, "activation": act}, "__default__": {}})
    model.model = keydnn.Sequential()
    model.model.add(conv, name="conv0")
    found = model._forward_with_precision(X, p, training=False).numpy()
    padded = np.pad(DATA.X.astype(np.float32).astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weights = w(conv.weight.numpy())
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    exact = np.einsum("nchwij,ocij->nohw", patches, weights)
    expected = act(acc(exact) + b(conv.bias.numpy())[:, None, None])
    assert (found == expected).mean() > 0.995  # a sum in another order may fall on the other side of a rounding point
    np.testing.assert_allclose(found, expected, atol=act.quantum)
    assert conv.bias is not None and conv.weight.shape == (3, 2, 3, 3)


def test_storage_is_on_the_grid_and_training_goes_on():
    model = ConvModel(DATA, seed=1)
    q, bn = ap_fixed(12, 4, "AP_RND", "AP_SAT"), ap_fixed(8, 3, "AP_RND", "AP_SAT")
    p = {"__default__": dict.fromkeys(FIELDS, q), "norm0": {"gamma": bn, "beta": bn, "batchnorm_mean": bn, "batchnorm_variance": q}}
    h = model.train_instrumented(DATA.X, DATA.Y, epochs=8, batch_size=8, learning_rate=0.05, precision_dict=p)
    assert h["loss"][-1] < 0.8 * h["loss"][0] and np.isnan(h["hessian_lambda_max"]).all()
    for name, parameter in model.model.named_parameters():
        dtype = bn if name.startswith("norm0") else q
        np.testing.assert_array_equal(dtype(parameter.numpy()), parameter.numpy(), err_msg=name)
    assert model._layer_and_field_for_variable(model.model["norm0"].gamma) == ("norm0", "value")
    assert model._layer_and_field_for_variable(model.model["conv0"].bias) == ("conv0", "bias")


# -- every kind of layer


class Chain(BaseDataset):
    def __init__(self, X, Y):
        self.X, self.Y, self.seed, self.num_samples = X, Y, 0, len(X)
        self.input_type, self.output_type = DataType.D2_FLOAT, DataType.D2_FLOAT

    reference_weight_matrix = reference_bias_vector = None

    def __repr__(self):
        return "Chain()"


class Net(BaseModel):
    layers = ()

    def __post_init__(self):
        super().__post_init__()
        np.random.seed(self.seed)
        self.model = keydnn.Sequential()
        for name, make in self.layers:
            self.model.add(make(), name=name)


def net_of(X, width, *layers):
    rng = np.random.default_rng(1)
    data = Chain(X, rng.standard_normal((len(X), width)))
    model = Net.__new__(Net)
    model.layers = [(f"layer{i}", make) for i, make in enumerate(layers)]
    model.__init__(data, seed=2)
    for p in model.model.parameters():
        if p.ndim == 1:
            p.copy_from_numpy(rng.standard_normal(p.shape).astype(p.dtype) * 0.3)
    return model


def inputs(model, dtype):
    X = model.dataset.X
    return Tensor(data=X, dtype=X.dtype if X.dtype.kind == "i" else dtype)


def options(dtype):
    return {"return_sequences": False, "return_state": False, "batch_first": True, "dtype": dtype}


RNG = np.random.default_rng(0)
SEQUENCES, LINES, VOLUMES = RNG.standard_normal((4, 5, 3)), RNG.standard_normal((4, 2, 9)), RNG.standard_normal((4, 1, 3, 4, 4))
NETS = {
    "rnn": lambda d: net_of(SEQUENCES, 4, lambda: keydnn.RNN(3, 4, **options(d))),
    "lstm": lambda d: net_of(SEQUENCES, 4, lambda: keydnn.LSTM(3, 4, num_layers=2, **options(d))),
    "gru": lambda d: net_of(SEQUENCES, 4, lambda: keydnn.GRU(3, 4, **options(d))),
    "gru reset_after": lambda d: net_of(SEQUENCES, 4, lambda: keydnn.GRU(3, 4, reset_after=True, **options(d))),
    "rnn without bias": lambda d: net_of(SEQUENCES, 4, lambda: keydnn.RNN(3, 4, bias=False, **options(d))),
    "embedding": lambda d: net_of(np.array([[0, 1], [2, 3], [1, 1], [3, 0]]), 6, lambda: Embedding(4, 3, dtype=d), keydnn.Flatten),
    "dense of any rank": lambda d: net_of(
        SEQUENCES, 10, lambda: keydnn.Linear(3, 2, any_rank=True, dtype=d), lambda: keydnn.Tanh(dtype="float32"), keydnn.Flatten
    ),
    "conv1d": lambda d: net_of(LINES, 18, lambda: Conv1d(2, 3, 4, dtype=d), lambda: PReLU(dtype=d), keydnn.Flatten),
    "conv3d": lambda d: net_of(VOLUMES, 36, lambda: Conv3d(1, 2, 2, dtype=d), keydnn.Flatten),
    "attention": lambda d: net_of(SEQUENCES, 15, lambda: MultiHeadAttention(3, 1, dtype=d), keydnn.Flatten),
    "batch norm": lambda d: net_of(SEQUENCES[:, 0], 3, lambda: keydnn.BatchNorm1d(3, dtype=d)),
}
DEEP = (*FIELDS, "recurrent_weight", "state", "bptt_gradient")


@pytest.mark.parametrize("name", NETS)
def test_an_empty_map_has_the_bits_of_the_float_network(name):
    model = NETS[name]("float64")
    x = inputs(model, np.float64)
    for training in (True, False):
        model.model.train(training)
        found = model._forward_with_precision(x, PrecisionDict(), training=training).numpy()
        plain = model.model(x).numpy()
        if name == "dense of any rank":  # its activation is in float32, under a map in float64
            np.testing.assert_allclose(found, plain, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found, plain)


@needs_native
@pytest.mark.parametrize("name", NETS)
def test_wide_formats_are_float_and_storage_is_on_the_grid(name):
    model = NETS[name]("float32")
    x = inputs(model, np.float32)
    before = [t.numpy().copy() for t in model.model.buffers()]
    wide = PrecisionDict({"__default__": dict.fromkeys(DEEP, "ap_fixed<50,14,AP_RND,AP_SAT>")})
    found = model._forward_with_precision(x, wide, training=False).numpy()
    model.model.eval()
    np.testing.assert_allclose(found, model.model(x).numpy(), rtol=1e-4, atol=1e-5)
    q = ap_fixed(12, 4, "AP_RND", "AP_SAT")
    h = model.train_instrumented(
        *model.dataset.get(), epochs=5, batch_size=4, precision_dict={"__default__": dict.fromkeys((*DEEP, "gradient", "update"), q)}
    )
    assert h.meta["eager"] is None and np.isfinite(h["loss"]).all() and h["loss"][-1] <= h["loss"][0]
    for path, p in model.model.named_parameters():
        np.testing.assert_array_equal(q(p.numpy()), p.numpy(), err_msg=path)
    assert all(t.dtype == b.dtype and t.shape == b.shape for t, b in zip(model.model.buffers(), before, strict=True))


def test_a_recurrent_step_by_hand():
    model = NETS["rnn"]("float32")
    names = ("weight", "recurrent_weight", "bias", "accumulator", "activation", "state")
    q = dict(
        zip(names, (ap_fixed(w, 3, m, "AP_SAT") for w, m in zip((8, 7, 6, 10, 7, 5), ("AP_RND", "AP_TRN") * 3, strict=True)), strict=True)
    )
    found = model._forward_with_precision(Tensor(data=SEQUENCES.astype(np.float32)), PrecisionDict({"layer0": q}), training=True).numpy()
    cell = model.model["layer0"].cell
    W, U = q["weight"](cell.W_ih.numpy()), q["recurrent_weight"](cell.W_hh.numpy())
    b = q["bias"](cell.b_ih.numpy()) + q["bias"](cell.b_hh.numpy())
    h = np.zeros((4, 4))
    for t in range(5):
        x = SEQUENCES[:, t].astype(np.float32).astype(np.float64)
        h = q["state"](q["activation"](np.tanh(q["accumulator"](x @ W + h @ U) + b)))
    np.testing.assert_array_equal(found, h)
    assert model._layer_and_field_for_variable(cell.W_hh) == ("layer0", "recurrent_weight")
    assert model._layer_and_field_for_variable(cell.b_hh) == ("layer0", "bias")


def test_gradients_through_time_take_a_format_at_every_step():
    x = Tensor(data=SEQUENCES.astype(np.float32))

    def gradients(fields):
        model = NETS["rnn"]("float64")
        y = model._forward_with_precision(x, PrecisionDict({"layer0": fields}), training=True)
        (y * y).sum().backward()
        return [p.grad.numpy() for p in model.model.parameters()]

    exact, fine = (
        gradients({"state": "ap_fixed<50,14>"}),
        gradients({"state": "ap_fixed<50,14>", "bptt_gradient": "ap_fixed<50,14,AP_RND>"}),
    )
    coarse = gradients({"state": "ap_fixed<50,14>", "bptt_gradient": "ap_fixed<6,6,AP_TRN_ZERO,AP_SAT>"})
    for a, b in zip(exact, fine, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)
    assert any(not np.allclose(a, b, atol=1e-3) for a, b in zip(exact, coarse, strict=True))


def test_an_embedding_wants_whole_numbers():
    model = NETS["embedding"]("float32")
    with pytest.raises(ValueError, match="whole numbers"):
        model.train_instrumented(np.full((4, 2), 0.5), model.dataset.Y)


@needs_native
def test_an_entry_of_none_masks_what_it_would_fall_back_to():
    q = ap_fixed(4, 2, "AP_RND", "AP_SAT")
    p = {"__default__": {"value": q}, "input": {"value": None}, "layer0": {"gamma": None, "accumulator": None}}

    def run(own_hook):
        model = NETS["batch norm"]("float32")
        if own_hook:
            model._max_update_quantum = model._max_update_quantum
        h = model.train_instrumented(*model.dataset.get(), epochs=4, batch_size=4, precision_dict=p)
        return h, model

    (h, model), (e, _) = run(False), run(True)
    assert h.meta["eager"] is None and e.meta["eager"] is not None
    np.testing.assert_array_equal(h["loss"], e["loss"])
    gamma, beta = (model.model["layer0"]._parameters[name].numpy() for name in ("gamma", "beta"))
    assert (q(gamma) != gamma).any() and (q(beta) == beta).all()
