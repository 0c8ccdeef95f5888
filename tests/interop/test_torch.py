"""Weights from and to PyTorch: names, files, outputs."""

import numpy as np
import pytest

import keydnn
from keydnn.interop.torch import load_torch_state, to_torch_state


def ours():
    return keydnn.Sequential(
        keydnn.Conv2d(2, 4, 3, padding=1), keydnn.BatchNorm2d(4), keydnn.ReLU(), keydnn.Conv2dTranspose(4, 3, 2, stride=2),
        keydnn.Flatten(), keydnn.Linear(3 * 8 * 8, 5), keydnn.LayerNorm(5),
    ).eval()  # fmt: skip


def theirs():
    from torch import nn

    m = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Flatten(),
        nn.Linear(3 * 8 * 8, 5), nn.LayerNorm(5),
    )  # fmt: skip
    for p in [*m.parameters(), *(b for b in m.buffers() if b.is_floating_point())]:
        p.data.uniform_(0.1, 1.0)
    return m.eval()


X = np.random.default_rng(0).random((3, 2, 4, 4)).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["module", "state_dict", "pt", "checkpoint", "safetensors", "bfloat16"])
def test_outputs_are_those_of_torch(tmp_path, kind):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source, m = theirs(), ours()
    state = source.state_dict()
    if kind == "bfloat16":
        source = source.bfloat16().float()
        state = source.bfloat16().state_dict()
    path = tmp_path / "w.pt"
    given = {"module": source, "pt": path, "checkpoint": path, "safetensors": tmp_path / "w.safetensors"}.get(kind, state)
    torch.save({"state_dict": state, "epoch": 3} if kind == "checkpoint" else state, path)
    save_file(state, tmp_path / "w.safetensors")
    assert load_torch_state(m, given) == ([], [])
    with torch.no_grad():
        want = source.float()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(m(keydnn.tensor(X)).numpy(), want, rtol=2e-4, atol=2e-5)


@pytest.mark.torch
def test_and_back():
    import torch

    m, other = ours(), theirs()
    missing, unknown = other.load_state_dict({n: torch.from_numpy(a) for n, a in to_torch_state(m).items()}, strict=False)
    assert set(missing) <= {"1.num_batches_tracked"} and not unknown
    with torch.no_grad():
        np.testing.assert_allclose(other(torch.from_numpy(X)).numpy(), m(keydnn.tensor(X)).numpy(), rtol=2e-4, atol=2e-5)


SEQUENCES = {
    "RNN": (lambda: keydnn.nn.RNN(4, 3), lambda nn: nn.RNN(4, 3)),
    "LSTM": (lambda: keydnn.nn.LSTM(4, 3, num_layers=2), lambda nn: nn.LSTM(4, 3, 2)),
    "GRU": (lambda: keydnn.nn.GRU(4, 3, reset_after=True), lambda nn: nn.GRU(4, 3)),
    "no bias": (lambda: keydnn.nn.LSTM(4, 3, bias=False), lambda nn: nn.LSTM(4, 3, bias=False)),
    "Bidirectional": (
        lambda: keydnn.nn.Bidirectional(keydnn.nn.GRU(4, 3, reset_after=True)), lambda nn: nn.GRU(4, 3, bidirectional=True)
    ),
    "MultiHeadAttention": (lambda: keydnn.nn.MultiHeadAttention(4, 2), lambda nn: nn.MultiheadAttention(4, 2)),
    "encoder": (lambda: keydnn.nn.TransformerEncoderLayer(4, 2, 8), lambda nn: nn.TransformerEncoderLayer(4, 2, 8)),
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("name", SEQUENCES)
def test_layers_of_sequences_in_both_directions(name):
    import torch

    make, make_theirs = SEQUENCES[name]
    first = lambda y: y[0] if isinstance(y, tuple) else y  # noqa: E731
    torch.manual_seed(0)
    source, layer, x = make_theirs(torch.nn).eval(), make().eval(), np.random.default_rng(0).standard_normal((5, 2, 4)).astype(np.float32)
    run = (lambda t: source(t, t, t)) if name == "MultiHeadAttention" else source
    assert load_torch_state(layer, source) == ([], [])
    want = first(run(torch.from_numpy(x))).detach().numpy()
    np.testing.assert_allclose(first(layer(keydnn.tensor(x))).numpy(), want, rtol=1e-4, atol=1e-5)
    deep = keydnn.Sequential(keydnn.Linear(4, 4), make())
    back = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in to_torch_state(deep).items()}
    torch.nn.Sequential(torch.nn.Linear(4, 4), make_theirs(torch.nn)).load_state_dict(back)
    source.load_state_dict({key[2:]: value for key, value in back.items() if key.startswith("1.")})
    np.testing.assert_allclose(
        first(run(torch.from_numpy(x))).detach().numpy(), first(deep[1].eval()(keydnn.tensor(x))).numpy(), rtol=1e-4, atol=1e-5
    )


IMAGE, LINE, ROWS = (2, 4, 6, 6), (2, 4, 9), (3, 4)


def built(layer):
    layer(keydnn.zeros((1, 4)))
    return layer


LAYERS = {  # ours, theirs, shape of the input
    "Linear": (lambda nn: nn.Linear(4, 3), lambda nn: nn.Linear(4, 3), ROWS),
    "Dense": (lambda nn: built(nn.Dense(3)), lambda nn: nn.Linear(4, 3), ROWS),
    "Conv1d": (lambda nn: nn.Conv1d(4, 6, 3, groups=2, dilation=2), lambda nn: nn.Conv1d(4, 6, 3, groups=2, dilation=2), LINE),
    "Conv2d": (lambda nn: nn.Conv2d(4, 6, (3, 2), stride=2), lambda nn: nn.Conv2d(4, 6, (3, 2), stride=2), IMAGE),
    "Conv3d": (lambda nn: nn.Conv3d(2, 3, 2, stride=2), lambda nn: nn.Conv3d(2, 3, 2, stride=2), (2, 2, 4, 5, 4)),
    "Conv2dTranspose": (lambda nn: nn.Conv2dTranspose(4, 3, 3, 2), lambda nn: nn.ConvTranspose2d(4, 3, 3, 2), IMAGE),
    "BatchNorm1d": (lambda nn: nn.BatchNorm1d(4), lambda nn: nn.BatchNorm1d(4), ROWS),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(4), lambda nn: nn.BatchNorm2d(4), IMAGE),
    "LayerNorm": (lambda nn: nn.LayerNorm((6, 6)), lambda nn: nn.LayerNorm((6, 6)), IMAGE),
    "GroupNorm": (lambda nn: nn.GroupNorm(2, 4), lambda nn: nn.GroupNorm(2, 4), IMAGE),
    "InstanceNorm2d": (lambda nn: nn.InstanceNorm2d(4, affine=True), lambda nn: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "RMSNorm": (lambda nn: nn.RMSNorm(4), lambda nn: nn.RMSNorm(4, eps=1e-6), ROWS),
    "PReLU": (lambda nn: nn.PReLU(4), lambda nn: nn.PReLU(4), IMAGE),
    "Embedding": (lambda nn: nn.Embedding(7, 4), lambda nn: nn.Embedding(7, 4), None),
    "RNNCell": (lambda nn: nn.RNNCell(4, 3), lambda nn: nn.RNNCell(4, 3), ROWS),
    "LSTMCell": (lambda nn: nn.LSTMCell(4, 3), lambda nn: nn.LSTMCell(4, 3), ROWS),
    "GRUCell": (lambda nn: nn.GRUCell(4, 3, reset_after=True), lambda nn: nn.GRUCell(4, 3), ROWS),
}


def made_of(cls):
    """Whether a layer has weights once it is made: then it needs a row."""
    return cls.__name__ in LAYERS or cls.__name__ in SEQUENCES or cls.__name__ == "TransformerEncoderLayer"


def test_every_layer_with_weights_has_a_row():
    from keydnn import nn

    layers = {
        c for c in vars(nn).values() if isinstance(c, type) and issubclass(c, nn.Module) and c.__module__.startswith("keydnn.nn.layers.")
    }
    without = {
        *(f"Adaptive{kind}Pool{n}d" for kind in ("Avg", "Max") for n in (1, 2, 3)), "AvgPool3d", "MaxPool3d", "ZeroPad2d",
        "AvgPool1d", "AvgPool2d", "Dropout", "ELU", "Flatten", "GELU", "GlobalAvgPool2d", "HardSigmoid",
        "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSoftmax", "MaxPool1d", "MaxPool2d", "Mish", "PixelShuffle", "ReLU",
        "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh", "Upsample",
    }  # fmt: skip
    bases = {"Layer", "Normalization"}
    assert {c.__name__ for c in layers if not made_of(c)} - bases == without


@pytest.mark.torch
@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_both_directions(name):
    import torch

    ours, theirs, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, source = ours(keydnn.nn).eval(), theirs(torch.nn).eval()
    for p in [*source.parameters(), *(b for b in source.buffers() if b.is_floating_point())]:
        p.data.uniform_(0.1, 1.0)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 7, (3, 2)) if shape is None else rng.standard_normal(shape).astype(np.float32)
    assert load_torch_state(layer, source) == ([], [])
    given = keydnn.tensor(x, dtype=x.dtype)
    y = layer(given, *[keydnn.zeros((3, 3))] * {"RNNCell": 1, "GRUCell": 1, "LSTMCell": 2}.get(name, 0))
    wanted = source(torch.from_numpy(x))
    pairs = zip(y, wanted, strict=True) if isinstance(y, tuple) else [(y, wanted)]
    for found, want in pairs:
        np.testing.assert_allclose(found.numpy(), want.detach().numpy(), rtol=2e-5, atol=2e-6)
    back = to_torch_state(layer)
    want = {key: value for key, value in source.state_dict().items() if key != "num_batches_tracked"}
    assert back.keys() == want.keys()
    assert all(np.array_equal(back[key], value.numpy()) for key, value in want.items())


@pytest.mark.torch
def test_a_pt_file_is_not_run(tmp_path):
    import os

    import torch

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was-here"),)

    torch.save({"0.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "evil.pt").read_bytes()[:50])
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("evil.pt", "cut.pt", "list.pt"):
        with pytest.raises(ValueError, match=name):
            load_torch_state(ours(), tmp_path / name)
    assert not (tmp_path / "was-here").exists()


def test_names_prefixes_and_errors():
    m, before = ours(), ours()
    state = {f"net.{name}": array for name, array in to_torch_state(before).items()}
    assert "net.1.weight" in state and "net.1.running_var" in state
    assert load_torch_state(m, {**state, "net.1.num_batches_tracked": np.array(3)}, prefix="net") == ([], [])
    assert all(np.array_equal(a, before.state_dict()[n]) for n, a in m.state_dict().items())
    with pytest.raises(KeyError, match="missing"):
        load_torch_state(m, state)
    missing, unknown = load_torch_state(m, state, strict=False, key_map={"net.": "", "net.0.": "first."})
    assert missing == ["0.weight", "0.bias"] and unknown == ["first.bias", "first.weight"]
    with pytest.raises(ValueError, match="5.weight"):
        load_torch_state(m, {**to_torch_state(m), "5.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="reset_after=True"):
        load_torch_state(keydnn.nn.GRU(2, 2), {"weight_ih_l0": np.zeros((6, 2))}, strict=False)
    for bad in (5, {1: 2}, [("a", 1)]):
        with pytest.raises(TypeError, match="state_dict"):
            load_torch_state(m, bad)
    with pytest.raises(TypeError, match="'x' is a str"):
        load_torch_state(m, {"x": "text"})
