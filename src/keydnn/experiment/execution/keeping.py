"""Keeping: the files of an experiment: saved and loaded as a whole, and checkpoints of its state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from keydnn.experiment.execution import experiment_checkpoints, experiment_file
from keydnn.experiment.phases import Checkpointing


class Keeping:
    """What an experiment does with files; abstract.

    A class that derives from it is an :class:`~keydnn.experiment.Experiment`: it has a config, a state, a context and a history.
    """

    kind: ClassVar[str] = experiment_file.KIND

    def __init__(self, checkpointing: Checkpointing | None) -> None:
        self._checkpointing = checked_checkpointing(checkpointing)
        self._checkpoint_dir: Path | None = None
        self._checkpoints: dict[str, Path] = {}
        self._checkpoints_off = False

    # -- the whole

    def save(self, filepath: str | os.PathLike[str], *, overwrite: bool = False, include_data: bool = True) -> Path:
        """Write feature sets, graph, plan, callbacks, history, checkpoints and random numbers to ``<name>.exp.mml``.

        Nodes that the graph does not hold are left out.  The same content gives the same bytes.

        Args:
            filepath: Name of the file; the suffix is forced on what stands before its first dot.
            overwrite: Whether an existing file may be replaced.
            include_data: Whether the values of the samples are written.  Without them the file holds their schema, ids, splits, scalers and
                fingerprint: results can still be asked for, and whatever needs a value raises SampleLoadError.

        Returns:
            The path of the file.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
            PackagedCodeError: A class or function can be neither named nor packaged: it stands in ``__main__`` or inside a function.
            TypeError: The state of a callback holds something that a file cannot say.
            SampleLoadError: The data are to be written and are not here.

        Example:
            >>> from keydnn.experiment import Experiment, ExperimentContext
            >>> exp = Experiment("ageing", ctx=ExperimentContext(), seed=7)
            >>> path = exp.save("runs/ageing")
            >>> path.name, Experiment.load(path) == exp
            ('ageing.exp.mml', True)
        """
        return experiment_file.write_experiment(self, filepath, overwrite=overwrite, include_data=include_data)

    @classmethod
    def load(
        cls,
        filepath: str | os.PathLike[str],
        *,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        results_dir: str | os.PathLike[str] | None = None,
        allow_packaged_code: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """Read an experiment; the script that made it is not needed.

        Its nodes go into the active context.  If that has an experiment or a graph already, they go into a new one, which becomes active.
        A load that fails leaves the active context as it was.

        Args:
            filepath: The file, with or without its suffix.
            checkpoint_dir: Where the checkpoints that the file brings are written to, and those that follow; None leaves them in the file.
            results_dir: Where the results that the file brings are written to, and those that follow; absent or empty.  None keeps those
                in memory.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.
            overwrite: Whether nodes replace those that are registered, and checkpoints files of the same name.  Otherwise an identical
                feature set that is registered is taken instead of the loaded one, and other nodes whose ids are taken get new ones.

        Raises:
            FileNotFoundError: No such file.
            FileExistsError: A checkpoint of the same name is in ``checkpoint_dir``, and ``overwrite`` is False.
            ValueError: ``results_dir`` holds something already.
            ArtifactError: No experiment, or a damaged or hostile file.
            PackagedCodeError: It brings code, and that is not permitted.
            SymbolResolutionError: It names a class that is registered nowhere here.
            RegistrationError: A label of a compute node is taken and the policy of the active context is "error".

        Warns:
            UserWarning: It brings checkpoints, and there is no ``checkpoint_dir``; or that holds checkpoints already; or it brings
                results that were on disk, and there is no ``results_dir``.
        """
        return experiment_file.read_experiment(
            cls,
            filepath,
            checkpoint_dir=checkpoint_dir,
            results_dir=results_dir,
            allow_packaged_code=allow_packaged_code,
            overwrite=overwrite,
        )

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML page on the experiment: graph, data and audit, plan, curves, metrics, evaluations, runs, environment.

        The page loads nothing and runs no script; what was not recorded it names, with what to do to have it.

        Args:
            path: The page, usually ``.html``; an existing one is replaced.

        Returns:
            The page.

        Raises:
            OSError: It cannot be written.

        Example:
            >>> from keydnn.experiment import Experiment, ExperimentContext
            >>> page = Experiment("ageing", ctx=ExperimentContext(), seed=7).report("runs/ageing.html")
            >>> "Not recorded: runs" in page.read_text(encoding="utf-8")
            True
        """
        from keydnn.experiment import report

        return report.write_report(self, path)

    # -- checkpoints

    @property
    def checkpointing(self) -> Checkpointing | None:
        """When the whole experiment is saved; None never."""
        return self._checkpointing

    def set_checkpointing(self, checkpointing: Checkpointing | None) -> None:
        """Say when the whole experiment is saved.

        Raises:
            TypeError: No Checkpointing.
            ValueError: Its mode is "memory", or its hooks are those of a training phase.
        """
        self._checkpointing = checked_checkpointing(checkpointing)

    @property
    def active_checkpointing(self) -> Checkpointing | None:
        """The checkpointing, unless it is disabled."""
        return None if self._checkpoints_off else self._checkpointing

    @contextlib.contextmanager
    def disable_checkpointing(self) -> Iterator[None]:
        """Inside the block neither the experiment nor a phase keeps checkpoints."""
        before, self._checkpoints_off = self._checkpoints_off, True
        try:
            yield
        finally:
            self._checkpoints_off = before

    @property
    def checkpoint_dir(self) -> Path | None:
        """The folder for checkpoints; those of a phase go into a folder of its label inside, unless the phase names another one."""
        return self._checkpoint_dir

    def set_checkpoint_dir(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        """Say where checkpoints go.

        Args:
            path: The folder.
            create: Whether it is made if it is missing.

        Raises:
            FileNotFoundError: It is missing, and ``create`` is False.
            NotADirectoryError: It is a file.

        Warns:
            UserWarning: It holds checkpoints already.
        """
        self._checkpoint_dir = experiment_checkpoints.checked_directory(path, create=create)

    @property
    def available_checkpoints(self) -> dict[str, Path]:
        """Name of a checkpoint on disk to its file; those of training phases are named ``<phase>/<name>``."""
        return {name: path for name, path in self._checkpoints.items() if path.is_file()}

    def checkpoint_written(self, name: str, path: Path) -> None:
        """Told by whoever wrote a checkpoint of this experiment or one of its phases."""
        self._checkpoints[name] = path

    def get_files(self) -> dict[str, Any]:
        """When checkpoints are written, where, and which there are; see :meth:`set_files`."""
        return {"checkpointing": self._checkpointing, "directory": self._checkpoint_dir, "checkpoints": dict(self._checkpoints)}

    def set_files(self, files: Mapping[str, Any]) -> None:
        """Take back :meth:`get_files`."""
        self._checkpointing, self._checkpoint_dir = files["checkpointing"], files["directory"]
        self._checkpoints = dict(files["checkpoints"])

    def save_checkpoint(self, name: str, *, overwrite: bool = False, meta: Mapping[str, Any] | None = None) -> Path:
        """Write the full state: graph, optimizers, splits, scalers, history, callbacks and random numbers.

        The values of the samples are not written; the feature sets are recognised by their fingerprints.

        Args:
            name: Of the checkpoint, and of its file in the folder for checkpoints.
            overwrite: Whether an existing checkpoint of this name may be replaced.
            meta: What else is worth knowing: JSON values and arrays.

        Returns:
            The path of the file.

        Raises:
            RuntimeError: There is no folder; see :meth:`set_checkpoint_dir`.
            ValueError: There is a checkpoint of this name and ``overwrite`` is False, or the name is no file name.
            TypeError: A name that is no text, or values in ``meta`` that a file cannot say.
        """
        key = experiment_checkpoints.key_of(name)
        directory = self._checkpoint_dir
        if directory is None:
            raise RuntimeError(f"no folder for checkpoint {name!r}: call set_checkpoint_dir(path) first")
        if not overwrite and (key in self.available_checkpoints or experiment_checkpoints.path_of(directory, key).exists()):
            raise ValueError(f"there is a checkpoint {key!r} in {directory}; pass overwrite=True to replace it")
        path = experiment_checkpoints.write(self, directory, key, overwrite=overwrite, meta=meta)
        self.checkpoint_written(key, path)
        return path

    def restore_checkpoint(self, name_or_path: str | os.PathLike[str], *, allow_packaged_code: bool = False) -> None:
        """Go back to a checkpoint: to the full state, or, with a checkpoint of a training phase, to that of the graph.

        Nodes are found by id, else by label.  The plan stays as it is.  If it fails, everything is as before.

        Args:
            name_or_path: A name in :attr:`available_checkpoints`, the path of a file, or its name in the folder for checkpoints.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.

        Raises:
            ValueError: There is none, or it is of other nodes or other data.
            TypeError: It holds the state neither of an experiment nor of a graph.
            ArtifactError: A damaged or hostile file.
            PackagedCodeError: It brings code, and that is not permitted.
        """
        path = experiment_checkpoints.found(name_or_path, self.available_checkpoints, self._checkpoint_dir)
        experiment_checkpoints.restore(self, path, allow_packaged_code=allow_packaged_code)


def checked_checkpointing(checkpointing: Any) -> Checkpointing | None:
    """A Checkpointing that fits an experiment, or None.

    Raises:
        TypeError: Something else.
        ValueError: It does not fit.
    """
    if checkpointing is None:
        return None
    if not isinstance(checkpointing, Checkpointing):
        raise TypeError(f"checkpointing must be a Checkpointing or None, got {type(checkpointing).__name__}")
    checkpointing.check_for_experiment()
    return checkpointing
