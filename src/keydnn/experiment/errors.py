"""Errors and warnings of the experiment wing.

Each class derives from :class:`ExperimentError` and from the builtin that callers expect, so both ways to catch it work.
"""

from __future__ import annotations


class ExperimentError(Exception):
    """Base of all errors that only this wing raises."""


class BackendNotSupportedError(ExperimentError, RuntimeError):
    """No implementation for a backend.

    Args:
        message: What happened.
        backend: The backend that was asked for.
        method: The method that has no implementation for it.
    """

    def __init__(self, message: str = "", *, backend: object = None, method: str | None = None) -> None:
        super().__init__(message or f"{method or 'this operation'} is not implemented for backend {backend!s}.")
        self.backend = backend
        self.method = method


class BackendMismatchError(ExperimentError, ValueError):
    """Backends of optimizer, loss and nodes disagree.

    Args:
        message: What happened.
        expected: The backend that was needed.
        received: The backend that came.
    """

    def __init__(self, message: str = "", *, expected: object = None, received: object = None) -> None:
        super().__init__(message or f"expected backend {expected!s}, got {received!s}.")
        self.expected = expected
        self.received = received


class OptimizerError(ExperimentError, RuntimeError):
    """An optimizer is missing, unbuilt or wrongly rebuilt."""


class OptimizerNotSetError(OptimizerError):
    """An optimizer was needed and there is none."""


class LossError(ExperimentError, RuntimeError):
    """A loss cannot be constructed or executed."""


class LossNotSetError(LossError):
    """A loss was needed and there is none."""


class ActivationError(ExperimentError, ValueError):
    """An unknown activation."""


class GraphNodeError(ExperimentError, ValueError):
    """An illegal connection between graph nodes."""


class GraphNodeInputError(GraphNodeError):
    """An illegal input of a graph node."""


class GraphNodeOutputError(GraphNodeError):
    """An illegal output of a graph node."""


class GraphConnectivityError(ExperimentError, ValueError, KeyError):
    """A node refers to an upstream node that is not there."""

    __str__ = Exception.__str__  # KeyError would show the text in quotes


class FeatureSetError(ExperimentError, ValueError):
    """Data cannot be turned into samples."""


class SampleLoadError(FeatureSetError):
    """Samples cannot be read from where they are stored."""


class NotInvertibleError(ExperimentError, NotImplementedError):
    """A scaler has no inverse, or none for the rows it was asked about."""


class ScalerTypeError(ExperimentError, TypeError, AttributeError):
    """An object that lacks ``fit`` or ``transform`` was given as a scaler."""


class ShapeSpecError(ExperimentError, ValueError):
    """A bad shape argument."""


class ResolutionError(ExperimentError, RuntimeError):
    """A reference cannot be resolved."""


class RegistrationError(ExperimentError, ValueError):
    """A label or id is taken, or there is a graph already."""


class SymbolResolutionError(ExperimentError, RuntimeError):
    """A file names a class or function that cannot be found."""


class PackagedCodeError(ExperimentError, RuntimeError):
    """Code cannot be packaged, or a file holds code that may not be run without permission."""


class ArtifactError(ExperimentError, ValueError):
    """A file is no artifact of ours, is damaged, or is not safe to read."""


class StateMismatchError(ExperimentError, ValueError):
    """A state belongs to other nodes or other data than those it is given to."""


class ArtifactKindError(ArtifactError, TypeError):
    """An artifact holds another kind of object than the one it is loaded as."""


class SplitOverlapWarning(UserWarning):
    """Registered splits share samples."""
