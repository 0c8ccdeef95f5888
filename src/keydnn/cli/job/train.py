"""``keydnn train CONFIG``: rows, network, ``fit``, and a folder that ``evaluate`` and ``predict`` read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import keydnn
from keydnn.cli import plots
from keydnn.cli.job.config import ConfigError, Job, read_job
from keydnn.cli.job.rows import Encoding, Part, read_rows, split
from keydnn.random import seed as set_seed
from keydnn.saving import registered, write_atomically
from keydnn.training.callbacks import TrainingCheckpoint

LABEL_LOSSES = {"cross_entropy"}  # their targets are numbers of classes
CONFIG, ENCODING, MODEL, STATE = "config.toml", "encoding.json", "model.json", "state.safetensors"


@dataclass(frozen=True)
class Prepared:
    """A job with its rows.

    Attributes:
        job: The configuration.
        parts: ``train``, ``validation``, ``test``.
        encoding: How rows become arrays.
    """

    job: Job
    parts: dict[str, Part]
    encoding: Encoding


def prepare(job: Job, folder: Path) -> Prepared:
    """Read, divide and scale the rows of a job; relative paths start at ``folder``.

    Raises:
        ConfigError: The rows do not fit the configuration.
        OSError: The file cannot be read.
    """
    labels = job.training.loss.strip().lower() in LABEL_LOSSES
    path = folder / job.data.file
    x, y, encoding = read_rows(job.data, path, labels)
    if len(x) != len(y) or not len(x):
        raise ConfigError(f"{path}: {len(x)} rows of features and {len(y)} of targets")
    rows = split(y, labels, job.data, job.seed)
    wanted = path.suffix == ".csv" if job.data.standardize is None else job.data.standardize
    if wanted:
        std = x[rows["train"]].std(axis=0)
        mean = x[rows["train"]].mean(axis=0)
        encoding = dataclasses.replace(encoding, mean=mean.tolist(), std=np.where(std > 0, std, 1.0).tolist())
    return Prepared(job, {name: Part(encoding.scaled(x[r]), y[r]) for name, r in rows.items()}, encoding)


def network(job: Job, input_shape: tuple[int, ...]) -> keydnn.Sequential:
    """The layers of a job, built for rows of a shape.

    Raises:
        ConfigError: A layer is unknown, its arguments are wrong, or shapes do not fit.
    """
    model = keydnn.Sequential()
    for i, table in enumerate(job.model.layers):
        arguments = dict(table)
        kind = arguments.pop("type", None)
        try:
            model.add(registered(kind)(**arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model.layers[{i}] ({kind}): {error}") from error
    try:
        model.build((1, *input_shape))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.layers do not take rows of shape {input_shape}: {error}") from error
    return model


def train(config: Path, out: Path | None = None, *, resume: bool = False, verbose: int = 1) -> dict[str, Any]:
    """The whole job.

    Args:
        config: The configuration file.
        out: Folder for the results; None is ``runs/<name of the file>``.
        resume: Whether to go on where an earlier call stopped; the end is the same to the last bit.
        verbose: As in ``fit``.

    Returns:
        What ``results.json`` holds: epochs, and loss and metrics on each part.

    Raises:
        ConfigError: The configuration or its rows are wrong, or the folder holds another run.
        OSError: A file cannot be read or written.
    """
    job = read_job(config)
    prepared = prepare(job, config.parent)
    folder = out or Path("runs") / config.stem
    state = _claim(folder, config, resume)
    set_seed(job.seed)
    model = network(job, prepared.parts["train"].x.shape[1:])
    prepared.encoding.write(folder / ENCODING)
    history = _fit(model, prepared, folder, state, verbose)
    model.save_json(folder / MODEL)
    results = {"epochs": len(history.epoch), **{name: measure(model, prepared, name) for name in prepared.parts}}
    write_atomically(folder / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    write_atomically(folder / "history.csv", _as_csv(history))
    plots.draw_history(folder / "curves.png", history)
    return results


def _claim(folder: Path, config: Path, resume: bool) -> Path | None:
    """The state to go on from; the folder is made, and keeps a copy of the configuration with the way to its rows."""
    copy, state = folder / CONFIG, folder / STATE
    text = config.read_text(encoding="utf-8")
    if state.exists() and not resume:
        raise ConfigError(f"{folder} holds a run; --resume goes on with it, --out names another folder")
    if resume and not state.exists():
        raise ConfigError(f"{folder} holds nothing to resume; leave --resume out to begin")
    if resume and _without_epochs(read_job(copy)) != _without_epochs(read_job(config)):
        raise ConfigError(f"{config} differs from {copy}, with which the run began, in more than the number of epochs")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(copy, text.encode())
    write_atomically(folder / "source", str(config.resolve().parent).encode())
    return state if resume else None


def _without_epochs(job: Job) -> Job:
    return dataclasses.replace(job, training=dataclasses.replace(job.training, epochs=0))


def _fit(model: keydnn.Sequential, prepared: Prepared, folder: Path, state: Path | None, verbose: int) -> keydnn.History:
    how, parts = prepared.job.training, prepared.parts
    callbacks: list[keydnn.Callback] = [TrainingCheckpoint(folder / STATE)]
    try:
        if how.early_stopping is not None:
            callbacks.append(keydnn.EarlyStopping(**how.early_stopping))
        return model.fit(
            parts["train"].x,
            parts["train"].y,
            loss=how.loss,
            optimizer=how.optimizer,
            optimizer_kwargs=how.optimizer_kwargs,
            metrics=how.metrics,
            batch_size=how.batch_size,
            epochs=how.epochs,
            clip_norm=how.clip_norm,
            accumulate=how.accumulate,
            class_weight=_class_weight(how.class_weight, prepared.encoding.classes),
            validation_data=(parts["validation"].x, parts["validation"].y) if len(parts["validation"].x) else None,
            callbacks=callbacks,
            resume=state,
            verbose=verbose,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training: {error}") from error


def _class_weight(given: dict[str, Any] | str | None, classes: list[str]) -> dict[int, float] | str | None:
    """Weights by the number of the class; the file may name classes as the data do."""
    if not isinstance(given, dict):
        return given
    places = {name: i for i, name in enumerate(classes)}
    for name in given:
        if name not in places and (places or not name.isdigit()):
            raise ConfigError(f"training.class_weight: {name!r} is none of {', '.join(places) or 'the numbers of the classes'}")
    return {places[name] if places else int(name): weight for name, weight in given.items()}


def measure(model: keydnn.Sequential, prepared: Prepared, part: str) -> dict[str, float]:
    """Number of rows, loss and metrics on a part; the number alone if it has no rows."""
    rows, how = prepared.parts[part], prepared.job.training
    if not len(rows.x):
        return {"rows": 0}
    return {"rows": len(rows.x), **model.evaluate(rows.x, rows.y, loss=how.loss, metrics=how.metrics, batch_size=how.batch_size)}


def _as_csv(history: keydnn.History) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    columns = {"epoch": [epoch + 1 for epoch in history.epoch], **history.history}
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()
