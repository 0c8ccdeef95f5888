"""What the built-in models of all frameworks share: shapes, and which layers stand in which order."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from keydnn.experiment.backends.infer import infer_backend
from keydnn.experiment.errors import ActivationError
from keydnn.experiment.models.base import Shape, as_shape
from keydnn.experiment.models.described import Described


@dataclass(frozen=True)
class Kit:
    """The layers of a framework.

    Attributes:
        linear: (in, out) to a linear layer.
        conv: (in, out, kernel_size, stride, padding) to a convolution over one axis.
        pool: (size) to a max pool over one axis.
        dropout: (p) to a dropout layer.
        flatten: () to a layer that joins all axes but the first.
        sequential: (layers) to a chain.
        activations: Name to class.
        module: Base of the layers.
    """

    linear: Callable[[int, int], Any]
    conv: Callable[[int, int, int, int, int], Any]
    pool: Callable[[int], Any]
    dropout: Callable[[float], Any]
    flatten: Callable[[], Any]
    sequential: Callable[[list[Any]], Any]
    activations: Mapping[str, Callable[[], Any]]
    module: type

    def activation(self, wanted: Any) -> Any:
        """A new layer: of a name or class, a copy of a layer, or one that calls a function.

        Raises:
            ActivationError: An unknown name, or something that cannot be called.
        """
        if isinstance(wanted, str):
            found = self.activations.get(wanted.lower())
            if found is None:
                raise ActivationError(f"unknown activation {wanted!r}; known: {', '.join(self.activations)}")
            return found()
        if isinstance(wanted, type):
            return wanted()
        if isinstance(wanted, Described):
            return wanted.make()
        if not callable(wanted):
            raise ActivationError(f"an activation is a name, a class or a callable, got {type(wanted).__name__}")
        return copy.deepcopy(wanted) if isinstance(wanted, self.module) else self.calling(wanted)

    def told(self, wanted: Any) -> Any:
        """What a config says of an activation: of a layer without weights what it is made of, anything else as it is."""
        if not isinstance(wanted, self.module) or list(wanted.parameters()):  # type: ignore[attr-defined]
            return wanted
        backend = infer_backend(wanted)
        return (None if backend is None else Described.of(backend, wanted)) or wanted

    def calling(self, function: Callable[[Any], Any]) -> Any:
        """A layer that calls a function."""
        return type("Calling", (self.module,), {"forward": lambda layer, x: function(x), "__module__": __name__})()


def padded(shape: Shape | None) -> Shape | None:
    """A shape of at least two axes: ones are put in front."""
    return None if shape is None else (1,) * (2 - len(shape)) + shape


class BuiltIn:
    """Shapes and building of a built-in model; ``_make(input_shape, output_shape)`` sets its layers."""

    kit: ClassVar[Kit]
    _in: Shape | None
    _out: Shape | None
    hidden_dim: int

    def _start(self, input_shape: Any, output_shape: Any) -> None:
        self._in, self._out = padded(as_shape(input_shape, "input_shape")), padded(as_shape(output_shape, "output_shape"))
        self._made = False
        if self._in is not None and self._out is not None:
            self._make(self._in, self._out)
            self._made = True

    def _make(self, input_shape: Shape, output_shape: Shape) -> None:
        raise NotImplementedError

    @property
    def input_shape(self) -> Shape | None:
        """Shape of an input; None until it is known."""
        return self._in

    @property
    def output_shape(self) -> Shape | None:
        """Shape of an output; None until it is known."""
        return self._out

    @property
    def is_built(self) -> bool:
        """Whether the layers are there."""
        return self._made

    def build(self, input_shape: Shape | None = None, output_shape: Shape | None = None, *, force: bool = False) -> None:
        """Make the layers.

        Raises:
            ValueError: No input shape; a shape other than the one that is known, without ``force``.

        Warns:
            UserWarning: No output shape: (1, hidden_dim) is taken.
        """
        shapes = {
            "input_shape": padded(as_shape(input_shape, "input_shape")),
            "output_shape": padded(as_shape(output_shape, "output_shape")),
        }
        known = {"input_shape": self._in, "output_shape": self._out}
        for what, shape in shapes.items():
            if shape is not None and known[what] not in (None, shape) and not force:
                raise ValueError(f"{type(self).__name__}: {what} is {known[what]}, {shape} needs force=True")
        if self._made and not force:
            return
        features, outputs = (shapes[what] or known[what] for what in shapes)
        if features is None:
            raise ValueError(f"{type(self).__name__} needs input_shape to be built")
        if outputs is None:
            outputs = (1, self.hidden_dim)
            warnings.warn(f"{type(self).__name__}: no output_shape, {outputs} is taken", stacklevel=2)
        self._in, self._out = features, outputs
        self._make(features, outputs)
        self._made = True


def mlp_layers(kit: Kit, input_shape: Shape, output_shape: Shape, options: Mapping[str, Any]) -> Any:
    """``n_layers`` linear layers, activation and dropout behind all but the last."""
    widths = [math.prod(input_shape)] + [options["hidden_dim"]] * (options["n_layers"] - 1) + [math.prod(output_shape)]
    layers: list[Any] = [kit.flatten()]
    for i in range(options["n_layers"]):
        layers.append(kit.linear(widths[i], widths[i + 1]))
        if i < options["n_layers"] - 1:
            layers.append(kit.activation(options["activation"]))
            layers += [kit.dropout(options["dropout"])] if options["dropout"] > 0 else []
    return kit.sequential(layers)


def cnn_layers(kit: Kit, input_shape: Shape, output_shape: Shape, options: Mapping[str, Any]) -> tuple[Any, Shape]:
    """Blocks of convolution, activation, dropout and pooling, then a linear layer or none; and the shape that comes out."""
    channels, length = input_shape
    layers: list[Any] = []
    for _ in range(options["n_layers"]):
        layers.append(kit.conv(channels, options["hidden_dim"], options["kernel_size"], options["stride"], options["padding"]))
        length = (length + 2 * options["padding"] - options["kernel_size"]) // options["stride"] + 1
        if length < 1:
            raise ValueError(
                f"an input of shape {input_shape} is too short for {options['n_layers']} blocks of kernel size {options['kernel_size']}"
            )
        channels = options["hidden_dim"]
        layers.append(kit.activation(options["activation"]))
        layers += [kit.dropout(options["dropout"])] if options["dropout"] > 0 else []
        if options["pooling"] > 1 and length >= options["pooling"]:
            layers.append(kit.pool(options["pooling"]))
            length //= options["pooling"]
    if not options["flatten_output"]:
        return kit.sequential(layers), (channels, length)
    layers += [kit.flatten(), kit.linear(channels * length, math.prod(output_shape))]
    return kit.sequential(layers), output_shape


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse sizes below 1 and a dropout outside [0, 1).

    Raises:
        ValueError: An option out of range.
    """
    for key in ("n_layers", "hidden_dim", "kernel_size", "stride", "pooling"):
        if key in options and options[key] < 1:
            raise ValueError(f"{name}: {key} must be at least 1, got {options[key]!r}")
    if not 0 <= options["dropout"] < 1:
        raise ValueError(f"{name}: dropout must lie in [0, 1), got {options['dropout']!r}")


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, from its local names."""
    return {name: value for name, value in given.items() if name != "self" and not name.startswith("__")}


class MLP(BuiltIn):
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
        activation = self.kit.told(activation)
        options = _options(locals())
        super().__init__(**options)
        check_options(type(self).__name__, options)
        self.kit.activation(activation)
        self.hidden_dim, self._options = hidden_dim, options
        self._start(input_shape, output_shape)

    def _make(self, input_shape: Shape, output_shape: Shape) -> None:
        self.net = mlp_layers(self.kit, input_shape, output_shape, self._options)

    def forward(self, x: Any) -> Any:
        """``(B, *input_shape)`` to ``(B, *output_shape)``."""
        if not self.is_built:
            self.build(tuple(x.shape[1:]))
        return self.net(x).reshape((x.shape[0], *(self._out or ())))


class CNN(BuiltIn):
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
        activation = self.kit.told(activation)
        options = _options(locals())
        super().__init__(**options)
        check_options(type(self).__name__, options)
        self.kit.activation(activation)
        self.hidden_dim, self._options = hidden_dim, options
        self._start(input_shape, output_shape)

    def _make(self, input_shape: Shape, output_shape: Shape) -> None:
        self.net, self._out = cnn_layers(self.kit, input_shape, output_shape, self._options)

    def forward(self, x: Any) -> Any:
        """``(B, channels, length)`` or ``(B, length)`` to ``(B, *output_shape)``."""
        if not self.is_built:
            self.build(tuple(x.shape[1:]))
        maps = x.reshape((x.shape[0], *(self._in or ()))) if len(x.shape) == 2 else x
        return self.net(maps).reshape((x.shape[0], *(self._out or ())))
