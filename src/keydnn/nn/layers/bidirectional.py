"""Bidirectional: a recurrent layer that reads the sequence both ways."""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.layers.layer import Layer
from keydnn.nn.layers.recurrent import Recurrent, live_steps
from keydnn.ops import concat, where
from keydnn.saving.registry import name_of, register_module, registered

MERGES = {
    "concat": lambda f, b: concat([f, b], axis=-1),
    "sum": lambda f, b: f + b,
    "mul": lambda f, b: f * b,
    "ave": lambda f, b: (f + b) * 0.5,
}


@register_module()
class Bidirectional(Layer):
    """Two recurrent layers, one from the first step to the last, one back, and their outputs joined step by step.

    Args:
        layer: An RNN, LSTM or GRU; only its config is used, for the two fresh layers.
        merge_mode: ``"concat"`` (along the features), ``"sum"``, ``"mul"`` or ``"ave"``.
        return_sequences: Whether the outputs of all steps are returned.
        return_state: Whether the last states of both layers are returned too.
        last: What stands for the backward layer without return_sequences: ``"final"``, its state after the whole sequence, or
            ``"aligned"``, its output at the last step, of which it has seen no other.

    Shapes: x (T, N, D) -> (T, N, 2H), or (T, N, H) for another merge than concat; without return_sequences (N, 2H).
        ``forward_layer`` and ``backward_layer``, also called ``forward_rnn`` and ``backward_rnn``, have the parameters.

    Returns:
        The output; with return_state ``(output, state_f, state_b)``.

    Raises:
        ValueError: Another merge_mode or ``last``; x is not 3-D.
        TypeError: ``layer`` is no recurrent layer; h0 is neither None, a state, nor a pair of states.

    Example:
        >>> from keydnn.nn import GRU, Bidirectional
        >>> Bidirectional(GRU(4, 3))(keydnn.ones((5, 2, 4))).shape
        (5, 2, 6)

    Source: Schuster & Paliwal 1997, https://doi.org/10.1109/78.650093
    """

    _aliases = {"forward_rnn": "forward_layer", "backward_rnn": "backward_layer"}
    forward_layer: Recurrent
    backward_layer: Recurrent

    def __init__(
        self, layer: Any, merge_mode: str = "concat", return_sequences: bool = True, return_state: bool = False, last: str = "final"
    ) -> None:
        super().__init__()
        if not isinstance(layer, Recurrent):
            what = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
            raise TypeError(f"Bidirectional: layer must be an RNN, LSTM or GRU, got {what}")
        if merge_mode not in MERGES:
            raise ValueError(f"Bidirectional: merge_mode must be one of {', '.join(MERGES)}, got {merge_mode!r}")
        if last not in ("final", "aligned"):
            raise ValueError(f"Bidirectional: last must be 'final' or 'aligned', got {last!r}")
        self.merge_mode = merge_mode
        self.return_sequences = bool(return_sequences)
        self.return_state = bool(return_state)
        self.last = last
        config = layer.get_config() | {"return_sequences": True, "return_state": True, "keras_compat": True}
        self.forward_layer = type(layer).from_config(config)
        self.backward_layer = type(layer).from_config(config)
        self._post_load()

    def _post_load(self) -> None:
        """Tie the second names to the layers."""
        for alias, name in self._aliases.items():
            self.register_module(alias, getattr(self, name))

    def forward(self, x: Tensor, h0: Any = None, *, lengths: Any = None, mask: Any = None) -> Any:
        """Run both ways.

        Args:
            x: (T, N, D), or (N, T, D) if the layer is batch_first.
            h0: None, one state for both layers, or a pair of states; a state of an LSTM is ``(h, c)`` or just h.
            lengths: Steps of each row that count, as for the layer; the backward layer starts at the last of them.
            mask: Instead of lengths, as for the layer.
        """
        if not isinstance(x, Tensor) or x.ndim != 3:
            what = f"shape {x.shape}" if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(f"Bidirectional: expected x with three axes, got {what}")
        first, second = self._states(h0)
        f, state_f = self.forward_layer(x, *first, lengths=lengths, mask=mask)
        b, state_b = self.backward_layer(x, *second, lengths=lengths, mask=mask, reverse=True)
        merge = MERGES[self.merge_mode]
        if self.return_sequences:
            out = merge(f, b)
        elif self.last == "final":
            out = merge(_top(state_f), _top(state_b))
        else:
            out = merge(*(self._at_last_step(y, x, lengths, mask) for y in (f, b)))
        return (out, state_f, state_b) if self.return_state else out

    def _states(self, h0: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The arguments after x for each layer."""
        n_states = self.forward_layer.n_states
        if h0 is None:
            return (), ()
        if isinstance(h0, Tensor):
            return (h0,), (h0,)
        if isinstance(h0, tuple | list) and len(h0) == 2:
            if n_states == 2 and _is_state(h0, 2):
                return tuple(h0), tuple(h0)
            if all(isinstance(s, Tensor) or _is_state(s, n_states) for s in h0):
                first, second = ((s,) if isinstance(s, Tensor) else tuple(s) for s in h0)
                return first, second
        raise TypeError(f"Bidirectional: h0 must be None, a state or a pair of states, got {type(h0).__name__}")

    def _at_last_step(self, y: Tensor, x: Tensor, lengths: Any, mask: Any) -> Tensor:
        """The output at the last step that counts."""
        if self.forward_layer.batch_first:
            x, y = x.transpose(1, 0, 2), y.transpose(1, 0, 2)
        if mask is not None:
            raise ValueError("Bidirectional: last='aligned' needs lengths instead of a mask, or return_sequences")
        live = live_steps(x, lengths, None, "Bidirectional")
        if live is None:
            return y[-1]
        ends = live - concat([live[1:], live[:1] * 0.0], axis=0)
        return where(ends.reshape((*ends.shape, 1)), y, 0.0).sum(0)

    def extra_repr(self) -> str:
        """The config without that of the layers, which show their own."""
        return super().extra_repr().partition(", layer={")[0]

    def get_config(self) -> dict[str, Any]:
        """``merge_mode, return_sequences, return_state, layer_type, layer``, and ``last`` if it is ``"final"``."""
        config = {
            "merge_mode": self.merge_mode,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "layer_type": name_of(type(self.forward_layer)),
            "layer": self.forward_layer.get_config(),
        }
        return config | ({"last": "final"} if self.last == "final" else {})  # older files, without the key, mean "aligned"

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Bidirectional:
        """A new layer; a config without ``last`` means ``"aligned"``.

        Raises:
            KeyError: ``layer_type`` or ``layer`` is missing.
            TypeError: ``layer_type`` names no recurrent layer.
            ValueError: A value is out of range or ``layer_type`` unknown.
        """
        for key in ("layer_type", "layer"):
            if key not in config:
                raise KeyError(f"Bidirectional.from_config: {key!r} is missing from {config}")
        kind = registered(config["layer_type"])
        if not issubclass(kind, Recurrent):
            raise TypeError(f"Bidirectional.from_config: layer_type {config['layer_type']!r} is no recurrent layer")
        options = {key: config[key] for key in ("merge_mode", "return_sequences", "return_state") if key in config}
        return cls(kind.from_config(config["layer"]), last=config.get("last", "aligned"), **options)


def _is_state(value: Any, n_states: int) -> bool:
    return n_states == 2 and isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(t, Tensor) for t in value)


def _top(state: Any) -> Tensor:
    """The last state of the uppermost layer."""
    h: Tensor = state[0] if isinstance(state, tuple) else state
    return h if h.ndim == 2 else h[-1]
