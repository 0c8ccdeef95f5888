"""The examples of README, docs and docstrings are tests: each runs with ``keydnn`` and ``np`` at hand, in an empty folder, from seed 0."""

import os
import random
import tempfile
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from importlib.util import find_spec

import numpy as np
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser
from sybil.parsers.rest import SkipParser as DocstringSkipParser

OPTIONS = ELLIPSIS | NORMALIZE_WHITESPACE


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
    os.chdir(namespace["_home"])
    namespace["_folder"].cleanup()


def at_any_depth(folder, suffix):
    """Patterns for all files of a kind; before Python 3.13 ``**`` in a pattern is one folder, neither none nor several."""
    return [f"{folder}/{'*/' * depth}*.{suffix}" for depth in range(6)]


documents = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=OPTIONS), SkipParser()],
    patterns=["README.md", *at_any_depth("docs", "md")],
    setup=setup,
    teardown=teardown,
)
docstrings = Sybil(
    parsers=[DocTestParser(optionflags=OPTIONS), DocstringSkipParser()],
    patterns=at_any_depth("src/keydnn", "py"),
    excludes=[] if find_spec("pyarrow") else at_any_depth("src/keydnn/experiment", "py"),
    setup=setup,
    teardown=teardown,
)

pytest_collect_file = (documents + docstrings).pytest()
