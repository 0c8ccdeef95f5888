"""ConditionSplitter: parts by conditions on columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from keydnn.experiment.io import lambda_source
from keydnn.experiment.predicates import Lambda, Predicate
from keydnn.experiment.splitters.base import BaseSplitter


class ConditionSplitter(BaseSplitter):
    """Rows that meet the conditions of each part; a row may be in several parts, or in none.

    Args:
        **conditions: Split name to conditions as in ``FeatureSet.filter``.

    Raises:
        ValueError: No part.

    Example:
        >>> from keydnn.experiment.data import FeatureSet
        >>> from keydnn.experiment.predicates import GT, LTE
        >>> fs = FeatureSet.from_dict("five", {"x": np.arange(5)}, "x", [])
        >>> fs.split_by_condition({"low": {"x": LTE(2)}, "high": {"x": GT(2)}})
        >>> len(fs["low"]), len(fs["high"])
        (3, 2)
    """

    def __init__(self, **conditions: Mapping[Any, Any]) -> None:
        if not conditions:
            raise ValueError("ConditionSplitter needs at least one split name with its conditions")
        self.conditions = {name: dict(columns) for name, columns in conditions.items()}

    def split(self, view: Any, *, return_views: bool = True) -> dict[str, Any]:
        """The parts of a view.

        Raises:
            ValueError: Unknown column.
            TypeError: A scalar or list for a column whose samples are not scalars.
        """
        parts = {name: np.flatnonzero(view.meets(columns)) for name, columns in self.conditions.items()}
        return self._answer(view, parts, return_views)

    def _arguments(self) -> dict[str, Any]:
        return {"conditions": {name: dict(columns) for name, columns in self.conditions.items()}}

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> Self:
        return cls(**arguments["conditions"])

    def artifact_config(self) -> dict[str, Any]:
        """The config with lambdas as text.

        Raises:
            ValueError: The text of a lambda cannot be found; use ``Lambda``.
        """
        config = self.get_config()
        for columns in config["conditions"].values():
            for column, condition in columns.items():
                if isinstance(condition, set | frozenset):
                    columns[column] = sorted(condition)
                elif getattr(condition, "__name__", "") == "<lambda>" and not isinstance(condition, Predicate):
                    columns[column] = Lambda(lambda_source(condition))
        return config
