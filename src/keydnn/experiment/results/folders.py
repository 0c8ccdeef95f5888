"""ResultsConfig: which results are written to disk while they occur, and where.

<results_dir>/<run index>_<label>/<phase label>/{execution_data,callbacks,metrics,artifacts}        groups are folders above their phases
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_UNSAFE = re.compile(r"[^\w.+=@ -]")  # in names of files


@dataclass(frozen=True)
class PhaseFolder:
    """Where the results of one phase go; None where they stay in memory.

    Attributes:
        execution: Steps.
        callbacks: What callbacks left.
        metrics: Metrics.
        artifacts: Artifacts.
    """

    execution: Path | None
    callbacks: Path | None
    metrics: Path | None
    artifacts: Path | None


@dataclass
class RunFolder:
    """A folder of a run or a group.

    Attributes:
        config: What is written.
        path: The folder.
    """

    config: ResultsConfig
    path: Path
    _taken: set[str] = field(default_factory=set)

    def group(self, label: str) -> RunFolder:
        """The folder of a group inside."""
        return RunFolder(self.config, self._inside(label))

    def phase(self, label: str) -> PhaseFolder:
        """The folders of a phase inside."""
        inside, config = self._inside(label), self.config
        return PhaseFolder(
            inside / "execution_data" if config.save_execution else None,
            inside / "callbacks" if config.save_execution else None,
            inside / "metrics" if config.save_metrics else None,
            inside / "artifacts" if config.save_artifacts else None,
        )

    def _inside(self, label: str) -> Path:
        """A folder named like a label; two labels that would share it get numbers."""
        name = first = file_name(label)
        number = 1
        while name.lower() in self._taken:  # some file systems know no case
            number += 1
            name = f"{first}_{number}"
        self._taken.add(name.lower())
        return self.path / name


def file_name(label: str) -> str:
    """A label as the name of a folder.

    Example:
        >>> from keydnn.experiment.results.folders import file_name
        >>> file_name("a/b: c"), file_name("..")
        ('a_b_ c', '_')
    """
    return _UNSAFE.sub("_", label).strip(". ")[:100] or "_"


class ResultsConfig:
    """Which results of runs are written to disk while they occur, so that long runs need no more memory than short ones.

    An epoch is written when it is over, an artifact at once; queries read them when they are asked. Files hold arrays and JSON; artifacts
    that need it are pickled, and opened again only by the process that wrote them, or with permission. Previews write nothing.

    Args:
        results_dir: An absent or empty directory; None writes nothing.
        save_execution: Whether steps and what callbacks returned are written.
        save_metrics: Whether metrics are; else they stay in memory, a few bytes each.
        save_artifacts: Whether artifacts are.

    Raises:
        TypeError: A flag that is no bool.
        ValueError: The directory holds something, or is a file.

    Example:
        >>> from keydnn.experiment.results import ResultsConfig
        >>> config = ResultsConfig("results", save_metrics=True)
        >>> config.phase_dir("0_ageing/train").parts
        ('results', '0_ageing', 'train')
    """

    def __init__(
        self,
        results_dir: str | os.PathLike[str] | None = None,
        save_execution: bool = True,
        save_metrics: bool = False,
        save_artifacts: bool = True,
    ) -> None:
        for name, flag in (("save_execution", save_execution), ("save_metrics", save_metrics), ("save_artifacts", save_artifacts)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, got {flag!r}")
        self._dir = None if results_dir is None else Path(results_dir)
        self._save_execution, self._save_metrics, self._save_artifacts = save_execution, save_metrics, save_artifacts
        if self._dir is not None and self._dir.exists() and (not self._dir.is_dir() or any(self._dir.iterdir())):
            raise ValueError(f"results_dir must be absent or empty: {self._dir} holds something already")

    @property
    def results_dir(self) -> Path | None:
        """The directory; None if nothing is written."""
        return self._dir

    @property
    def save_execution(self) -> bool:
        """Whether steps and what callbacks returned are written."""
        return self._save_execution

    @property
    def save_metrics(self) -> bool:
        """Whether metrics are written."""
        return self._save_metrics

    @property
    def save_artifacts(self) -> bool:
        """Whether artifacts are written."""
        return self._save_artifacts

    def phase_dir(self, suffix: str | os.PathLike[str]) -> Path | None:
        """The directory of a phase; None if nothing is written.

        Args:
            suffix: ``<run index>_<label>/<phase label>``.

        Raises:
            ValueError: It leads out of ``results_dir``.
        """
        inside = Path(suffix)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"suffix {str(suffix)!r} leads out of results_dir")
        return None if self._dir is None else self._dir / inside

    def moved(self, results_dir: str | os.PathLike[str]) -> ResultsConfig:
        """The same with another directory.

        Raises:
            ValueError: It holds something, or is a file.
        """
        return ResultsConfig(results_dir, self._save_execution, self._save_metrics, self._save_artifacts)

    def run_folder(self, index: int, label: str) -> RunFolder | None:
        """The folder of a new run, which is made; None if nothing is written.

        Args:
            index: Of the run; the next one that no folder has is taken.
            label: Of the run.
        """
        if self._dir is None:
            return None
        names = [path.name for path in self._dir.iterdir()] if self._dir.is_dir() else []
        taken = {int(found[0]) for name in names if (found := re.match(r"\d+(?=_)", name))}
        while index in taken:
            index += 1
        path = self._dir.absolute() / f"{index}_{file_name(label)}"
        path.mkdir(parents=True)
        return RunFolder(self, path)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "results_dir": None if self._dir is None else str(self._dir),
            "save_execution": self._save_execution,
            "save_metrics": self._save_metrics,
            "save_artifacts": self._save_artifacts,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From :meth:`get_config`; the directory may hold earlier runs, which stay as they are."""
        made = cls(**{**config, "results_dir": None})
        made._dir = None if config["results_dir"] is None else Path(config["results_dir"])
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResultsConfig) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(tuple(self.get_config().values()))

    def __repr__(self) -> str:
        return f"ResultsConfig({', '.join(f'{name}={value!r}' for name, value in self.get_config().items())})"
