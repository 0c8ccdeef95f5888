"""Models of Keras: files written here by the documented layout, stand-ins for models in memory, and real Keras where it is installed."""

import io
import json
import re
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

import keydnn
from keydnn.interop import keras_files
from keydnn.interop.keras import KerasInteropError, UnsupportedKerasLayerError, from_keras
from keydnn.interop.keras_files import snake_case
from keydnn.interop.keras_rules import RULES

RNG = np.random.default_rng(0)
OF_KERAS = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow's own


def w(*shape):
    return RNG.uniform(0.1, 1.0, shape).astype(np.float32)


FIRST = "channels_first"
CNN = [
    ("InputLayer", {"batch_shape": [None, 2, 8, 8]}, []),
    ("Conv2D", {"kernel_size": [3, 3], "padding": "same", "activation": "relu", "data_format": FIRST}, [w(3, 3, 2, 4), w(4)]),
    ("BatchNormalization", {"axis": 1, "momentum": 0.9, "epsilon": 0.01}, [w(4), w(4), w(4), w(4)]),
    ("MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid", "data_format": FIRST}, []),
    ("Conv2DTranspose", {"kernel_size": [2, 2], "strides": [2, 2], "data_format": FIRST, "use_bias": False}, [w(2, 2, 3, 4)]),
    ("AveragePooling2D", {"pool_size": 2, "data_format": FIRST}, []),
    ("Conv2D", {"kernel_size": [2, 2], "data_format": FIRST, "activation": "linear"}, [w(2, 2, 3, 2), w(2)]),
    ("Dropout", {"rate": 0.25}, []),
    ("Flatten", {"data_format": "channels_last"}, []),
    ("Dense", {"activation": {"class_name": "Softmax", "config": {}}}, [w(18, 3), w(3)]),
    ("BatchNormalization", {"scale": False}, [w(3), w(3), w(3)]),
    ("LayerNormalization", {"axis": [-1], "epsilon": 0.001}, [w(3), w(3)]),
    ("LeakyReLU", {"negative_slope": 0.2}, []),
    ("Activation", {"activation": "tanh"}, []),
]


def config(layers):
    named = [{"class_name": kind, "config": {"name": f"{kind}_{i}", **settings}} for i, (kind, settings, _) in enumerate(layers)]
    return {"class_name": "Sequential", "config": {"name": "s", "layers": named}}


def write(path, layers, made=None):
    h5py = pytest.importorskip("h5py", reason="needs the keras extra: pip install '.[keras]'")
    made = config(layers) if made is None else made
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(made)
            for i, (kind, _, weights) in enumerate(layers):
                group = file.create_group(f"model_weights/{kind}_{i}")
                group.attrs["weight_names"] = [f"s/{kind}_{i}/v{j}" for j in range(len(weights))]
                for j, value in enumerate(weights):
                    group.create_dataset(f"s/{kind}_{i}/v{j}", data=value)
        return path
    buffer, counts = io.BytesIO(), {}
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")
        for kind, _, weights in layers:
            if kind == "InputLayer":
                continue
            n = counts[kind] = counts.get(kind, -1) + 1
            for j, value in enumerate(weights):
                file.create_dataset(f"layers/{snake_case(kind)}{f'_{n}' if n else ''}/vars/{j}", data=value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(made))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", buffer.getvalue())
    return path


def stand_in(layers, shape=(None, 2, 8, 8)):
    """A model in memory as Keras has it, as far as it is looked at."""

    def layer(i, kind, settings, weights):
        cls = type(kind, (), {"name": f"{kind}_{i}", "get_config": lambda self: settings, "get_weights": lambda self: weights})
        return cls()

    cls = type("Sequential", (), {"__module__": "keras.src.models.sequential"})
    model = cls()
    model.layers = [layer(i, *row) for i, row in enumerate(layers) if row[0] != "InputLayer"]
    model.input_shape = shape
    return model


def definition(x):
    """What the layers of CNN compute, in NumPy."""
    from numpy.lib.stride_tricks import sliding_window_view as windows

    def conv(x, layer, pad=0):
        (kernel, bias), x = layer[2], np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        view = windows(x, kernel.shape[:2], axis=(2, 3))
        return np.einsum("ncijuv,uvco->noij", view, kernel) + bias[:, None, None]

    x = np.maximum(conv(x, CNN[1], 1), 0)
    gamma, beta, mean, var = (v[:, None, None] for v in CNN[2][2])
    x = (x - mean) / np.sqrt(var + 0.01) * gamma + beta
    x = x.reshape(*x.shape[:2], 4, 2, 4, 2).max(axis=(3, 5))
    x = np.einsum("ncij,uvoc->noiujv", x, CNN[4][2][0])
    x = x.reshape(x.shape[0], 3, 8, 8)
    x = x.reshape(*x.shape[:2], 4, 2, 4, 2).mean(axis=(3, 5))
    x = conv(x, CNN[6]).reshape(len(x), -1)
    x = x @ CNN[9][2][0] + CNN[9][2][1]
    x = np.exp(x - x.max(axis=1, keepdims=True))
    x /= x.sum(axis=1, keepdims=True)
    beta, mean, var = CNN[10][2]
    x = (x - mean) / np.sqrt(var + 1e-3) + beta
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-3) * CNN[11][2][0] + CNN[11][2][1]
    return np.tanh(np.where(x > 0, x, 0.2 * x))


@pytest.mark.parametrize("kind", [".keras", ".h5", "memory"])
def test_a_convolutional_model(tmp_path, kind):
    source = stand_in(CNN) if kind == "memory" else write(tmp_path / f"m{kind}", CNN)
    x = RNG.random((3, 2, 8, 8))
    m = from_keras(source, allow_non_linear_activation=True, dtype=np.float64)
    np.testing.assert_allclose(m.predict(x).numpy(), definition(x), rtol=1e-6)
    assert [type(layer).__name__ for layer in m][:3] == ["Conv2d", "ReLU", "BatchNorm2d"] and not m.training and m.is_built
    assert m[2].momentum == pytest.approx(0.1)  # theirs is the share that is kept
    single = keydnn.from_keras(source, allow_non_linear_activation=True)
    np.testing.assert_allclose(single.predict(x).numpy(), definition(x), rtol=1e-4)


REFUSED = [
    ("Dense", {"activation": "relu"}, [w(2, 2), w(2)], "allow_non_linear_activation=True"),
    ("Dense", {"activation": "tanh_shrink"}, [w(2, 2), w(2)], "'tanh_shrink' has no counterpart"),
    ("Conv1D", {"kernel_size": [3], "data_format": "channels_last"}, [w(3, 1, 1)], "channels_last"),
    ("Conv1D", {"kernel_size": [3], "data_format": FIRST, "padding": "causal"}, [w(3, 1, 1)], "causal"),
    ("Conv1D", {"kernel_size": [3], "data_format": FIRST, "dilation_rate": [2]}, [w(3, 1, 1)], "dilation_rate"),
    ("MaxPooling1D", {"pool_size": [2], "data_format": FIRST, "padding": "same"}, [], "padding"),
    ("UpSampling2D", {"size": [2, 2], "data_format": FIRST, "interpolation": "bilinear"}, [], "interpolation"),
    ("AdaptiveAveragePooling2D", {"output_size": [2, 2], "data_format": "channels_last"}, [], "data_format"),
    ("GroupNormalization", {"groups": 1, "axis": -1}, [w(2), w(2)], "axis"),
    ("GroupNormalization", {"groups": 1, "axis": 1, "scale": False, "center": False}, [], "without scale and center"),
    ("RMSNormalization", {"axis": [1]}, [w(2)], "axis"),
    ("PReLU", {"shared_axes": None}, [w(2, 3)], "shared_axes"),
    ("ConvLSTM2D", {}, [w(3, 2)], "ConvLSTM2D has no counterpart"),
    ("Embedding", {"mask_zero": True}, [w(3, 2)], "mask_zero"),
    ("LSTM", {"go_backwards": True}, [w(2, 8), w(2, 8), w(8)], "go_backwards"),
    ("GRU", {"recurrent_activation": "hard_sigmoid"}, [w(2, 6), w(2, 6), w(2, 6)], "recurrent_activation"),
    ("SimpleRNN", {"activation": "relu"}, [w(2, 2), w(2, 2), w(2)], "activation"),
    ("Bidirectional", {"layer": {"class_name": "LSTM", "config": {}}, "merge_mode": None}, [], "merge_mode=None"),
    ("Conv2D", {"kernel_size": [3, 3], "data_format": "channels_last"}, [w(3, 3, 1, 1)], "channels_last"),
    ("Conv2D", {"kernel_size": [3, 3], "data_format": FIRST, "dilation_rate": [2, 2]}, [w(3, 3, 1, 1)], "dilation_rate"),
    ("Conv2D", {"kernel_size": [3, 3], "data_format": FIRST, "groups": 2}, [w(3, 3, 1, 2)], "groups"),
    ("Conv2D", {"kernel_size": [2, 2], "data_format": FIRST, "padding": "same"}, [w(2, 2, 1, 1)], "stride 1 and odd"),
    ("Conv2D", {"kernel_size": [3, 3], "data_format": FIRST, "padding": "same", "strides": [2, 2]}, [w(3, 3, 1, 1)], "stride 1 and odd"),
    ("MaxPooling2D", {"pool_size": 2, "padding": "same", "data_format": FIRST}, [], "padding"),
    ("Dropout", {"rate": 0.5, "noise_shape": [1]}, [], "noise_shape"),
    ("ReLU", {"max_value": 3.0}, [], "max_value"),
    ("ReLU", {"threshold": 1.0}, [], "threshold"),
    ("BatchNormalization", {"axis": 3}, [w(2)] * 4, "axis=3"),
    ("LayerNormalization", {"axis": [1, 3]}, [w(2, 2)] * 2, "trailing"),
    ("Flatten", {"data_format": FIRST}, [], "data_format"),
]


@pytest.mark.parametrize(("kind", "settings", "weights", "text"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_has_no_counterpart(kind, settings, weights, text):
    source = stand_in([(kind, settings, weights), ("ReLU", {}, [])], (None, 2) if kind == "Dense" else (None, 2, 8, 8))
    with pytest.raises(UnsupportedKerasLayerError, match=text):
        from_keras(source)
    if "allow" not in text and "tanh_shrink" not in text:
        with pytest.warns(UserWarning, match="left out"):
            assert [type(layer).__name__ for layer in from_keras(source, strict=False)] == ["ReLU"]


def test_the_documentation_names_every_layer():
    text = (Path(__file__).parents[2] / "docs" / "howto" / "other-libraries.md").read_text(encoding="utf-8")
    names = text.partition("Converted are")[2].partition(".\n")[0]
    assert re.findall(r"`(\w+)`", names) == sorted(RULES)


def test_wrong_weights_and_wrong_objects():
    with pytest.raises(KerasInteropError, match="Dense_0"):
        from_keras(stand_in([("Dense", {}, [])]))
    with pytest.raises(KerasInteropError, match="BatchNormalization_0"):
        from_keras(stand_in([("BatchNormalization", {}, [w(2)])], (None, 2)))
    for other in (5, types.SimpleNamespace(layers=[]), keydnn.Sequential()):
        with pytest.raises(KerasInteropError, match="expected a Keras Sequential"):
            from_keras(other)
    with pytest.raises(FileNotFoundError):
        from_keras("/nowhere/m.keras")


def test_damaged_and_foreign_files(tmp_path):
    for suffix in (".keras", ".h5"):
        path = write(tmp_path / f"m{suffix}", CNN[7:10])
        whole = path.read_bytes()
        for data in (b"", b"text", whole[:8], whole[: len(whole) // 2], whole[:60] + b"\xff" * 40 + whole[100:]):
            path.write_bytes(data)
            with pytest.raises(KerasInteropError, match=path.name):
                from_keras(path, allow_non_linear_activation=True)
        for made in ([], {"class_name": "Functional", "config": {}}, {"class_name": "Sequential", "config": {"layers": [{}]}}):
            with pytest.raises(KerasInteropError, match=path.name):
                from_keras(write(path, [], made))


def test_a_reader_that_hangs_or_dies_is_ended(tmp_path, monkeypatch):
    pytest.importorskip("h5py", reason="needs the keras extra: pip install '.[keras]'")
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr(keras_files, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(keras_files, "CHILD", "while True: pass")
    with pytest.raises(KerasInteropError, match="took more than 1 s"):
        from_keras(tmp_path / "m.h5")
    monkeypatch.setattr(keras_files, "LEAST_SECONDS", 30.0)
    monkeypatch.setattr(keras_files, "CHILD", "import os; os.abort()")
    with pytest.raises(KerasInteropError, match="ended with"):
        from_keras(tmp_path / "m.h5")


@pytest.mark.parametrize("shape", [(20_000, 20_000), (2_000, 1_000)], ids=["one array", "many times"])
def test_weights_out_of_all_proportion_to_their_file_are_not_read(tmp_path, shape):
    h5py = pytest.importorskip("h5py", reason="needs the keras extra: pip install '.[keras]'")
    layers = [{"class_name": "Dense", "config": {"name": "d", "units": 2}}]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
        group = file.create_group("model_weights/d")
        group.attrs["weight_names"] = ["kernel"] * 3
        group.create_dataset("kernel", shape, "f4", chunks=(10, 10))  # nothing is written: the file stays small
    with pytest.raises(KerasInteropError, match="/model_weights/d/kernel holds .* elements of float32; all weights may take"):
        from_keras(tmp_path / "m.h5")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def keras_lstm(x, kernel, recurrent, bias):
    """Gates i f c o; x (N, T, D) -> (N, T, H)."""
    h = c = np.zeros((len(x), len(recurrent)))
    out = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out, axis=1)


def keras_gru(x, kernel, recurrent, bias, reset_after):
    """Gates z r h."""
    inside, outside = bias if reset_after else (bias, np.zeros_like(bias))
    h, out = np.zeros((len(x), len(recurrent))), []
    k = len(recurrent)
    for t in range(x.shape[1]):
        a, b = x[:, t] @ kernel + inside, h @ recurrent + outside
        z, r = sigmoid(a[:, :k] + b[:, :k]), sigmoid(a[:, k : 2 * k] + b[:, k : 2 * k])
        last = r * b[:, 2 * k :] if reset_after else (r * h) @ recurrent[:, 2 * k :]
        h = z * h + (1 - z) * np.tanh(a[:, 2 * k :] + last)
        out.append(h)
    return np.stack(out, axis=1)


@pytest.mark.parametrize("kind", ["memory", ".keras"])
@pytest.mark.parametrize("reset_after", [True, False])
def test_recurrent_layers(tmp_path, kind, reset_after):
    lstm, gru = [w(4, 12), w(3, 12), w(12)], [w(3, 15), w(5, 15), w(2, 15) if reset_after else w(15)]
    rows = [
        ("LSTM", {"return_sequences": True, "activation": "tanh", "recurrent_activation": "sigmoid"}, lstm),
        ("GRU", {"reset_after": reset_after}, gru),
        ("Dense", {}, [w(5, 2), w(2)]),
    ]
    if kind == "memory":
        source = stand_in(rows, (None, 6, 4))
    else:
        h5py = pytest.importorskip("h5py", reason="needs the keras extra: pip install '.[keras]'")
        source, buffer = tmp_path / "m.keras", io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for name, weights in (("lstm/cell", lstm), ("gru/cell", gru), ("dense", rows[2][2])):
                for i, value in enumerate(weights):
                    file.create_dataset(f"layers/{name}/vars/{i}", data=value)
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("config.json", json.dumps(config(rows)))
            archive.writestr("model.weights.h5", buffer.getvalue())
    x = RNG.standard_normal((3, 6, 4))
    want = keras_gru(keras_lstm(x, *lstm), *gru, reset_after)[:, -1] @ rows[2][2][0] + rows[2][2][1]
    np.testing.assert_allclose(from_keras(source, dtype=np.float64).predict(x).numpy(), want, rtol=1e-6)


def test_bidirectional_and_embedding():
    first, second, table = [w(4, 12), w(3, 12), w(12)], [w(4, 12), w(3, 12), w(12)], w(7, 4)
    inner = {"class_name": "LSTM", "config": {"return_sequences": False}}
    m = from_keras(
        stand_in([("Embedding", {}, [table]), ("Bidirectional", {"layer": inner, "merge_mode": "concat"}, first + second)], (None, 5)),
        dtype=np.float64,
    )
    index = RNG.integers(0, 7, (3, 5))
    x = table[index].astype(np.float64)
    want = np.concatenate([keras_lstm(x, *first)[:, -1], keras_lstm(x[:, ::-1], *second)[:, -1]], axis=1)
    np.testing.assert_allclose(m.predict(keydnn.tensor(index, dtype=np.int64)).numpy(), want, rtol=1e-6)
    kernel, bias = w(3, 2), w(2)
    each = from_keras(
        stand_in([("LSTM", {"return_sequences": True}, first), ("Dense", {}, [kernel, bias])], (None, 5, 4)), dtype=np.float64
    )
    np.testing.assert_allclose(each.predict(x).numpy(), keras_lstm(x, *first) @ kernel + bias, rtol=1e-6)


@OF_KERAS
def test_real_keras_of_sequences(tmp_path):
    keras = pytest.importorskip("keras", reason="needs the tensorflow extra: pip install '.[tensorflow]'")
    L = keras.layers
    model = keras.Sequential(
        [
            L.Input((5,)), L.Embedding(7, 4), L.LSTM(3, return_sequences=True), L.Dense(4),
            L.Bidirectional(L.GRU(3, return_sequences=True)),
            L.Bidirectional(L.GRU(2, reset_after=False), merge_mode="ave"), L.Dense(2),
        ]
    )  # fmt: skip
    model.set_weights([w(*v.shape) for v in model.get_weights()])
    index = RNG.integers(0, 7, (3, 5))
    want = np.asarray(model(index))
    for source in (model, tmp_path / "m.keras", tmp_path / "m.h5"):
        if source is not model:
            model.save(source)
        np.testing.assert_allclose(from_keras(source).predict(keydnn.tensor(index, dtype=np.int64)).numpy(), want, rtol=1e-4, atol=1e-5)


LINES = [
    ("InputLayer", {"batch_shape": [None, 2, 9]}, []),
    ("Conv1D", {"kernel_size": [3], "padding": "same", "data_format": FIRST, "activation": "hard_tanh"}, [w(3, 2, 4), w(4)]),
    ("GroupNormalization", {"groups": 2, "axis": 1, "epsilon": 0.01}, [w(4), w(4)]),
    ("MaxPooling1D", {"pool_size": [2], "strides": [2], "data_format": FIRST}, []),
    ("PReLU", {"shared_axes": [2]}, [w(4, 1)]),
    ("AveragePooling1D", {"pool_size": [2], "strides": None, "data_format": FIRST}, []),
    ("RMSNormalization", {"axis": [-1], "epsilon": 0.02}, [w(2)]),
    ("Identity", {}, []),
    ("ActivityRegularization", {"l1": 0.1, "l2": 0.0}, []),
]


@pytest.mark.parametrize("kind", [".keras", ".h5", "memory"])
def test_layers_along_one_axis(tmp_path, kind):
    source = stand_in(LINES, (None, 2, 9)) if kind == "memory" else write(tmp_path / f"m{kind}", LINES)
    x = RNG.random((3, 2, 9))
    kernel, bias = LINES[1][2]
    view = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1))), 3, axis=2)
    y = (np.einsum("nciu,uco->noi", view, kernel) + bias[:, None]).clip(-1, 1)
    rows = y.reshape(3, 2, -1)
    rows = (rows - rows.mean(2, keepdims=True)) / np.sqrt(rows.var(2, keepdims=True) + 0.01)
    y = rows.reshape(y.shape) * LINES[2][2][0][:, None] + LINES[2][2][1][:, None]
    y = y[..., :8].reshape(3, 4, 4, 2).max(axis=3)
    y = np.where(y > 0, y, y * LINES[4][2][0])
    y = y.reshape(3, 4, 2, 2).mean(axis=3)
    want = y / np.sqrt((y * y).mean(axis=2, keepdims=True) + 0.02) * LINES[6][2][0]
    found = from_keras(source, allow_non_linear_activation=True, dtype=np.float64).predict(x).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_changes_of_size():
    rows = [
        ("UpSampling2D", {"size": [2, 3], "data_format": FIRST, "interpolation": "nearest"}, []),
        ("AdaptiveAveragePooling2D", {"output_size": [3, 2], "data_format": FIRST}, []),
        ("GroupNormalization", {"groups": -1, "axis": 1}, [w(2), w(2)]),
    ]
    model = from_keras(stand_in(rows, (None, 2, 4, 4)))
    assert [type(layer).__name__ for layer in model] == ["Upsample", "AdaptiveAvgPool2d", "GroupNorm"]
    assert (model[0].scale_factor, model[1].output_size, model[2].num_groups) == ((2, 3), (3, 2), 2)
    with pytest.raises(UnsupportedKerasLayerError, match="of 3 axes"):
        from_keras(stand_in([("BatchNormalization", {"axis": 1}, [w(2)] * 4)], (None, 2, 5)))


@OF_KERAS
def test_real_keras_of_the_other_layers(tmp_path):
    keras = pytest.importorskip("keras", reason="needs the tensorflow extra: pip install '.[tensorflow]'")
    L = keras.layers
    lines = [
        L.Input((2, 9)), L.Conv1D(4, 3, padding="same", data_format=FIRST, activation="hard_silu"), L.GroupNormalization(2, axis=1),
        L.MaxPooling1D(2, data_format=FIRST), L.PReLU(shared_axes=[2]), L.AveragePooling1D(2, data_format=FIRST), L.RMSNormalization(),
        L.Activation("hard_sigmoid"), L.Identity(), L.ActivityRegularization(0.1), L.Activation("hard_tanh"),
    ]  # fmt: skip
    planes = [
        L.Input((2, 5, 5)), L.UpSampling2D((2, 3), data_format=FIRST), L.AdaptiveAveragePooling2D((3, 2), data_format=FIRST),
        L.GroupNormalization(-1, axis=1, center=False), L.PReLU(shared_axes=[1, 2, 3]),
    ]  # fmt: skip
    for i, (layers, shape) in enumerate(((lines, (3, 2, 9)), (planes, (3, 2, 5, 5)))):
        model = keras.Sequential(layers)
        model.set_weights([w(*v.shape) for v in model.get_weights()])
        x = RNG.standard_normal(shape).astype(np.float32)
        want = np.asarray(model(x))
        for source in (model, tmp_path / f"{i}.keras", tmp_path / f"{i}.h5"):
            if source is not model:
                model.save(source)
            found = from_keras(source, allow_non_linear_activation=True).predict(x).numpy()
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@OF_KERAS
def test_real_keras(tmp_path):
    keras = pytest.importorskip("keras", reason="needs the tensorflow extra: pip install '.[tensorflow]'")
    L = keras.layers
    model = keras.Sequential(
        [
            L.Input((6,)),
            L.Dense(5, activation="gelu"),
            L.BatchNormalization(momentum=0.8),
            L.Dense(4, activation="elu"),
            L.LayerNormalization(),
        ]
    )
    model.set_weights([w(*v.shape) for v in model.get_weights()])
    x = RNG.random((7, 6)).astype(np.float32)
    want = np.asarray(model(x))
    for source in (model, tmp_path / "m.keras", tmp_path / "m.h5"):
        if source is not model:
            model.save(source)
        np.testing.assert_allclose(from_keras(source, allow_non_linear_activation=True).predict(x).numpy(), want, rtol=1e-4, atol=1e-5)
