"""``api.toml`` and ``api_graphs.toml`` are the public face as it is promised: every signature is compared, every error row is called.

A ``call`` runs with ``fs`` (ten rows: features a and b, target y, tag t, split "train" and "test"), ``view`` (rows 1 and 2), ``batch``,
``sampler``, ``ctx``, ``fitted`` (a scaler that remembers three rows), ``tmp`` (a folder), ``np``, ``pa`` and ``pd`` at hand; ``error``
names what it must raise, ``match`` what the message says, ``prepare`` what runs before.  A failed call leaves the set as it was.
"""

import builtins
import importlib
import inspect
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import keydnn
from keydnn.experiment import Experiment, ExperimentContext, errors
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.models import keydnn as models_keydnn
from keydnn.experiment.samplers import SimpleSampler
from keydnn.experiment.scalers import PerSampleZeroStart
from keydnn.experiment.training import Optimizer

API, GRAPHS = (tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8")) for name in ("api.toml", "api_graphs.toml"))
MODULES = (
    "data",
    "context",
    "references",
    "splitters",
    "predicates",
    "samplers",
    "scalers",
    "io",
    "visualization",
    "errors",
    "utils",
    "models",
    "graph",
    "training",
    "results",
    "callbacks",
    "phases",
    "execution",
    "sweeps",
)


def found(name):
    module, _, path = name.partition(":")
    thing = importlib.import_module(f"keydnn.experiment.{module}" if module else "keydnn.experiment")
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing


def told(thing):
    """The signature without annotations and without self."""
    signature = inspect.signature(thing)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values() if p.name != "self"]
    for i, p in enumerate(parameters):
        if hasattr(p.default, "value") and p.default is not inspect.Parameter.empty:  # a member of an Enum is promised by its value
            parameters[i] = p.replace(default=p.default.value)
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


METHODS = [*API["signatures"].pop("methods").items(), *GRAPHS["signatures"]["methods"].items()]
SIGNATURES = API["signatures"] | {f"{c}.{m}": s for classes, rows in METHODS for c in classes.split() for m, s in rows.items()}
RAISES = [*API["raises"].items(), *GRAPHS["raises"].items()]
ERRORS = API["errors"] + [{"call": call, "error": error} for error, calls in RAISES for call in calls]
ATTRIBUTES = API["attributes"] | GRAPHS["attributes"]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    assert told(found(name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", GRAPHS["properties"])
def test_nothing_public_is_left_out(name):
    cls = found(name)
    bases = [f"{base.__module__.removeprefix('keydnn.experiment.').split('.')[0]}:{base.__name__}" for base in cls.__mro__]
    told = {row.rpartition(".")[2] for row in SIGNATURES for base in (name, *bases) if row.rpartition(".")[0] == base}
    for base in {name, *bases}:
        told.update(GRAPHS["properties"].get(base, []), GRAPHS["inner"].get(base, []))
    ours = {one for base in cls.__mro__ if base.__module__.startswith("keydnn.experiment.") for one in vars(base) if one[0] != "_"}
    assert ours == {one for one in told if hasattr(cls, one)} and all(hasattr(cls, one) for one in GRAPHS["properties"][name])


@pytest.mark.parametrize("module", ["", *MODULES])
def test_names_can_be_imported(module):
    thing = importlib.import_module(f"keydnn.experiment.{module}".rstrip("."))
    missing = [name for name in API["names"][module or "experiment"] if not hasattr(thing, name)]
    assert missing == []


def test_scalers_of_scikit_learn_are_offered_where_it_is_installed():
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="needs the sklearn extra")
    for name in API["names"]["scalers_of_scikit_learn"]:
        assert found(f"scalers:{name}") is getattr(preprocessing, name) is found("scalers:scaler_registry")[name.upper()]


@pytest.mark.parametrize(("name", "value"), API["constants"].items())
def test_constants(name, value):
    got = found(f"data:{name}")
    assert (list(got) if isinstance(got, tuple) else got) == value


@pytest.fixture
def names(ten, context, tmp_path):
    """What calls may use."""
    ten.split_random({"train": 0.7, "test": 0.3})
    sampler, fitted = SimpleSampler(source=ten), PerSampleZeroStart()
    fitted.fit_transform(np.ones((3, 2)))
    known = {"fs": ten, "view": ten.take([1, 2]), "ctx": context, "sampler": sampler, "fitted": fitted, "tmp": tmp_path}
    known |= {"np": np, "pa": pa, "pd": pd, "batch": sampler.get_batches()[0].materialize_batch()}
    known["layer"] = keydnn.nn.Linear(2, 1)
    known["node"] = ModelNode("node", known["layer"], ten)
    known["graph_of_one"] = ModelGraph([ModelNode("lone", known["layer"], ten)], Optimizer("sgd", backend="keydnn"), register=False)
    known |= {name: getattr(models_keydnn, name) for name in ("SequentialMLP", "SequentialCNN")}
    known["experiment_of_one"] = Experiment("one", ctx=ExperimentContext())
    for module in MODULES:
        known.setdefault(module, importlib.import_module(f"keydnn.experiment.{module}"))
        known.update({name: getattr(known[module], name) for name in API["names"][module] if name not in known})
    return known


@pytest.mark.parametrize(("expression", "attributes"), ATTRIBUTES.items())
def test_attributes(expression, attributes, names):
    thing = eval(expression, names)
    assert [name for name in attributes if not hasattr(thing, name)] == []


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row["call"])
def test_errors(row, names):
    fs = names["fs"]
    expected = getattr(errors, row["error"], None) or getattr(builtins, row["error"])
    if "prepare" in row:
        eval(row["prepare"], names)
    state = fs.get_state()
    with pytest.raises(expected, match=row.get("match")):
        eval(row["call"], names)
    if "encode_labels" not in row["call"]:  # whose first call adds a column
        assert fs.get_state()["sample_collection"] == state["sample_collection"]
    assert fs.available_splits == ["train", "test"]
