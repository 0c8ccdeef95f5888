"""Precision maps for convolutions and normalisation: wide formats equal float, what is stored is on the grid."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor
from keydnn.stability import BaseDataset, BaseModel, DataType, PrecisionDict
from keydnn.stability.dtypes import ap_fixed


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
