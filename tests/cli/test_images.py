"""`keydnn test`: the two networks learn from small files in the layout of MNIST and CIFAR-10."""

import pickle
import re

import numpy as np
import pytest

import keydnn
from keydnn.cli import images
from keydnn.data.idx import write_idx

pytest.importorskip("click")
from click.testing import CliRunner  # noqa: E402

from keydnn.cli.commands import commands  # noqa: E402

LINE = re.compile(r"epoch (\d)/(\d): loss (\d\.\d{6}), accuracy (\d\.\d{4}), test loss \d\.\d{6}, test accuracy \d\.\d{4}, \d+\.\d\d s")


def shapes(n, *size):
    """n images of ten kinds, each bright in another place, and their kinds."""
    rng = np.random.default_rng(0)
    kinds = np.arange(n) % 10
    x = rng.integers(0, 60, (n, *size), dtype=np.uint8)
    for image, kind in zip(x, kinds, strict=True):
        image[..., 2 * kind : 2 * kind + 3, 2 * kind : 2 * kind + 3] = 255
    return x, kinds.astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    mnist, cifar = tmp_path / "mnist" / "raw", tmp_path / "cifar10" / "raw" / "cifar-10-batches-py"
    mnist.mkdir(parents=True)
    cifar.mkdir(parents=True)
    for part, n in (("train", 200), ("t10k", 40)):
        x, kinds = shapes(n, 28, 28)
        write_idx(mnist / f"{part}-images-idx3-ubyte.gz", x)
        write_idx(mnist / f"{part}-labels-idx1-ubyte.gz", kinds)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        x, kinds = shapes(40, 3, 32, 32)
        (cifar / name).write_bytes(pickle.dumps({"data": x.reshape(40, -1), "labels": kinds.tolist()}, 2))
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(commands, ["test", *map(str, arguments)])


@pytest.mark.parametrize("name, batch_size", [("mnist", 16), ("cifar", 20)])
def test_the_networks_learn(root, name, batch_size):
    result = call(f"--train_{name}_example", "--root", root, "--epochs", 6, "--batch-size", batch_size, "--normalize", "--hidden-dim", 32)
    assert result.exit_code == 0, result.output
    first, *epochs, last = result.output.splitlines()
    assert first == f"{name}, seed 0: 200 rows to train, 40 to test"
    found = [LINE.fullmatch(line) for line in epochs]
    assert [m[1] + m[2] for m in found] == ["16", "26", "36", "46", "56", "66"]
    assert float(found[-1][3]) < 0.5 * float(found[0][3])
    assert float(last.removeprefix("test accuracy ")) > 0.8


def test_settings_reach_the_run(root):
    every = ["--root", root, "--epochs", 1, "--seed", 3, "--no-shuffle", "--limit-train", 50, "--limit-test", 7, "--lr", 0.01]
    result = call("--train_mnist_example", *every, "--device", "cpu", "--verbose", 0)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"mnist, seed 3: 50 rows to train, 7 to test\ntest accuracy \d\.\d{4}\n", result.output)
    assert "50/50" not in result.output
    assert result.output == call("--train-mnist-example", *every, "--verbose", 0).output
    assert "Epoch 1/1 [" in call("--train_mnist_example", *every, "--verbose", 2).output


def test_the_networks_have_the_described_shapes():
    assert [tuple(p.shape) for p in images.perceptron(7).parameters()] == [(7, 784), (7,), (10, 7), (10,)]
    model = images.convolutions(7)
    assert [tuple(p.shape) for p in model.parameters() if len(p.shape) > 1] == [(16, 3, 3, 3), (32, 16, 3, 3), (128, 2048), (10, 128)]
    assert model(keydnn.ones((2, 3, 32, 32))).shape == (2, 10)


@pytest.mark.parametrize(
    "arguments, status, text",
    [
        ([], 2, "one of --train_mnist_example and --train_cifar_example"),
        (["--train_mnist_example", "--train_cifar_example"], 2, "one of --train_mnist_example"),
        (["--train_mnist_example", "--epochs", 0], 2, "epochs"),
        (["--train_mnist_example", "--lr", 0], 2, "lr"),
        (["--train_mnist_example", "--device", "gpu"], 2, "Invalid device 'gpu'"),
        (["--train_mnist_example", "--device", "cuda:0"], 1, "cuda:0"),
    ],
)
def test_wrong_calls(root, arguments, status, text):
    result = call("--root", root, *arguments)
    assert result.exit_code == status
    assert text in result.output and "Traceback" not in result.output


def test_missing_and_damaged_files(root):
    labels = root / "mnist" / "raw" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-9])
    assert call("--train_mnist_example", "--root", root).exit_code == 1
    labels.unlink()
    result = call("--train_mnist_example", "--root", root)
    assert result.exit_code == 1 and "is missing" in result.output
