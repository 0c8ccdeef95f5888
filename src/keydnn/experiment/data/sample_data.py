"""SampleData and SampleShapes: tensors of one group of samples, by domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from keydnn.experiment.backends import tensors
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data.formats import DataFormat, backend_of_format
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_OUTPUTS, DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS, DOMAIN_TARGETS
from keydnn.experiment.visualization.summary import summary_box

DOMAINS = (DOMAIN_FEATURES, DOMAIN_TARGETS, DOMAIN_TAGS, DOMAIN_SAMPLE_UUIDS)
_CONVERTED = (DOMAIN_FEATURES, DOMAIN_TARGETS)
Shape = tuple[int, ...]


class SampleShapes:
    """Shapes without the batch axis, by domain; hashable.

    Args:
        shapes: Domain to shape; or use the keywords.
        features_shape: Of the features.
        targets_shape: Of the targets.
        tags_shape: Of the tags.
        kind: "input" or "output"; only the latter has ``outputs_shape``.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape] | None = None,
        *,
        features_shape: Shape | None = None,
        targets_shape: Shape | None = None,
        tags_shape: Shape | None = None,
        kind: str = "input",
    ) -> None:
        told = dict(shapes or {})
        given = {DOMAIN_FEATURES: features_shape, DOMAIN_TARGETS: targets_shape, DOMAIN_TAGS: tags_shape}
        told.update({domain: shape for domain, shape in given.items() if shape is not None})
        self.shapes: dict[str, Shape] = {domain: tuple(int(n) for n in shape) for domain, shape in told.items()}
        self.kind = kind

    def __getitem__(self, domain: str) -> Shape:
        return self.shapes[domain]

    @property
    def features_shape(self) -> Shape | None:
        """Shape of the features, or None."""
        return self.shapes.get(DOMAIN_FEATURES)

    @property
    def targets_shape(self) -> Shape | None:
        """Shape of the targets, or None."""
        return self.shapes.get(DOMAIN_TARGETS)

    @property
    def tags_shape(self) -> Shape | None:
        """Shape of the tags, or None."""
        return self.shapes.get(DOMAIN_TAGS)

    @property
    def outputs_shape(self) -> Shape | None:
        """Shape of the outputs.

        Raises:
            AttributeError: The kind is not "output".
        """
        if self.kind != "output":
            raise AttributeError(f"shapes of kind {self.kind!r} have no outputs_shape")
        return self.features_shape

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleShapes):
            raise TypeError(f"SampleShapes cannot be compared with a {type(other).__name__}")
        return self.shapes == other.shapes and self.kind == other.kind

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.shapes.items())), self.kind))

    def __repr__(self) -> str:
        return f"SampleShapes({self.shapes}, kind={self.kind!r})"


class Deferred:
    """A value that is computed when it is first asked for.

    Args:
        compute: Gives the value.
        n: Its leading size, known beforehand.
    """

    def __init__(self, compute: Callable[[], Any], n: int) -> None:
        self._compute, self.n = compute, n
        self._value: Any = None

    def get(self) -> Any:
        """The value."""
        if self._value is None:
            self._value = self._compute()
        return self._value

    def fresh(self) -> Deferred:
        """Another one of the same value, so that this one does not keep what is computed."""
        return Deferred(self._compute, self.n)

    def is_like(self, other: Any) -> bool:
        """Whether another value is computed by the same call."""
        return isinstance(other, Deferred) and other._compute is self._compute


class SampleData:
    """Tensors of one group of samples.

    Args:
        data: Domain (features, targets, tags, sample_uuids) to tensor; or use the keywords.
        sample_uuids: Ids.
        features: Inputs, or the outputs of a model if ``kind`` is "output".
        targets: Targets.
        tags: Tags.
        kind: "input" or "output".

    Raises:
        KeyError: Unknown domain.

    Example:
        >>> from keydnn.experiment.data import SampleData
        >>> SampleData(features=np.ones((4, 2)), targets=np.zeros((4, 1)))
        SampleData(features=(4, 2), targets=(4, 1), n_samples=4)
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        sample_uuids: Any = None,
        features: Any = None,
        targets: Any = None,
        tags: Any = None,
        kind: str = "input",
    ) -> None:
        told = dict(data or {})
        given = {DOMAIN_FEATURES: features, DOMAIN_TARGETS: targets, DOMAIN_TAGS: tags, DOMAIN_SAMPLE_UUIDS: sample_uuids}
        told.update({domain: value for domain, value in given.items() if value is not None})
        for domain in told:
            if domain not in DOMAINS:
                raise KeyError(f"unknown domain {domain!r}; expected one of {', '.join(DOMAINS)}")
        self._data = told
        self.kind = kind

    @classmethod
    def trusted(cls, data: dict[str, Any]) -> Self:
        """Inputs by domain, from parts that are known to be named right."""
        made = cls.__new__(cls)
        made._data, made.kind = data, "input"
        return made

    def get_domain_data(self, domain: str) -> Any:
        """The tensor of a domain; None if it is not stored.

        Raises:
            KeyError: Unknown domain.
        """
        if domain == "outputs" and self.kind == "output":
            domain = DOMAIN_FEATURES
        if domain not in DOMAINS:
            raise KeyError(f"unknown domain {domain!r}; expected one of {', '.join(DOMAINS)}")
        value = self._data.get(domain)
        return value.get() if isinstance(value, Deferred) else value

    def tensors(self, domains: Sequence[str]) -> list[Any] | None:
        """The tensors of some domains, among them "outputs" of the kind "output"; None if one is not stored."""
        found = []
        for domain in domains:
            value = self._data.get(DOMAIN_FEATURES if domain == DOMAIN_OUTPUTS and self.kind == "output" else domain)
            if value is None:
                return None
            found.append(value.get() if isinstance(value, Deferred) else value)
        return found

    @property
    def features(self) -> Any:
        """The inputs, or None."""
        return self._data.get(DOMAIN_FEATURES)

    @property
    def targets(self) -> Any:
        """The targets, or None."""
        return self._data.get(DOMAIN_TARGETS)

    @property
    def tags(self) -> Any:
        """The tags, or None."""
        return self._data.get(DOMAIN_TAGS)

    @property
    def sample_uuids(self) -> Any:
        """The ids, or None."""
        return self.get_domain_data(DOMAIN_SAMPLE_UUIDS)

    @property
    def outputs(self) -> Any:
        """The outputs.

        Raises:
            AttributeError: The kind is not "output".
        """
        if self.kind != "output":
            raise AttributeError(f"data of kind {self.kind!r} have no outputs")
        return self.features

    def with_outputs(self, features: Any) -> Self:
        """What a model makes of these samples: other features, kind "output", the rest as it is."""
        made = type(self).__new__(type(self))
        made._data, made.kind = {**self._data, DOMAIN_FEATURES: features}, "output"
        return made

    def change_features(self, function: Callable[[Any], Any]) -> None:
        """Replace the features, in place, by what a function makes of them."""
        self._data[DOMAIN_FEATURES] = function(self._data[DOMAIN_FEATURES])

    def with_domains(self, changed: Mapping[str, Any], kind: str | None = None) -> Self:
        """A new object with some domains replaced; None drops one."""
        told = {domain: value for domain, value in {**self._data, **changed}.items() if value is not None}
        return type(self)(told, kind=self.kind if kind is None else kind)

    @property
    def domains(self) -> list[str]:
        """Domains that are stored."""
        return [domain for domain in DOMAINS if domain in self._data]

    @property
    def parts(self) -> Mapping[str, Any]:
        """Domain to value, which may be a :class:`Deferred`."""
        return self._data

    @property
    def n_samples(self) -> int:
        """The largest leading size; 0 without data."""
        return max((leading_size(value) for value in self._data.values()), default=0)

    def leading_sizes(self) -> dict[str, int]:
        """Leading size by domain; nothing is computed."""
        return {domain: leading_size(value) for domain, value in self._data.items()}

    @property
    def shapes(self) -> SampleShapes:
        """Shapes without the leading axis."""
        told = {domain: tuple(value.shape[1:]) for domain, value in self._data.items() if domain != DOMAIN_SAMPLE_UUIDS}
        return SampleShapes(told, kind=self.kind)

    def _mapped(self, function: Callable[[Any], Any], domains: Sequence[str] = _CONVERTED) -> dict[str, Any]:
        return {domain: function(value) if domain in domains else value for domain, value in self._data.items()}

    def to_backend(self, backend: Backend | str) -> Self:
        """A new object with features and targets as tensors of a framework."""
        goal = Backend.from_value(backend)
        return type(self)(self._mapped(lambda value: tensors.to_backend(value, goal)), kind=self.kind)

    def as_backend(self, backend: Backend | str) -> Self:
        """Like :meth:`to_backend`, in place; returns self."""
        self._data = self.to_backend(backend)._data
        return self

    def to_format(self, fmt: DataFormat | str) -> Self:
        """A new object with features and targets in a tensor-like format.

        Raises:
            ValueError: A format that is not tensor-like.
        """
        return self.to_backend(backend_of_format(DataFormat.from_value(fmt)))

    def as_format(self, fmt: DataFormat | str) -> Self:
        """Like :meth:`to_format`, in place; returns self."""
        self._data = self.to_format(fmt)._data
        return self

    def detach_tensors(self) -> Self:
        """Replace tensors by copies without history; returns self."""
        self._data = self._mapped(tensors.detach)
        return self

    @classmethod
    def concat(cls, *sds: SampleData, fmt: DataFormat | str | None = None) -> Self:
        """Samples joined along axis 0.

        Args:
            *sds: What to join.
            fmt: Tensor-like format of the result; None keeps the framework, or takes NumPy if they are mixed.

        Raises:
            TypeError: Something other than SampleData.
            ValueError: Nothing to join, or different kinds, domains or shapes.
        """
        for sd in sds:
            if not isinstance(sd, SampleData):
                raise TypeError(f"only SampleData can be joined, got {type(sd).__name__}")
        if not sds:
            raise ValueError("nothing to join")
        first = sds[0]
        for sd in sds[1:]:
            if (sd.kind, sd.domains, sd.shapes) != (first.kind, first.domains, first.shapes):
                raise ValueError(
                    f"data of kind {first.kind!r} with {first.shapes.shapes} and {sd.kind!r} with {sd.shapes.shapes} do not fit"
                )
        backend = None if fmt is None else backend_of_format(DataFormat.from_value(fmt))
        joined: dict[str, Any] = {}
        for domain in first.domains:
            parts = [sd.get_domain_data(domain) for sd in sds]
            plain = domain not in _CONVERTED
            joined[domain] = np.concatenate([np.asarray(part) for part in parts]) if plain else tensors.concat(parts, backend)
        return cls(joined, kind=first.kind)

    def concat_with(self, *others: SampleData, fmt: DataFormat | str | None = None) -> Self:
        """This and others, joined; see :meth:`concat`."""
        return type(self).concat(self, *others, fmt=fmt)

    def summary(self, max_width: int = 88) -> str:
        """A box of text with kind, sizes and shapes."""
        rows: list[tuple[str, Any]] = [("kind", self.kind), ("n_samples", self.n_samples)]
        return summary_box(type(self).__name__, [*rows, ("shapes", list(self.shapes.shapes.items()))], max_width)

    def __repr__(self) -> str:
        told = ", ".join(f"{domain}={tuple(value.shape)}" for domain, value in self._data.items() if domain != DOMAIN_SAMPLE_UUIDS)
        return f"{type(self).__name__}({told + ', ' if told else ''}n_samples={self.n_samples})"


def leading_size(value: Any) -> int:
    """Size of axis 0, without computing a deferred value."""
    return value.n if isinstance(value, Deferred) else int(value.shape[0]) if hasattr(value, "shape") else len(value)
