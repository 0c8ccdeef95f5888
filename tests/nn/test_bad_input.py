"""Bad input: one clear error that names the layer and both sides of the disagreement; nothing changes."""

import numpy as np
import pytest

import keydnn
from keydnn import Tensor, nn

ones = keydnn.ones
IMAGE = (2, 3, 5, 5)


def elsewhere(*shape):
    return Tensor(shape, "cuda:0")


CONSTRUCTION = {
    "linear in": (lambda: nn.Linear(0, 3), ValueError, "Linear.*in_features.*0"),
    "linear out": (lambda: nn.Linear(3, -1), ValueError, "Linear.*out_features.*-1"),
    "linear type": (lambda: nn.Linear(2.5, 1), TypeError, "Linear.*in_features.*2.5"),
    "linear bool": (lambda: nn.Linear(True, 1), TypeError, "in_features"),
    "linear dtype": (lambda: nn.Linear(1, 1, dtype="int32"), TypeError, "Linear.*int32"),
    "linear no dtype": (lambda: nn.Linear(1, 1, dtype="floaty"), TypeError, "floaty"),
    "linear device": (lambda: nn.Linear(1, 1, device="cuda"), ValueError, "Invalid device 'cuda'"),
    "linear device type": (lambda: nn.Linear(1, 1, device=1), TypeError, "Linear.*int"),
    "linear initializer": (lambda: nn.Linear(1, 1, initializer="x"), ValueError, "Unsupported initializer name"),
    "dense out": (lambda: nn.Dense(0), ValueError, "Dense.*out_features"),
    "conv channels": (lambda: nn.Conv2d(0, 1, 3), ValueError, "Conv2d.*in_channels"),
    "conv kernel": (lambda: nn.Conv2d(1, 1, 0), ValueError, "Conv2d.*kernel_size.*0"),
    "conv kernel triple": (lambda: nn.Conv2d(1, 1, (1, 2, 3)), ValueError, "kernel_size.*pair"),
    "conv kernel type": (lambda: nn.Conv2d(1, 1, "3"), TypeError, "kernel_size"),
    "conv stride": (lambda: nn.Conv2d(1, 1, 3, stride=0), ValueError, "Conv2d.*stride.*0"),
    "conv padding": (lambda: nn.Conv2d(1, 1, 3, padding=-1), ValueError, "Conv2d.*padding.*-1"),
    "conv padding name": (lambda: nn.Conv2d(1, 1, 3, padding="full"), ValueError, "'same' or 'valid'.*full"),
    "conv dilation": (lambda: nn.Conv2d(1, 1, 3, dilation=0), ValueError, "dilation"),
    "conv groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups=2.*3.*4"),
    "adaptive size": (lambda: nn.AdaptiveMaxPool3d((1, 2)), ValueError, "AdaptiveMaxPool3d.*output_size.*3 ints"),
    "adaptive none": (lambda: nn.AdaptiveAvgPool1d(0), ValueError, "AdaptiveAvgPool1d.*output_size.*0"),
    "conv3d kernel": (lambda: nn.Conv3d(1, 1, (1, 2)), ValueError, "Conv3d.*kernel_size.*3 ints"),
    "conv3d groups": (lambda: nn.Conv3d(3, 4, 1, groups=2), ValueError, "Conv3d.*groups=2.*3.*4"),
    "pool3d stride": (lambda: nn.MaxPool3d(2, 0), ValueError, "MaxPool3d.*stride.*0"),
    "pad negative": (lambda: nn.ZeroPad2d(-1), ValueError, "ZeroPad2d.*padding.*-1"),
    "upsample mode": (lambda: nn.Upsample(2, "cubic"), ValueError, "'nearest' or 'bilinear'.*cubic"),
    "upsample corners": (lambda: nn.Upsample(2, align_corners=True), ValueError, "align_corners"),
    "pool kernel": (lambda: nn.MaxPool2d(0), ValueError, "MaxPool2d.*kernel_size"),
    "pool stride": (lambda: nn.AvgPool2d(2, 0), ValueError, "AvgPool2d.*stride"),
    "pool padding": (lambda: nn.AvgPool2d(2, padding=(0, -1)), ValueError, "padding"),
    "batch norm features": (lambda: nn.BatchNorm1d(0), ValueError, "BatchNorm1d.*num_features"),
    "batch norm device": (lambda: nn.BatchNorm2d(1, device=3.0), TypeError, "BatchNorm2d.*float"),
    "batch norm eps": (lambda: nn.BatchNorm1d(1, eps=-1.0), ValueError, "eps.*-1"),
    "batch norm momentum": (lambda: nn.BatchNorm1d(1, momentum=1.5), ValueError, r"momentum.*\[0, 1\].*1.5"),
    "batch norm cuda": (lambda: nn.BatchNorm1d(1, device="cuda:0"), RuntimeError, "cuda:0"),
    "layer norm shape": (lambda: nn.LayerNorm((3, 0)), ValueError, "LayerNorm.*normalized_shape.*0"),
    "layer norm device": (lambda: nn.LayerNorm(3, device=object()), TypeError, "LayerNorm"),
    "layer norm cuda": (lambda: nn.LayerNorm(3, device="cuda:0"), RuntimeError, "cuda:0"),
    "dropout 1": (lambda: nn.Dropout(1.0), ValueError, r"\[0, 1\).*1.0"),
    "dropout negative": (lambda: nn.Dropout(-0.1), ValueError, "-0.1"),
    "dropout nan": (lambda: nn.Dropout(float("nan")), ValueError, "nan"),
    "dropout type": (lambda: nn.Dropout("0.5"), TypeError, "p must be a number"),
    "softmax axis": (lambda: nn.Softmax(axis=1.0), TypeError, "axis"),
    "leaky alpha": (lambda: nn.LeakyReLU("x"), TypeError, "alpha"),
}


@pytest.mark.parametrize("name", CONSTRUCTION)
def test_bad_arguments(name):
    make, error, match = CONSTRUCTION[name]
    with pytest.raises(error, match=match):
        make()


RUN = {
    "linear rank 1": (nn.Linear(4, 2), ones((4,)), ValueError, r"Linear.*\(batch, 4\).*\(4,\)"),
    "linear rank 3": (nn.Linear(4, 2), ones((2, 3, 4)), ValueError, r"Linear.*\(2, 3, 4\)"),
    "linear features": (nn.Linear(4, 2), ones((2, 5)), ValueError, r"Linear.*4.*\(2, 5\)"),
    "linear device": (nn.Linear(4, 2), elsewhere(2, 4), RuntimeError, "'cuda:0'.*'cpu'|'cpu'.*'cuda:0'"),
    "linear array": (nn.Linear(4, 2), np.ones((2, 4)), TypeError, "ndarray"),
    "linear integers": (nn.Linear(4, 2), keydnn.tensor(np.ones((2, 4)), dtype="int64"), TypeError, "int64"),
    "conv rank": (nn.Conv2d(3, 2, 3), ones((3, 5, 5)), ValueError, r"Conv2d.*\(3, 5, 5\)"),
    "conv channels": (nn.Conv2d(3, 2, 3), ones((2, 4, 5, 5)), ValueError, "Conv2d.*4 channels.*in_channels=3"),
    "conv channels last": (nn.Conv2d(3, 2, 3), ones((2, 5, 5, 3)), ValueError, "channels-last"),
    "conv small": (nn.Conv2d(3, 2, 3), ones((2, 3, 5, 2)), ValueError, "Conv2d.*larger than the padded input"),
    "conv same rank": (nn.Conv2d(3, 2, 2, padding="same"), ones((3, 5)), ValueError, r"Conv2d.*\(3, 5\)"),
    "conv device": (nn.Conv2d(3, 2, 3), elsewhere(*IMAGE), RuntimeError, "'cuda:0'"),
    "conv array": (nn.Conv2d(3, 2, 3), np.ones(IMAGE), TypeError, "ndarray"),
    "conv integers": (nn.Conv2d(3, 2, 3), keydnn.tensor(np.ones(IMAGE), dtype="int64"), TypeError, "int64"),
    "transpose rank": (nn.Conv2dTranspose(3, 2, 3), ones((2, 3)), ValueError, r"Conv2dTranspose.*\(2, 3\)"),
    "transpose channels": (nn.Conv2dTranspose(3, 2, 3), ones((2, 4, 5, 5)), ValueError, "Conv2dTranspose.*4 channels.*in_channels=3"),
    "transpose extra": (nn.Conv2dTranspose(3, 2, 3, 2, 0, 2), ones(IMAGE), ValueError, "output_padding < stride"),
    "transpose stride": (nn.Conv2dTranspose(3, 2, 3, 0), ones(IMAGE), ValueError, "stride >= 1"),
    "transpose empty": (nn.Conv2dTranspose(3, 2, 1, 1, 3), ones(IMAGE), ValueError, "not positive"),
    "transpose device": (nn.Conv2dTranspose(3, 2, 3), elsewhere(*IMAGE), RuntimeError, "'cuda:0'"),
    "max rank": (nn.MaxPool2d(2), ones((3, 5, 5)), ValueError, r"MaxPool2d.*\(3, 5, 5\)"),
    "max small": (nn.MaxPool2d(6), ones(IMAGE), ValueError, "MaxPool2d.*larger than the padded input"),
    "max integers": (nn.MaxPool2d(2), keydnn.tensor(np.ones(IMAGE), dtype="int32"), TypeError, "int32"),
    "avg rank": (nn.AvgPool2d(2), ones((3,)), ValueError, "AvgPool2d"),
    "avg small": (nn.AvgPool2d((2, 9), padding=1), ones(IMAGE), ValueError, "AvgPool2d.*larger"),
    "global rank": (nn.GlobalAvgPool2d(), ones((3, 4)), ValueError, "GlobalAvgPool2d"),
    "global empty": (nn.GlobalAvgPool2d(), ones((3, 4, 0, 2)), ValueError, "GlobalAvgPool2d"),
    "bn1 rank": (nn.BatchNorm1d(3), ones((2, 3, 4)), ValueError, r"BatchNorm1d.*\(N, C\).*\(2, 3, 4\)"),
    "bn1 channels": (nn.BatchNorm1d(3), ones((2, 4)), ValueError, r"BatchNorm1d.*C = 3.*\(2, 4\)"),
    "bn1 device": (nn.BatchNorm1d(3), elsewhere(2, 3), ValueError, "BatchNorm1d.*'cuda:0'.*'cpu'"),
    "bn1 plain device": (nn.BatchNorm1d(3, affine=False), elsewhere(2, 3), ValueError, "BatchNorm1d.*'cuda:0'.*'cpu'"),
    "bn1 no rows": (nn.BatchNorm1d(3), ones((0, 3)), ValueError, r"BatchNorm1d.*\(0, 3\)"),
    "bn1 array": (nn.BatchNorm1d(3), np.ones((2, 3)), TypeError, "BatchNorm1d.*ndarray"),
    "bn1 integers": (nn.BatchNorm1d(3), keydnn.tensor(np.ones((2, 3)), dtype="int64"), TypeError, "int64"),
    "bn2 rank": (nn.BatchNorm2d(3), ones((2, 3)), ValueError, r"BatchNorm2d.*\(N, C, H, W\).*\(2, 3\)"),
    "bn2 channels": (nn.BatchNorm2d(4), ones(IMAGE), ValueError, "BatchNorm2d.*C = 4"),
    "ln rank": (nn.LayerNorm((2, 3)), ones((3,)), ValueError, r"LayerNorm.*\(3,\).*\(2, 3\)"),
    "ln trailing": (nn.LayerNorm((2, 3)), ones((5, 3, 2)), ValueError, r"LayerNorm.*\(5, 3, 2\).*\(2, 3\)"),
    "ln empty": (nn.LayerNorm(()), ones((5, 3)), ValueError, r"LayerNorm.*\(\)"),
    "ln device": (nn.LayerNorm(3), elsewhere(2, 3), ValueError, "LayerNorm.*'cuda:0'.*'cpu'"),
    "ln array": (nn.LayerNorm(3), np.ones((2, 3)), TypeError, "LayerNorm.*ndarray"),
    "flatten scalar": (nn.Flatten(), ones(()), ValueError, "Flatten.*scalar"),
    "softmax axis": (nn.Softmax(axis=2), ones((2, 3)), ValueError, "Softmax.*axis 2"),
    "log softmax axis": (nn.LogSoftmax(axis=-3), ones((2, 3)), ValueError, "LogSoftmax.*axis -3"),
    "relu array": (nn.ReLU(), np.ones(3), TypeError, "ndarray"),
    "dropout array": (nn.Dropout(0.5), np.ones(3), (TypeError, AttributeError), "ndarray"),
    "group norm channels": (nn.GroupNorm(2, 4), ones(IMAGE), ValueError, r"GroupNorm.*C = 4.*\(2, 3, 5, 5\)"),
    "instance norm rank": (nn.InstanceNorm2d(3), ones((2, 3)), ValueError, r"InstanceNorm2d.*\(2, 3\)"),
    "rms norm trailing": (nn.RMSNorm(4), ones((2, 3)), ValueError, r"RMSNorm.*4.*\(2, 3\)"),
    "conv1 rank": (nn.Conv1d(3, 2, 3), ones((3, 5)), ValueError, r"Conv1d.*\(N, C, L\).*\(3, 5\)"),
    "conv1 channels": (nn.Conv1d(3, 2, 3), ones((1, 4, 5)), ValueError, "Conv1d.*in_channels=3"),
    "conv1 short": (nn.Conv1d(3, 2, 3), ones((1, 3, 2)), ValueError, "Conv1d.*larger"),
    "max1 rank": (nn.MaxPool1d(2), ones(IMAGE), ValueError, "MaxPool1d"),
    "adaptive rank": (nn.AdaptiveAvgPool2d(2), ones((2, 3)), ValueError, "AdaptiveAvgPool2d"),
    "any rank features": (nn.Linear(4, 2, any_rank=True), ones((2, 3, 5)), ValueError, r"Linear.*\(\.\.\., 4\).*\(2, 3, 5\)"),
    "any rank scalar": (nn.Linear(4, 2, any_rank=True), ones(()), ValueError, r"Linear.*\(\.\.\., 4\)"),
    "any rank lazy scalar": (nn.Dense(2, any_rank=True), ones(()), ValueError, r"Dense.*\(\.\.\., features\)"),
    "adaptive one axis rank": (nn.AdaptiveMaxPool1d(2), ones(IMAGE), ValueError, r"AdaptiveMaxPool1d.*\(N, C, W\)"),
    "adaptive volume array": (nn.AdaptiveMaxPool3d(2), np.ones(IMAGE), TypeError, "AdaptiveMaxPool3d.*ndarray"),
    "adaptive empty": (nn.AdaptiveMaxPool2d(2), ones((1, 1, 0, 2)), ValueError, "AdaptiveMaxPool2d.*elements"),
    "conv3d rank": (nn.Conv3d(1, 1, 2), ones(IMAGE), ValueError, r"Conv3d.*\(N, C, D, H, W\)"),
    "conv3d channels": (nn.Conv3d(1, 1, 2), ones((1, 2, 3, 3, 3)), ValueError, "Conv3d.*in_channels=1"),
    "conv3d depth": (nn.Conv3d(1, 1, (4, 1, 1)), ones((1, 1, 3, 3, 3)), ValueError, "Conv3d.*does not fit"),
    "conv3d plane": (nn.Conv3d(1, 1, (1, 4, 1)), ones((1, 1, 3, 3, 3)), ValueError, "Conv3d"),
    "conv3d array": (nn.Conv3d(1, 1, 1), np.ones((1, 1, 3, 3, 3)), TypeError, "Conv3d.*ndarray"),
    "conv3d device": (nn.Conv3d(1, 1, 1), elsewhere(1, 1, 3, 3, 3), RuntimeError, "cuda:0"),
    "pool3d rank": (nn.MaxPool3d(2), ones(IMAGE), ValueError, "MaxPool3d"),
    "pool3d depth": (nn.AvgPool3d((4, 1, 1)), ones((1, 1, 3, 3, 3)), ValueError, "AvgPool3d"),
    "pool3d plane": (nn.AvgPool3d((1, 1, 4)), ones((1, 1, 3, 3, 3)), ValueError, "AvgPool3d"),
    "pad rank": (nn.ZeroPad2d(1), ones((1, 3)), ValueError, "ZeroPad2d"),
    "upsample empty": (nn.Upsample(2, "bilinear"), ones((1, 1, 0, 3)), ValueError, "Upsample.*elements"),
    "upsample array": (nn.Upsample(2), np.ones(IMAGE), TypeError, "Upsample.*ndarray"),
    "shuffle channels": (nn.PixelShuffle(2), ones(IMAGE), ValueError, "PixelShuffle.*divide by 4"),
    "prelu channels": (nn.PReLU(3), ones((2, 4)), ValueError, r"PReLU.*C = 3.*\(2, 4\)"),
}


@pytest.mark.parametrize("name", RUN)
def test_bad_operands(name):
    layer, x, error, match = RUN[name]
    before = layer.state_dict()
    with pytest.raises(error, match=match):
        layer(x)
    for key, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 2, 3), lambda: nn.BatchNorm2d(3), lambda: nn.LayerNorm((5, 5))])
def test_a_refused_input_in_evaluation_mode_too(make):
    with pytest.raises(ValueError):
        make().eval()(ones((2, 4, 5, 6)))


LAYERS = {
        "Linear": lambda: nn.Linear(3, 2), "Dense": lambda: nn.Dense(2), "ReLU": nn.ReLU, "LeakyReLU": nn.LeakyReLU, "Softmax": nn.Softmax,
        "PReLU": nn.PReLU, "GELU": nn.GELU, "Dropout": nn.Dropout, "Flatten": nn.Flatten, "BatchNorm1d": lambda: nn.BatchNorm1d(3),
        "LayerNorm": lambda: nn.LayerNorm(3), "GroupNorm": lambda: nn.GroupNorm(1, 3), "Conv2d": lambda: nn.Conv2d(3, 2, 3),
        "Conv2dTranspose": lambda: nn.Conv2dTranspose(3, 2, 3), "Conv1d": lambda: nn.Conv1d(3, 2, 3), "MaxPool2d": lambda: nn.MaxPool2d(2),
        "GlobalAvgPool2d": nn.GlobalAvgPool2d, "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(2), "LSTM": lambda: nn.LSTM(3, 2),
        "Upsample": lambda: nn.Upsample(2), "MultiHeadAttention": lambda: nn.MultiHeadAttention(4, 2),
        "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(4, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_no_tensor_is_named_with_the_layer(name):
    with pytest.raises(TypeError, match=rf"^{name}: .*expected a Tensor, got tuple|^{name}: query must be a Tensor, got tuple"):
        LAYERS[name]()((ones((2, 3, 4)), ones((2, 4))))


def test_what_to_do_about_it():
    with pytest.raises(TypeError, match=r"Linear: expected a Tensor, got tuple; a recurrent layer .* return_state=False"):
        keydnn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 1))(ones((2, 1, 3)))
    with pytest.raises(TypeError, match=r"Linear: expected a Tensor, got ndarray; make one with keydnn.tensor") as caught:
        nn.Linear(3, 2)(np.ones((1, 3)))
    assert isinstance(caught.value.__cause__, TypeError)
    assert nn.Identity()("anything") == "anything"


def test_errors_inside_a_users_layer_are_left_as_they_are():
    class Own(nn.Module):
        def forward(self, x):
            return x.missing

    with pytest.raises(AttributeError, match="missing"):
        Own()((1, 2))
    with pytest.raises(TypeError, match="positional argument"):
        nn.Linear(3, 2)()
