"""PrecisionDict: which number format each tensor of a model has.

    {"dense0": {"weight": "ap_fixed<8,2>", "bias": None}, "input": {"value": ...}, "__default__": {"update": ...}}

A scope is a layer's name or a reserved one: ``input`` and ``loss`` hold the field ``value``; ``__default__`` answers for every
field that a scope does not list, so a ``value`` in it reaches the input, the loss and the parameters of normalisation layers too.
None means floating point, and masks the default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keydnn.stability.dtypes import HLSDataType
from keydnn.stability.formats import NumberFormat

DEFAULT = "__default__"
RESERVED_NAMES = {"loss", "input", DEFAULT}
PLACEHOLDER = "model_input"
CELL_FIELDS = {"W_ih": "weight", "W_hh": "recurrent_weight", "b_ih": "bias", "b_hh": "bias"}  # parameters of recurrent cells
_SHOWN = 4


class PrecisionDict(dict):
    """Scope -> {field -> format or None}; texts are parsed, also on assignment.

    Args:
        scopes: A mapping of mappings; formats, their texts, or None.

    Raises:
        ValueError: A text that is no format.
        TypeError: A scope or field that is no text, a scope without mapping, or a value that is neither format, text nor None.

    Example:
        >>> from keydnn.stability import PrecisionDict
        >>> p = PrecisionDict({"__default__": {"weight": "ap_fixed<8,2>"}, "dense1": {"weight": None}})
        >>> p.dtype("dense0", "weight"), p.dtype("dense1", "weight")
        (ap_fixed<8,2,AP_TRN,AP_WRAP>, None)
    """

    def __init__(self, scopes: Mapping[str, Mapping[str, Any]] | None = None, /, **more: Mapping[str, Any]) -> None:
        super().__init__()
        self.update({} if scopes is None else scopes, **more)

    def __setitem__(self, scope: str, fields: Mapping[str, Any]) -> None:
        super().__setitem__(scope, _parsed(scope, fields))

    def update(self, *others: Any, **more: Any) -> None:  # type: ignore[override]
        """As for a dict; everything is parsed before anything is stored."""
        parsed = {scope: _parsed(scope, fields) for scope, fields in dict(*others, **more).items()}
        super().update(parsed)

    def setdefault(self, scope: str, fields: Any = None) -> Any:
        """As for a dict; None is an empty scope."""
        return super().setdefault(scope, _parsed(scope, fields or {}))

    def __ior__(self, other: Any) -> PrecisionDict:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __or__(self, other: Any) -> PrecisionDict:  # type: ignore[override]
        return PrecisionDict(dict(self) | dict(other))

    def copy(self) -> PrecisionDict:
        """An independent copy."""
        return PrecisionDict(self)

    def dtype(self, layer: str, field: str, default: Any = None) -> Any:
        """The format of a field: the layer's own entry (None counts), else that of ``__default__``, else ``default``."""
        for scope in (layer, DEFAULT):
            fields = self.get(scope)
            if fields is not None and field in fields:
                return fields[field]
        return default

    def lists(self, layer: str, field: str) -> bool:
        """Whether the layer's own scope or ``__default__`` has an entry for a field, be it None."""
        return any(field in self.get(scope, ()) for scope in (layer, DEFAULT))

    def has(self, layer: str, field: str) -> bool:
        """Whether a field has a format."""
        return self.dtype(layer, field) is not None

    def layers(self) -> list[str]:
        """Every scope but ``__default__``, in order of insertion."""
        return [scope for scope in self if scope != DEFAULT]

    def fields(self, layer: str) -> list[str]:
        """The fields a scope lists itself."""
        return list(self.get(layer, ()))

    def validate_model(self, model: Any, *, allow_missing: bool = True) -> None:
        """Check that every scope names a layer of the model.

        Args:
            model: A network with named layers, or an object whose attribute ``model`` is one.
            allow_missing: Whether layers may lack a scope.

        Raises:
            ValueError: A layer is called ``input`` or ``loss``; scopes that are neither layers nor reserved; with
                ``allow_missing=False`` layers without a scope.
        """
        names = layer_names(model)
        taken = [name for name in names if name in RESERVED_NAMES]
        if taken:
            raise ValueError(f"PrecisionDict: a layer must not be called {', '.join(taken)}: these scopes are reserved")
        unknown = [scope for scope in self if scope not in RESERVED_NAMES and scope not in names and scope != PLACEHOLDER]
        if unknown:
            known = ", ".join([*names, *sorted(RESERVED_NAMES)])
            raise ValueError(f"PrecisionDict: no layer is called {', '.join(map(repr, unknown))}; there are {known}")
        missing = [name for name in names if name not in self]
        if missing and not allow_missing:
            raise ValueError(f"PrecisionDict: no scope for the layers {', '.join(missing)}; add them, or pass allow_missing=True")

    def describe(self) -> str:
        """Scopes, fields and formats over several lines."""
        lines = ["PrecisionDict("]
        for scope, fields in self.items():
            lines.append(f"  {scope}")
            lines += [f"    {field}: {dtype}" for field, dtype in fields.items()]
        return "\n".join([*lines, ")"])

    __repr__ = describe

    def summary(self) -> str:
        """One line per distinct format, with the first four places that use it."""
        uses: dict[str, list[str]] = {}
        for scope, fields in self.items():
            for field, dtype in fields.items():
                uses.setdefault(str(dtype), []).append(f"{scope}.{field}")
        lines = []
        for dtype, places in uses.items():
            more = f", ... ({len(places)} in all)" if len(places) > _SHOWN else ""
            lines.append(f"{dtype}: {', '.join(places[:_SHOWN])}{more}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, dict[str, str | None]]:
        """Plain dicts with the texts of the formats."""
        return {scope: {field: None if d is None else repr(d) for field, d in fields.items()} for scope, fields in self.items()}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> PrecisionDict:
        """From what `to_json` gave."""
        return cls(json.loads(text))

    def replace(self, **scopes: Mapping[str, Any]) -> PrecisionDict:
        """A copy in which the given fields of the given scopes are changed."""
        changed = self.copy()
        for scope, fields in scopes.items():
            changed[scope] = {**self.get(scope, {}), **fields}
        return changed

    def bits(self, model: Any) -> int:
        """Bits that the parameters of a model take in storage; 32 for a parameter without format."""
        total = 0
        network = network_of(model)
        for name, parameter in network.named_parameters():
            layer, own = name.partition(".")[0], name.rpartition(".")[2]
            dtype = self.dtype(layer, CELL_FIELDS.get(own, own), self.dtype(layer, "value"))
            total += int((32 if dtype is None else dtype.bits) * parameter.numel())
        return total


def network_of(model: Any) -> Any:
    """The network: ``model`` itself, or what its attribute ``model`` holds."""
    return model.model if getattr(model, "model", None) is not None else model


def layer_names(model: Any) -> list[str]:
    """Names of the network's layers, in order."""
    return [name for name, _ in network_of(model).named_children()]


def ensure_precision_dict(p: Any) -> PrecisionDict | None:
    """None stays None, a PrecisionDict itself, any other mapping becomes a new PrecisionDict.

    Raises:
        TypeError: p is neither.
    """
    if p is None or isinstance(p, PrecisionDict):
        return p
    if not isinstance(p, Mapping):
        raise TypeError(f"precision_dict: expected a mapping of layer names to formats, got {type(p).__name__}")
    return PrecisionDict(p)


def _parsed(scope: Any, fields: Any) -> dict[str, Any]:
    if not isinstance(scope, str):
        raise TypeError(f"PrecisionDict: a scope is the name of a layer, got {scope!r}")
    if not isinstance(fields, Mapping):
        raise TypeError(f"PrecisionDict: scope {scope!r} must map fields to formats, got {fields!r}")
    found = {}
    for field, value in fields.items():
        if not isinstance(field, str):
            raise TypeError(f"PrecisionDict: scope {scope!r} has a field {field!r}; fields are texts such as 'weight'")
        if value is not None and not isinstance(value, str | NumberFormat):
            raise TypeError(f"PrecisionDict: {scope}.{field} must be a format, its text or None, got {value!r}")
        found[field] = None if value is None else HLSDataType.from_dtype(value)
    return found
