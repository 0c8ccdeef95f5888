"""The configuration file of ``keydnn train``: TOML with the tables ``data``, ``model`` and ``training``.

    seed = 0                                  # splits rows, draws weights, shuffles
    [data]
    file = "iris.csv"                         # beside this file; .csv with a line of names, or .npz with arrays x and y
    target = "species"                        # csv: the column, or list of columns, to predict
    [model]
    layers = [{ type = "Dense", out_features = 16 }, { type = "ReLU" }, { type = "Dense", out_features = 3 }]
    [training]
    loss = "cross_entropy"                    # with it the target is a class, else numbers
    epochs = 40

Every key is a field of the classes below.  A key that is none of them is an error, so that a slip of the pen is not silently
ignored.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from keydnn.domain.errors import KeyDNNError

T = TypeVar("T")


class ConfigError(KeyDNNError, ValueError):
    """A configuration file says something that cannot be done; the message names the place."""


@dataclass(frozen=True)
class Data:
    """Where the rows come from and how they are divided.

    Attributes:
        file: A ``.csv`` or ``.npz`` file; a relative path starts at the configuration file.
        target: csv: the column or columns to predict.
        features: csv: the columns to predict from; None takes all others.
        standardize: Whether features get mean 0 and variance 1 over the training rows; None: for csv only.
        validation: Share of the rows to choose the best epoch by.
        test: Share of the rows that training never sees.
    """

    file: str
    target: str | list[str] | None = None
    features: list[str] | None = None
    standardize: bool | None = None
    validation: float = 0.2
    test: float = 0.2

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"data.{name} must be a share in [0, 1), got {getattr(self, name)!r}")
        if self.validation + self.test >= 1:
            raise ConfigError(f"data.validation + data.test must leave rows to train on, got {self.validation} + {self.test}")


@dataclass(frozen=True)
class ModelTable:
    """The network.

    Attributes:
        layers: Layers in order: ``type`` is a registered name, the other keys are the arguments of its constructor.
    """

    layers: list[dict[str, Any]]


@dataclass(frozen=True)
class Training:
    """How to train; names and meanings are those of ``Model.fit``.

    Attributes:
        loss: Name of the loss.
        optimizer: Name of the optimizer.
        optimizer_kwargs: Its settings, such as ``lr``.
        metrics: Names of metrics.
        epochs: Passes over the training rows, at the most.
        batch_size: Rows per step.
        clip_norm: Bound of the common norm of all gradients.
        accumulate: Batches per update.
        class_weight: Weight by class, such as ``{ left = 1.0, right = 5.0 }``, or ``"balanced"``.
        early_stopping: Arguments of ``EarlyStopping``; None does not stop early.
    """

    loss: str
    optimizer: str = "adam"
    optimizer_kwargs: dict[str, Any] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    epochs: int = 10
    batch_size: int = 32
    clip_norm: float | None = None
    accumulate: int = 1
    class_weight: dict[str, Any] | str | None = None
    early_stopping: dict[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """A whole configuration file.

    Attributes:
        data: Table ``data``.
        model: Table ``model``.
        training: Table ``training``.
        seed: Fixes the split, the first weights and the order of rows.
    """

    data: Data
    model: ModelTable
    training: Training
    seed: int = 0


def read_job(path: Path) -> Job:
    """The job that a file describes.

    Raises:
        ConfigError: No TOML, an unknown or missing key, a value of another type or out of range.
        OSError: The file cannot be read.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    try:
        return _filled(Job, table, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _filled(cls: type[T], table: dict[str, Any], where: str) -> T:
    """An object of ``cls`` from a table; nested tables become nested objects."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    if unknown := [key for key in table if key not in fields]:
        raise ConfigError(f"unknown key {where}{unknown[0]}; here may stand {', '.join(fields)}")
    for name, f in fields.items():
        if name not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}{name} is missing")
    return cls(**{name: _value(hints[name], value, f"{where}{name}") for name, value in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table, got {value!r}")
        return _filled(hint, value, f"{where}.")  # type: ignore[arg-type]
    kinds = [k for k in (get_args(hint) if isinstance(hint, UnionType) else (hint,)) if k is not NoneType]
    for kind in kinds:
        if _is_a(kind, value):
            return value
    names = " or ".join(k.__name__ if get_origin(k) is None else str(k).replace("typing.", "") for k in kinds)
    raise ConfigError(f"{where} must be {names}, got {value!r}")


def _is_a(kind: Any, value: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is list:
        (inner,) = get_args(kind)
        return isinstance(value, list) and all(_is_a(inner, v) for v in value)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, origin) and not (isinstance(value, bool) and origin is int)
