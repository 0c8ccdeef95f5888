"""The reference shows every public name."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pages of the experiment wing need the experiment extra")
pytest.importorskip("sklearn", reason="the estimators need the sklearn extra")

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MODULES = """
    keydnn keydnn.layers keydnn.activations keydnn.losses keydnn.models keydnn.optimizers keydnn.callbacks keydnn.metrics keydnn.datasets
    keydnn.backend keydnn.utils keydnn.tensors keydnn.data keydnn.ops keydnn.kernels.cpu keydnn.nn.functions keydnn.domain.protocols
    keydnn.domain.errors keydnn.interop.sklearn""".split()
TABLES = {"METRICS", "STREAMING"}  # plain dicts, whose rows are shown


def names_of(module):
    listed = getattr(module, "__all__", None)
    return listed or [
        name for name, value in vars(module).items() if name[0] != "_" and getattr(value, "__module__", "") == module.__name__
    ]


def directives():
    """(kind, target, options) of every directive that shows objects."""
    for page in REFERENCE.glob("*.md"):
        current = ""
        for block in re.split(r"\n\s*\n|\n(?=\.\. )", page.read_text(encoding="utf-8")):
            if found := re.search(r"\.\. currentmodule:: (\S+)", block):
                current = f"{found[1]}."
            if found := re.search(r"\.\. auto(module|class|function|data):: (\S+)((?:\n   .+)*)", block):
                kind, target, options = found.groups()
                yield kind, target if kind == "module" or "." in target else current + target, options


def found(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def shown():
    """Identities of all objects on the pages."""
    for kind, target, options in directives():
        if kind != "module":
            yield id(found(target))
            yield from map(id, (getattr(found(target), name) for name in vars(found(target))) if kind == "class" else ())
            continue
        module = importlib.import_module(target)
        members = re.search(r":members: (.+)", options)
        for name in members[1].split(", ") if members else names_of(module):
            yield id(getattr(module, name))


SHOWN = set(shown())


@pytest.mark.parametrize("name", MODULES)
def test_every_name_is_shown(name):
    module = importlib.import_module(name)
    objects = {n: getattr(module, n) for n in names_of(module) if n not in TABLES}
    missing = [n for n, value in objects.items() if id(value) not in SHOWN and callable(value) and not inspect.ismodule(value)]
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_every_name_says_what_it_is(name):
    module = importlib.import_module(name)
    assert [n for n in names_of(module) if callable(getattr(module, n)) and not inspect.getdoc(getattr(module, n))] == []


@pytest.mark.parametrize("page", sorted((REFERENCE.parent / "tutorial" / "experiment").glob("*.md")), ids=lambda page: page.stem)
def test_pictures_of_a_tutorial_are_drawn_by_it(page):
    text = page.read_text(encoding="utf-8")
    shown, drawn = set(re.findall(r"!\[.+\]\((.+)\)", text)), set(re.findall(r'savefig\("(.+?)"', text))
    assert shown == drawn and all((page.parent / name).exists() for name in shown)
