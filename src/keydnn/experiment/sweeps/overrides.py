"""Overrides: one value in the document of an experiment, named by the way to it.

seed    model_graph.optimizer.opt_kwargs.lr    model_graph.nodes.net.model_kwargs.hidden_dim    phases.train.n_epochs
Items of lists are named by their label, or by their number.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_NAMES = ("node_name", "label")  # keys by which items of lists are known


def overridden(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A document with other values.

    Args:
        document: Plain values; it stays as it is.
        overrides: Way to value; the last word of a way may be new.

    Raises:
        ValueError: A way that leads nowhere.

    Example:
        >>> from keydnn.experiment.sweeps.overrides import overridden
        >>> overridden({"phases": [{"label": "train", "n_epochs": 1}]}, {"phases.train.n_epochs": 5})
        {'phases': [{'label': 'train', 'n_epochs': 5}]}
    """
    made = copy.deepcopy(dict(document))
    for way, value in overrides.items():
        *words, last = way.split(".")
        place: Any = made
        for i, word in enumerate(words):
            place = _inside(place, word, way, words[:i])
        key = _key(place, last, way, words, may_be_new=True)
        place[key] = copy.deepcopy(value)
    return made


def _inside(place: Any, word: str, way: str, before: list[str]) -> Any:
    return place[_key(place, word, way, before)]


def _key(place: Any, word: str, way: str, before: list[str], *, may_be_new: bool = False) -> Any:
    """The key or number that a word means."""
    known: list[str] = []
    if isinstance(place, Mapping):
        if word in place or may_be_new:
            return word
        known = list(map(str, place))
    elif isinstance(place, list):
        for i, item in enumerate(place):
            names = [item[name] for name in _NAMES if name in item] if isinstance(item, Mapping) else []
            if word in names or word == str(i):
                return i
            known += names or [str(i)]
    told = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}" if known else "there is nothing inside"
    raise ValueError(f"override {way!r} leads nowhere: no {word!r} in {'.'.join(before) or 'the experiment'}; {told}")
