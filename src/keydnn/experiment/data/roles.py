"""RoleData: samples by role, such as anchor and pair; an immutable mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data.formats import DataFormat
from keydnn.experiment.data.sample_data import SampleData, SampleShapes
from keydnn.experiment.visualization.summary import summary_box


class ByRole:
    """Access by role for a class with ``role_data``, a mapping role to SampleData; abstract."""

    role_data: Any

    @property
    def available_roles(self) -> list[str]:
        """Names of the roles."""
        return list(self._by_role())

    def _by_role(self) -> Mapping[str, SampleData]:
        return self.role_data

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "role_data":
            raise AttributeError(name)
        roles = self._by_role()
        if name not in roles:
            raise AttributeError(f"{type(self).__name__} has no role or attribute {name!r}; roles: {', '.join(roles)}")
        return roles[name]

    def _role(self, role: str) -> SampleData:
        roles = self._by_role()
        if role not in roles:
            raise KeyError(f"no role {role!r}; there are {', '.join(roles)}")
        return roles[role]

    def _only(self, what: str) -> SampleData:
        roles = self._by_role()
        if len(roles) != 1:
            raise RuntimeError(
                f"{what} needs exactly one role, there are {', '.join(roles)}; name one, such as .{next(iter(roles))}.{what}"
            )
        return next(iter(roles.values()))

    @property
    def features(self) -> Any:
        """Inputs of the only role.

        Raises:
            RuntimeError: There are several roles.
        """
        return self._only("features").features

    @property
    def targets(self) -> Any:
        """Targets of the only role.

        Raises:
            RuntimeError: There are several roles.
        """
        return self._only("targets").targets

    @property
    def tags(self) -> Any:
        """Tags of the only role.

        Raises:
            RuntimeError: There are several roles.
        """
        return self._only("tags").tags

    @property
    def sample_uuids(self) -> Any:
        """Ids of the only role.

        Raises:
            RuntimeError: There are several roles.
        """
        return self._only("sample_uuids").sample_uuids

    @property
    def outputs(self) -> Any:
        """Outputs of the only role.

        Raises:
            RuntimeError: There are several roles.
        """
        only = self._only("outputs")
        if only.kind != "output":
            raise RuntimeError(f"the role holds data of kind {only.kind!r}, which have no outputs")
        return only.outputs


class RoleData(ByRole, Mapping[str, SampleData]):
    """Samples by role.

    Args:
        data: Role to SampleData.

    Raises:
        ValueError: No role.
        TypeError: A role that is not text, or a value that is no SampleData.

    Example:
        >>> from keydnn.experiment.data import RoleData, SampleData
        >>> RoleData({"anchor": SampleData(features=np.ones((2, 1)))}).anchor.n_samples
        2
    """

    def __init__(self, data: Mapping[str, SampleData]) -> None:
        if not data:
            raise ValueError("RoleData needs at least one role")
        for role, samples in data.items():
            if not isinstance(role, str) or not isinstance(samples, SampleData):
                raise TypeError(f"RoleData maps text to SampleData, got {type(role).__name__} to {type(samples).__name__}")
        object.__setattr__(self, "_roles", dict(data))

    @classmethod
    def trusted(cls, data: dict[str, SampleData]) -> RoleData:
        """Samples by role, from parts that are known to be right."""
        made = cls.__new__(cls)
        made.__dict__["_roles"] = data
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"RoleData is immutable; {name!r} cannot be set")

    def _by_role(self) -> Mapping[str, SampleData]:
        return self.__dict__["_roles"]

    @property
    def parts(self) -> Mapping[str, SampleData]:
        """Role to samples, as it is held."""
        return self.__dict__["_roles"]

    @property
    def only(self) -> SampleData | None:
        """The samples of the only role; None if there are several."""
        roles = self.__dict__["_roles"]
        return next(iter(roles.values())) if len(roles) == 1 else None

    def __getitem__(self, role: str) -> SampleData:
        return self._role(role)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_role())

    def __len__(self) -> int:
        return len(self._by_role())

    def get_data(self, role: str, domain: str | None = None) -> Any:
        """Samples of a role, or the tensor of one of its domains.

        Raises:
            KeyError: Unknown role or domain.
        """
        samples = self._role(role)
        return samples if domain is None else samples.get_domain_data(domain)

    @property
    def shapes(self) -> SampleShapes:
        """Shapes of the samples; those of the first role if roles differ."""
        return next(iter(self._by_role().values())).shapes

    def copy(self) -> RoleData:
        """The same tensors in new containers."""
        return RoleData({role: SampleData(samples._data, kind=samples.kind) for role, samples in self.items()})

    def to_format(self, fmt: DataFormat | str) -> RoleData:
        """A new object with features and targets in a tensor-like format.

        Raises:
            ValueError: A format that is not tensor-like.
        """
        return RoleData({role: samples.to_format(fmt) for role, samples in self.items()})

    def to_backend(self, backend: Backend | str) -> RoleData:
        """A new object with features and targets as tensors of a framework."""
        return RoleData({role: samples.to_backend(backend) for role, samples in self.items()})

    def as_format(self, fmt: DataFormat | str) -> Self:
        """Like :meth:`to_format`, in place; returns self."""
        for samples in self.values():
            samples.as_format(fmt)
        return self

    def as_backend(self, backend: Backend | str) -> Self:
        """Like :meth:`to_backend`, in place; returns self."""
        for samples in self.values():
            samples.as_backend(backend)
        return self

    def detach_tensors(self) -> Self:
        """Replace tensors by copies without history; returns self."""
        for samples in self.values():
            samples.detach_tensors()
        return self

    @classmethod
    def concat(cls, *rds: RoleData, fmt: DataFormat | str | None = None) -> RoleData:
        """Samples joined role by role along axis 0.

        Raises:
            TypeError: Something other than RoleData.
            ValueError: Nothing to join, or different roles.
        """
        for rd in rds:
            if not isinstance(rd, RoleData):
                raise TypeError(f"only RoleData can be joined, got {type(rd).__name__}")
        if not rds:
            raise ValueError("nothing to join")
        roles = rds[0].available_roles
        for rd in rds[1:]:
            if set(rd) != set(roles):
                raise ValueError(f"roles differ: {', '.join(roles)} and {', '.join(rd)}")
        return cls({role: SampleData.concat(*(rd[role] for rd in rds), fmt=fmt) for role in roles})

    def concat_with(self, *others: RoleData, fmt: DataFormat | str | None = None) -> RoleData:
        """This and others, joined; see :meth:`concat`."""
        return RoleData.concat(self, *others, fmt=fmt)

    def summary(self, max_width: int = 88) -> str:
        """A box of text with the shapes of every role."""
        rows = [(role, [("n_samples", samples.n_samples), *samples.shapes.shapes.items()]) for role, samples in self.items()]
        return summary_box("RoleData", rows, max_width)

    def __repr__(self) -> str:
        return f"RoleData({', '.join(f'{role}={samples!r}' for role, samples in self.items())})"
