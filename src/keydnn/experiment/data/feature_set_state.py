"""What a checkpoint keeps of a feature set: splits, scalers and codes of labels; the values stay in the set and are only recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.fingerprint import fingerprint
from keydnn.experiment.data.scaling import ScalerHistory
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import StateMismatchError
from keydnn.experiment.names import COLUMN_DOMAINS, REP_RAW, REP_TRANSFORMED
from keydnn.experiment.scalers import ScalerRecord
from keydnn.experiment.splitters import SplitterRecord


def told(fs: Any) -> dict[str, Any]:
    """The state as JSON values, tuples, arrays, splitters and scalers."""
    state = fs.get_state()
    return {
        "label": fs.label,
        "fingerprint": fs.fingerprint,
        "raw": _raw(fs.collection),
        "splits": [(name, state["splits"]["rows"][name], fs.split_registry.parent(name)) for name in fs.available_splits],
        "splitter_records": [record.get_config() for record in state["splitter_records"]],
        "scaler_records": [{**record.get_config(), "scaler_obj": record.scaler_obj} for record in state["scaler_records"]],
        "label_classes": state["label_classes"],
    }


def state_of(fs: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    """What ``fs.set_state`` takes, so that the set is as it was when :func:`told` was called.

    Raises:
        StateMismatchError: The set holds other values.
        SampleLoadError: Scalers have to be applied, and the values are not here.
    """
    state: dict[str, Any] = fs.get_state()
    if _unchanged(fs, kept):
        return state
    missing = sorted(set(kept["raw"]) - set(_raw(fs.collection)))
    samples = _samples_of(fs, kept)
    found = None if missing else fingerprint(samples)
    if found != kept["fingerprint"]:
        what = f"no {', '.join(missing)}" if missing else f"fingerprint {found}"
        raise StateMismatchError(f"the checkpoint knows feature set {fs.label!r} by fingerprint {kept['fingerprint']}; here it has {what}")
    history = ScalerHistory([ScalerRecord(**record) for record in kept["scaler_records"]])
    for domain in COLUMN_DOMAINS:
        scaled = {key: None for record in history.records if record.domain == domain for key in record.keys}
        if scaled:
            samples.add_reps(domain, REP_TRANSFORMED, history.replay(samples, domain, list(scaled)))
    rows, parents = ({name: told[i] for name, *told in kept["splits"]} for i in (0, 1))
    return {
        **state,
        "sample_collection": samples,
        "splits": {"rows": rows, "parents": parents},
        "splitter_records": [SplitterRecord(**record) for record in kept["splitter_records"]],
        "scaler_records": history.records,
        "label_classes": kept["label_classes"],
    }


def fingerprint_of(fs: Any, kept: Mapping[str, Any]) -> str:
    """The fingerprint of a set, of the columns that it had when :func:`told` was called."""
    return fs.fingerprint if _raw(fs.collection) == kept["raw"] else fingerprint(_samples_of(fs, kept))


def _samples_of(fs: Any, kept: Mapping[str, Any]) -> SampleCollection:
    found: SampleCollection = fs.collection.select([name for name in fs.collection.names() if _stays(name, kept)])
    return found


def _unchanged(fs: Any, kept: Mapping[str, Any]) -> bool:
    """Whether the set is still as it was; scalers are compared as they were fitted."""
    now = told(fs)
    scalers = [ScalerRecord(**record) for record in kept["scaler_records"]]
    return fs.scaler_records == scalers and all(
        same_values(now[name], kept[name]) for name in kept if name not in ("scaler_records", "splitter_records", "label")
    )


def _raw(samples: SampleCollection) -> list[str]:
    return [name for name in samples.names() if name.endswith(f".{REP_RAW}")]


def _stays(name: str, kept: Mapping[str, Any]) -> bool:
    """Raw columns that were there, and what the user added; what scalers made is made again."""
    if name.endswith(f".{REP_RAW}"):
        return name in kept["raw"]
    base = f"{name.rpartition('.')[0]}.{REP_RAW}"
    return not name.endswith(f".{REP_TRANSFORMED}") and (base in kept["raw"])
