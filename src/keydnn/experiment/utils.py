"""Small public helpers: backends, and a look at the code that a file brings."""

from keydnn.experiment.backends import Backend
from keydnn.experiment.io import inspect_packaged_code

__all__ = ["Backend", "inspect_packaged_code"]
