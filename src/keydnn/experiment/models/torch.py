"""Built-in models for PyTorch."""

from __future__ import annotations

from keydnn.experiment.models.builtin import CNN, MLP, Kit
from keydnn.experiment.models.torch_model import TorchBaseModel
from keydnn.experiment.optional import need

nn = need("torch.nn", "keydnn.experiment.models.torch")

KIT = Kit(
    linear=nn.Linear,
    conv=lambda n_in, n_out, size, stride, padding: nn.Conv1d(n_in, n_out, size, stride=stride, padding=padding),
    pool=nn.MaxPool1d,
    dropout=nn.Dropout,
    flatten=nn.Flatten,
    sequential=lambda layers: nn.Sequential(*layers),
    activations={"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU},
    module=nn.Module,
)


class SequentialMLP(MLP, TorchBaseModel):
    """Linear layers of PyTorch, see :class:`keydnn.experiment.models.builtin.MLP`."""

    kit = KIT


class SequentialCNN(CNN, TorchBaseModel):
    """Blocks of convolutions of PyTorch, see :class:`keydnn.experiment.models.builtin.CNN`."""

    kit = KIT
