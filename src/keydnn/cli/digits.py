"""``keydnn run``: a convolutional network learns the handwritten digits of scikit-learn.

The data are 1,797 images of 8x8 grey values 0..16 (https://doi.org/10.24432/C50P49).  By seed and stratified by digit,
25 % become test rows, which are read once, after training; 15 % of the others become validation rows, which decide when
to stop and which weights to keep.  The network is convolution, ReLU, convolution, ReLU, pool, flatten, dense.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import keydnn
from keydnn.cli import plots
from keydnn.domain.errors import KeyDNNError, MissingExtraError
from keydnn.kernels.dispatch import native_status
from keydnn.random import seed as set_seed

TEST_PART, VALIDATION_PART = 0.25, 0.15
LEARNING_RATE, BATCH_SIZE = 2e-3, 32
PATIENCE, MIN_DELTA = 6, 1e-3  # stop after so many epochs in which the validation loss did not fall by so much


class Digits(NamedTuple):
    """The rows of each part: images (N, 1, 8, 8) in [0, 1] as float32, digits (N,) as int64."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(seed: int) -> Digits:
    """The digits, split by seed.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError("keydnn run", "scikit-learn", "sklearn") from error
    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)
    x_rest, x_test, y_rest, y_test = train_test_split(x, y, test_size=TEST_PART, stratify=y, random_state=seed)
    x_train, x_val, y_train, y_val = train_test_split(x_rest, y_rest, test_size=VALIDATION_PART, stratify=y_rest, random_state=seed)
    return Digits(x_train, y_train, x_val, y_val, x_test, y_test)


def network() -> keydnn.Sequential:
    """The network; its ten outputs are logits."""
    return keydnn.Sequential(
        keydnn.Conv2d(1, 32, 3, padding=1),
        keydnn.ReLU(),
        keydnn.Conv2d(32, 64, 3, padding=1),
        keydnn.ReLU(),
        keydnn.MaxPool2d(2),
        keydnn.Flatten(),
        keydnn.Dense(10),
    )


class Stopwatch(keydnn.Callback):
    """Notes the seconds of each epoch, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._start)


def train(data: Digits, epochs: int, verbose: int = 1) -> tuple[keydnn.Sequential, keydnn.History, list[float], int]:
    """Train a fresh network.

    Args:
        data: The rows.
        epochs: Stop after so many at the latest.
        verbose: As in ``fit``.

    Returns:
        The network with the weights of the best epoch, the history, the seconds of each epoch, and the best epoch (from 0).
    """
    model = network()
    model.build((1, 1, 8, 8))
    watch = Stopwatch()
    stopping = keydnn.EarlyStopping(monitor="val_loss", patience=PATIENCE, min_delta=MIN_DELTA, restore_best_weights=True)
    history = model.fit(
        data.x_train,
        data.y_train,
        loss="cross_entropy",
        optimizer=keydnn.Adam(model.parameters(), lr=LEARNING_RATE),
        metrics=["acc"],
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=(data.x_validation, data.y_validation),
        callbacks=[watch, stopping],
        verbose=verbose,
    )
    return model, history, watch.seconds, stopping.best_epoch


def run(*, seed: int, folder: Path, epochs: int, verbose: int) -> None:
    """The whole job: train, test, write, read back.

    Raises:
        ImportError: scikit-learn is not installed.
        OSError: The folder cannot be written to.
        KeyDNNError: The checkpoint, read back, predicts something else.
    """
    data = load(seed)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"digits, seed {seed}: {len(data.y_train)} rows to train, {len(data.y_validation)} to validate, {len(data.y_test)} to test")
    print(f"kernels: {_kernels()}", flush=True)
    set_seed(seed)
    model, history, seconds, best = train(data, epochs, verbose)
    print(f"trained {len(seconds)} epochs, kept the weights of epoch {best + 1}; time per epoch {np.median(seconds):.3f} s (median)")

    predicted = np.argmax(model.predict(data.x_test).to_numpy(), axis=1)
    print(f"test accuracy {np.mean(predicted == data.y_test):.4f}")

    checkpoint = folder / "model.json"
    model.save_json(checkpoint)
    write_history(folder / "history.csv", history, seconds)
    written = ["model.json", "history.csv", *plots.draw(folder, history, best, data.y_test, predicted)]
    print(f"wrote {folder}/: {', '.join(written)}")
    check_reload(model, checkpoint, data.x_validation)
    print(f"reload with: model = keydnn.Sequential.load_json({checkpoint.as_posix()!r})")
    print("done: the reloaded checkpoint predicts exactly the same")


def _kernels() -> str:
    status = native_status()
    return f"native ({status.isa}), {status.threads} threads" if status.loaded else "NumPy"  # a warning says why


def write_history(path: Path, history: keydnn.History, seconds: list[float]) -> None:
    """One line per epoch: its number from 1, every logged value, its seconds."""
    columns = {"epoch": [epoch + 1 for epoch in history.epoch], **history.history, "seconds": [round(s, 6) for s in seconds]}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def check_reload(model: keydnn.Sequential, checkpoint: Path, x: np.ndarray) -> None:
    """Read the checkpoint and compare predictions, bit by bit.

    Raises:
        KeyDNNError: They differ.
    """
    again = keydnn.Sequential.load_json(checkpoint)
    if again.predict(x).to_numpy().tobytes() != model.predict(x).to_numpy().tobytes():
        raise KeyDNNError(f"the model read back from {checkpoint} predicts something else than the one that was saved")
