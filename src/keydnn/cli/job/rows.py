"""From a file of rows to arrays: columns by name, classes as numbers, features of mean 0 and variance 1.

An :class:`Encoding` is what was learned from the training rows.  It is written beside the model, so that new rows are read
as the old ones were.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from keydnn.cli.job.config import ConfigError, Data
from keydnn.domain.errors import CheckpointError
from keydnn.saving import read_weights, write_atomically

Columns = dict[str, list[str]]


@dataclass(frozen=True)
class Encoding:
    """How rows become arrays.

    Attributes:
        features: csv: columns to predict from, in order; empty for npz.
        target: csv: columns to predict; empty for npz.
        classes: csv: text of each class, in the order of the numbers; empty if numbers are predicted.
        mean: Mean of each feature over the training rows; empty if features stay as they are.
        std: Its standard deviation; 1 where a feature is constant.
        labels: Whether the target is a class.
    """

    features: list[str]
    target: list[str]
    classes: list[str]
    mean: list[float]
    std: list[float]
    labels: bool

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Encoding:
        """Read what :meth:`write` wrote.

        Raises:
            ConfigError: Something else stands there.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is not what keydnn train writes: {error}") from error

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """Features as the model sees them, float32."""
        return ((x - np.array(self.mean)) / np.array(self.std) if self.mean else x).astype(np.float32)


@dataclass(frozen=True)
class Part:
    """Some rows: features (n, ...) float32; targets (n,) int64 for classes, else (n, k) float32."""

    x: np.ndarray
    y: np.ndarray


def read_rows(data: Data, path: Path, labels: bool) -> tuple[np.ndarray, np.ndarray, Encoding]:
    """Features and targets of all rows, not yet scaled, and how they were read.

    Args:
        data: The table ``data``.
        path: Its file.
        labels: Whether the target is a class.

    Raises:
        ConfigError: Another kind of file, a missing column or array, text where a number is needed.
        OSError: The file cannot be read.
    """
    if path.suffix == ".npz":
        x, y = read_npz(path, "x", "y")
        return x, _targets(y, labels, path), Encoding([], [], [], [], [], labels)
    columns = read_csv(path)
    target = [data.target] if isinstance(data.target, str) else list(data.target or [])
    if not target or (labels and len(target) != 1):
        raise ConfigError(f"data.target must name {'one column' if labels else 'one or more columns'} of {', '.join(columns)}")
    for name in target:
        column(columns, name, path)
    features = [c for c in columns if c not in target] if data.features is None else data.features
    x = numbers(columns, features, path)
    if not labels:
        return x, numbers(columns, target, path).astype(np.float32), Encoding(features, target, [], [], [], False)
    texts = column(columns, target[0], path)
    classes = sorted(set(texts), key=_by_number)
    return x, np.array([classes.index(t) for t in texts]), Encoding(features, target, classes, [], [], True)


def _by_number(text: str) -> tuple[float, str]:
    """Classes that are numbers stand in the order of their values."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def read_csv(path: Path) -> Columns:
    """The columns of a file whose first line names them.

    Raises:
        ConfigError: No lines, a name twice, or a line with more or fewer cells than names.
        OSError: The file cannot be read.
    """
    if path.suffix not in (".csv", ".npz"):
        raise ConfigError(f"{path}: rows are read from .csv or .npz files")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no csv file: {error}") from error
    if len(lines) < 2 or len(set(lines[0])) != len(lines[0]):
        raise ConfigError(f"{path} must start with a line of different names and go on with rows; got {len(lines)} lines")
    for i, line in enumerate(lines[1:], 2):
        if len(line) != len(lines[0]):
            raise ConfigError(f"{path}, line {i}: {len(line)} cells under {len(lines[0])} names")
    return dict(zip(lines[0], map(list, zip(*lines[1:], strict=True)), strict=True))


def column(columns: Columns, name: str, path: Path) -> list[str]:
    """A column by name.

    Raises:
        ConfigError: There is none.
    """
    if name not in columns:
        raise ConfigError(f"{path} has no column {name!r}; it has {', '.join(columns)}")
    return columns[name]


def numbers(columns: Columns, names: list[str], path: Path) -> np.ndarray:
    """Columns as numbers (n, len(names)), float64.

    Raises:
        ConfigError: A column is missing, or a cell is no finite number.
    """
    result = np.empty((len(next(iter(columns.values()))), len(names)))
    for j, name in enumerate(names):
        for i, cell in enumerate(column(columns, name, path)):
            try:
                result[i, j] = float(cell)
            except ValueError:
                result[i, j] = math.nan
            if not math.isfinite(result[i, j]):
                raise ConfigError(f"{path}, line {i + 2}, column {name!r}: {cell!r} is no number; data.features can leave the column out")
    return result


def read_features(path: Path, encoding: Encoding) -> np.ndarray:
    """The features of new rows, not yet scaled, as those were read that ``encoding`` was learned from.

    Raises:
        ConfigError: Another kind of file, a missing column or array, text where a number is needed.
        OSError: The file cannot be read.
    """
    if path.suffix == ".npz":
        return read_npz(path, "x")[0]
    columns = read_csv(path)
    if not encoding.features:
        raise ConfigError(f"{path}: the run was trained on arrays without names of columns, so its rows are read from .npz files")
    return numbers(columns, encoding.features, path)


def read_npz(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of numbers by name.

    Raises:
        ConfigError: The file is damaged, or one of them is missing.
        OSError: The file cannot be read.
    """
    try:
        found = read_weights(path)
    except CheckpointError as error:
        raise ConfigError(f"{path} must hold arrays {' and '.join(names)}: {error}") from error
    if missing := [name for name in names if name not in found]:
        raise ConfigError(f"{path} must hold arrays {' and '.join(names)}; it has no {missing[0]}, only {', '.join(found) or 'nothing'}")
    if odd := [name for name in names if found[name].ndim == 0]:
        raise ConfigError(f"{path}: the array {odd[0]} holds a single number, expected one row per sample")
    return [found[name] for name in names]


def _targets(y: np.ndarray, labels: bool, path: Path) -> np.ndarray:
    if labels and (y.ndim != 1 or y.dtype.kind not in "iu"):
        raise ConfigError(f"{path}: this loss needs class labels, whole numbers of shape (n,); got {y.dtype} of shape {y.shape}")
    return y.astype(np.int64) if labels else y.astype(np.float32).reshape(len(y), -1)


def split(y: np.ndarray, labels: bool, data: Data, seed: int) -> dict[str, np.ndarray]:
    """Row numbers of ``train``, ``validation`` and ``test``, drawn by seed; each class is divided in the same shares.

    Raises:
        ConfigError: No row is left to train on.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    groups = [order[y[order] == c] for c in np.unique(y)] if labels else [order]
    parts: dict[str, list[np.ndarray]] = {"test": [], "validation": [], "train": []}
    for rows in groups:
        n_test, n_validation = round(data.test * len(rows)), round(data.validation * len(rows))
        for name, part in zip(parts, np.split(rows, [n_test, n_test + n_validation]), strict=True):
            parts[name].append(part)
    result = {name: np.sort(np.concatenate(part)) for name, part in parts.items()}
    if not len(result["train"]):
        raise ConfigError(f"{len(y)} rows leave none to train on beside data.test and data.validation")
    return result
