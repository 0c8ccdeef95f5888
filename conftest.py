"""The examples of README, docs and docstrings are tests: each runs with ``keydnn`` and ``np`` at hand, in an empty folder, from seed 0.

Tutorials of experiments show what came out of a training: there a number with a point in it is compared to the digits that are shown.
Their pictures are drawn by the pages; `KEYDNN_PICTURES=docs/tutorial/experiment pytest docs/tutorial/experiment` puts them there anew.

What `--quick` leaves out, of examples and of tests, is said here, too.
"""

import gc
import os
import random
import shutil
import sys
import tempfile
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.evaluators.doctest import NUMBER
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser
from sybil.parsers.rest import SkipParser as DocstringSkipParser
from sybil.sybil import SybilCollection

OPTIONS = ELLIPSIS | NORMALIZE_WHITESPACE
ROOT = Path(__file__).parent
TUTORIALS = "docs/tutorial/experiment/*.md"
SLOW_PAGES = ("2-stages", "3-joined-branches", "6-kill-and-resume", "7-transfer-learning", "8-ensembles")  # of them: they train for seconds
LARGE_TABLE = 6  # rows


def setup(namespace):
    import keydnn

    if find_spec("pyarrow") and find_spec("pandas"):  # nodes of one page are not there on the next
        from keydnn.experiment.context import ExperimentContext

        ExperimentContext.set_active(ExperimentContext())
    folder = tempfile.TemporaryDirectory(prefix="keydnn-example-")
    namespace.update(keydnn=keydnn, np=np, _folder=folder, _home=os.getcwd())
    random.seed(0)
    np.random.seed(0)
    os.chdir(folder.name)


def teardown(namespace):
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
    if "KEYDNN_PICTURES" in os.environ:
        for picture in Path().glob("*.png"):
            shutil.copy(picture, ROOT / os.environ["KEYDNN_PICTURES"])
    os.chdir(namespace["_home"])
    namespace["_folder"].cleanup()


def at_any_depth(folder, suffix):
    """Patterns for all files of a kind; before Python 3.13 ``**`` in a pattern is one folder, neither none nor several."""
    return [f"{folder}/{'*/' * depth}*.{suffix}" for depth in range(6)]


class Docstrings(PythonDocStringDocument):
    """Looks for docstrings only in files with an example; looking through the syntax of all takes seconds."""

    @staticmethod
    def extract_docstrings(python_source_code):
        return PythonDocStringDocument.extract_docstrings(python_source_code) if ">>>" in python_source_code else iter(())


documents = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=OPTIONS), SkipParser()],
    patterns=["README.md", *at_any_depth("docs", "md")],
    excludes=[TUTORIALS],
    setup=setup,
    teardown=teardown,
)
tutorials = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=OPTIONS | NUMBER), SkipParser()],
    patterns=[TUTORIALS],
    setup=setup,
    teardown=teardown,
)
docstrings = Sybil(
    parsers=[DocTestParser(optionflags=OPTIONS), DocstringSkipParser()],
    patterns=at_any_depth("src/keydnn", "py"),
    document_types={".py": Docstrings},
    excludes=[] if find_spec("pyarrow") else at_any_depth("src/keydnn/experiment", "py"),
    setup=setup,
    teardown=teardown,
)


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="no test marked slow or long, and every 24th row of the large tables")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is made while tests are read stays to the end: the collector of garbage need not look through it, neither then nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc):
    """With --quick a test function of more than LARGE_TABLE rows has every 24th: two thirds of all tests are not even made."""
    yield
    if metafunc.config.getoption("--quick") and len(metafunc._calls) > LARGE_TABLE:
        metafunc._calls = metafunc._calls[::24]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """All examples of a slow page are slow, since each needs those before it; with --quick nothing slow runs."""
    pages = {ROOT / "docs" / "tutorial" / "experiment" / f"{page}.md" for page in SLOW_PAGES}
    for item in items:
        if item.path in pages:
            item.add_marker(pytest.mark.slow)
    if config.getoption("--quick"):
        slow = {item for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")}
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


pytest_collect_file = SybilCollection([documents, tutorials, docstrings]).pytest()
