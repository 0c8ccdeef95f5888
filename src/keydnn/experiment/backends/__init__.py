"""One file per framework: the only files that name one."""

from keydnn.experiment.backends.backend import Backend

__all__ = ["Backend"]
