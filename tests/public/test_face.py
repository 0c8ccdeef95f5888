"""The face of the library against face.toml: names, signatures with defaults, members, configs, values, errors, warnings.

A difference must be a row of the table in ``docs/design/0005-deviations.md``; a row without a difference fails too.
"""

import importlib
import inspect
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import keydnn
from tests.public import face_scope

FACE = tomllib.loads(Path(__file__).with_name("face.toml").read_text(encoding="utf-8"))
DEVIATIONS = Path(__file__).parents[2] / "docs" / "design" / "0005-deviations.md"
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def deviations():
    """First cells of the table's rows: what differs."""
    rows = re.findall(r"^\| `([^`]+)` \| .+ \| .+ \| .+ \|$", DEVIATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows))
    return set(rows)


ALLOWED = deviations()


def held(name, difference):
    """Fail on a difference that is not listed, and on a listed one that is none."""
    if name in ALLOWED:
        assert difference, f"{name} is listed in {DEVIATIONS.name} and does not deviate"
    else:
        assert not difference, f"{name}: {difference}"


def found(path):
    """The object of a dotted path: modules as far as they go, then attributes."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for i, part in enumerate(parts[n:], n):
            if inspect.isclass(value) and i == len(parts) - 1 and inspect.isfunction(inspect.getattr_static(value, part)):
                return value().__getattribute__(part) if value is keydnn.Module else value.__dict__.get(part, getattr(value, part))
            value = getattr(value, part)
        return value
    raise AssertionError(path)


@pytest.fixture
def scope(tmp_path):
    with face_scope.scope(tmp_path) as names:
        yield names


# -- names


@pytest.mark.parametrize("module", FACE["names"])
def test_names(module):
    place = importlib.import_module(module)
    for name in FACE["names"][module].split():
        held(f"{module}.{name}", "" if hasattr(place, name) else f"{module} has no {name}")
    missing = [name for name in FACE["names"][module].split() if hasattr(place, name) and not name.startswith("_")]
    assert [name for name in missing if name not in getattr(place, "__all__", missing)] == []


@pytest.mark.parametrize("name", FACE["same"])
def test_other_spellings(name):
    assert found(name) is found(FACE["same"][name])


# -- signatures


def expected_parameters(text):
    scope = {"np": np}
    exec(f"def f{text}: pass", scope)
    return list(inspect.signature(scope["f"]).parameters.values())


def actual_parameters(path):
    thing = found(path)
    owner = found(path.rpartition(".")[0])
    parameters = list(inspect.signature(thing).parameters.values())
    is_method = inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, path.rpartition(".")[2]))
    return parameters[1:] if is_method and not inspect.ismethod(thing) else parameters


def same_default(a, b):
    return a is b or (type(a) is type(b) and a == b) or (isinstance(a, type) and np.dtype(a) == b)


def differences(expected, actual):
    """How ``actual`` cannot be called as ``expected`` says, or assumes something else."""
    ours = {p.name: p for p in actual}
    found = []
    places = [p.name for p in actual if p.kind in POSITIONAL]
    if any(p.kind is p.VAR_POSITIONAL for p in expected) and not any(p.kind is p.VAR_POSITIONAL for p in actual):
        found.append("takes no *arguments")
    by_place = [p.name for p in expected if p.kind in POSITIONAL]
    if places[: len(by_place)] != by_place:
        found.append(f"positions are {places}, expected {by_place}")
    later = [name for name in places if name not in by_place]
    order = [p.name for p in expected if p.kind is p.KEYWORD_ONLY and p.name in later]
    if later[: len(order)] != order:
        found.append(f"further positions are {later}, expected {order}")
    for p in expected:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        q = ours.get(p.name)
        if q is None:
            found.append(f"has no {p.name}")
        elif q.kind not in (KEYWORD if p.kind is p.KEYWORD_ONLY else POSITIONAL):
            found.append(f"{p.name} is {q.kind.description}")
        elif not (p.default is p.empty and (q.default is q.empty or q.kind in KEYWORD)) and not same_default(p.default, q.default):
            found.append(f"{p.name}={q.default!r}, expected {p.default!r}")
    known = {p.name for p in expected}
    extra = [p.name for p in actual if p.name not in known and p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [*found, *(f"also asks for {name}" for name in extra)]


@pytest.mark.parametrize("path", FACE["signatures"])
def test_signatures(path):
    held(f"{path}()", "; ".join(differences(expected_parameters(FACE["signatures"][path]), actual_parameters(path))))


@pytest.mark.parametrize(
    "other, finding",
    [
        ("(a, b=1, *, c=2)", ""),
        ("(a, b=1, c=2)", ""),
        ("(a, b=1, *, c=2, d=None)", ""),
        ("(a, b=1, c=2, d=None, *args)", ""),
        ("(a, b=1, d=None, c=2)", "further positions"),
        ("(a, b=1)", "has no c"),
        ("(b, a, *, c=2)", "positions are"),
        ("(a, *, b=1, c=2)", "positions are"),
        ("(a, b=2, *, c=2)", "b=2, expected 1"),
        ("(a, b=1.0, *, c=2)", "b=1.0, expected 1"),
        ("(a, b=1, *, c)", "c="),
        ("(a, b=1, *, c=2, d)", "also asks for d"),
        ("(a, b=1, /, *, c=2)", ""),
    ],
)
def test_the_comparison_finds_what_differs(other, finding):
    text = "; ".join(differences(expected_parameters("(a, b=1, *, c=2)"), expected_parameters(other)))
    assert finding in text and bool(finding) == bool(text)


@pytest.mark.parametrize("of", FACE["members"])
def test_members(of, scope):
    thing = eval(of, scope)
    cls = type(thing)
    for name in FACE["members"][of].split():
        held(f"{of}.{name}", "" if hasattr(cls, name) or hasattr(thing, name) else "missing")


@pytest.mark.parametrize("of", FACE["configs"])
def test_configs(of, scope):
    config = eval(of, scope).get_config()
    assert sorted(config) == sorted(FACE["configs"][of].split())
    assert json.loads(json.dumps(config)) == config


# -- what calls give


def leaves(value):
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in leaves(part)]
    return np.ravel(value).tolist()


@pytest.mark.parametrize("row", FACE["values"], ids=lambda row: row["of"][:60])
def test_values(row, scope):
    value = eval(row["of"], scope)
    if "is" in row:
        assert value == eval(row["is"], scope)
    elif "spread" in row:
        np.testing.assert_allclose(value, eval(row["spread"], scope), rtol=0.02)  # of 120,000 numbers
    else:
        np.testing.assert_allclose(leaves(value), leaves(eval(row["numbers"], scope)), rtol=1e-6, atol=1e-12)  # float32 results among them


def kinds(text, scope):
    return tuple(eval(name, scope) for name in text.split(", "))


@pytest.mark.parametrize("row", FACE["errors"], ids=lambda row: row["call"][:60])
def test_errors(row, scope):
    with pytest.raises(kinds(row["raises"], scope)) as caught:
        exec(row["call"], scope)
    said = str(caught.value)
    assert [piece for piece in row["says"] if piece not in said] == [], said
    if "cause" in row:
        assert isinstance(caught.value.__cause__, kinds(row["cause"], scope))


@pytest.mark.parametrize("row", FACE["warnings"], ids=lambda row: row["call"][:60])
def test_warnings(row, scope):
    with pytest.warns(kinds(row["warns"], scope)) as caught:
        exec(row["call"], scope)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert [piece for piece in row["says"] if piece not in said] == [], said


def test_no_row_comes_twice():
    for kind in ("errors", "warnings"):
        calls = [row["call"] for row in FACE[kind]]
        assert len(calls) == len(set(calls))


def test_every_deviation_names_a_row():
    members = {f"{of}.{name}" for of, names in FACE["members"].items() for name in names.split()}
    names = {f"{module}.{name}" for module, listed in FACE["names"].items() for name in listed.split()}
    assert members | names | {f"{path}()" for path in FACE["signatures"]} >= ALLOWED
