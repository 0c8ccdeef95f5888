"""Every layer with an ONNX form: our outputs, those of onnxruntime, and those of the file read back."""

import re
from pathlib import Path

import numpy as np
import pytest

import keydnn
from keydnn import nn

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install '.[onnx]'")
from keydnn.interop.onnx import OnnxError, UnsupportedOnnxError, load_onnx, save_onnx, to_onnx  # noqa: E402
from keydnn.interop.onnx.export_rules import NO_FORM, WRITE  # noqa: E402

S = keydnn.Sequential
IMAGE, LINE, VOLUME = (2, 3, 8, 8), (2, 3, 9), (2, 2, 4, 6, 5)
BATCH_SECOND = {"open_axes": (0, 1)}


def layers(*names):
    return [(name, S(getattr(nn, name)()), (2, 3, 4), {}) for name in names]


CASES = [
    ("Linear", S(nn.Linear(4, 3)), (2, 4), {}),
    ("Linear of sequences", S(nn.Linear(4, 3, any_rank=True)), (2, 5, 4), {"open_axes": (0, 1)}),
    ("no bias", S(nn.Linear(4, 3, bias=False)), (2, 4), {}),
    ("Dense", S(nn.Dense(3)), (2, 4), {}),
    ("Conv2d", S(nn.Conv2d(3, 4, 3, stride=2, padding=1)), IMAGE, {}),
    ("Conv2d same", S(nn.Conv2d(3, 4, (2, 3), stride=2, padding="same")), IMAGE, {}),
    ("Conv2d groups", S(nn.Conv2d(4, 6, 3, groups=2, dilation=2, bias=False)), (2, 4, 9, 8), {}),
    ("Conv2dTranspose", S(nn.Conv2dTranspose(3, 4, 3, stride=2, padding=1, output_padding=1)), IMAGE, {}),
    ("BatchNorm1d", S(nn.BatchNorm1d(4)), (3, 4), {}),
    ("BatchNorm2d", S(nn.BatchNorm2d(3, affine=False)), IMAGE, {}),
    ("LayerNorm", S(nn.LayerNorm((3, 4))), (2, 3, 4), {}),
    ("MaxPool2d", S(nn.MaxPool2d(3, 2, 1)), IMAGE, {}),
    ("AvgPool2d", S(nn.AvgPool2d((2, 3), 2, 1)), IMAGE, {}),
    ("GlobalAvgPool2d", S(nn.GlobalAvgPool2d(), nn.Flatten()), IMAGE, {}),
    ("Dropout", S(nn.Linear(4, 4), nn.Dropout(0.5)), (2, 4), {}),
    ("LeakyReLU", S(nn.LeakyReLU(0.2)), (2, 3), {}),
    ("ELU", S(nn.ELU(0.7)), (2, 3), {}),
    *layers(
        "ReLU",
        "SELU",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "Mish",
        "HardSigmoid",
        "Hardswish",
        "GELU",
        "SiLU",
        "ReLU6",
        "PReLU",
        "Hardtanh",
        "Identity",
    ),  # fmt: skip
    ("Softmax", S(nn.Softmax(1)), (2, 3, 4), {}),
    ("LogSoftmax", S(nn.LogSoftmax()), (2, 3), {}),
    ("PReLU per channel", S(nn.PReLU(3)), IMAGE, {}),
    ("Conv1d", S(nn.Conv1d(3, 4, 3, stride=2, padding=1)), LINE, {}),
    ("Conv1d groups", S(nn.Conv1d(4, 6, 3, dilation=2, groups=2, bias=False)), (2, 4, 9), {}),
    ("MaxPool1d", S(nn.MaxPool1d(3, 2, 1)), LINE, {}),
    ("AvgPool1d", S(nn.AvgPool1d(3, 2, 1)), LINE, {}),
    ("GroupNorm", S(nn.GroupNorm(2, 4)), (2, 4, 5, 3), {"open_axes": (0, 2)}),
    ("GroupNorm of lines", S(nn.GroupNorm(3, 3, affine=False)), LINE, {}),
    ("InstanceNorm2d", S(nn.InstanceNorm2d(3)), IMAGE, {}),
    ("InstanceNorm2d affine", S(nn.InstanceNorm2d(3, affine=True, eps=1e-2)), IMAGE, {}),
    ("RMSNorm", S(nn.RMSNorm((3, 4))), (2, 3, 4), {}),
    ("RMSNorm plain", S(nn.RMSNorm(4, affine=False)), (2, 3, 4), {}),
    ("AdaptiveAvgPool2d", S(nn.AdaptiveAvgPool2d((3, 5))), (2, 3, 7, 9), {}),
    ("AdaptiveAvgPool2d even", S(nn.AdaptiveAvgPool2d((4, 2))), IMAGE, {}),
    ("AdaptiveAvgPool2d global", S(nn.AdaptiveAvgPool2d(1)), IMAGE, {"open_axes": (0, 2, 3)}),
    ("Upsample", S(nn.Upsample((2, 3))), IMAGE, {"open_axes": (0, 2, 3)}),
    ("Upsample bilinear", S(nn.Upsample((2, 3), "bilinear")), IMAGE, {"open_axes": (0, 2, 3)}),
    ("Upsample corners", S(nn.Upsample((2, 3), "bilinear", align_corners=True)), IMAGE, {"open_axes": (0, 2, 3)}),
    ("AdaptiveAvgPool1d", S(nn.AdaptiveAvgPool1d(3)), LINE, {}),
    ("AdaptiveAvgPool3d global", S(nn.AdaptiveAvgPool3d(1)), VOLUME, {"open_axes": (0, 2, 3, 4)}),
    ("AdaptiveMaxPool1d", S(nn.AdaptiveMaxPool1d(3)), LINE, {}),
    ("AdaptiveMaxPool2d", S(nn.AdaptiveMaxPool2d((4, 2))), IMAGE, {}),
    ("AdaptiveMaxPool2d global", S(nn.AdaptiveMaxPool2d(1)), IMAGE, {"open_axes": (0, 2, 3)}),
    ("AdaptiveMaxPool3d", S(nn.AdaptiveMaxPool3d((2, 1, 5))), VOLUME, {}),
    ("Conv3d", S(nn.Conv3d(2, 4, (2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 1), dilation=(2, 1, 1), groups=2)), VOLUME, {}),
    ("MaxPool3d", S(nn.MaxPool3d((2, 3, 2), 2, 1)), VOLUME, {}),
    ("AvgPool3d", S(nn.AvgPool3d(2, padding=(1, 0, 0))), VOLUME, {}),
    ("ZeroPad2d", S(nn.ZeroPad2d((1, 0, 2, 3))), IMAGE, {"open_axes": (0, 2, 3)}),
    ("PixelShuffle", S(nn.PixelShuffle(2)), (2, 8, 3, 5), {"open_axes": (0, 2, 3)}),
    ("Embedding", S(nn.Embedding(9, 4), nn.LayerNorm(4)), (3, 5), {}),
    ("RNN", S(nn.RNN(4, 3, return_state=False)), (5, 2, 4), BATCH_SECOND),
    ("LSTM", S(nn.LSTM(4, 3, return_state=False)), (5, 2, 4), BATCH_SECOND),
    ("GRU", S(nn.GRU(4, 3, return_state=False)), (5, 2, 4), BATCH_SECOND),
    ("GRU reset after", S(nn.GRU(4, 3, return_sequences=False, return_state=False, reset_after=True, bias=False)), (5, 2, 4), BATCH_SECOND),
    ("LSTM 2 layers", S(nn.LSTM(4, 3, num_layers=2, batch_first=True, return_state=False)), (2, 5, 4), {}),
    ("LSTM states", nn.LSTM(4, 3, num_layers=2), (5, 2, 4), BATCH_SECOND),
    ("GRU state", nn.GRU(4, 3), (5, 2, 4), BATCH_SECOND),
    ("RNN state only", nn.RNN(4, 3, return_sequences=False), (5, 2, 4), BATCH_SECOND),
    *[
        (
            f"Bidirectional {mode} {last}",
            S(nn.Bidirectional(nn.LSTM(4, 3), mode, return_sequences=every, last=last)),
            (5, 2, 4),
            BATCH_SECOND,
        )
        for mode, last, every in [("concat", "final", True), ("concat", "aligned", False), ("ave", "final", False), ("mul", "final", True)]
    ],
    ("Bidirectional states", nn.Bidirectional(nn.LSTM(4, 3, num_layers=2), return_state=True), (5, 2, 4), BATCH_SECOND),
    (
        "Bidirectional GRU",
        nn.Bidirectional(nn.GRU(4, 3, reset_after=True), "sum", return_sequences=False, return_state=True),
        (5, 2, 4),
        BATCH_SECOND,
    ),
    ("MultiHeadAttention", S(nn.MultiHeadAttention(8, 2)), (5, 2, 8), BATCH_SECOND),
    ("encoder", S(nn.TransformerEncoderLayer(8, 2, 16)), (5, 2, 8), BATCH_SECOND),
    ("encoder norm first", S(nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True, batch_first=True)), (2, 5, 8), {}),
    ("CNN", S(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), S(nn.Flatten(), nn.Dense(5)), nn.Softmax()), IMAGE, {}),
]


def prepared(model, shape):
    """Parameters and statistics that are not those of the start."""
    if isinstance(model, keydnn.Model):
        model.build(keydnn.tensor(np.zeros(shape), dtype=np.int64 if isinstance(next(model.children()), nn.Embedding) else np.float32))
    rng = np.random.default_rng(0)
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.copy_from_numpy(rng.uniform(0.1, 0.9, tensor.shape))
    return model.eval()


def flat(y):
    return [z for part in y for z in flat(part)] if isinstance(y, tuple) else [y.numpy()]


def inputs(model, shape):
    rng = np.random.default_rng(1)
    is_index = "Embedding" in repr(model)
    return rng.integers(0, 9, shape) if is_index else rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("model", "shape", "options"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_layer(tmp_path, model, shape, options):
    ort = pytest.importorskip("onnxruntime", reason="needs the onnx extra: pip install '.[onnx]'")
    model = prepared(model, shape)
    save_onnx(model, tmp_path / "m.onnx", shape, **options)
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    again = load_onnx(tmp_path / "m.onnx").eval()
    other = tuple(n + 2 if i in options.get("open_axes", (0,)) else n for i, n in enumerate(shape))
    for size in (shape, other):  # the open axes are open
        x = inputs(model, size)
        want = flat(model(keydnn.tensor(x, dtype=x.dtype)))
        for found in (session.run(None, {"input": x}), flat(again(keydnn.tensor(x, dtype=x.dtype)))):
            assert len(found) == len(want)
            for a, b in zip(found, want, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_there_is_a_case_for_every_layer_with_a_form():
    seen = {type(module) for _, model, _, _ in CASES for module in model.modules()}
    assert set(WRITE) <= seen


def test_the_documentation_names_every_layer_with_a_form():
    text = (Path(__file__).parents[3] / "docs" / "reference" / "onnx.md").read_text(encoding="utf-8")
    written = text.partition("## Written")[2].partition("A model is written")[0]
    assert re.findall(r"`(\w+)`", written) == sorted(cls.__name__ for cls in WRITE)


def test_every_layer_has_a_form_or_a_reason():
    named = [cls for cls in vars(nn).values() if isinstance(cls, type) and issubclass(cls, nn.Module)]
    made = {cls for cls in named if cls.__module__.startswith("keydnn.nn.layers.")}
    bases = {nn.Layer, nn.Normalization}
    assert len(made) > 50
    assert made - bases == (set(WRITE) | set(NO_FORM)) - {S}
    assert not set(WRITE) & set(NO_FORM)


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_the_reason_is_told(cell):
    with pytest.raises(UnsupportedOnnxError, match=r"has no ONNX form: one step with its state"):
        to_onnx(S(cell(3, 2)), (1, 3))


def test_adaptive_windows_of_different_sizes_are_refused():
    with pytest.raises(UnsupportedOnnxError, match=r"AdaptiveMaxPool1d.*windows of different sizes"):
        to_onnx(S(nn.AdaptiveMaxPool1d(2)), LINE)


def test_a_change_of_dtype_is_refused():
    with pytest.raises(UnsupportedOnnxError, match=r"\(Tanh\) changes the dtype"):
        to_onnx(S(nn.Linear(4, 4), nn.Tanh(dtype=np.float64)), (1, 4))


def test_float64_and_shared_layers(tmp_path):
    layer = nn.Linear(4, 4, dtype=np.float64)
    model = S(layer, nn.Tanh(), layer).eval()
    proto = to_onnx(model, (1, 4))
    assert len(proto.graph.initializer) == 2 and proto.opset_import[0].version == 18 and proto.ir_version == 9
    from keydnn.interop.onnx import from_onnx

    x = keydnn.tensor(np.random.default_rng(0).random((3, 4)), dtype=np.float64)
    again = from_onnx(proto)
    np.testing.assert_allclose(again(x).numpy(), model(x).numpy(), rtol=1e-14)
    assert sum(p.numel() for p in again.parameters()) == 20


def test_what_was_read_can_be_trained():
    model = prepared(S(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 6, 3)), (1, 1, 8, 8))
    from keydnn.interop.onnx import from_onnx

    again = from_onnx(to_onnx(model, (1, 1, 8, 8)))
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 1, 8, 8)), rng.integers(0, 3, 12)
    losses = [
        m.fit(
            x, y, loss="cross_entropy", optimizer="sgd", optimizer_kwargs={"lr": 0.01}, shuffle=False, epochs=4, batch_size=4, verbose=0
        ).history["loss"]
        for m in (model, again)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert losses[0][-1] < losses[0][0]


class Own(keydnn.Module):
    def forward(self, x):
        return x


def test_what_has_no_form():
    with pytest.raises(UnsupportedOnnxError, match=r"model\.1 \(Own\) has no ONNX form"):
        to_onnx(S(nn.ReLU(), Own()), (1, 3))
    with pytest.raises(UnsupportedOnnxError, match="return_state"):
        to_onnx(S(nn.LSTM(3, 2), nn.ReLU()), (4, 1, 3))
    with pytest.raises(UnsupportedOnnxError, match="return_state"):
        to_onnx(S(nn.Bidirectional(nn.LSTM(3, 2), return_state=True), nn.ReLU()), (4, 1, 3))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"old")
    with pytest.raises(UnsupportedOnnxError):
        save_onnx(S(Own()), tmp_path / "m.onnx", (1, 3))
    assert (tmp_path / "m.onnx").read_bytes() == b"old"
    with pytest.raises(OnnxError, match="no readable ONNX file"):
        load_onnx(tmp_path / "m.onnx")
