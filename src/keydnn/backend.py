"""What this machine can run."""

from keydnn.kernels.dispatch import cuda_available

__all__ = ["cuda_available"]
