"""Recorded steps of recurrent layers, attention and embeddings equal eager ones, bit for bit without fusion's rounding."""

import numpy as np
import pytest

import keydnn
from keydnn import nn
from tests.compiler.steps import assert_same, only_step

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 10, 5)).astype("f4")
LABELS = RNG.integers(0, 3, 10)
DENSE = lambda *layers: keydnn.Sequential(*layers, nn.Linear(8, 3))  # noqa: E731
LAST = {"return_sequences": False, "return_state": False}

MODELS = {
    "RNN": lambda: DENSE(nn.RNN(5, 8, **LAST)),
    "LSTM": lambda: DENSE(nn.LSTM(5, 8, **LAST)),
    "LSTM-bare": lambda: DENSE(nn.LSTM(5, 8, bias=False, **LAST)),
    "GRU": lambda: DENSE(nn.GRU(5, 8, **LAST)),
    "GRU-after": lambda: DENSE(nn.GRU(5, 8, reset_after=True, **LAST)),
    "two-layers-dropout": lambda: DENSE(nn.LSTM(5, 8, num_layers=2, dropout=0.3, **LAST)),
    "Bidirectional": lambda: DENSE(nn.Bidirectional(nn.GRU(5, 4), return_sequences=False)),
    "stacked": lambda: DENSE(nn.GRU(5, 6, return_state=False), nn.RNN(6, 8, **LAST)),
}


def adam(parameters):
    return keydnn.Adam(parameters, lr=0.01)


def batches(x, y, n=4):
    return [(keydnn.tensor(x * (1 + 0.1 * i)), keydnn.Tensor(data=y, dtype=y.dtype)) for i in range(n)]


@pytest.mark.parametrize("name", MODELS)
def test_recurrent_models(name):
    model = assert_same(MODELS[name], adam, batches(X, LABELS), loss="cross_entropy", rtol=1e-5)
    assert only_step(model).replays == 4


class Padded(keydnn.Model):
    """Lengths in the first column of the numbers, an embedding of the rest, a GRU that ignores the padding."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 5, padding_idx=0)
        self.gru = nn.GRU(5, 8, return_state=False, batch_first=True)
        self.attention = nn.MultiHeadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, numbers):
        lengths, words = numbers[:, 0], numbers[:, 1:]
        h = self.gru(self.table(words), lengths=lengths)
        h = self.attention(h, lengths=lengths, causal=True)
        return self.head(h.sum(1))


def test_padded_numbers_are_recorded_too():
    numbers = RNG.integers(1, 7, (10, 7))
    numbers[:, 0] = RNG.integers(1, 7, 10)
    for row in numbers:
        row[1 + row[0] :] = 0
    data = [(keydnn.Tensor(data=numbers, dtype=np.int64), keydnn.Tensor(data=LABELS, dtype=np.int64))] * 3
    model = assert_same(Padded, adam, data, loss="cross_entropy", rtol=1e-5)
    numbers[3, 2] = 7
    with pytest.raises(IndexError):
        model.train_on_batch(
            keydnn.Tensor(data=numbers, dtype=np.int64), data[0][1], loss="cross_entropy", optimizer=adam(model.parameters())
        )


@pytest.mark.parametrize("how", [{}, {"norm_first": True, "activation": "gelu"}, {"dropout": 0.2}], ids=str)
def test_encoder_blocks(how):
    x = RNG.normal(size=(3, 6, 8)).astype("f4")
    make = lambda: keydnn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **{"dropout": 0.0} | how))  # noqa: E731
    data = [(keydnn.tensor(x), keydnn.tensor(x[::-1].copy()))] * 4
    assert_same(make, adam, data, loss="mse", rtol=1e-5)
