"""Backend: whose model a node runs, and so whose tensors it wants."""

from __future__ import annotations

from collections.abc import Mapping

from keydnn.experiment.choices import Choice

_SYNONYMS = {
    "pytorch": "torch",
    "tf": "tensorflow",
    "keras": "tensorflow",
    "sklearn": "scikit",
    "scikit-learn": "scikit",
    "np": "numpy",
    "kd": "keydnn",
}
_VALUES = ("torch", "tensorflow", "numpy", "scikit", "none", "keydnn")
_SPELLINGS = {**_SYNONYMS, **{f"backend.{name}": _SYNONYMS.get(name, name) for name in (*_VALUES, *_SYNONYMS)}}


class Backend(str, Choice):
    """The backends; a string is accepted wherever one is: any case, synonyms such as "pytorch", "tf", "sklearn", prefix "backend.".

    Example:
        >>> from keydnn.experiment.utils import Backend
        >>> Backend.from_value("Backend.PyTorch").value
        'torch'
    """

    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    NUMPY = "numpy"
    SCIKIT = "scikit"
    NONE = "none"
    KEYDNN = "keydnn"

    @classmethod
    def synonyms(cls) -> Mapping[str, str]:
        """Other spellings of values, in lower case."""
        return _SPELLINGS

    @classmethod
    def _missing_(cls, value: object) -> Backend | None:
        return cls.from_value(value) if isinstance(value, str) else None

    @property
    def needs_optimizer(self) -> bool:
        """Whether models of this backend are trained by an optimizer."""
        return self is Backend.TORCH or self is Backend.TENSORFLOW or self is Backend.KEYDNN
