"""Public conformance suites: what every op, kernel, layer, optimizer and backend promises."""

from keydnn.testing.backends import check_backend

__all__ = ["check_backend"]
