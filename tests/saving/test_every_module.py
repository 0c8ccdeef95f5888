"""Every registered module goes through a config and a checkpoint: equal config, equal state, equal output."""

import json

import numpy as np
import pytest

import keydnn
from keydnn import layers
from keydnn.models import MixedPrecision
from keydnn.saving import from_payload, module_from_config, module_to_config, registered, registered_names, to_payload

IMAGES, VOLUMES, ROWS, STATE, SEQUENCES, TOKENS = (2, 3, 6, 6), (2, 2, 3, 4, 5), (4, 6), (4, 3), (5, 4, 6), np.array([[1, 0], [3, 3]])

SAMPLES = {  # name -> (a layer with unusual settings, shape of its input, or a list of them, or the input)
    "Sequential": (lambda: keydnn.Sequential(layers.Linear(6, 2), keydnn.Tanh()), ROWS),
    "Linear": (lambda: layers.Linear(6, 4, bias=False, initializer="kaiming"), ROWS),
    "Dense": (lambda: layers.Dense(4, dtype="float64", any_rank=True), SEQUENCES),
    "Conv2d": (lambda: layers.Conv2d(3, 6, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=3, dtype="float64"), IMAGES),
    "Conv2dTranspose": (lambda: layers.Conv2dTranspose(3, 2, 3, stride=2, padding=1, output_padding=1, bias=False), IMAGES),
    "BatchNorm1d": (lambda: layers.BatchNorm1d(6, eps=1e-3, momentum=0.3), ROWS),
    "BatchNorm2d": (lambda: layers.BatchNorm2d(3, affine=False), IMAGES),
    "LayerNorm": (lambda: layers.LayerNorm((6, 6), eps=1e-2), IMAGES),
    "Dropout": (lambda: layers.Dropout(0.25), ROWS),
    "MaxPool2d": (lambda: layers.MaxPool2d((3, 2), stride=1, padding=1), IMAGES),
    "AvgPool2d": (lambda: layers.AvgPool2d(3, padding=(1, 0)), IMAGES),
    "LeakyReLU": (lambda: keydnn.LeakyReLU(0.3), ROWS),
    "Softmax": (lambda: keydnn.Softmax(axis=0), ROWS),
    "LogSoftmax": (lambda: keydnn.activations.LogSoftmax(axis=0), ROWS),
    "ELU": (lambda: keydnn.activations.ELU(0.5), ROWS),
    "CrossEntropy": (lambda: keydnn.losses.CrossEntropy(0.1, [1.0, 2.0], -1, "sum"), ROWS),
    "Huber": (lambda: keydnn.losses.Huber(0.5, "none"), ROWS),
    "GroupNorm": (lambda: layers.GroupNorm(3, 3, eps=1e-2), IMAGES),
    "InstanceNorm2d": (lambda: layers.InstanceNorm2d(3, affine=True), IMAGES),
    "RMSNorm": (lambda: layers.RMSNorm((6, 6), dtype="float64"), IMAGES),
    "Conv1d": (lambda: layers.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), SEQUENCES),
    "MaxPool1d": (lambda: layers.MaxPool1d(3, 2, 1), SEQUENCES),
    "AvgPool1d": (lambda: layers.AvgPool1d(3), SEQUENCES),
    "AdaptiveAvgPool2d": (lambda: layers.AdaptiveAvgPool2d((4, 3)), IMAGES),
    "Upsample": (lambda: layers.Upsample((2, 1), "bilinear", align_corners=True), IMAGES),
    "AdaptiveAvgPool1d": (lambda: layers.AdaptiveAvgPool1d(4), SEQUENCES),
    "AdaptiveAvgPool3d": (lambda: layers.AdaptiveAvgPool3d((1, 2, 3)), VOLUMES),
    "AdaptiveMaxPool1d": (lambda: layers.AdaptiveMaxPool1d(4), SEQUENCES),
    "AdaptiveMaxPool2d": (lambda: layers.AdaptiveMaxPool2d((4, 3)), IMAGES),
    "AdaptiveMaxPool3d": (lambda: layers.AdaptiveMaxPool3d((1, 2, 3)), VOLUMES),
    "Conv3d": (lambda: layers.Conv3d(2, 4, (1, 2, 3), padding=1, dilation=(2, 1, 1), groups=2, initializer="xavier"), VOLUMES),
    "MaxPool3d": (lambda: layers.MaxPool3d((1, 2, 3), 1), VOLUMES),
    "AvgPool3d": (lambda: layers.AvgPool3d(2, padding=(1, 0, 0)), VOLUMES),
    "ZeroPad2d": (lambda: layers.ZeroPad2d((0, 1, 2, 3)), IMAGES),
    "PixelShuffle": (lambda: layers.PixelShuffle(1), IMAGES),
    "MixedPrecision": (lambda: MixedPrecision(layers.Conv2d(3, 2, 3, dtype="float64")), IMAGES),
    "RNNCell": (lambda: layers.RNNCell(6, 3, dtype="float64"), [ROWS, STATE]),
    "LSTMCell": (lambda: layers.LSTMCell(6, 3, bias=False), [ROWS, STATE, STATE]),
    "GRUCell": (lambda: layers.GRUCell(6, 3, reset_after=True), [ROWS, STATE]),
    "RNN": (lambda: layers.RNN(6, 3, num_layers=2, dropout=0.5), SEQUENCES),
    "LSTM": (lambda: layers.LSTM(6, 3, batch_first=True, return_sequences=False), SEQUENCES),
    "GRU": (lambda: layers.GRU(6, 3, keras_compat=True, reset_after=True), SEQUENCES),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(6, 3), merge_mode="sum"), SEQUENCES),
    "Embedding": (lambda: layers.Embedding(4, 3, padding_idx=0), TOKENS),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(6, 2, bias=False, batch_first=True), SEQUENCES),
    "TransformerEncoderLayer": (lambda: layers.TransformerEncoderLayer(6, 2, 8, activation="gelu", norm_first=True), SEQUENCES),
}
LOSSES = {
    "SSE",
    "MSE",
    "BinaryCrossEntropy",
    "CategoricalCrossEntropy",
    "BCEWithLogits",
    "CrossEntropy",
    "MAE",
    "Huber",
    "KLDivergence",
    "Hinge",
}
OURS = [name for name in registered_names() if registered(name).__module__.startswith("keydnn.")]


def sample(name):
    make, shape = SAMPLES.get(name, (registered(name), IMAGES))
    return make(), shape


def inputs(shape, dtype):
    if isinstance(shape, np.ndarray):
        return [keydnn.tensor(shape, dtype=shape.dtype)]
    return [keydnn.rand(s, dtype=dtype) for s in (shape if isinstance(shape, list) else [shape])]


def numbers(output):
    """The bytes of a Tensor, or of all in nested tuples."""
    return [numbers(part) for part in output] if isinstance(output, tuple) else output.to_numpy().tobytes()


def test_the_samples_are_of_registered_classes():
    assert set(SAMPLES) <= set(OURS)
    assert all(type(make()).__name__ == name for name, (make, _) in SAMPLES.items())


@pytest.mark.parametrize("name", OURS)
def test_round_trip(name):
    module, shape = sample(name)
    if name in LOSSES:
        again = module_from_config(json.loads(json.dumps(module_to_config(module))))
        assert type(again) is type(module) and again.get_config() == module.get_config()
        return
    x = inputs(shape, getattr(module, "dtype", None) or "float32")
    module(*x)  # builds lazy layers, moves running statistics
    for parameter in module.parameters():
        parameter.copy_from_numpy(np.random.rand(*parameter.shape))
    again = from_payload(json.loads(json.dumps(to_payload(module))))
    assert type(again) is type(module)
    assert module_to_config(again) == module_to_config(module)
    state, found = module.state_dict(), again.state_dict()
    assert {name: (a.dtype, a.tobytes()) for name, a in state.items()} == {name: (a.dtype, a.tobytes()) for name, a in found.items()}
    assert numbers(again.eval()(*x)) == numbers(module.eval()(*x))


TABLE = {
    "Sequential ReLU Sigmoid Tanh Flatten GlobalAvgPool2d SSE MSE BinaryCrossEntropy CategoricalCrossEntropy": "",
    "Linear Dense": "in_features out_features bias device dtype initializer",
    "Conv2d": "in_channels out_channels kernel_size stride padding bias device dtype",
    "Conv2dTranspose": "in_channels out_channels kernel_size stride padding output_padding bias device dtype",
    "BatchNorm1d BatchNorm2d": "num_features eps momentum affine device",
    "LayerNorm": "normalized_shape eps affine device",
    "Dropout": "p",
    "MaxPool2d AvgPool2d": "kernel_size stride padding",
    "LeakyReLU": "alpha",
    "Softmax": "axis",
}
PLAIN = {
    "Linear": lambda: layers.Linear(2, 3),
    "Dense": lambda: layers.Dense(3),
    "Conv2d": lambda: layers.Conv2d(2, 3, 3),
    "Conv2dTranspose": lambda: layers.Conv2dTranspose(2, 3, 3),
    "BatchNorm1d": lambda: layers.BatchNorm1d(2),
    "BatchNorm2d": lambda: layers.BatchNorm2d(2),
    "LayerNorm": lambda: layers.LayerNorm((2,)),
    "MaxPool2d": lambda: layers.MaxPool2d(2),
    "AvgPool2d": lambda: layers.AvgPool2d(2),
}


@pytest.mark.parametrize("name, keys", [(name, keys) for names, keys in TABLE.items() for name in names.split()])
def test_a_plain_layer_writes_exactly_the_keys_of_the_format(name, keys):
    assert sorted(PLAIN.get(name, registered(name))().get_config()) == sorted(keys.split())


def test_a_subclass_that_keeps_its_name_loads_as_the_registered_class():
    fancy = type("Linear", (keydnn.Linear,), {"fancy": True})(2, 2)
    again = from_payload(to_payload(fancy))
    assert type(again) is keydnn.Linear
    np.testing.assert_array_equal(again.weight.to_numpy(), fancy.weight.to_numpy())
