"""Built-in models for the engine."""

from __future__ import annotations

from typing import Any

from keydnn import Sequential, nn
from keydnn.experiment.models.base import Shape
from keydnn.experiment.models.builtin import BuiltIn, Kit, check_options, cnn_layers, mlp_layers
from keydnn.experiment.models.keydnn_model import KeydnnBaseModel

KIT = Kit(
    linear=nn.Linear,
    conv=lambda n_in, n_out, size, stride, padding: nn.Conv1d(n_in, n_out, size, stride=stride, padding=padding),
    pool=nn.MaxPool1d,
    dropout=nn.Dropout,
    flatten=nn.Flatten,
    sequential=lambda layers: Sequential(*layers),
    activations={"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU},
)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, from its local names."""
    return {name: value for name, value in given.items() if name != "self" and not name.startswith("__")}


class SequentialMLP(BuiltIn, KeydnnBaseModel):
    """Linear layers, ``n_layers`` in all, with activation and dropout behind all but the last.

    Args:
        input_shape: Of an input, flattened first; at least two axes, ones are put in front.
        output_shape: Of an output, likewise.
        n_layers: Number of linear layers.
        hidden_dim: Width of all but the last.
        activation: "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "elu", a class or a callable.
        dropout: Probability, in [0, 1).

    Raises:
        ValueError: An option out of range.
        ActivationError: An unknown activation.
    """

    def __init__(
        self,
        *,
        input_shape: Shape | None = None,
        output_shape: Shape | None = None,
        n_layers: int = 2,
        hidden_dim: int = 32,
        activation: Any = "relu",
        dropout: float = 0.0,
    ) -> None:
        options = _options(locals())
        super().__init__(**options)
        check_options("SequentialMLP", options)
        KIT.activation(activation)
        self.hidden_dim, self._options = hidden_dim, options
        self._start(input_shape, output_shape)

    def _make(self, input_shape: Shape, output_shape: Shape) -> None:
        self.net = mlp_layers(KIT, input_shape, output_shape, self._options)

    def forward(self, x: Any) -> Any:
        """(B, *input_shape) to (B, *output_shape)."""
        if not self.is_built:
            self.build(tuple(x.shape[1:]))
        return self.net(x).reshape((x.shape[0], *(self._out or ())))


class SequentialCNN(BuiltIn, KeydnnBaseModel):
    """Blocks of convolution, activation, dropout and max pooling over one axis, then a linear layer.

    Args:
        input_shape: (channels, length); (length,) gets one channel.
        output_shape: Of an output, at least two axes, ones are put in front.
        n_layers: Number of blocks.
        hidden_dim: Channels of every block.
        kernel_size: Of the convolutions.
        padding: Of the convolutions, on both sides.
        stride: Of the convolutions.
        activation: "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "elu", a class or a callable.
        dropout: Probability, in [0, 1).
        pooling: Size of the max pools; 1 leaves them out, and so does a length below it.
        flatten_output: Whether a linear layer makes outputs of ``output_shape``; without it the feature maps come as they are.

    Raises:
        ValueError: An option out of range, or an input too short for the blocks.
        ActivationError: An unknown activation.
    """

    def __init__(
        self,
        *,
        input_shape: Shape | None = None,
        output_shape: Shape | None = None,
        n_layers: int = 2,
        hidden_dim: int = 16,
        kernel_size: int = 3,
        padding: int = 1,
        stride: int = 1,
        activation: Any = "relu",
        dropout: float = 0.0,
        pooling: int = 1,
        flatten_output: bool = True,
    ) -> None:
        options = _options(locals())
        super().__init__(**options)
        check_options("SequentialCNN", options)
        KIT.activation(activation)
        self.hidden_dim, self._options = hidden_dim, options
        self._start(input_shape, output_shape)

    def _make(self, input_shape: Shape, output_shape: Shape) -> None:
        self.net, self._out = cnn_layers(KIT, input_shape, output_shape, self._options)

    def forward(self, x: Any) -> Any:
        """(B, channels, length) or (B, length) to (B, *output_shape)."""
        if not self.is_built:
            self.build(tuple(x.shape[1:]))
        maps = x.reshape((x.shape[0], *(self._in or ()))) if len(x.shape) == 2 else x
        return self.net(maps).reshape((x.shape[0], *(self._out or ())))
