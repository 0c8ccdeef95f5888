"""Feature sets in files: the table as Arrow, splits as row numbers, fitted scalers as they are; loading fits nothing."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import collection_file
from keydnn.experiment.data.absent_collection import AbsentCollection
from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.fingerprint import fingerprint
from keydnn.experiment.data.row_ids import RowIds, checked_uuids
from keydnn.experiment.equality import same_arrays
from keydnn.experiment.errors import ArtifactError, SampleLoadError
from keydnn.experiment.io import ArtifactReader, Encoder, save_artifact
from keydnn.experiment.io.archive import to_json
from keydnn.experiment.io.values import read_npy
from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS, METADATA_UUID_KEY, REP_TRANSFORMED
from keydnn.experiment.scalers import ScalerRecord
from keydnn.experiment.splitters import SplitterRecord
from keydnn.experiment.uuids import check_uuid_key

TABLE = "sample_collection.arrow"
SCHEMA, UUIDS = "sample_schema.arrow", "sample_uuids.arrow"  # of a set without its values
N_SAMPLES, FINGERPRINT = "keydnn.n_samples", "keydnn.fingerprint"
SPLITS = "split_configs.json"
Data = Callable[[str], SampleCollection]  # label of a feature set to its samples
log = logging.getLogger("keydnn")


def save(fs: Any, filepath: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Write a feature set; see ``FeatureSet.save``."""
    return save_artifact(fs, filepath, "fs", overwrite=overwrite, members=members_of(fs))


def members_of(fs: Any, *, include_data: bool = True) -> dict[str, Any]:
    """The members that stand for the state of a feature set.

    Args:
        fs: The feature set.
        include_data: Whether values are among them; else schema, ids and fingerprint stand for the samples.

    Raises:
        SampleLoadError: The values are wanted, and are not here.
    """
    state = fs.get_state()
    encoder = Encoder()
    members: dict[str, Any] = {TABLE: _ipc(fs.collection.stored_table())} if include_data else _absent_members(fs.collection)
    splits: list[dict[str, Any]] = []
    for i, name in enumerate(fs.available_splits):
        member = f"splits/{i:04d}.npy"
        splits.append({"name": name, "rows": member, "parent": fs.split_registry.parent(name)})
        members[member] = _npy(state["splits"]["rows"][name])
    for i, record in enumerate(state["splitter_records"]):
        members[f"splitter_records/{i:04d}.json"] = to_json(encoder.encode(_record_config(record)))
    for i, record in enumerate(state["scaler_records"]):
        told = {**record.get_config(), "scaler_obj": record.scaler_obj}
        members[f"scaler_records/{i:04d}.json"] = to_json(encoder.encode(told))
    told = {"splits": splits, "label_classes": state["label_classes"]}
    members[SPLITS] = to_json(encoder.encode(told))
    return {**encoder.members, **members}


def _absent_members(collection: SampleCollection) -> dict[str, Any]:
    absent = AbsentCollection.of(collection)
    ids = absent.ids
    told = {N_SAMPLES: str(ids.n), METADATA_UUID_KEY: f"{ids.key:032x}", FINGERPRINT: absent.told_fingerprint}
    members = {SCHEMA: _ipc(absent.schema_table.replace_schema_metadata(told))}
    if ids.stored is not None:
        members[UUIDS] = _ipc(pa.table({DOMAIN_SAMPLE_UUIDS: ids.stored}))
    return members


def _record_config(record: SplitterRecord) -> dict[str, Any]:
    return record.get_config()


def _ipc(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def load(cls: Any, filepath: str | os.PathLike[str], *, allow_packaged_code: bool, overwrite: bool) -> Any:
    """Read a feature set; see ``FeatureSet.load``."""
    with ArtifactReader(filepath, "fs", allow_packaged_code=allow_packaged_code) as reader:
        made = read(cls, reader)
    return registered(made, overwrite)


def read(cls: Any, reader: ArtifactReader, data: Data | None = None) -> Any:
    """The feature set in an opened artifact, not registered.

    Args:
        cls: What it is made of.
        reader: The artifact.
        data: Where a set that was written without its values, named by its label, gets them from; None leaves it without.

    Raises:
        ArtifactError: A damaged or hostile file, or other values than those the set had.
    """
    label, node_id = reader.config["label"], reader.config["node_id"]
    samples = _samples_in(reader.archive)
    if data is not None and isinstance(samples, AbsentCollection):
        samples = _fetched(samples, data(label), label)
    made = cls(label, samples, node_id=node_id, register=False)
    state = made.get_state()
    state.update(_records(reader, samples))
    made.set_state(state)
    if not isinstance(samples, AbsentCollection):
        _check_transformed(made, reader.archive.path)
    return made


def _fetched(absent: AbsentCollection, found: SampleCollection, label: str) -> SampleCollection:
    if fingerprint(found) != absent.told_fingerprint:
        raise ArtifactError(f"the values of feature set {label!r} have the fingerprint {fingerprint(found)}, not {absent.told_fingerprint}")
    return found


def facts(archive: Any) -> dict[str, Any]:
    """``n_samples``, ``columns`` and ``fingerprint`` of the feature set in an archive."""
    samples = _samples_in(archive)
    told = samples.told_fingerprint if isinstance(samples, AbsentCollection) else fingerprint(samples)
    return {"n_samples": samples.n_samples, "columns": samples.names()[:-1], "fingerprint": told}


def _samples_in(archive: Any) -> SampleCollection:
    """The samples in an archive, with or without their values.

    Raises:
        ArtifactError: They cannot be read.
    """
    try:
        return _absent(archive) if SCHEMA in archive.names else SampleCollection.from_arrow(archive.read(TABLE), str(archive.path))
    except SampleLoadError as error:
        raise ArtifactError(str(error)) from error


def _absent(archive: Any) -> AbsentCollection:
    name = str(archive.path)
    with collection_file.readable(name):
        table = collection_file.read(archive.read(SCHEMA), trusted=False)
        told = table.schema.metadata or {}
        n, key = int(told[N_SAMPLES.encode()]), collection_file.uuid_key_of(table)
        stored = None
        if UUIDS in archive.names:
            stored = checked_uuids(collection_file.read(archive.read(UUIDS), trusted=False)[DOMAIN_SAMPLE_UUIDS])
        if n < 0 or table.num_rows or (stored is not None and len(stored) != n):
            raise ValueError(f"{n} samples are told, and {table.num_rows} rows and {0 if stored is None else len(stored)} ids are there")
        return AbsentCollection(table, RowIds(n, check_uuid_key(key), stored), told[FINGERPRINT.encode()].decode())


def _records(reader: ArtifactReader, samples: SampleCollection) -> dict[str, Any]:
    told = reader.json(SPLITS)
    rows = {split["name"]: read_npy(reader.archive.read(split["rows"]), split["rows"]) for split in told["splits"]}
    for name, numbers in rows.items():
        if (
            numbers.ndim != 1
            or numbers.dtype != np.int64
            or (len(numbers) and not -1 <= numbers.min() <= numbers.max() < samples.n_samples)
        ):
            raise ArtifactError(f"{reader.archive.path}: split {name!r} holds row numbers that are not there")
    parents = {split["name"]: split["parent"] for split in told["splits"]}
    names = sorted(reader.archive.names)
    splitters = [reader.json(name) for name in names if name.startswith("splitter_records/")]
    scalers = [ScalerRecord(**reader.json(name)) for name in names if name.startswith("scaler_records/")]
    if unfitted := [record.order for record in scalers if not record.scaler_obj.is_fit]:
        raise ArtifactError(f"{reader.archive.path}: the scalers of the records {unfitted} were never fitted")
    return {
        "splits": {"rows": rows, "parents": parents},
        "splitter_records": [SplitterRecord(**record) for record in splitters],
        "scaler_records": scalers,
        "label_classes": told["label_classes"],
    }


def _check_transformed(fs: Any, path: Path) -> None:
    """Warn if stored transformed values are not what the stored scalers give."""
    for domain in fs.collection.available_domains:
        keys = [key for key in fs.collection.schema.domain_keys(domain) if REP_TRANSFORMED in fs.collection.schema.rep_keys(domain, key)]
        replayed = fs.replayed(domain, keys)
        for key in keys:
            stored = fs.collection.array(f"{domain}.{key}.{REP_TRANSFORMED}")
            if key in replayed and not same_arrays(stored, replayed[key].reshape(stored.shape)):
                warnings.warn(
                    f"{path}: {domain}.{key}.{REP_TRANSFORMED} is not what the stored scalers give; the stored values are kept",
                    UserWarning,
                    stacklevel=4,
                )


def registered(made: Any, overwrite: bool) -> Any:
    """Register a loaded set: an identical one is returned instead, another one with its id gives it a new id."""
    ctx = ExperimentContext.get_active()
    known = ctx.available_nodes.get(made.node_id)
    if known is not None and not overwrite:
        if type(known) is type(made) and known == made:
            return known
        made = made.with_new_id()
        log.info("a node with the id of the loaded feature set %r is registered; the loaded one gets the id %s", made.label, made.node_id)
    policy = "overwrite" if overwrite else ctx.registration_policy
    with ctx.use_policy(policy):
        ctx.register_experiment_node(made, check_label_collision=overwrite)
    return made
