"""Shapes of what a feature set gives, read from its schema."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data.formats import stack_columns
from keydnn.experiment.references import FeatureSetReference

Shape = tuple[int, ...]


def stacked(shapes: Mapping[str, Shape]) -> Shape | None:
    """Shape of columns stacked into one tensor, without the batch axis; None of none."""
    if not shapes:
        return None
    return tuple(stack_columns({name: np.empty((0, *shape)) for name, shape in shapes.items()}).shape[1:])


def source_shapes(reference: FeatureSetReference, ctx: ExperimentContext | None = None) -> tuple[Shape | None, Shape | None]:
    """Shapes of the stacked features and targets of a reference; nothing is read but the schema."""
    view = reference.resolve(ctx)
    names = {"include_rep_suffix": True, "include_domain_prefix": True}
    return stacked(view.get_feature_shapes(**names)), stacked(view.get_target_shapes(**names))
