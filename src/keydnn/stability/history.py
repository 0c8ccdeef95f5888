"""FitHistory: what an instrumented run logged, one array per metric, with plots and files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keydnn.stability import _history_plots


class FitHistory(dict):
    """Metric name -> float64 array with one value per step.

    Attributes:
        meta: What belongs to the run: seed, versions, arguments, precision map, and the state to resume from.

    Args:
        arrays: The metrics.

    Example:
        >>> from keydnn.stability import FitHistory
        >>> h = FitHistory(loss=[4.0, 1.0], alpha=[1.0, 1.0])
        >>> h
        FitHistory:
          loss: (2,)
          alpha: (2,)
        >>> h.summary()["loss"]
        {'first': 4.0, 'last': 1.0, 'min': 1.0, 'max': 4.0}
    """

    def __init__(self, **arrays: Any) -> None:
        super().__init__({key: np.asarray(value, np.float64) for key, value in arrays.items()})
        self.meta: dict[str, Any] = {}

    def __repr__(self) -> str:
        return "\n".join(["FitHistory:", *(f"  {key}: {np.shape(value)}" for key, value in self.items())])

    @property
    def steps(self) -> int:
        """Number of logged steps."""
        return max((len(value) for value in self.values()), default=0)

    def summary(self) -> dict[str, dict[str, float]]:
        """First, last, smallest and largest finite value of each metric; NaN where there is none."""
        found = {}
        for key, values in self.items():
            finite = values[np.isfinite(values)]
            ends = (values[0], values[-1]) if len(values) else (np.nan, np.nan)
            extremes = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
            found[key] = {name: float(v) for name, v in zip(("first", "last", "min", "max"), (*ends, *extremes), strict=True)}
        return found

    # -- files

    def to_npz(self, path: Any) -> None:
        """Write all arrays, and ``meta`` as JSON text (without the state to resume from)."""
        np.savez(path, __meta__=np.array(json.dumps(self._plain_meta())), **self)

    @classmethod
    def from_npz(cls, path: Any) -> FitHistory:
        """Read what `to_npz` wrote.

        Raises:
            ValueError: The file holds no history.
        """
        with np.load(path, allow_pickle=False) as file:
            if "__meta__" not in file:
                raise ValueError(f"FitHistory.from_npz: {path} holds no history (it has {', '.join(file)})")
            history = cls(**{key: file[key] for key in file if key != "__meta__"})
            history.meta = json.loads(str(file["__meta__"]))
        return history

    def to_json(self, path: Any = None) -> str:
        """The history as JSON text, written to ``path`` if given; NaN and infinities are texts."""
        arrays = {key: [v if np.isfinite(v) else str(v) for v in values.tolist()] for key, values in self.items()}
        text = json.dumps({"meta": self._plain_meta(), "metrics": arrays})
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, text: str) -> FitHistory:
        """From the text of `to_json`."""
        data = json.loads(text)
        history = cls(**{key: [float(v) for v in values] for key, values in data["metrics"].items()})
        history.meta = data["meta"]
        return history

    def to_csv(self, path: Any) -> None:
        """One row per step, one column per metric, all digits."""
        rows = np.column_stack([self[key] for key in self]) if self else np.zeros((0, 0))
        lines = [",".join(["step", *self]), *(",".join([str(i), *map(repr, row)]) for i, row in enumerate(rows.tolist()))]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _plain_meta(self) -> dict[str, Any]:
        return {key: value for key, value in self.meta.items() if key != "state"}

    @classmethod
    def concat(cls, histories: Sequence[FitHistory]) -> FitHistory:
        """The steps of several histories in a row; metrics that one of them lacks are NaN there. ``meta`` is the last one's."""
        keys = list(dict.fromkeys(key for h in histories for key in h))
        joined = cls(**{key: np.concatenate([h.get(key, np.full(h.steps, np.nan)) for h in histories]) for key in keys})
        joined.meta = dict(histories[-1].meta) if histories else {}
        return joined

    # -- plots

    def plot_results(self, title: str | None = None, *, show: bool = True) -> Any:
        """Loss, weight error, gradient, curvature, margin and throttle over the steps.

        Args:
            title: Above the panels.
            show: Whether to show the figure.

        Returns:
            ``(fig, axes)``; a metric that is missing leaves its panel empty.
        """
        return _history_plots.results([("", self)], title, show)

    def plot_quantization(self, others: dict[str, FitHistory] | None = None, title: str | None = None, *, show: bool = True) -> Any:
        """Twelve panels on what finite precision does; several histories can be overlaid.

        Args:
            others: Further histories by label.
            title: Above the panels.
            show: Whether to show the figure.

        Returns:
            ``(fig, axes)``.
        """
        label = str(self.meta.get("label", "this run" if others else ""))
        return _history_plots.quantization([(label, self), *(others or {}).items()], title, show)

    def plot_edge(self, title: str | None = None, *, show: bool = True) -> Any:
        """The edge of stability: curvature relative to the limit of the update rule, above 1 unstable, and the loss.

        Args:
            title: Above the panels.
            show: Whether to show the figure.

        Returns:
            ``(fig, axes)``.
        """
        return _history_plots.edge(self, title, show)

    def plot_phase(self, title: str | None = None, *, show: bool = True) -> Any:
        """Actual against intended updates, as points ``r exp(i beta)``: healthy at 1 on the real axis, lost at 0.

        Args:
            title: Above the plot.
            show: Whether to show the figure.

        Returns:
            ``(fig, ax)``.
        """
        return _history_plots.phase(self, title, show)
