"""``keydnn evaluate`` and ``keydnn predict``: use the folder that ``keydnn train`` left."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

import keydnn
from keydnn.cli.job.config import ConfigError, read_job
from keydnn.cli.job.rows import Encoding, Part, numbers, read_csv, read_rows
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
    if encoding.classes:
        if strange := [c for c in found.classes if c not in encoding.classes]:
            raise ConfigError(f"{data}: class {strange[0]!r} is none of {', '.join(encoding.classes)}, which the model knows")
        y = np.array([encoding.classes.index(c) for c in found.classes])[y]
    return measure(model, Prepared(job, {"given": Part(encoding.scaled(x), y)}, encoding), "given")


def predict(run: Path, data: Path, out: Path | None = None) -> str:
    """Predictions for the rows of a file, as csv: the class and the probability of each, or the numbers.

    Args:
        run: Folder of the run.
        data: csv with the run's feature columns, or npz with ``x``.
        out: Where to write as well; None does not.

    Raises:
        ConfigError: No finished run; rows that do not fit.
        OSError: A file cannot be read or written.
    """
    model, encoding = load(run)
    if data.suffix == ".npz":
        with np.load(data, allow_pickle=False) as arrays:
            x = arrays["x"]
    else:
        x = numbers(read_csv(data), encoding.features, data)
    result = model.predict(encoding.scaled(x))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if encoding.labels:
        shares = result.softmax(-1).to_numpy()
        classes = encoding.classes or [str(i) for i in range(shares.shape[1])]
        writer.writerow(["class", *(f"p({c})" for c in classes)])
        writer.writerows([classes[int(row.argmax())], *map(float, row)] for row in shares)
    else:
        values = result.to_numpy().reshape(len(x), -1)
        writer.writerow(encoding.target or [f"y{i}" for i in range(values.shape[1])])
        writer.writerows(row.tolist() for row in values)
    if out is not None:
        write_atomically(out, text.getvalue().encode())
    return text.getvalue()
