"""``keydnn evaluate`` and ``keydnn predict``: use the folder that ``keydnn train`` left."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import keydnn
from keydnn.cli.job.config import ConfigError, read_job
from keydnn.cli.job.rows import Encoding, Part, read_features, read_rows
from keydnn.cli.job.train import CONFIG, ENCODING, MODEL, Prepared, measure, prepare
from keydnn.saving import write_atomically


def load(run: Path) -> tuple[keydnn.Sequential, Encoding]:
    """Model and encoding of a run.

    Raises:
        ConfigError: The folder holds no finished run.
        OSError: A file cannot be read.
    """
    if missing := [name for name in (CONFIG, ENCODING, MODEL) if not (run / name).is_file()]:
        raise ConfigError(f"{run} is no folder of a finished keydnn train: it has no {missing[0]}")
    return keydnn.Sequential.load_json(run / MODEL), Encoding.read(run / ENCODING)


def evaluate(run: Path, data: Path | None = None, part: str = "test") -> dict[str, float]:
    """Loss and metrics of a run's model.

    Args:
        run: Folder of the run.
        data: Other rows, with the same columns; None takes a part of the run's own.
        part: Which of the run's own: ``train``, ``validation``, ``test``.

    Raises:
        ConfigError: No finished run; rows that do not fit.
        OSError: A file cannot be read.
    """
    model, encoding = load(run)
    job = read_job(run / CONFIG)
    if data is None:
        return measure(model, prepare(job, Path((run / "source").read_text(encoding="utf-8"))), part)
    features = None if not encoding.features else encoding.features
    x, y, found = read_rows(dataclasses.replace(job.data, features=features), data, encoding.labels)
    if encoding.classes and found.classes:  # arrays hold the numbers of classes already
        if strange := [c for c in found.classes if c not in encoding.classes]:
            raise ConfigError(f"{data}: class {strange[0]!r} is none of {', '.join(encoding.classes)}, which the model knows")
        y = np.array([encoding.classes.index(c) for c in found.classes])[y]
    with fitting(data, x):
        return measure(model, Prepared(job, {"given": Part(encoding.scaled(x), y)}, encoding), "given")


@contextmanager
def fitting(data: Path, x: np.ndarray) -> Iterator[None]:
    """Say of which file the rows are that a model refuses."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{data}: rows of shape {x.shape[1:]} do not fit the model: {error}") from error


def predict(run: Path, data: Path, out: Path | None = None, *, as_json: bool = False) -> str:
    """Predictions for the rows of a file: the class and the probability of each, or the numbers.

    Args:
        run: Folder of the run.
        data: csv with the run's feature columns, or npz with ``x``.
        out: Where to write as well; None does not.
        as_json: Whether the text is ``{"columns": [...], "rows": [[...], ...]}``; else csv.

    Raises:
        ConfigError: No finished run; rows that do not fit.
        OSError: A file cannot be read or written.
    """
    model, encoding = load(run)
    x = read_features(data, encoding)
    with fitting(data, x):
        result = model.predict(encoding.scaled(x))
    columns, rows = _as_rows(result, encoding)
    text = json.dumps({"columns": columns, "rows": rows}) + "\n" if as_json else _as_csv(columns, rows)
    if out is not None:
        write_atomically(out, text.encode())
    return text


def _as_rows(result: keydnn.Tensor, encoding: Encoding) -> tuple[list[str], list[list[Any]]]:
    """Names of columns, and the predictions."""
    if encoding.labels:
        shares = result.softmax(-1).to_numpy()
        classes = encoding.classes or [str(i) for i in range(shares.shape[1])]
        return ["class", *(f"p({c})" for c in classes)], [[classes[int(row.argmax())], *map(float, row)] for row in shares]
    values = result.to_numpy().reshape(len(result), -1)
    return encoding.target or [f"y{i}" for i in range(values.shape[1])], values.tolist()


def _as_csv(columns: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
