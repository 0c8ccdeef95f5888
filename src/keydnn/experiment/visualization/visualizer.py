"""Visualizer: Mermaid text of anything that can describe itself as a diagram."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keydnn.experiment.contracts import IDrawable
from keydnn.experiment.optional import need


@dataclass(frozen=True)
class FeatureSetDisplayOptions:
    """What a feature set's diagram shows.

    Attributes:
        show_features: Feature columns.
        show_targets: Target columns.
        show_tags: Tag columns: "root" on the set only, True everywhere, False nowhere.
        show_overlaps: On each split how many rows it shares with others.
        show_shapes: Shapes behind column names.
        show_n_samples: Numbers of rows.
    """

    show_features: bool = True
    show_targets: bool = True
    show_tags: bool | str = "root"
    show_overlaps: bool = True
    show_shapes: bool = True
    show_n_samples: bool = True


@dataclass(frozen=True)
class ModelGraphDisplayOptions:
    """What the diagram of a model graph, or of a phase, shows.

    Attributes:
        show_features: Feature columns, on feature sets and on nodes that read them.
        show_targets: Target columns, there too.
        show_tags: Tag columns, there too.
        show_frozen: Which models do not learn.
        show_splits: Names of the splits, on feature sets.
    """

    show_features: bool = False
    show_targets: bool = False
    show_tags: bool = False
    show_frozen: bool = True
    show_splits: bool = False


class Visualizer:
    """Draws an object.

    Args:
        obj: A FeatureSet, a ModelGraph, a phase, a PhaseGroup, or anything else with a method ``diagram(options)``.
        display_options: What to show: :class:`FeatureSetDisplayOptions` for a feature set, :class:`ModelGraphDisplayOptions` for the
            others; None takes the defaults.

    Raises:
        NotImplementedError: The object cannot be drawn.

    Example:
        >>> from keydnn.experiment.data import FeatureSet
        >>> from keydnn.experiment.visualization import Visualizer
        >>> fs = FeatureSet.from_dict("cells", {"u": [1.0, 2.0]}, "u", [])
        >>> Visualizer(fs).get_mermaid_str().splitlines()[0]
        'flowchart LR'
    """

    def __init__(self, obj: Any, display_options: Any = None) -> None:
        if not isinstance(obj, IDrawable):
            raise NotImplementedError(f"a {type(obj).__name__} cannot be drawn; it has no method diagram(options)")
        self._obj, self._options = obj, display_options

    def get_mermaid_str(self) -> str:
        """The diagram as Mermaid text."""
        return self._obj.diagram(self._options).to_mermaid()

    def mermaid_to_mmd(self, filepath: str | os.PathLike[str]) -> str:
        """Write the text to a file with suffix ``.mmd`` and return its path."""
        path = Path(filepath)
        path = path if path.suffix == ".mmd" else path.with_name(path.name + ".mmd")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.get_mermaid_str(), encoding="utf-8")
        return str(path)

    def display(self) -> None:
        """Draw in a notebook.

        Raises:
            ImportError: IPython is not installed.
        """
        display = need("IPython.display", "drawing a diagram")
        display.display(display.Markdown(f"```mermaid\n{self.get_mermaid_str()}```"))

    def show(self, in_notebook: bool) -> None:
        """Draw in a notebook, print the text elsewhere."""
        if in_notebook:
            self.display()
        else:
            print(self.get_mermaid_str())  # noqa: T201 - what visualize() promises
