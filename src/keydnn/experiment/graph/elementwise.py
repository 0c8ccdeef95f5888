"""Merge nodes that work element by element: sum, mean and product."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from keydnn.experiment.backends.tensors import backend_of, to_backend
from keydnn.experiment.data import DataFormat, SampleData
from keydnn.experiment.data.formats import backend_of_format
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.merging import added, averaged, multiplied
from keydnn.experiment.names import DOMAIN_FEATURES


class ElementwiseNode(MergeNode, abc.ABC):
    """Inputs of one shape made one element by element; targets and tags are those of the first that has some."""

    @abc.abstractmethod
    def combined(self, tensors: Sequence[Any]) -> Any:
        """Tensors of one framework and shape as one."""

    def _side(self, samples: Sequence[SampleData], domain: str) -> Any:
        return next((value for one in samples if (value := one.get_domain_data(domain)) is not None), None)

    def apply_merge(
        self, values: Sequence[Any], *, includes_batch_dim: bool = True, fmt: DataFormat | str | None = None, domain: str = DOMAIN_FEATURES
    ) -> Any:
        """The values made one; of targets and tags the first.

        Raises:
            ValueError: Shapes that differ.
        """
        if domain != DOMAIN_FEATURES:
            return values[0]
        shapes = [tuple(value.shape) for value in values]
        if len(set(shapes)) != 1:
            raise ValueError(f"node {self.label!r} takes inputs of one shape, got {shapes}")
        backend = backend_of(values[0]) if fmt is None else backend_of_format(DataFormat.from_value(fmt))
        return self.combined([to_backend(value, backend) for value in values])


class AddNode(ElementwiseNode):
    """The sum of the inputs."""

    def combined(self, tensors: Sequence[Any]) -> Any:
        """The sum."""
        return added(tensors)


class MeanNode(ElementwiseNode):
    """The mean of the inputs."""

    def combined(self, tensors: Sequence[Any]) -> Any:
        """The mean."""
        return averaged(tensors)


class MultiplyNode(ElementwiseNode):
    """The product of the inputs."""

    def combined(self, tensors: Sequence[Any]) -> Any:
        """The product."""
        return multiplied(tensors)
