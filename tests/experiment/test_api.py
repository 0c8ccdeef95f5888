"""``api.toml`` is the public face as it is promised: every signature is compared, every error row is called.

A ``call`` runs with ``fs`` (ten rows: features a and b, target y, tag t, split "train" and "test"), ``view`` (rows 1 and 2), ``batch``,
``sampler``, ``ctx``, ``np`` and ``pa`` at hand; ``error`` names what it must raise.
"""

import builtins
import importlib
import inspect
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from keydnn.experiment import errors
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.samplers import SimpleSampler

API = tomllib.loads((Path(__file__).parent / "api.toml").read_text(encoding="utf-8"))
MODULES = ("data", "context", "references", "splitters", "predicates", "samplers", "scalers", "io", "visualization", "errors", "utils")


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


@pytest.mark.parametrize("name", API["signatures"])
def test_signatures(name):
    assert told(found(name)) == API["signatures"][name]


@pytest.mark.parametrize("module", ["", *MODULES])
def test_names_can_be_imported(module):
    thing = importlib.import_module(f"keydnn.experiment.{module}".rstrip("."))
    missing = [name for name in API["names"][module or "experiment"] if not hasattr(thing, name)]
    assert missing == []


@pytest.mark.parametrize(("name", "value"), API["constants"].items())
def test_constants(name, value):
    got = found(f"data:{name}")
    assert (list(got) if isinstance(got, tuple) else got) == value


@pytest.mark.parametrize("row", API["errors"], ids=lambda row: row["call"])
def test_errors(row, ten, context):
    ten.split_random({"train": 0.7, "test": 0.3})
    names = {
        "fs": ten,
        "view": ten.take([1, 2]),
        "ctx": context,
        "np": np,
        "pa": pa,
        "sampler": SimpleSampler(source=ten),
        "FeatureSet": FeatureSet,
    }
    names["batch"] = names["sampler"].get_batches()[0].materialize_batch()
    for module in MODULES:
        names.setdefault(module, importlib.import_module(f"keydnn.experiment.{module}"))
        names.update({name: getattr(names[module], name) for name in API["names"][module] if name not in names})
    expected = getattr(errors, row["error"], None) or getattr(builtins, row["error"])
    before = ten.get_state()
    with pytest.raises(expected, match=row.get("match")):
        eval(row["call"], names)
    assert ten.get_state()["sample_collection"] == before["sample_collection"] and ten.available_splits == ["train", "test"]
