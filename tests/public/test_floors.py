"""Arrows go down: every import in the package, also inside functions, leads to a lower floor.

``FLOORS`` is the plan of the house: a room, and the rooms directly under it. A room may import from these and from
whatever stands below them. Changing a line here is a decision about structure: docs/design/0001-floors.md.
"""

import ast
import functools
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "keydnn"

FRONT_DOOR = "front door"  # re-exports, no logic
FACES = set("activations backend callbacks datasets infrastructure layers losses metrics models optimizers tensors utils".split())

FLOORS = {
    "domain": (),
    "kernels": ("domain",),
    "autograd": ("domain",),
    "ops": ("kernels", "autograd", "domain"),
    "_tensor": ("ops", "autograd", "domain"),
    "saving": ("domain",),
    "random": ("threads", "kernels", "domain"),
    "threads": ("kernels", "domain"),
    "optim": ("_tensor", "ops", "saving", "domain"),
    "nn": ("_tensor", "ops", "saving", "domain"),
    "compiler": ("_tensor", "ops", "autograd", "kernels"),
    "training": ("compiler", "optim", "nn", "_tensor", "saving", "random", "threads"),
    "interop": ("training", "saving", "nn", "_tensor"),
    "data": ("training", "_tensor", "random", "domain"),
    "_page": (),
    "stability": ("training", "compiler", "optim", "nn", "_tensor", "ops", "autograd", "domain", "_page"),
    FRONT_DOOR: ("data", "interop", "training"),
    "testing": (FRONT_DOOR, "experiment"),
    "experiment": (FRONT_DOOR, "training", "saving", "domain", "_page"),
    "cli": (FRONT_DOOR, "experiment", "stability"),
}

BORDER = {"numpy"}  # what any file may import when it is loaded, beside the standard library
ROOM_BORDER = {  # rooms that nobody loads by `import keydnn` may import more
    "cli": {"click", "platformdirs", "rich"},
    "experiment": {"pandas", "pyarrow", "yaml"},
}


def below(room):
    """All rooms under a room."""
    found = set()
    waiting = [room]
    while waiting:
        fresh = set(FLOORS[waiting.pop()]) - found
        found |= fresh
        waiting += fresh
    return found


def room_of(module):
    """``keydnn.nn.layers.conv`` -> ``nn``; the package itself and the flat faces -> front door."""
    name = (module.split(".") + [""])[1]
    if name == "" or name in FACES:
        return FRONT_DOOR
    return "cli" if name == "__main__" else name


def module_name(path, package):
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(node, module, is_package, package):
    """Absolute names of the modules that one statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            around = module.split(".")
            around = around[: len(around) - node.level + is_package]
            base = ".".join(around + ([base] if base else []))
        if base != package.name:
            return [base]
        inside = {path.stem for path in package.iterdir()}  # `from keydnn import ops` imports a module, not a name of the front door
        return [f"{base}.{alias.name}" if alias.name in inside else base for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return [node.args[0].value] if called in ("import_module", "__import__") else []
    return []


@functools.cache
def imports(path, package):
    """``(line, target module, where)`` for each import of a file; where is "load", "function" or "typing"."""
    module, is_package = module_name(path, package), path.name == "__init__.py"
    found = []

    def walk(node, where):
        for child in ast.iter_child_nodes(node):
            inner = where
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inner = "function"
            elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                inner = "typing"
            found.extend((child.lineno, target, where) for target in _targets(child, module, is_package, package))
            walk(child, inner)

    walk(ast.parse(path.read_text(encoding="utf-8")), "load")
    return found


def upward_arrows(package):
    """Every import that leads up or sideways, as text."""
    found = []
    for path in sorted(package.rglob("*.py")):
        room = room_of(module_name(path, package))
        allowed = {room, *below(room)} if room in FLOORS else set()
        for line, target, _ in imports(path, package):
            goal = room_of(target)
            if target.split(".")[0] != package.name or goal in allowed or _is_native_door(room, goal):
                continue
            found.append(f"{path.relative_to(package)}:{line}: {room} -> {goal} ({target})")
    return found


def _is_native_door(room, goal):
    """The compiled module belongs to no room: two rooms, and nobody above them, touch it."""
    return goal == "_native" and room in ("kernels", "compiler")


def early_imports(package):
    """Every outside package that is imported when its file is loaded and is not on the border's list, as text."""
    found = []
    for path in sorted(package.rglob("*.py")):
        allowed = {package.name, *sys.stdlib_module_names, *BORDER, *ROOM_BORDER.get(room_of(module_name(path, package)), ())}
        for line, target, where in imports(path, package):
            if where == "load" and target.split(".")[0] not in allowed:
                found.append(f"{path.relative_to(package)}:{line}: {target} belongs inside the function that needs it")
    return found


def test_the_plan_has_no_circle():
    assert list(graphlib.TopologicalSorter(FLOORS).static_order())[0] == "domain"


def test_every_file_of_the_package_stands_in_a_room():
    rooms = {room_of(module_name(path, PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert rooms <= set(FLOORS)


@pytest.mark.slow
def test_no_import_leads_up():
    assert upward_arrows(PACKAGE) == []


@pytest.mark.slow
def test_optional_packages_are_imported_inside_functions_only():
    assert early_imports(PACKAGE) == []


def test_nothing_in_the_package_stands_on_testing_or_the_command_line():
    assert not [room for room in FLOORS if below(room) & {"testing", "cli"}]


GOOD = [
    ("nn/layers/conv.py", "from keydnn import ops\nfrom keydnn._tensor import Tensor\nfrom .. import module"),
    ("ops/conv.py", "import keydnn.kernels.contract as contract\nfrom ..kernels import dispatch"),
    ("kernels/native.py", "from keydnn import _native"),
    ("layers.py", "from keydnn.nn.layers import Conv2d"),
    ("__main__.py", "from keydnn.cli import main"),
    ("experiment/run.py", "import pyarrow\nimport keydnn\nfrom keydnn import Tensor"),
    ("saving/weights.py", "def load():\n    import safetensors"),
    ("interop/torch.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
]
UPWARD = [
    ("domain/errors.py", "import keydnn"),
    ("domain/errors.py", "from keydnn import __version__"),
    ("kernels/native.py", "from keydnn import autograd"),
    ("autograd/tape.py", "def backward():\n    from keydnn._tensor import Tensor"),
    ("ops/conv.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from keydnn._tensor import Tensor"),
    ("nn/module.py", "from .. import optim"),
    ("nn/layers/conv.py", "from ...training import Model"),
    ("nn/layers/__init__.py", "from ...training import Model"),
    ("_tensor.py", "class Tensor:\n    def to(self):\n        import keydnn.nn.module"),
    ("saving/json.py", "import importlib\ndef load():\n    importlib.import_module('keydnn.nn')"),
    ("training/fit.py", "from keydnn.testing import check_layer"),
    ("stability/probe.py", "from keydnn import experiment"),
    ("nn/layers/conv.py", "from keydnn import _native"),
    ("newroom/thing.py", "from keydnn import domain"),
]
EARLY = [
    ("saving/weights.py", "import safetensors.numpy"),
    ("interop/torch.py", "import torch"),
    ("training/progress.py", "try:\n    from rich.progress import Progress\nexcept ImportError:\n    Progress = None"),
    ("nn/module.py", "class Module:\n    import sklearn"),
]


@pytest.fixture
def plant(tmp_path):
    """Builds a package ``keydnn`` of empty rooms with one file written by the test."""

    def build(name, text):
        package = tmp_path / "keydnn"
        for room in ("autograd", "cli", "domain", "experiment", "kernels", "nn", "ops", "optim", "testing", "training"):
            (package / room).mkdir(parents=True)
            (package / room / "__init__.py").touch()
        (package / "__init__.py").touch()
        (package / "_native.so").touch()
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return package

    return build


@pytest.mark.parametrize(("name", "text"), GOOD, ids=str)
def test_downward_imports_pass(plant, name, text):
    package = plant(name, text)
    assert upward_arrows(package) == early_imports(package) == []


@pytest.mark.parametrize(("name", "text"), UPWARD, ids=str)
def test_a_planted_upward_import_is_found(plant, name, text):
    (found,) = upward_arrows(plant(name, text))
    assert found.startswith(f"{name}:")


@pytest.mark.parametrize(("name", "text"), EARLY, ids=str)
def test_a_planted_early_import_is_found(plant, name, text):
    (found,) = early_imports(plant(name, text))
    assert found.startswith(f"{name}:")
