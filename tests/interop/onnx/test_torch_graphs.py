"""Graphs that PyTorch writes: read here they give what PyTorch gives."""

import io
import warnings

import numpy as np
import pytest

import keydnn

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install '.[onnx]'")
from keydnn.interop.onnx import from_onnx  # noqa: E402


def residual(nn):
    import torch

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=4)
            self.groups, self.larger, self.head = nn.GroupNorm(2, 8), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Linear(8, 5)

        def forward(self, x):
            y = torch.relu(self.norm(self.first(x)))
            y = self.larger(y + self.groups(self.second(y)))
            y = nn.functional.interpolate(y, scale_factor=0.5, mode="nearest")
            return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1)).softmax(-1)

    return Residual(), torch.randn(2, 3, 8, 8)


def sequence(nn):
    import torch

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.lstm = nn.Embedding(11, 8), nn.LSTM(8, 6, bidirectional=True, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True), nn.Linear(12, 4)

        def forward(self, index):
            return self.head(self.encoder(self.lstm(self.table(index))[0])[:, -1])

    return Sequence(), torch.randint(0, 11, (2, 7))


@pytest.mark.torch
@pytest.mark.parametrize("make", [residual, sequence])
def test_what_torch_writes(make):
    import torch

    torch.manual_seed(0)
    model, x = make(torch.nn)
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of the writer, about itself
        torch.onnx.export(model.eval(), (x,), buffer, dynamo=False, opset_version=18)
    again = from_onnx(onnx.ModelProto.FromString(buffer.getvalue())).eval()
    found = again(keydnn.tensor(x.numpy(), dtype=x.numpy().dtype)).numpy()
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in again.parameters()) > 100
