"""Data: data sets, loaders with workers, augmentation of images, files of known data sets, and toy problems.

>>> from keydnn.data import ArrayDataset, DataLoader
>>> data = ArrayDataset(np.arange(6.0).reshape(6, 1), np.array([0, 1, 0, 1, 0, 1]))
>>> [x.shape for x, y in DataLoader(data, batch_size=4)]
[(4, 1), (2, 1)]
"""

from keydnn.data.augment import (
    Compose,
    Normalize,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomNoise,
    RandomRotation,
)
from keydnn.data.collate import collate
from keydnn.data.dataset import ArrayDataset, Augmented, ConcatDataset, Dataset, IterableDataset, Mapped, Subset, random_split
from keydnn.data.download import download_url, extract_tar, set_verbose
from keydnn.data.images import (
    CIFAR10,
    CIFAR100,
    MNIST,
    download_cifar10,
    download_cifar100,
    download_mnist,
    load_cifar10,
    load_cifar100,
    load_mnist,
)
from keydnn.data.loader import DataLoader
from keydnn.data.toy import make_blobs, make_circles, make_moons, make_regression, make_sine, make_spirals, make_xor

__all__ = [
    "ArrayDataset", "Augmented", "CIFAR10", "CIFAR100", "Compose", "ConcatDataset", "DataLoader", "Dataset", "IterableDataset",
    "MNIST", "Mapped", "Normalize", "RandomBrightness", "RandomContrast", "RandomCrop", "RandomErasing", "RandomFlip",
    "RandomNoise", "RandomRotation", "Subset", "collate", "download_cifar10", "download_cifar100", "download_mnist",
    "download_url", "extract_tar", "load_cifar10", "load_cifar100", "load_mnist", "make_blobs", "make_circles", "make_moons",
    "make_regression", "make_sine", "make_spirals", "make_xor", "random_split", "set_verbose",
]  # fmt: skip
