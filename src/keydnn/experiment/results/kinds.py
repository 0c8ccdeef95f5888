"""Which class of results a state belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

KINDS: dict[str, type] = {}


def result_kind(name: str) -> Callable[[type], type]:
    """Class decorator: states of the class say ``kind: name``."""

    def noted(cls: type) -> type:
        KINDS[name] = cls
        return cls

    return noted


def kind_of(results: Any) -> str:
    """The kind of results.

    Raises:
        TypeError: They are none.
    """
    for name, cls in KINDS.items():
        if type(results) is cls:
            return name
    raise TypeError(f"results of a phase or of a group are expected, got {type(results).__name__}")


def results_from_state(state: Mapping[str, Any]) -> Any:
    """Results of a phase or a group, as they were when :func:`~keydnn.experiment.results.state.results_state` told of them.

    Feature sets are those of the active context; what needs their columns waits until they are there.

    Raises:
        ValueError: A state of no known kind.
    """
    if state.get("kind") not in KINDS:
        raise ValueError(f"results of kind {state.get('kind')!r} are not known; expected one of {', '.join(KINDS)}")
    made: Any = KINDS[state["kind"]](state["label"])
    made.set_state(state)
    return made
