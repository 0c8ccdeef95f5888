"""``keydnn test``: small networks learn MNIST or CIFAR-10.

    MNIST    784 - hidden - 10, ReLU between
    CIFAR-10 convolution (16, 3x3), ReLU, pool, convolution (32, 3x3), ReLU, pool, 128, ReLU, 10

The outputs are logits.  Stochastic gradient descent on the cross entropy; after each epoch a line tells loss, accuracy and seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import keydnn
from keydnn.data.images import ImageDataset, load_cifar10, load_mnist
from keydnn.random import seed as set_seed


def perceptron(hidden: int) -> keydnn.Sequential:
    """The network for MNIST."""
    return keydnn.Sequential(keydnn.Flatten(), keydnn.Linear(784, hidden), keydnn.ReLU(), keydnn.Linear(hidden, 10))


def convolutions(hidden: int) -> keydnn.Sequential:
    """The network for CIFAR-10; ``hidden`` is not used."""
    model = keydnn.Sequential()
    for channels, features in ((3, 16), (16, 32)):
        model.add(keydnn.Conv2d(channels, features, 3, padding=1))
        model.add(keydnn.ReLU())
        model.add(keydnn.MaxPool2d(2))
    for layer in (keydnn.Flatten(), keydnn.Linear(32 * 8 * 8, 128), keydnn.ReLU(), keydnn.Linear(128, 10)):
        model.add(layer)
    return model


class Example(NamedTuple):
    """What is learned, and by which network."""

    load: Callable[..., ImageDataset]
    network: Callable[[int], keydnn.Sequential]


EXAMPLES = {"mnist": Example(load_mnist, perceptron), "cifar": Example(load_cifar10, convolutions)}


class Report(keydnn.Callback):
    """One line per epoch: loss and accuracy on both parts, seconds."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the line."""
        train = f"loss {logs['loss']:.6f}, accuracy {logs['acc']:.4f}"
        test = f"test loss {logs['val_loss']:.6f}, test accuracy {logs['val_acc']:.4f}"
        print(f"epoch {epoch + 1}/{self.epochs}: {train}, {test}, {time.perf_counter() - self._start:.2f} s", flush=True)


def rows(data: ImageDataset, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the first ``limit`` samples; 0 means all."""
    images, labels = data.gather(slice(0, limit or None), None)
    return images, labels


def run(
    name: str,
    *,
    root: Path,
    device: str,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    shuffle: bool,
    limit_train: int,
    limit_test: int,
    verbose: int,
    hidden_dim: int,
    normalize: bool,
) -> None:
    """Load, train, and tell how it went.

    Args:
        name: A key of :data:`EXAMPLES`.
        root: Folder of the data sets; files that are missing are downloaded.
        device: Where the network lives.
        epochs: Passes over the training rows.
        batch_size: Rows per step.
        lr: Step size.
        seed: Of weights and order.
        shuffle: Whether rows are in a new order each epoch.
        limit_train: Use so many training rows; 0 means all.
        limit_test: Use so many test rows; 0 means all.
        verbose: 0 tells the result alone, 1 each epoch, 2 also the progress within.
        hidden_dim: Width of the hidden layer (MNIST).
        normalize: Whether to standardise the images.

    Raises:
        ValueError: No such device.
        RuntimeError: The device is not there, or a download failed.
    """
    example = EXAMPLES[name]
    where = keydnn.Device(device)
    x, y = rows(example.load(train=True, normalize=normalize, root_path=root), limit_train)
    x_test, y_test = rows(example.load(train=False, normalize=normalize, root_path=root), limit_test)
    set_seed(seed)
    model = example.network(hidden_dim).to_(where)
    print(f"{name}, seed {seed}: {len(y)} rows to train, {len(y_test)} to test", flush=True)
    history = model.fit(
        x,
        y,
        loss="cross_entropy",
        optimizer=keydnn.SGD(model.parameters(), lr=lr),
        metrics=["acc"],
        batch_size=batch_size,
        epochs=epochs,
        shuffle=shuffle,
        verbose=1 if verbose > 1 else 0,
        validation_data=(x_test, y_test),
        callbacks=[Report(epochs)] if verbose else [],
    )
    print(f"test accuracy {history.last()['val_acc']:.4f}")
