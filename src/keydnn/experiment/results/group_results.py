"""PhaseGroupResults: the results of a group of phases, as a tree like the group itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from keydnn.experiment.optional import need
from keydnn.experiment.results.kinds import kind_of, result_kind, results_from_state
from keydnn.experiment.results.pass_results import EvalResults, FitResults
from keydnn.experiment.results.phase_results import PhaseResults
from keydnn.experiment.results.train_results import TrainResults

T = TypeVar("T", bound="PhaseResults | PhaseGroupResults")


@result_kind("group")
class PhaseGroupResults:
    """Results of phases and of groups of phases, in order.

    Iteration goes over the results, as in a list; labels and positions both find one.

    Args:
        label: Of the group.

    Example:
        >>> from keydnn.experiment.results import PhaseGroupResults, TrainResults
        >>> results = PhaseGroupResults("plan")
        >>> results.add_result(TrainResults("pretrain"))
        >>> results.get_train_result(), results["pretrain"] is results[0], "pretrain" in results
        (TrainResults(label='pretrain', epochs=0), True, True)
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._results: dict[str, PhaseResults | PhaseGroupResults] = {}

    def add_result(self, result: PhaseResults | PhaseGroupResults) -> None:
        """Add results at the end.

        Raises:
            TypeError: Neither those of a phase nor of a group.
            ValueError: The label is there already.
        """
        if not isinstance(result, PhaseResults | PhaseGroupResults):
            raise TypeError(f"results of a phase or of a group are expected, got {type(result).__name__}")
        if result.label in self._results:
            raise ValueError(f"group {self.label!r} has results {result.label!r} already")
        self._results[result.label] = result

    # -- this level

    @property
    def labels(self) -> list[str]:
        """Labels of this level."""
        return list(self._results)

    @property
    def phase_results(self) -> dict[str, PhaseResults]:
        """Results of the phases of this level by label."""
        return {label: one for label, one in self._results.items() if isinstance(one, PhaseResults)}

    @property
    def group_results(self) -> dict[str, PhaseGroupResults]:
        """Results of the groups of this level by label."""
        return {label: one for label, one in self._results.items() if isinstance(one, PhaseGroupResults)}

    def __getitem__(self, label: str | int) -> Any:
        if isinstance(label, int):
            return list(self._results.values())[label]
        return self._labelled(label)

    def _labelled(self, label: str) -> PhaseResults | PhaseGroupResults:
        if label in self._results:
            return self._results[label]
        inside = [name for name, group in self.group_results.items() if label in group.labels]
        hint = f"; it stands in group {inside[0]!r}: get_group_result({inside[0]!r})" if inside else ""
        raise KeyError(f"group {self.label!r} has no results {label!r}; there are {', '.join(self._results) or 'none'}{hint}")

    def __contains__(self, label: object) -> bool:
        return label in self._results if isinstance(label, str) else any(one is label for one in self._results.values())

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[PhaseResults | PhaseGroupResults]:
        return iter(self._results.values())

    def items(self) -> list[tuple[str, PhaseResults | PhaseGroupResults]]:
        """Pairs of label and results of this level."""
        return list(self._results.items())

    def get_phase_result(self, label: str) -> PhaseResults:
        """Results of a phase.

        Raises:
            KeyError: No such label.
            TypeError: They are those of a group.
        """
        return self._typed(label, PhaseResults)

    def get_train_result(self, label: str | None = None) -> TrainResults:
        """Results of a training phase; without a label those of the only one.

        Raises:
            ValueError: No label, and none or several.
            KeyError: No such label.
            TypeError: They are of another kind.
        """
        return self._typed(label, TrainResults)

    def get_eval_result(self, label: str | None = None) -> EvalResults:
        """Results of an evaluation; see :meth:`get_train_result`."""
        return self._typed(label, EvalResults)

    def get_fit_result(self, label: str | None = None) -> FitResults:
        """Results of a fit; see :meth:`get_train_result`."""
        return self._typed(label, FitResults)

    def get_group_result(self, label: str | None = None) -> PhaseGroupResults:
        """Results of a group; see :meth:`get_train_result`."""
        return self._typed(label, PhaseGroupResults)

    def _typed(self, label: str | None, kind: type[T]) -> T:
        if label is None:
            found = [one for one in self._results.values() if isinstance(one, kind)]
            if len(found) != 1:
                told = ", ".join(repr(one.label) for one in found) or "none"
                raise ValueError(f"group {self.label!r} needs exactly one {kind.__name__} to be asked without a label, there are: {told}")
            return found[0]
        one = self._labelled(label)
        if not isinstance(one, kind):
            raise TypeError(f"{label!r} of group {self.label!r} is a {type(one).__name__}, not a {kind.__name__}")
        return one

    # -- state

    def get_state(self) -> dict[str, Any]:
        """The states of all results, in order; also while a phase is half done."""
        return {"kind": kind_of(self), "label": self.label, "results": [one.get_state() for one in self]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take back :meth:`get_state`; results that are here already under their label take theirs.

        Raises:
            ValueError: The state of results of another kind.
        """
        if state["kind"] != kind_of(self):
            raise ValueError(f"group {self.label!r} holds results of kind {kind_of(self)!r}, the state is of kind {state['kind']!r}")
        found = {}
        for told in state["results"]:
            one = self._results.get(told["label"])
            if one is not None and kind_of(one) == told["kind"]:
                one.set_state(told)
            else:
                one = results_from_state(told)
            found[one.label] = one
        self.label, self._results = state["label"], found

    # -- all levels

    def flatten(self) -> dict[str, PhaseResults]:
        """Label to the results of every phase of every level, in order.

        Raises:
            ValueError: Two phases have one label.
        """
        found: dict[str, PhaseResults] = {}
        for one in self._results.values():
            for phase in one.flatten().values() if isinstance(one, PhaseGroupResults) else [one]:
                if phase.label in found:
                    raise ValueError(f"group {self.label!r} has two phases {phase.label!r}: ask its groups one by one")
                found[phase.label] = phase
        return found

    def to_pandas(self) -> Any:
        """The metrics of all phases as a frame with columns phase (labels joined by "/"), name, epoch, batch and value.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = need("pandas", "to_pandas()")
        parts = []
        for path, phase in self._paths():
            frame = phase.to_pandas()
            frame.insert(0, "phase", path)
            parts.append(frame)
        filled = [frame for frame in parts if len(frame)]
        return (
            pandas.concat(filled, ignore_index=True) if filled else pandas.DataFrame(columns=["phase", "name", "epoch", "batch", "value"])
        )

    def _paths(self) -> Iterator[tuple[str, PhaseResults]]:
        for label, one in self._results.items():
            if isinstance(one, PhaseResults):
                yield label, one
            else:
                yield from ((f"{label}/{path}", phase) for path, phase in one._paths())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(label={self.label!r}, results={self.labels})"
