"""Any layer with any settings and any bits in its state, alone and in any nested model, comes back from JSON, and alone from
pickle and copy, as it was.

Settings are drawn by the names of the constructor's arguments, so a new layer takes part as soon as it is registered; an argument of
a new name needs a row in ``ARGUMENTS``.
"""

import copy
import inspect
import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import keydnn
from keydnn.saving import from_payload, module_to_config, registered, registered_names, to_payload

OURS = [name for name in registered_names() if registered(name).__module__.startswith("keydnn.nn.")]
INITIALIZERS = ["zeros", "kaiming_relu", "xavier_leaky_relu_0.2", "orthogonal", {"name": "normal", "std": 0.5}]


def window(low):
    """An int for all axes, or two of them."""
    size = st.integers(low, 3)
    return size | st.tuples(size, size) | st.lists(size, min_size=2, max_size=2)


def of_axes(n, low):
    size = st.integers(low, 3)
    return size | st.lists(size, min_size=n, max_size=n).map(tuple)


EVEN, SMALL, UNIT = st.sampled_from([2, 4]), st.integers(1, 4), st.floats(0, 1, exclude_max=True)
ARGUMENTS = {
    "device": st.sampled_from([None, "cpu"]),
    "dtype": st.sampled_from([None, "float32", np.float64]),
    "initializer": st.sampled_from(INITIALIZERS),
    **dict.fromkeys(("in_features", "out_features", "num_features", "input_size", "hidden_size", "embedding_dim", "num_parameters"), SMALL),
    **dict.fromkeys(("in_channels", "out_channels", "num_channels", "embed_dim", "d_model", "kdim", "vdim"), EVEN),
    **dict.fromkeys(("groups", "num_groups", "num_heads", "nhead"), st.sampled_from([1, 2])),
    **dict.fromkeys(("kernel_size", "stride", "dilation", "output_size", "scale_factor"), window(1)),
    **dict.fromkeys(("padding", "output_padding"), window(0)),
    **dict.fromkeys(("bias", "affine", "batch_first", "norm_first", "reset_after", "any_rank", "align_corners"), st.booleans()),
    **dict.fromkeys(("return_sequences", "return_state", "keras_compat"), st.booleans()),
    **dict.fromkeys(("p", "dropout", "momentum", "label_smoothing"), UNIT),
    **dict.fromkeys(("eps", "alpha", "delta", "init"), st.floats(0.015625, 2)),
    **dict.fromkeys(("axis", "start"), st.integers(-2, 1)),
    **dict.fromkeys(("num_layers", "upscale_factor", "dim_feedforward", "num_embeddings"), SMALL),
    "padding_idx": st.sampled_from([None, 0, -1]),
    "normalized_shape": SMALL | st.lists(SMALL, min_size=1, max_size=2),
    "activation": st.sampled_from(["relu", "gelu"]),
    "merge_mode": st.sampled_from(["concat", "sum", "mul", "ave"]),
    "last": st.sampled_from(["final", "aligned"]),
    "mode": st.sampled_from(["nearest", "bilinear"]),
    "reduction": st.sampled_from(["none", "mean", "sum"]),
    "class_weights": st.none() | st.lists(st.floats(0.5, 2), min_size=1, max_size=3),
    "ignore_index": st.none() | st.integers(-5, 5),
    "layer": st.deferred(lambda: st.sampled_from(["RNN", "LSTM", "GRU"]).flatmap(layers)),
    ("Conv2d", "padding"): window(0) | st.sampled_from(["same", "valid"]),
    ("ZeroPad2d", "padding"): of_axes(4, 0),
}
LINES = ("Conv1d", "MaxPool1d", "AvgPool1d")
VOLUMES = ("Conv3d", "MaxPool3d", "AvgPool3d", "AdaptiveAvgPool3d", "AdaptiveMaxPool3d")
for _name in ("kernel_size", "stride", "dilation", "padding", "output_size"):
    ARGUMENTS |= {(cls, _name): st.integers(int(_name != "padding"), 3) for cls in (*LINES, "AdaptiveAvgPool1d", "AdaptiveMaxPool1d")}
    ARGUMENTS |= {(cls, _name): of_axes(3, int(_name != "padding")) for cls in VOLUMES}


@st.composite
def layers(draw, name):
    """A layer of the class with drawn settings and drawn bits in every parameter and buffer."""
    cls = registered(name)
    chosen = {}
    for argument, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is parameter.empty or draw(st.booleans()):
            chosen[argument] = draw(ARGUMENTS[(name, argument) if (name, argument) in ARGUMENTS else argument])
    try:
        layer = cls(**chosen)
    except ValueError:  # settings that exclude each other
        reject()
    if name == "Dense" and draw(st.booleans()):
        layer(keydnn.ones((2, draw(SMALL)), dtype=layer.dtype))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    for tensor in [*layer.parameters(), *layer.buffers()]:
        tensor.copy_from_numpy(np.frombuffer(rng.bytes(tensor.nbytes), tensor.dtype).reshape(tensor.shape))  # NaNs among them
    return layer


def bits(module):
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in module.state_dict().items()}


def assert_same(module, again):
    assert type(again) is type(module)
    assert module_to_config(again) == module_to_config(module)
    assert list(bits(again).items()) == list(bits(module).items())
    assert repr(again) == repr(module)


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_layer_comes_back(name, data):
    module = data.draw(layers(name))
    assert_same(module, from_payload(json.loads(json.dumps(to_payload(module)))))
    assert_same(module, pickle.loads(pickle.dumps(module)))
    assert_same(module, copy.deepcopy(module))


@st.composite
def models(draw, depth=2):
    """Layers under numbers and names, models within models, and the same layer in two places."""
    model = keydnn.Sequential()
    names = draw(st.lists(st.none() | st.text("abz019_-ü", min_size=1, max_size=4), max_size=5))
    for name in names:
        if name is not None and (name in dict(model.named_children()) or hasattr(model, name)):
            continue
        known = [m for m in model.children() if not isinstance(m, keydnn.Sequential)]
        kind = draw(st.sampled_from(["layer", "layer", "model", "known"]))
        if kind == "model" and depth:
            layer = draw(models(depth - 1))
        elif kind == "known" and known:
            layer = draw(st.sampled_from(known))
        else:
            layer = draw(st.sampled_from(OURS).flatmap(layers))
        if name is None and str(len(model)) in dict(model.named_children()):
            continue
        model.add(layer, name=name)
    return model


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(models(), st.sampled_from(["m.json", "m.json.gz"]))
def test_a_model_comes_back_from_its_file(model, filename):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / filename
        model.save_json(path)
        again = keydnn.Sequential.load_json(path)
    assert_same(model, again)
    assert places(again) == places(model)
    if any(isinstance(layer, keydnn.Dense) and not layer.is_built for layer in model.modules()):
        return  # weights alone need a place to go
    for parameter in again.parameters():
        parameter.fill(0.0)
    again.from_json_payload_(model.to_json_payload())
    assert bits(again) == bits(model)


def places(model):
    """Per layer where it stands first: equal numbers are the same object."""
    found = list(map(id, model.layers()))
    return [found.index(layer) for layer in found]
