"""Backend: whose model a node runs, and so whose tensors it wants."""

from __future__ import annotations

from enum import Enum

_SYNONYMS = {"pytorch": "torch", "tf": "tensorflow", "keras": "tensorflow", "sklearn": "scikit", "scikit-learn": "scikit", "np": "numpy"}
_SYNONYMS["kd"] = "keydnn"


class Backend(str, Enum):  # noqa: UP042 - the base the API promises
    """The backends; a string is accepted wherever one is, see :meth:`from_value`."""

    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    NUMPY = "numpy"
    SCIKIT = "scikit"
    NONE = "none"
    KEYDNN = "keydnn"

    @classmethod
    def from_value(cls, value: Backend | str) -> Backend:
        """A member, or the one a text means: any case, synonyms such as "pytorch", "tf", "sklearn", prefix "backend." allowed.

        Raises:
            ValueError: Neither; the message lists the values.

        Example:
            >>> from keydnn.experiment.utils import Backend
            >>> Backend.from_value("Backend.PyTorch").value
            'torch'
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            name = value.strip().lower().removeprefix("backend.")
            name = _SYNONYMS.get(name, name)
            for member in cls:
                if member.value == name:
                    return member
        raise ValueError(f"unknown backend {value!r}; expected one of {', '.join(member.value for member in cls)}")

    @classmethod
    def _missing_(cls, value: object) -> Backend | None:
        return cls.from_value(value) if isinstance(value, str) else None

    @property
    def needs_optimizer(self) -> bool:
        """Whether models of this backend are trained by an optimizer."""
        return self in (Backend.TORCH, Backend.TENSORFLOW, Backend.KEYDNN)
