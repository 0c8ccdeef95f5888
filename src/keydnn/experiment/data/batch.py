"""Batch: tensors of one step, by role, with weights and masks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data.formats import DataFormat
from keydnn.experiment.data.roles import ByRole, RoleData
from keydnn.experiment.data.sample_data import SampleData, SampleShapes
from keydnn.experiment.visualization.summary import summary_box


@dataclass(frozen=True, repr=False, eq=False)
class Batch(ByRole):
    """Tensors of one step.

    Args:
        batch_size: B.
        role_data: RoleData, or a dict role to SampleData; every tensor has leading size B.
        shapes: Shapes of the samples; None fills them in.
        role_weights: Role to weights (B,).
        role_masks: Role to int8 mask (B,), 0 where a row is padding or inactive.

    Raises:
        ValueError: No role, roles that differ, or a size other than B.
    """

    batch_size: int
    role_data: RoleData
    shapes: SampleShapes | None
    role_weights: Mapping[str, NDArray[Any]]
    role_masks: Mapping[str, NDArray[np.int8]]

    def __post_init__(self) -> None:
        data = self.role_data if isinstance(self.role_data, RoleData) else RoleData(self.role_data)
        object.__setattr__(self, "role_data", data)
        if self.shapes is None:
            object.__setattr__(self, "shapes", data.shapes)
        for what, arrays in (("role_weights", self.role_weights), ("role_masks", self.role_masks)):
            if set(arrays) != set(data):
                raise ValueError(f"{what} has roles {sorted(arrays)}, the data have {sorted(data)}")
            for role, array in arrays.items():
                if tuple(array.shape) != (self.batch_size,):
                    raise ValueError(f"{what}[{role!r}] has shape {tuple(array.shape)}, expected ({self.batch_size},)")
        for role, samples in data.items():
            for domain, size in samples.leading_sizes().items():
                if size != self.batch_size:
                    raise ValueError(f"{domain} of role {role!r} has {size} samples, the batch has {self.batch_size}")

    ready: ClassVar[Any] = None  # (backend, device) that features and targets are known to be of, set by who made them

    stamp: ClassVar[Any] = None  # the same object on batches that differ in their features alone, set by who made them

    def with_outputs(self, features: Mapping[str, Any]) -> Batch:
        """What a model makes of this batch: other features by role, of the kind "output"; everything else is the same objects."""
        made = self.with_samples({role: samples.with_outputs(features[role]) for role, samples in self.role_data.parts.items()})
        if self.stamp is not None:
            made.__dict__["stamp"] = self.stamp
        return made

    def with_samples(self, samples: dict[str, SampleData]) -> Batch:
        """The batch with other samples in the same roles, all as long as these; weights and masks are the same objects."""
        made = type(self).__new__(type(self))
        made.__dict__.update(
            batch_size=self.batch_size,
            role_data=RoleData.trusted(samples),
            role_weights=self.role_weights,
            role_masks=self.role_masks,
            is_plain=self.is_plain,
            ready=self.ready,
        )
        return made

    @classmethod
    def trusted(cls, batch_size: int, role_data: RoleData, role_weights: dict[str, Any], role_masks: dict[str, Any]) -> Batch:
        """A batch from parts that are known to fit."""
        made = cls.__new__(cls)
        made.__dict__.update(batch_size=batch_size, role_data=role_data, role_weights=role_weights, role_masks=role_masks)
        return made

    def __getattr__(self, name: str) -> Any:
        if name == "shapes":  # of a trusted batch: worked out when first asked for
            self.__dict__["shapes"] = self.role_data.shapes
            return self.__dict__["shapes"]
        return super().__getattr__(name)

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether every row counts once: all weights and masks are 1."""
        return all(np.all(np.asarray(array) == 1) for array in (*self.role_weights.values(), *self.role_masks.values()))

    @functools.cached_property
    def is_masked(self) -> bool:
        """Whether there are rows and none of them counts: all masks are 0."""
        return self.batch_size > 0 and not any(np.any(mask) for mask in self.role_masks.values())

    def get_data(self, role: str | None = None, domain: str | None = None) -> Any:
        """All roles, one role, or the tensor of one domain (of the only role if none is named).

        Raises:
            KeyError: Unknown role or domain.
            RuntimeError: A domain without a role, and several roles.
        """
        if role is not None:
            return self.role_data.get_data(role, domain)
        return self.role_data if domain is None else self._only(domain).get_domain_data(domain)

    def _with(self, data: RoleData) -> Batch:
        return dataclasses.replace(self, role_data=data, shapes=None)

    def to_format(self, fmt: DataFormat | str) -> Batch:
        """A new batch with features and targets in a tensor-like format.

        Raises:
            ValueError: A format that is not tensor-like.
        """
        return self._with(self.role_data.to_format(fmt))

    def to_backend(self, backend: Backend | str) -> Batch:
        """A new batch with features and targets as tensors of a framework."""
        return self._with(self.role_data.to_backend(backend))

    def as_format(self, fmt: DataFormat | str) -> Batch:
        """Like :meth:`to_format`, in place; returns self."""
        self.role_data.as_format(fmt)
        self.__dict__.update(ready=None, stamp=None)
        return self

    def as_backend(self, backend: Backend | str) -> Batch:
        """Like :meth:`to_backend`, in place; returns self."""
        self.role_data.as_backend(backend)
        self.__dict__.update(ready=None, stamp=None)
        return self

    def detach_tensors(self) -> Batch:
        """Replace tensors by copies without history; returns self."""
        self.role_data.detach_tensors()
        self.__dict__["stamp"] = None
        return self

    @classmethod
    def concat(cls, *batches: Batch, fmt: DataFormat | str | None = None) -> Batch:
        """Batches joined along axis 0, with their weights and masks.

        Raises:
            TypeError: Something other than batches.
            ValueError: Nothing to join, or different roles or shapes.
        """
        for batch in batches:
            if not isinstance(batch, Batch):
                raise TypeError(f"only batches can be joined, got {type(batch).__name__}")
        if not batches:
            raise ValueError("nothing to join")
        data = RoleData.concat(*(batch.role_data for batch in batches), fmt=fmt)
        weights = {role: np.concatenate([np.asarray(batch.role_weights[role]) for batch in batches]) for role in data}
        masks = {role: np.concatenate([np.asarray(batch.role_masks[role]) for batch in batches]) for role in data}
        return cls(sum(batch.batch_size for batch in batches), data, None, weights, masks)

    def concat_with(self, *others: Batch, fmt: DataFormat | str | None = None) -> Batch:
        """This and others, joined; see :meth:`concat`."""
        return Batch.concat(self, *others, fmt=fmt)

    def summary(self, max_width: int = 88) -> str:
        """A box of text with size, roles and shapes."""
        shapes = list((self.shapes or SampleShapes()).shapes.items())
        rows: list[tuple[str, Any]] = [("batch_size", self.batch_size), ("roles", ", ".join(self.available_roles)), ("shapes", shapes)]
        return summary_box("Batch", rows, max_width)

    def __repr__(self) -> str:
        return f"Batch(batch_size={self.batch_size}, roles={self.available_roles})"
