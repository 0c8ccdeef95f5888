"""Documents of the small parts: samplers, splitters, optimizers, losses, accelerators, checkpointing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.documents.records import LABEL, Fields, listed, maybe, record
from keydnn.experiment.documents.sides import Reader, Writer
from keydnn.experiment.documents.symbols import path_of
from keydnn.experiment.documents.values import SYMBOL, SYMBOL_OR_VALUE, VALUE, View
from keydnn.experiment.phases import Checkpointing
from keydnn.experiment.predicates import Predicate
from keydnn.experiment.registry import Registry
from keydnn.experiment.samplers import BaseSampler, NSampler, PairedSampler, SimilarityCondition, TripletSampler, sampler_registry
from keydnn.experiment.splitters import BaseSplitter, ConditionSplitter, splitter_registry
from keydnn.experiment.training import AppliedLoss, Loss, Optimizer

# -- classes that are told by their name in a registry, or by a path


def class_name(registry: Registry, told: Any) -> str:
    """What a document says for the class in a config: its registered name, else the path of the class.

    Raises:
        ImportError: A class that is not registered and cannot be imported.
    """
    if isinstance(told, str) and told in registry:
        return registry.name_of(registry[told]) or told
    return path_of(told)


def class_named(reader: Reader, registry: Registry, told: Any, base: type) -> Any:
    """The class that a document names.

    Raises:
        PlacedError: There is none, or it is another kind of class.
    """
    name = reader.text(told, f"the class of a {registry.what}")
    if name not in registry and "." not in name:
        reader.refuse(
            f"unknown {registry.what} {name!r}; known: {', '.join(sorted(registry))}; a class of yours is told by its import path"
        )
    cls = registry[name] if name in registry else SYMBOL.read(reader, name)
    if not isinstance(cls, type) or not issubclass(cls, base):
        reader.refuse(f"{name!r} is no {base.__name__}")
    return cls


# -- samplers and splitters

_CONDITION = record("a similarity condition", SimilarityCondition, {"metric": ("metric", maybe(SYMBOL))})
CONDITION = View(
    lambda writer, value: _CONDITION.tell(writer, value.get_config()),
    lambda reader, told: SimilarityCondition.from_config(_CONDITION.read(reader, told)),
)


def _by_column(view: View, what: str) -> View:
    """The view of a mapping whose keys are columns."""

    def tell(writer: Writer, value: Mapping[Any, Any]) -> Any:
        document = {}
        for column, one in value.items():
            with writer.at(str(column)):
                if not isinstance(column, str):
                    return {"$pairs": [[VALUE.tell(writer, key), view.tell(writer, item)] for key, item in value.items()]}
                document[column] = view.tell(writer, one)
        return document

    def read(reader: Reader, told: Any) -> dict[Any, Any]:
        told = reader.mapping(told, what)
        if set(told) == {"$pairs"}:
            pairs = [(VALUE.read(reader, key), item) for key, item in reader.sequence(told["$pairs"], "$pairs")]
        else:
            pairs = list(told.items())
        found = {}
        for column, one in pairs:
            with reader.at(str(column)):
                found[column] = view.read(reader, one)
        return found

    return View(tell, read)


CONDITIONS = _by_column(CONDITION, "conditions by column")
_SAMPLERS: dict[type, Fields] = {
    NSampler: {"condition_mapping": ("condition_mapping", _by_column(CONDITIONS, "conditions by role"))},
    PairedSampler: {"conditions": ("conditions", CONDITIONS)},
    TripletSampler: {name: (name, CONDITIONS) for name in ("pos_conditions", "neg_conditions")},
}


@functools.cache
def _sampler(cls: Any) -> View:
    fields = next((fields for known, fields in reversed(_SAMPLERS.items()) if issubclass(cls, known)), {})
    return record(cls.__name__, cls, fields, without=("source", "sources"))


def _tell_sampler(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    told = config["sampler_name"]
    cls = sampler_registry[told] if isinstance(told, str) else told
    rest = {name: value for name, value in config.items() if name != "sampler_name"}
    return {"sampler_class": class_name(sampler_registry, told), **_sampler(cls).tell(writer, rest)}


def _read_sampler(reader: Reader, document: Any) -> dict[str, Any]:
    document = dict(reader.mapping(document, "a sampler"))
    cls = class_named(reader, sampler_registry, document.pop("sampler_class", None), BaseSampler)
    config = {"sampler_name": sampler_registry.name_of(cls) or cls, **_sampler(cls).read(reader, document)}
    BaseSampler.from_config(config)
    return config


SAMPLER = View(_tell_sampler, _read_sampler)


def _tell_row_condition(writer: Writer, value: Any) -> Any:
    return VALUE.tell(writer, value.to_dict()) if isinstance(value, Predicate) else VALUE.tell(writer, value)


def _read_row_condition(reader: Reader, told: Any) -> Any:
    if isinstance(told, Mapping) and "type" in told:
        return VALUE.read(reader, {"$predicate": told})
    return VALUE.read(reader, told)


_ROWS = _by_column(_by_column(View(_tell_row_condition, _read_row_condition), "conditions by column"), "conditions by split")


@functools.cache
def _splitter(cls: Any) -> View:
    conditions: Fields = {"conditions": ("conditions", _ROWS)} if issubclass(cls, ConditionSplitter) else {}
    return record(cls.__name__, cls, conditions, more=conditions, defaults=dict.fromkeys(conditions, {}))


def _tell_splitter(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    told = config["splitter_name"]
    cls = splitter_registry[told] if isinstance(told, str) else told
    rest = {name: value for name, value in config.items() if name != "splitter_name"}
    return {"splitter_class": class_name(splitter_registry, told), **_splitter(cls).tell(writer, rest)}


def _read_splitter(reader: Reader, document: Any) -> dict[str, Any]:
    document = dict(reader.mapping(document, "a splitter"))
    cls = class_named(reader, splitter_registry, document.pop("splitter_class", None), BaseSplitter)
    return {"splitter_name": splitter_registry.name_of(cls) or cls, **_splitter(cls).read(reader, document)}


SPLITTER = View(_tell_splitter, _read_splitter)

# -- optimizers and losses

OPTIMIZER = record(
    "an optimizer",
    Optimizer,
    {"opt": ("opt", SYMBOL_OR_VALUE), "factory": ("factory", SYMBOL_OR_VALUE), "schedule": ("schedule", SYMBOL_OR_VALUE)},
    defaults={"opt_kwargs": {}},
    check=Optimizer.from_config,
)
LOSS = record(
    "a loss",
    Loss,
    {"loss": ("loss", SYMBOL_OR_VALUE), "factory": ("factory", SYMBOL_OR_VALUE)},
    defaults={"loss_kwargs": {}},
    check=Loss.from_config,
)
APPLIED_LOSS = record(
    "an applied loss",
    AppliedLoss,
    {"loss": ("loss", LOSS), "on": ("node", LABEL), "inputs": ("inputs", VALUE)},
    check=AppliedLoss.from_config,
)
LOSSES = listed(APPLIED_LOSS, "losses")

# -- devices and checkpoints

_ACCELERATOR = record("an accelerator", Accelerator, check=Accelerator.from_config)


def _tell_accelerator(writer: Writer, config: Mapping[str, Any]) -> Any:
    return _ACCELERATOR.tell(writer, config) if config["pin_memory"] else config["device"]


def _read_accelerator(reader: Reader, told: Any) -> dict[str, Any]:
    return _ACCELERATOR.read(reader, {"device": told} if isinstance(told, str) else told)


ACCELERATOR = maybe(View(_tell_accelerator, _read_accelerator))
CHECKPOINTING = maybe(record("checkpointing", Checkpointing))


def by_backend(view: View) -> View:
    """The view of an optimizer, or of a mapping from backends to optimizers."""

    def tell(writer: Writer, config: Mapping[str, Any]) -> Any:
        return view.tell(writer, config) if "opt" in config else {name: view.tell(writer, one) for name, one in config.items()}

    def read(reader: Reader, told: Any) -> Any:
        told = reader.mapping(told, "an optimizer")
        if not told or not all(isinstance(one, Mapping) for one in told.values()):
            return view.read(reader, told)
        found = {}
        for name, one in told.items():
            with reader.at(str(name)):
                found[name] = view.read(reader, one)
        return found

    return View(tell, read)
