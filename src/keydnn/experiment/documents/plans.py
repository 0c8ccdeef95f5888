"""Documents of phases, groups, callbacks and experiments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.callbacks import Callback, EvalLossMetric, Evaluation, ExperimentCallback
from keydnn.experiment.documents.parts import (
    ACCELERATOR,
    APPLIED_LOSS,
    CHECKPOINTING,
    LOSSES,
    SAMPLER,
    class_name,
    class_named,
)
from keydnn.experiment.documents.records import LABEL, LABELS, Fields, arguments_of, check_keys, check_type, listed, maybe, record
from keydnn.experiment.documents.sides import Reader, Writer
from keydnn.experiment.documents.values import REFERENCE, VALUE, View
from keydnn.experiment.experiment import Experiment
from keydnn.experiment.phases import EvalPhase, ExperimentPhase, FitPhase, TrainPhase
from keydnn.experiment.phases.callback_configs import callback_class, callback_from_config, callback_registry
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.results import ResultsConfig

# -- bindings


def _tell_source(writer: Writer, binding: Mapping[str, Any]) -> Any:
    """The label of the feature set, or the whole reference where that names no one input of the node."""
    reference = binding["upstream_ref"]
    inputs = writer.ctx.get_node(node_id=binding["node_id"]).get_upstream_refs()
    rivals = [one for one in inputs if isinstance(one, FeatureSetReference) and one.node_id == reference.node_id]
    return writer.label_of(reference.node_id) if rivals == [reference] else REFERENCE.tell(writer, reference)


_BINDING = record(
    "an input source",
    InputBinding,
    {"node_id": ("node", LABEL), "upstream_ref": ("featureset", VALUE), "sampler": ("sampler", maybe(SAMPLER))},
    defaults={"upstream_ref": None},
)


def _tell_binding(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    node = writer.label_of(config["node_id"])
    told = _BINDING.tell(writer, {**config, "upstream_ref": None})
    return {"node": node, "featureset": _tell_source(writer, config), **told}


def _read_binding(reader: Reader, document: Any) -> dict[str, Any]:
    config = _BINDING.read(reader, document)
    node = reader.ctx.get_node(node_id=config["node_id"])
    found = InputBinding.for_evaluation(node=node, upstream=config["upstream_ref"], split=config["split"])
    return {**config, "upstream_ref": found.upstream_ref}


BINDINGS = listed(View(_tell_binding, _read_binding), "input_sources")

# -- callbacks


def _tell_callback(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    cls = callback_class(config)
    document = {"callback_type": class_name(callback_registry, config["callback_type"])}
    for name, value in config.items():
        if name != "callback_type":
            with writer.at(name):
                document[name] = _view_of(cls, name).tell(writer, value)
    return document


def _read_callback(reader: Reader, document: Any) -> dict[str, Any]:
    document = dict(reader.mapping(document, "a callback"))
    cls = class_named(reader, callback_registry, document.pop("callback_type", None), object)
    if not issubclass(cls, Callback | ExperimentCallback):
        reader.refuse(f"{cls.__name__} is no callback")
    arguments = arguments_of(cls)
    inherited = cls.from_config.__func__ is Callback.from_config.__func__  # type: ignore[attr-defined]
    if inherited and not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(cls).parameters.values()):
        check_keys(reader, document, [*arguments, "label", "execution_order"], cls.__name__)
    config: dict[str, Any] = {"callback_type": callback_registry.name_of(cls) or cls}
    for name, told in document.items():
        with reader.at(str(name)):
            view = _view_of(cls, name)
            config[name] = view.read(reader, told)
            if view is VALUE and name in arguments:
                check_type(reader, name, config[name], arguments[name].annotation)
    callback_from_config(config)
    return config


def _view_of(cls: type, name: str) -> View:
    """How an argument of a callback is said."""
    return next((views[name] for known, views in _CALLBACK_VIEWS.items() if issubclass(cls, known) and name in views), VALUE)


CALLBACKS = listed(View(_tell_callback, _read_callback), "callbacks")

# -- phases and groups


def _tell_eval(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    return _tell_arguments(writer, EvalPhase, config)


def _read_eval(reader: Reader, document: Any) -> dict[str, Any]:
    return _read_phase(reader, {"phase_type": "eval_phase", **reader.mapping(document, "a phase")})


_CALLBACK_VIEWS: dict[type, dict[str, View]] = {
    Evaluation: {"eval_phase": View(_tell_eval, _read_eval), "metrics": CALLBACKS},
    EvalLossMetric: {"loss": APPLIED_LOSS},
}
_PHASES: dict[str, Any] = {"train_phase": TrainPhase, "eval_phase": EvalPhase, "fit_phase": FitPhase}
_GROUP = "phase_group"


@functools.cache
def _phase(cls: Any) -> View:
    fields: Fields = {
        "input_sources": ("input_sources", BINDINGS),
        "losses": ("losses", LOSSES),
        "active_nodes": ("active_nodes", LABELS),
        "callbacks": ("callbacks", CALLBACKS),
        "accelerator": ("accelerator", ACCELERATOR),
        "checkpointing": ("checkpointing", CHECKPOINTING),
    }
    fields = {name: field for name, field in fields.items() if name in arguments_of(cls)}
    return record(cls.__name__, cls, fields, defaults={"losses": [], "callbacks": []})


def _tell_arguments(writer: Writer, cls: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    told = _phase(cls).tell(writer, {name: value for name, value in config.items() if name != "phase_type"})
    first = {name: told[name] for name in ("label", "n_epochs") if name in told}
    return {**first, **told}


def _tell_phase(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    name = next(name for name, cls in _PHASES.items() if cls.phase_type == config["phase_type"])
    with writer.at(f"phase {config['label']!r}"):
        return {"phase_type": name, **_tell_arguments(writer, _PHASES[name], config)}


def _read_phase(reader: Reader, document: Any) -> dict[str, Any]:
    document = dict(reader.mapping(document, "a phase"))
    name = document.pop("phase_type", None)
    if name not in _PHASES:
        reader.refuse(f"unknown phase_type {name!r}; expected one of {', '.join((*_PHASES, _GROUP))}")
    cls = _PHASES[name]
    config = {**_phase(cls).read(reader, document), "phase_type": cls.phase_type}
    ExperimentPhase.from_config({**config, "checkpointing": None} if "checkpointing" in config else config)
    return config


def _tell_group(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"phase_type": _GROUP, "label": config["label"], "items": _ITEMS.tell(writer, config["items"])}


def _read_group(reader: Reader, document: Any) -> dict[str, Any]:
    document = reader.mapping(document, "a phase_group")
    check_keys(reader, document, ["phase_type", "label", "items"], "a phase_group")
    label, items = reader.text(document.get("label"), "label"), _ITEMS.read(reader, document.get("items"))
    return {"label": label, "items": items}


def _tell_item(writer: Writer, item: Mapping[str, Any]) -> dict[str, Any]:
    return (_tell_group if item["item_type"] == "group" else _tell_phase)(writer, item["config"])


def _read_item(reader: Reader, document: Any) -> dict[str, Any]:
    is_group = reader.mapping(document, "a phase").get("phase_type") == _GROUP
    return {"item_type": "group" if is_group else "phase", "config": (_read_group if is_group else _read_phase)(reader, document)}


_ITEMS = listed(View(_tell_item, _read_item), "phases")
PHASE = View(_tell_phase, _read_phase)
GROUP = View(_tell_group, _read_group)

# -- experiments

EXPERIMENT = record(
    "an experiment",
    Experiment,
    {
        "execution_plan": ("phases", _ITEMS),
        "checkpointing": ("checkpointing", CHECKPOINTING),
        "callbacks": ("callbacks", CALLBACKS),
        "results_config": ("results_config", maybe(record("results_config", ResultsConfig))),
    },
    defaults={"callbacks": [], "execution_plan": []},
    without=("ctx",),
    more=("execution_plan", "model_graph"),
)
