"""Known data sets: MNIST, CIFAR-10 and CIFAR-100."""

from keydnn.data.download import download_url, set_verbose
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

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "download_cifar10",
    "download_cifar100",
    "download_mnist",
    "download_url",
    "load_cifar10",
    "load_cifar100",
    "load_mnist",
    "set_verbose",
]
