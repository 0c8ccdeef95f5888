"""One HTML page on an experiment, with everything inside: graph, data, plan, curves, metrics, evaluations, runs, environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keydnn import _page
from keydnn.experiment.io.artifact import clear_errors
from keydnn.experiment.report.facts import Facts, facts_in, facts_of
from keydnn.experiment.report.runs import run_sets
from keydnn.experiment.report.sections import MOST_SETS, STYLE, all_sections

__all__ = ["report_file", "write_report"]


def write_report(experiment: Any, path: str | os.PathLike[str]) -> Path:
    """Write the page on an experiment in memory; see ``Experiment.report``."""
    return _page.write(Path(path), _told(facts_of(experiment)))


def report_file(file: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write the page on the experiment in a file; see ``keydnn experiment report``.

    No code in the file is run, and none of the frameworks of its models has to be installed.

    Args:
        file: What ``Experiment.save`` wrote, or the folder of a run (``run_dir``), finished or not.
        path: The page; an existing one is replaced.

    Returns:
        The page.

    Raises:
        FileNotFoundError: No such file, or a folder without a run.
        ArtifactError: No experiment, or a damaged or hostile file.
    """
    with clear_errors(file):
        page = _told(facts_in(file))
    return _page.write(Path(path), page)


def _told(facts: Facts) -> str:
    sets = run_sets(facts.runs)
    for one in sets[-MOST_SETS:]:
        one.find_outcomes()
    return _page.document(f"Experiment report: {facts.label}", all_sections(facts, sets), STYLE)
