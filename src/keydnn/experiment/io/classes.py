"""Which class or function a file means: our own by key, registered ones by name, others by their packaged source.

No import path is ever taken from a file without permission; our own classes stand in the table ``BUILTINS``.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import importlib
import inspect
import math
import sys
import types
from pathlib import Path
from typing import Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.infer import infer_backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.errors import ArtifactError, PackagedCodeError, SymbolResolutionError
from keydnn.experiment.io.archive import ArchiveReader

_HERE = "keydnn.experiment"
BUILTINS: dict[str, str] = {  # key in files -> where the class stands
    "FeatureSet": f"{_HERE}.data.feature_set:FeatureSet",
    "Scaler": f"{_HERE}.scalers.scaler:Scaler",
    "Absolute": f"{_HERE}.scalers.own:Absolute",
    "Negate": f"{_HERE}.scalers.own:Negate",
    "PerSampleMinMaxScaler": f"{_HERE}.scalers.own:PerSampleMinMaxScaler",
    "PerSampleZeroStart": f"{_HERE}.scalers.own:PerSampleZeroStart",
    "SegmentedScaler": f"{_HERE}.scalers.segmented:SegmentedScaler",
    "SimilarityCondition": f"{_HERE}.similarity:SimilarityCondition",
    "RandomSplitter": f"{_HERE}.splitters.random:RandomSplitter",
    "ConditionSplitter": f"{_HERE}.splitters.condition:ConditionSplitter",
    "KFoldSplitter": f"{_HERE}.splitters.ordered:KFoldSplitter",
    "TimeSplitter": f"{_HERE}.splitters.ordered:TimeSplitter",
    "SimpleSampler": f"{_HERE}.samplers.simple:SimpleSampler",
    "NSampler": f"{_HERE}.samplers.n_sampler:NSampler",
    "PairedSampler": f"{_HERE}.samplers.n_sampler:PairedSampler",
    "TripletSampler": f"{_HERE}.samplers.n_sampler:TripletSampler",
    "ExperimentNodeReference": f"{_HERE}.references:ExperimentNodeReference",
    "GraphNodeReference": f"{_HERE}.references:GraphNodeReference",
    "FeatureSetReference": f"{_HERE}.references:FeatureSetReference",
    "FeatureSetSplitReference": f"{_HERE}.references:FeatureSetSplitReference",
    "FeatureSetColumnReference": f"{_HERE}.references:FeatureSetColumnReference",
    "ModelOutputReference": f"{_HERE}.references:ModelOutputReference",
    "Accelerator": f"{_HERE}.backends.accelerator:Accelerator",
    "TorchModelWrapper": f"{_HERE}.models.wrapper:TorchModelWrapper",
    "TensorflowModelWrapper": f"{_HERE}.models.wrapper:TensorflowModelWrapper",
    "KeydnnModelWrapper": f"{_HERE}.models.wrapper:KeydnnModelWrapper",
    "ScikitModelWrapper": f"{_HERE}.models.scikit:ScikitModelWrapper",
    "torch.SequentialMLP": f"{_HERE}.models.torch:SequentialMLP",
    "torch.SequentialCNN": f"{_HERE}.models.torch:SequentialCNN",
    "keydnn.SequentialMLP": f"{_HERE}.models.keydnn:SequentialMLP",
    "keydnn.SequentialCNN": f"{_HERE}.models.keydnn:SequentialCNN",
    "Checkpoint": f"{_HERE}.io.checkpoint:Checkpoint",
    "Described": f"{_HERE}.models.described:Described",
    "Optimizer": f"{_HERE}.training.optimizer:Optimizer",
    "Loss": f"{_HERE}.training.loss:Loss",
    "AppliedLoss": f"{_HERE}.training.applied_loss:AppliedLoss",
    "ModelNode": f"{_HERE}.graph.model_node:ModelNode",
    "ConcatNode": f"{_HERE}.graph.concat_node:ConcatNode",
    "AddNode": f"{_HERE}.graph.elementwise:AddNode",
    "MeanNode": f"{_HERE}.graph.elementwise:MeanNode",
    "MultiplyNode": f"{_HERE}.graph.elementwise:MultiplyNode",
    "ModelGraph": f"{_HERE}.graph.model_graph:ModelGraph",
    "Experiment": f"{_HERE}.experiment:Experiment",
    "Said": f"{_HERE}.results.values:Said",
    "CallbackResult": f"{_HERE}.callbacks.results:CallbackResult",
    "PayloadResult": f"{_HERE}.callbacks.results:PayloadResult",
    "MetricResult": f"{_HERE}.callbacks.results:MetricResult",
    "ArtifactResult": f"{_HERE}.callbacks.results:ArtifactResult",
    "EvaluationCallbackResult": f"{_HERE}.callbacks.results:EvaluationCallbackResult",
    "EarlyStoppingResult": f"{_HERE}.callbacks.results:EarlyStoppingResult",
}
REGISTRIES: dict[str, str] = {
    "scaler": f"{_HERE}.scalers:scaler_registry",
    "splitter": f"{_HERE}.splitters:splitter_registry",
    "sampler": f"{_HERE}.samplers:sampler_registry",
    "callback": f"{_HERE}.phases.callback_configs:callback_registry",
    "probe": f"{_HERE}.callbacks.probe_logger:probe_registry",
}
_TRUSTED_MODULES = {"math": math}  # whose functions cannot touch anything
_RUN: dict[str, tuple[str, bytes]] = {}  # modules made from packaged sources: where these stood, and they themselves, to be packaged again


class SerializationPolicy(enum.Enum):
    """How a file names a class."""

    BUILTIN = "builtin"
    REGISTERED = "registered"
    PACKAGED = "packaged"
    STATE_ONLY = "state_only"


def import_string(path: str) -> Any:
    """What ``"package.module:Name"`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def spec_of(symbol: Any, sources: dict[str, bytes]) -> dict[str, Any]:
    """How a file names a class or function.

    Args:
        symbol: The class or function.
        sources: Packaged source files by member name; one is added if it is needed.

    Raises:
        PackagedCodeError: It is none of ours, in no registry, and cannot be packaged.
    """
    path = f"{symbol.__module__}:{symbol.__qualname__}"
    for key, known in BUILTINS.items():
        if path == known:
            return {"policy": SerializationPolicy.BUILTIN.value, "key": key}
    if isinstance(symbol, type):
        for registry, where in REGISTRIES.items():
            if (name := import_string(where).name_of(symbol)) is not None:
                return {"policy": SerializationPolicy.REGISTERED.value, "registry": registry, "name": name}
    backend = infer_backend(symbol)
    if backend is not None and (name := adapter(backend).known.name_of(symbol)) is not None:
        return {"policy": SerializationPolicy.BUILTIN.value, "backend": backend.value, "name": name}
    if symbol.__module__ in _TRUSTED_MODULES and "." not in symbol.__qualname__:
        return {"policy": SerializationPolicy.BUILTIN.value, "module": symbol.__module__, "name": symbol.__name__}
    return _package(symbol, sources)


def _package(symbol: Any, sources: dict[str, bytes]) -> dict[str, Any]:
    name = f"{symbol.__module__}.{symbol.__qualname__}"
    if symbol.__module__ == "__main__":
        raise PackagedCodeError(f"{name} is defined in __main__: put it into a module, or register it")
    if "<lambda>" in name or "<locals>" in name or getattr(symbol, "__closure__", None):
        raise PackagedCodeError(f"{name} is a lambda or stands inside a function and cannot be packaged: define it at the top of a module")
    if symbol.__module__ in _RUN:
        member, source = _RUN[symbol.__module__]
    else:
        source = _source_of(symbol, name)
        member = f"code/{hashlib.sha256(source).hexdigest()[:16]}_{symbol.__module__.rpartition('.')[2]}.py"
    sources[member] = source
    return {"policy": SerializationPolicy.PACKAGED.value, "source_ref": member, "qualname": symbol.__qualname__}


def _source_of(symbol: Any, name: str) -> bytes:
    try:
        return Path(inspect.getsourcefile(symbol) or "").read_bytes()
    except (OSError, TypeError) as error:
        raise PackagedCodeError(f"the source of {name} cannot be read: {error}; register the class instead") from error


class Symbols:
    """Finds what specs in one file mean.

    Args:
        archive: The file.
        allow_packaged_code: Whether its packaged code may be run.
    """

    def __init__(self, archive: ArchiveReader, allow_packaged_code: bool) -> None:
        self._archive, self.allow_packaged_code = archive, allow_packaged_code

    def find(self, spec: Any) -> Any:
        """The class or function.

        Raises:
            SymbolResolutionError: It is not known here.
            PackagedCodeError: Finding it would run code of the file, which is not permitted.
        """
        if not isinstance(spec, dict) or "policy" not in spec:
            raise ArtifactError(f"{self._archive.path}: {spec!r} names no class")
        finders = {"builtin": self._builtin, "registered": self._registered, "packaged": self._packaged}
        finder = finders.get(spec["policy"])
        if finder is None:
            raise SymbolResolutionError(f"{self._archive.path}: a class under policy {spec['policy']!r} has to be supplied by the caller")
        return finder(spec)

    def _builtin(self, spec: dict[str, Any]) -> Any:
        if "backend" in spec:
            found = adapter(Backend.from_value(spec["backend"])).known.find(str(spec.get("name")))
            if found is None:
                raise SymbolResolutionError(f"{self._archive.path}: {spec['backend']} has no {spec.get('name')!r} that a file may name")
            return found
        if spec.get("module") in _TRUSTED_MODULES:
            found = getattr(_TRUSTED_MODULES[spec["module"]], str(spec.get("name")), None)
            if isinstance(found, types.BuiltinFunctionType):
                return found
        if spec.get("key") not in BUILTINS:
            raise SymbolResolutionError(
                f"{self._archive.path}: unknown class {spec.get('key') or spec!r}; is the file from a newer version?"
            )
        return import_string(BUILTINS[spec["key"]])

    def _registered(self, spec: dict[str, Any]) -> Any:
        registry, name = spec.get("registry"), spec.get("name")
        if registry not in REGISTRIES:
            raise SymbolResolutionError(f"{self._archive.path}: unknown registry {registry!r}")
        known = import_string(REGISTRIES[registry])
        if name not in known:
            raise SymbolResolutionError(f"{self._archive.path}: no {registry} {name!r} is registered here; register the class first")
        return known[name]

    def _packaged(self, spec: dict[str, Any]) -> Any:
        member, qualname = str(spec.get("source_ref")), str(spec.get("qualname"))
        if not self.allow_packaged_code:
            raise PackagedCodeError(
                f"{self._archive.path} brings code for {qualname!r}; read it with inspect_packaged_code(path),"
                " then pass allow_packaged_code=True"
            )
        if not member.startswith("code/"):
            raise ArtifactError(f"{self._archive.path}: {member!r} is no packaged source")
        found: Any = _run(member, self._archive.read(member))
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if found is None:
            raise SymbolResolutionError(f"{self._archive.path}: {member} defines no {qualname!r}")
        return found


def _run(member: str, source: bytes) -> types.ModuleType:
    """The module made from packaged source; the same source is run once per process."""
    name = f"keydnn_packaged_{hashlib.sha256(source).hexdigest()[:16]}"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__file__ = member
        with contextlib.ExitStack() as undo:
            sys.modules[name] = module
            undo.callback(sys.modules.pop, name)
            exec(compile(source, member, "exec"), module.__dict__)
            undo.pop_all()
        _RUN[name] = member, source
    return sys.modules[name]
