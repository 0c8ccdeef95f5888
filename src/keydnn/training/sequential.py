"""Sequential: layers applied one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keydnn._tensor import Tensor
from keydnn.nn import Normalization
from keydnn.nn.module import Module
from keydnn.saving import register_module
from keydnn.training.model import Model


@register_module()
class Sequential(Model):
    """A chain of layers; its children, in order of registration, are the chain.

    Args:
        layers: Modules, named ``"0"``, ``"1"``, ...

    Raises:
        TypeError: An entry is no Module.

    Example:
        >>> from keydnn.nn import Dense, ReLU
        >>> from keydnn.training import Sequential
        >>> model = Sequential(Dense(8), ReLU())
        >>> model.add(Dense(1), name="head")
        >>> model.build((1, 4))
        >>> model(keydnn.ones((3, 4))).shape
        (3, 1)
        >>> print(model.summary())
        Sequential(
          (0): Dense
          (1): ReLU
          (head): Dense
        )
    """

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        for layer in layers:
            self.add(layer)

    def add(self, layer: Module, name: str | None = None) -> None:
        """Append a layer.

        Args:
            layer: The module.
            name: Its name; None is its position.

        Raises:
            TypeError: ``layer`` is no Module.
            ValueError: The name is taken, empty, or holds a dot.
        """
        if not isinstance(layer, Module):
            what = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
            mend = (
                "; unpack it: Sequential(*layers)"
                if isinstance(layer, list | tuple)
                else "; pass an object of it"
                if isinstance(layer, type)
                else ""
            )
            raise TypeError(f"{type(self).__name__}.add: expected a Module, got {what}{mend}")
        key = str(len(self._modules)) if name is None else name
        if key in self._modules or (isinstance(key, str) and not key.isdecimal() and getattr(self, key, None) is not None):
            raise ValueError(f"{type(self).__name__}.add: the name {key!r} is taken")
        self.register_module(key, layer)

    def layers(self) -> tuple[Module, ...]:
        """The layers in order."""
        return tuple(self._modules.values())

    @property
    def _layers(self) -> list[Module]:
        return list(self._modules.values())

    @property
    def order(self) -> list[str]:
        """The names of the layers in order."""
        return list(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers())

    def __bool__(self) -> bool:
        return True  # an empty chain is a model too

    def __getitem__(self, key: int | str | slice) -> Any:
        """A layer by position or name; a slice gives a Sequential of the same layers.

        Raises:
            IndexError: There is no such position.
            KeyError: There is no such name.
        """
        if isinstance(key, str):
            return self._modules[key]
        if isinstance(key, slice):
            part = Sequential()
            for name, layer in list(self._modules.items())[key]:
                part.add(layer, name)
            return part
        return self.layers()[key]

    def forward(self, x: Any, *, _skip_norm: bool = False) -> Any:
        """Apply the layers in order; the input is passed on as it is.

        Args:
            x: Whatever the first layer takes.
            _skip_norm: Whether normalisation layers are stepped over, here and in nested chains.
        """
        if not _skip_norm:
            for layer in self._modules.values():
                x = layer(x)
            return x
        for layer in self._modules.values():
            if isinstance(layer, Sequential):
                x = layer.forward(x, _skip_norm=True)
            elif not isinstance(layer, Normalization):
                x = layer(x)
        return x

    def _forward_to_build(self, x: Tensor) -> None:
        self.forward(x, _skip_norm=True)

    def get_config(self) -> dict[str, Any]:
        """An empty dict: the layers are children."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sequential:
        """An empty chain, for the loader to fill."""
        return cls()
