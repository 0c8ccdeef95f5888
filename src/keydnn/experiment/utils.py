"""Small public helpers: backends, and a look at the code that a file brings."""

from keydnn.experiment.backends import Backend
from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.io import inspect_packaged_code

__all__ = ["Accelerator", "Backend", "inspect_packaged_code"]
