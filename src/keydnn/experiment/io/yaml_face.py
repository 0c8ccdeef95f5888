"""YAML of graphs, phases, groups, experiments, samplers and splitters: structure that people write and read; no weights, no data.

What a document says, and how, is told in :mod:`keydnn.experiment.documents`, which is imported when the first one is read or written.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Self

_FILES = "keydnn.experiment.documents.files"


def to_yaml(obj: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the structure of an object as YAML, nodes by their labels.

    Args:
        obj: A ModelGraph, TrainPhase, EvalPhase, FitPhase, PhaseGroup, Experiment, sampler or splitter.
        path: Name of the file; ``.yaml`` is added unless it ends so, or in ``.yml``.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: The file exists.
        TypeError: Another object.
        ValueError: Something in it that YAML cannot say; the message tells where.
        ImportError: A class or function that no import path leads to, such as one of ``__main__``; or PyYAML is not installed.

    Example:
        >>> import tempfile
        >>> from keydnn.experiment.io import from_yaml, to_yaml
        >>> from keydnn.experiment.samplers import SimpleSampler
        >>> path = to_yaml(SimpleSampler(batch_size=8, seed=5), tempfile.mkdtemp() + "/rows")
        >>> path.name, from_yaml(path).batch_size
        ('rows.yaml', 8)
    """
    return importlib.import_module(_FILES).write(obj, path, overwrite=overwrite)  # type: ignore[no-any-return]


def from_yaml(path: str | os.PathLike[str], kind: str | None = None, *, overwrite: bool = False, allow_packaged_code: bool = False) -> Any:
    """The object that a YAML file describes, new, in the active context; if anything is wrong the context is as it was.

    Feature sets are not in the file: they have to be registered under the labels that it names.

    Args:
        path: The file, with or without ``.yaml``.
        kind: The kind it must have: ``model_graph``, ``train_phase``, ``eval_phase``, ``fit_phase``, ``phase_group``, ``experiment``,
            ``sampler`` or ``splitter``; None takes any.
        overwrite: Whether nodes, graph and experiment may take the place of those in the context that have their labels.
        allow_packaged_code: Whether classes and functions may be imported that are neither ours, nor public ones of a framework, nor
            registered.

    Returns:
        The object.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no YAML, not safe to read, says something unknown or wrong, names a feature set that is not registered, or a
            label that is taken; the message tells the file, the place in it, and the mend.
        PackagedCodeError: It names a class that may not be imported without permission.
        ImportError: PyYAML, or a framework that it names, is not installed.
    """
    return importlib.import_module(_FILES).read(path, kind, object, overwrite=overwrite, allow_packaged_code=allow_packaged_code)


class InYaml:
    """Adds ``to_yaml`` and ``from_yaml`` to a class."""

    def to_yaml(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the structure as YAML; see :func:`keydnn.experiment.io.to_yaml`.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
            ValueError: Something that YAML cannot say.
            ImportError: A class or function that no import path leads to; or PyYAML is not installed.
        """
        return to_yaml(self, path, overwrite=overwrite)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], *, overwrite: bool = False, allow_packaged_code: bool = False) -> Self:
        """The object of this class that a YAML file describes; see :func:`keydnn.experiment.io.from_yaml`.

        Raises:
            FileNotFoundError: No such file.
            ValueError: The file holds another kind of object, or something is wrong with it.
            PackagedCodeError: It names a class that may not be imported without permission.
        """
        made: Self = importlib.import_module(_FILES).read(path, None, cls, overwrite=overwrite, allow_packaged_code=allow_packaged_code)
        return made
