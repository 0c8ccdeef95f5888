"""Built-in models for the engine."""

from __future__ import annotations

from keydnn import Sequential, nn
from keydnn.experiment.models.builtin import CNN, MLP, Kit
from keydnn.experiment.models.keydnn_model import KeydnnBaseModel

KIT = Kit(
    linear=nn.Linear,
    conv=lambda n_in, n_out, size, stride, padding: nn.Conv1d(n_in, n_out, size, stride=stride, padding=padding),
    pool=nn.MaxPool1d,
    dropout=nn.Dropout,
    flatten=nn.Flatten,
    sequential=lambda layers: Sequential(*layers),
    activations={"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU},
    module=nn.Module,
)


class SequentialMLP(MLP, KeydnnBaseModel):
    """Linear layers of the engine, see :class:`keydnn.experiment.models.builtin.MLP`."""

    kit = KIT


class SequentialCNN(CNN, KeydnnBaseModel):
    """Blocks of convolutions of the engine, see :class:`keydnn.experiment.models.builtin.CNN`."""

    kit = KIT
