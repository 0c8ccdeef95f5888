"""to_yaml and from_yaml: one object per file, under a key that tells its kind; reading changes all of the context or nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keydnn.experiment.context import ExperimentContext, RegistrationPolicy
from keydnn.experiment.documents.graphs import read_graph, renew, tell_graph
from keydnn.experiment.documents.parts import SAMPLER, SPLITTER
from keydnn.experiment.documents.plans import EXPERIMENT, GROUP, PHASE
from keydnn.experiment.documents.records import check_keys
from keydnn.experiment.documents.sides import Reader, Writer, shown
from keydnn.experiment.documents.text import read_text, to_text, write_text
from keydnn.experiment.documents.values import View
from keydnn.experiment.experiment import Experiment
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.phases import EvalPhase, FitPhase, PhaseGroup, TrainPhase
from keydnn.experiment.samplers import BaseSampler
from keydnn.experiment.splitters import BaseSplitter, ConditionSplitter
from keydnn.experiment.undo import unless_done

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Kind:
    """What stands under a key.

    Attributes:
        base: Class of the objects.
        tell: The document of an object.
        read: The object that a document describes, of the class that was asked or below.
    """

    base: type
    tell: Callable[[Writer, Any], Any]
    read: Callable[[Reader, Any, Any], Any]


def _by_config(view: View, base: Any, more: Mapping[str, Any] | None = None) -> Kind:
    """A kind that is told by its config alone."""
    known = dict(more or {})

    def tell(writer: Writer, thing: Any) -> Any:
        document = view.tell(writer, _config_of(thing))
        return {name: value for name, value in document.items() if name not in known}

    def read(reader: Reader, document: Any, cls: Any) -> Any:
        config = view.read(reader, {**known, **reader.mapping(document, base.__name__)})
        with reader.at(repr(config["label"])) if "label" in config else contextlib.nullcontext():
            return (cls if issubclass(cls, base) else base).from_config(config)

    return Kind(base, tell, read)


def _config_of(thing: Any) -> Any:
    """The config, with lambdas as text."""
    return thing.artifact_config() if isinstance(thing, ConditionSplitter) else thing.get_config()


def _phase(base: Any, name: str) -> Kind:
    kind = _by_config(PHASE, base, {"phase_type": name})

    def read(reader: Reader, document: Any, cls: Any) -> Any:
        told = reader.mapping(document, name).get("phase_type", name)
        if told != name:
            reader.refuse(f"the phase_type under {name} is {name} as well, got {told!r}")
        return kind.read(reader, document, base)

    return Kind(base, kind.tell, read)


def _of_the_class_told(view: View, base: Any) -> Kind:
    return Kind(
        base,
        lambda writer, thing: view.tell(writer, _config_of(thing)),
        lambda reader, told, cls: base.from_config(view.read(reader, told)),
    )


def _read_whole_graph(reader: Reader, document: Any, cls: Any) -> ModelGraph:
    ctx = reader.ctx
    registers = ctx.registration_policy is not RegistrationPolicy.NO_REGISTER
    with contextlib.nullcontext() if registers else ctx.temporary():  # its nodes have to find each other, and nothing of it stays
        reader.overwrite |= not registers
        graph = read_graph(reader, document, cls)
        renew(graph, ctx.entropy)
    return graph


def _tell_experiment(writer: Writer, experiment: Experiment) -> dict[str, Any]:
    config = experiment.get_config()
    graph = {} if experiment.model_graph is None else {"model_graph": tell_graph(writer, experiment.model_graph)}
    told = EXPERIMENT.tell(writer, {**config, "execution_plan": config["execution_plan"]["items"]})
    phases = {"phases": told.pop("phases", [])}
    return {"label": told.pop("label"), **told, **graph, **phases}


def _read_experiment(reader: Reader, document: Any, cls: Any) -> Experiment:
    document = dict(reader.mapping(document, "experiment"))
    ctx, graph = reader.ctx, document.get("model_graph")
    label = reader.text(document.get("label"), "label")
    other = ctx.get_experiment()
    if other is not None and not reader.overwrite:
        reader.refuse(
            f"the context belongs to experiment {other.label!r} already; pass overwrite=True to take it over, or activate another one"
        )
    ctx.set_experiment(None)
    if graph is not None:
        if ctx.registration_policy is RegistrationPolicy.NO_REGISTER:
            reader.refuse(
                "the context registers nothing (policy 'no_register'), so its phases would not find their nodes; change the policy"
            )
        with reader.at("model_graph"):
            graph = read_graph(reader, graph)
    config = EXPERIMENT.read(reader, {**document, "model_graph": None})
    del config["model_graph"]
    config["execution_plan"] = {"label": label, "items": config["execution_plan"]}
    made: Experiment = cls.from_config(config)
    if graph is not None:
        renew(graph, ctx.entropy)
    return made


_KINDS: dict[str, Kind] = {
    "model_graph": Kind(ModelGraph, tell_graph, _read_whole_graph),
    "train_phase": _phase(TrainPhase, "train_phase"),
    "eval_phase": _phase(EvalPhase, "eval_phase"),
    "fit_phase": _phase(FitPhase, "fit_phase"),
    "phase_group": _by_config(GROUP, PhaseGroup, {"phase_type": "phase_group"}),
    "experiment": Kind(Experiment, _tell_experiment, _read_experiment),
    "sampler": _of_the_class_told(SAMPLER, BaseSampler),
    "splitter": _of_the_class_told(SPLITTER, BaseSplitter),
}


def document_of(experiment: Experiment) -> dict[str, Any]:
    """What ``to_yaml`` writes of an experiment, as plain values.

    Raises:
        ArtifactError: Something in it that YAML cannot say; the message tells where.
    """
    writer = Writer("", experiment.ctx)
    with writer.at("experiment"):
        return _tell_experiment(writer, experiment)


def experiment_of(document: Mapping[str, Any], name: str) -> Experiment:
    """The experiment that a document describes, new, in the active context, whose feature sets it names.

    Args:
        document: As of :func:`document_of`.
        name: For messages.

    Raises:
        ArtifactError: Something unknown or wrong; the message tells where.
    """
    reader = Reader(name, ExperimentContext.get_active(), overwrite=False, allow_packaged_code=True)
    with unless_done(reader.ctx), reader.at("experiment"):
        return _read_experiment(reader, document, Experiment)


def yaml_path(path: str | os.PathLike[str]) -> Path:
    """The path with the suffix ``.yaml``, unless it has that or ``.yml``."""
    found = Path(path)
    return found if found.suffix in SUFFIXES else found.with_name(f"{found.name}.yaml")


def write(thing: Any, path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """See :func:`keydnn.experiment.io.to_yaml`."""
    name = next((name for name, kind in _KINDS.items() if isinstance(thing, kind.base)), None)
    if name is None:
        kinds = ", ".join(kind.base.__name__ for kind in _KINDS.values())
        raise TypeError(f"YAML holds objects of {kinds}, not of {type(thing).__name__}; save() writes others, and data, to files")
    target = yaml_path(path)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; pass overwrite=True to replace it")
    ctx = thing.ctx if isinstance(thing, Experiment | ModelGraph) else ExperimentContext.get_active()
    writer = Writer("", ctx)
    with writer.at(name):
        document = _KINDS[name].tell(writer, thing)
    write_text(target, to_text({name: document}), overwrite=overwrite)
    return target


def read(path: str | os.PathLike[str], kind: str | None, cls: type, *, overwrite: bool, allow_packaged_code: bool) -> Any:
    """See :func:`keydnn.experiment.io.from_yaml`; ``cls`` is what the object must be."""
    if kind is not None and kind not in _KINDS:
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(_KINDS)}")
    source = Path(path) if Path(path).is_file() else yaml_path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no file {path} and no {source}")
    reader = Reader(str(source), ExperimentContext.get_active(), overwrite=overwrite, allow_packaged_code=allow_packaged_code)
    name, document = _only(reader, read_text(source))
    base = _KINDS[name].base
    if (kind is not None and name != kind) or not (issubclass(cls, base) or issubclass(base, cls)):
        reader.refuse(f"the file holds a {name}, expected {kind or cls.__name__}")
    with unless_done(reader.ctx), reader.at(name):
        made = _KINDS[name].read(reader, document, cls if issubclass(cls, base) else base)
        if not isinstance(made, cls):
            reader.refuse(f"the file holds a {type(made).__name__}, expected a {cls.__name__}")
        return made


def _only(reader: Reader, told: Any) -> tuple[str, Any]:
    """The one key of a file, and what stands under it."""
    if not isinstance(told, Mapping) or len(told) != 1:
        keys = ", ".join(map(str, told)) if isinstance(told, Mapping) else shown(told)
        reader.refuse(f"a file has exactly one key that tells its kind, one of {', '.join(_KINDS)}; got {keys or 'none'}")
    check_keys(reader, told, _KINDS, "a file")
    return next(iter(told.items()))
