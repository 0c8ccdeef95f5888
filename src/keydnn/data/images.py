"""MNIST, CIFAR-10 and CIFAR-100: read from their original files, downloaded where asked for.

    <root>/mnist/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz     (the same without .gz will do)
    <root>/cifar10/raw/cifar-10-batches-py/{data_batch_1, ..., data_batch_5, test_batch}
    <root>/cifar100/raw/cifar-100-python/{train, test}

Images are scaled to [0, 1] and, with ``normalize``, standardised per channel with the moments of the training images.
The archives are held against pinned SHA-256 digests; the CIFAR files, which are pickles, are read without running them.

The digests below are those that these archives are published with and that other libraries pin as well.  KeyDNN's tests run
without a network: they check on small files of their own that a digest is demanded, not that these are the right ones.

Sources: LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/; Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.data.dataset import Dataset
from keydnn.data.download import download_url, extract_tar
from keydnn.data.idx import read_idx
from keydnn.data.pickled import read_plain
from keydnn.domain.errors import CheckpointError

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
CIFAR_FILES = {
    "cifar10": ("cifar-10-python.tar.gz", "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
    "cifar100": ("cifar-100-python.tar.gz", "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"),
}
MOST = 1 << 30  # bytes of a download or an unpacked archive


class ImageDataset(Dataset):
    """Images with labels; sample ``i`` is ``(x, label)``.

    Args:
        root: Folder of all data sets.
        train: Whether to take the training part.
        download: Whether to download files that are missing.
        transform: Function of an image (a float array (C, H, W)).
        target_transform: Function of a label.
        normalize: Whether to standardise.
        return_numpy: Whether samples hold ndarrays; else Tensors.
        dtype: Of the images.

    Attributes:
        images: uint8 (n, C, H, W), as the files have them.
        labels: int64 (n,).

    Raises:
        FileNotFoundError: Files are missing and ``download`` is false.
        ValueError: A file is damaged.
        RuntimeError: A download failed.
    """

    folder = ""
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        train: bool = True,
        download: bool = False,
        transform: Callable[[np.ndarray], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        normalize: bool = True,
        return_numpy: bool = False,
        dtype: Any = "float32",
    ) -> None:
        self.root, self.train, self.dtype = Path(root), bool(train), np.dtype(dtype)
        self.transform, self.target_transform = transform, target_transform
        self.normalize, self.return_numpy = bool(normalize), bool(return_numpy)
        if download:
            self._download(self.root)
        self.images, self.labels = self._read(self.root / self.folder / "raw", self.train)
        self.images.flags.writeable = self.labels.flags.writeable = False

    @staticmethod
    def _download(root: Path) -> None:
        raise NotImplementedError

    @staticmethod
    def _read(raw: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        x: Any = self._scaled(self.images[i])
        x = x if self.transform is None else self.transform(x)
        label = int(self.labels[i])
        if not self.return_numpy and isinstance(x, np.ndarray):
            x = Tensor(data=x, dtype=x.dtype)
        return x, label if self.target_transform is None else self.target_transform(label)

    def gather(self, rows: Any, key: int | None) -> Any:
        """The batch, made at once if nothing is to be done to single samples."""
        if self.transform is not None or self.target_transform is not None:
            return super().gather(rows, key)
        return self._scaled(self.images[rows]), self.labels[rows]

    def _scaled(self, images: np.ndarray) -> np.ndarray:
        x = images.astype(self.dtype) / self.dtype.type(255)
        if not self.normalize:
            return x
        mean, std = (np.asarray(v, self.dtype).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std


class MNIST(ImageDataset):
    """Handwritten digits, (1, 28, 28), 60,000 for training and 10,000 for testing; see :class:`ImageDataset`."""

    folder = "mnist"
    mean, std = (0.1307,), (0.3081,)

    @staticmethod
    def _download(root: Path) -> None:
        download_mnist(root)

    @staticmethod
    def _read(raw: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
        part = "train" if train else "t10k"
        images = read_idx(_present(raw, f"{part}-images-idx3-ubyte"))
        labels = read_idx(_present(raw, f"{part}-labels-idx1-ubyte"))
        if images.dtype != np.uint8 or images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise CheckpointError(f"{raw}: images {images.dtype}{images.shape} and labels {labels.shape} do not belong together")
        return images[:, None], labels.astype(np.int64)


def _present(raw: Path, name: str) -> Path:
    for path in (raw / f"{name}.gz", raw / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"{raw / name}.gz is missing; pass download=True, or put the files there")


class _Cifar(ImageDataset):
    inner = ""
    files: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # of training and test
    label_key = ""

    @classmethod
    def _read_parts(cls, raw: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
        images, labels = [], []
        for name in cls.files[0 if train else 1]:
            found, numbers = read_cifar(raw / cls.inner / name, cls.label_key)
            images.append(found)
            labels.append(numbers)
        return np.concatenate(images), np.concatenate(labels)


class CIFAR10(_Cifar):
    """Photographs of ten kinds of things, (3, 32, 32), 50,000 for training and 10,000 for testing; see :class:`ImageDataset`."""

    folder, inner, label_key = "cifar10", "cifar-10-batches-py", "labels"
    files = (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",))
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    @staticmethod
    def _download(root: Path) -> None:
        download_cifar10(root)

    @staticmethod
    def _read(raw: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return CIFAR10._read_parts(raw, train)


class CIFAR100(_Cifar):
    """Photographs of a hundred kinds of things, (3, 32, 32), fine labels; see :class:`ImageDataset`."""

    folder, inner, label_key = "cifar100", "cifar-100-python", "fine_labels"
    files = (("train",), ("test",))
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

    @staticmethod
    def _download(root: Path) -> None:
        download_cifar100(root)

    @staticmethod
    def _read(raw: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return CIFAR100._read_parts(raw, train)


def read_cifar(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 3, 32, 32) and labels int64 (n,) of one CIFAR file.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is damaged, or holds something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; pass download=True, or put the files there")
    try:
        found = read_plain(path.read_bytes())
        found = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in found.items()}
        images, labels = found["data"], np.asarray(found[label_key])
        if labels.dtype.kind not in "iu" or labels.ndim != 1 or images.shape != (len(labels), 3072):
            raise ValueError(f"labels {labels.dtype}{labels.shape}, images {images.shape}")
    except (AttributeError, KeyError, OverflowError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable CIFAR file, it may be damaged or truncated: {error}") from error
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


# -- getting the files


def download_mnist(root: str | os.PathLike[str] = "data", *, url: str = MNIST_URL) -> Path:
    """Download the files of MNIST that are missing, into ``<root>/mnist/raw``.

    Raises:
        RuntimeError: A download failed, or a file has another digest.
    """
    raw = Path(root) / "mnist" / "raw"
    for name, digest in MNIST_FILES.items():
        if not (raw / name).exists():
            download_url(url + name, raw / name, expected_sha256=digest, max_bytes=MOST)
    return raw


def download_cifar10(root: str | os.PathLike[str] = "data", *, url: str = CIFAR_URL) -> Path:
    """Download and unpack CIFAR-10 into ``<root>/cifar10/raw`` if it is missing.

    Raises:
        RuntimeError: The download failed, or the file has another digest.
        ValueError: The archive is damaged.
    """
    return _download_cifar(Path(root), CIFAR10, url)


def download_cifar100(root: str | os.PathLike[str] = "data", *, url: str = CIFAR_URL) -> Path:
    """Download and unpack CIFAR-100 into ``<root>/cifar100/raw`` if it is missing; errors as :func:`download_cifar10`."""
    return _download_cifar(Path(root), CIFAR100, url)


def _download_cifar(root: Path, cls: type[_Cifar], url: str) -> Path:
    name, digest = CIFAR_FILES[cls.folder]
    raw = root / cls.folder / "raw"
    if not (raw / cls.inner).exists():
        archive = download_url(url + name, root / cls.folder / name, expected_sha256=digest, max_bytes=MOST)
        if raw.exists():
            raw.rmdir()  # an empty one; anything else is the user's
        extract_tar(archive, raw, max_bytes=MOST)
    return raw


def _load(cls: type[ImageDataset], root_path: Any, train: bool, **options: Any) -> Any:
    is_absent = not (Path(root_path) / cls.folder / "raw").exists()
    return cls(root_path, train, download=is_absent, **options)


def load_mnist(
    train: bool = True,
    transform: Any = None,
    target_transform: Any = None,
    normalize: bool = True,
    return_numpy: bool = False,
    dtype: Any = "float32",
    root_path: str | os.PathLike[str] = "data",
) -> MNIST:
    """MNIST, downloaded if its folder is absent; arguments and errors as :class:`ImageDataset`."""
    options = {"transform": transform, "target_transform": target_transform, "normalize": normalize}
    return _load(MNIST, root_path, train, return_numpy=return_numpy, dtype=dtype, **options)


def load_cifar10(
    train: bool = True,
    transform: Any = None,
    target_transform: Any = None,
    normalize: bool = True,
    return_numpy: bool = False,
    dtype: Any = "float32",
    root_path: str | os.PathLike[str] = "data",
) -> CIFAR10:
    """CIFAR-10, downloaded if its folder is absent; arguments and errors as :class:`ImageDataset`."""
    options = {"transform": transform, "target_transform": target_transform, "normalize": normalize}
    return _load(CIFAR10, root_path, train, return_numpy=return_numpy, dtype=dtype, **options)


def load_cifar100(
    train: bool = True,
    transform: Any = None,
    target_transform: Any = None,
    normalize: bool = True,
    return_numpy: bool = False,
    dtype: Any = "float32",
    root_path: str | os.PathLike[str] = "data",
) -> CIFAR100:
    """CIFAR-100, downloaded if its folder is absent; arguments and errors as :class:`ImageDataset`."""
    options = {"transform": transform, "target_transform": target_transform, "normalize": normalize}
    return _load(CIFAR100, root_path, train, return_numpy=return_numpy, dtype=dtype, **options)
