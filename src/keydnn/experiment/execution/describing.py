"""What an artifact holds, told from its JSON alone: no class is looked up, nothing is decoded, no code is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keydnn.experiment.data import feature_set_file
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.execution.experiment_file import FACTS, GRAPH, SETS
from keydnn.experiment.io import ArchiveFolder
from keydnn.experiment.io.archive import CODE, ArchiveReader
from keydnn.experiment.io.artifact import EXTENSION, KINDS, clear_errors
from keydnn.experiment.io.values import read_npy

_NAMES = {
    "fs": "feature set", "sp": "splitter", "sm": "sampler", "sc": "scaler", "smc": "similarity condition", "md": "model",
    "mg": "model graph", "op": "optimizer", "ls": "loss", "ckpt": "checkpoint", "exp": "experiment",
}  # fmt: skip


def describe(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> dict[str, Any]:
    """What a file of any kind holds, as JSON values; see ``keydnn experiment show``.

    Args:
        path: The file.
        max_bytes: Limit of what may be read; None allows four times the file and 1 GiB.

    Returns:
        ``file``, ``bytes``, ``members``, ``header``, ``kind``, ``packaged_code``, ``unsafe_members``, and what the kind brings.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: No artifact, or a damaged or hostile one.
    """
    with ArchiveReader(Path(path), max_bytes=max_bytes) as archive, clear_errors(path):
        return _described(archive)


def _described(archive: ArchiveReader) -> dict[str, Any]:
    told = archive.json("artifact.json")
    header = told.get("header") if isinstance(told, dict) else None
    if not isinstance(header, dict) or header.get("kind") not in KINDS:
        raise ArtifactError(f"{archive.path}: artifact.json names no kind of artifact")
    kind = header["kind"]
    config = archive.json("config.json")
    return {
        "file": str(archive.path),
        "bytes": archive.path.stat().st_size,
        "members": len(archive.names),
        "header": header,
        "kind": _NAMES[kind],
        **_risks(archive),
        **_OF_KIND.get(kind, lambda archive, config: {"config": config})(archive, config),
    }


def _risks(archive: ArchiveReader) -> dict[str, list[str]]:
    """Members that could run code if that were permitted, also of checkpoints inside."""
    names = list(archive.names)
    for name in [name for name in names if name.endswith(f".{EXTENSION}")]:
        with ArchiveReader(archive.read(name), name) as inner:
            names += [f"{name}/{member}" for member in inner.names]
    return {
        "packaged_code": [name for name in names if name.startswith(CODE) or f"/{CODE}" in name],
        "unsafe_members": [name for name in names if "unsafe" in name.split("/")],
    }


# -- kinds ------------------------------------------------------------------------------------------------------------------


def _experiment(archive: ArchiveReader, config: Mapping[str, Any]) -> dict[str, Any]:
    facts = archive.json(FACTS)
    folders = sorted({name.split("/")[1] for name in archive.names if name.startswith(f"{SETS}/")})
    sets = [_feature_set(ArchiveFolder(archive, f"{SETS}/{one}"), None) for one in folders]
    known = {told["node_id"]: told for told in facts["feature_sets"]}
    graph = ArchiveFolder(archive, GRAPH)
    nodes = _graph(graph, graph.json("config.json"))["nodes"] if "config.json" in graph.names else []
    return {
        "label": config["label"],
        "seed": config["seed"],
        "registration_policy": config["registration_policy"],
        "checkpointing": config["checkpointing"],
        "callbacks": [_class_name(one["callback_type"]) for one in config["callbacks"]],
        "feature_sets": [{**one, **known.get(one["node_id"], {})} for one in sets],
        "nodes": nodes,
        "plan": phases_of_config(config["execution_plan"], {node["node_id"]: node["label"] for node in nodes}),
        "runs": facts["runs"],
        "checkpoints": facts["checkpoints"],
    }


def phases_of_config(group: Mapping[str, Any], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The phases and groups in the config of a group, in order.

    Args:
        group: What ``PhaseGroup.get_config`` gives, or that as a file holds it.
        labels: Id to label of the nodes.
    """
    return [_group(item["config"], labels) if item["item_type"] == "group" else _phase(item["config"], labels) for item in group["items"]]


def _group(config: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    return {"label": config["label"], "type": "PhaseGroup", "items": phases_of_config(config, labels)}


def _phase(config: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    chosen = {name: config[name] for name in ("n_epochs", "batch_size", "freeze_after_fit") if config.get(name) is not None}
    return {
        "label": config["label"],
        "type": config["phase_type"],
        "nodes": [labels.get(node_id, node_id) for node_id in config["active_nodes"]],
        "splits": sorted({one["split"] for one in config["input_sources"] if one["split"] is not None}),
        "losses": [one["label"] for one in config["losses"]],
        "callbacks": [_class_name(one["callback_type"]) for one in config["callbacks"]],
        **chosen,
    }


def _graph(archive: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    nodes = [
        {
            "label": node["label"],
            "node_id": node["node_id"],
            "type": node.get("merge_node_type", node["graph_node_type"]),
            "model": _class_name(node["model"]["model_class"]) if "model" in node else None,
            "wraps": _wrapped(node["model"]["init_args"]) if "model" in node else None,
            "backend": node["model"]["backend"] if "model" in node else node.get("backend"),
            "reads": [reference["$object"]["config"]["node_label"] for reference in node["upstream_refs"]],
            "frozen": bool(node.get("frozen")),
            "input_shape": _shape(node.get("model", {}), "input_shape"),
            "output_shape": _shape(node.get("model", node), "output_shape"),
        }
        for node in config["nodes"]
    ]
    return {"label": config["label"], "nodes": nodes}


def _wrapped(arguments: Mapping[str, Any]) -> str | None:
    """The class of an estimator or a tree of modules inside of a wrapper, without its module; None of other models."""
    told = arguments.get("model")
    if not isinstance(told, dict):
        return None
    if "$symbol" in told:
        return _class_name(told).rpartition(".")[2]
    tree = told["$object"]["config"].get("tree") if "$object" in told else None
    return str(tree["module"]["type"]) if isinstance(tree, dict) and "module" in tree else None


def _shape(config: Mapping[str, Any], name: str) -> list[int] | None:
    """A shape of a built model or merge, as JSON says it."""
    told = config.get(name)
    return None if told is None else [int(n) for n in told["$tuple"]]


def _feature_set(archive: Any, config: Mapping[str, Any] | None) -> dict[str, Any]:
    told = archive.json("config.json") if config is None else config
    splits = archive.json(feature_set_file.SPLITS)["splits"]
    found = {
        "label": told["label"],
        "node_id": told["node_id"],
        "has_data": feature_set_file.TABLE in archive.names,
        "splits": {one["name"]: len(read_npy(archive.read(str(one["rows"])), str(one["rows"]))) for one in splits},
        "scalers": sum(name.startswith("scaler_records/") for name in archive.names),
    }
    return found if config is None else {**found, **feature_set_file.facts(archive)}


def _checkpoint(archive: ArchiveReader, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"entries": config["entries"], "meta": archive.json("meta.json")}


def _class_name(told: Any) -> str:
    """What a config calls a class: a registered name, the spec of a class, or the class itself."""
    if isinstance(told, str):
        return told
    if isinstance(told, type):
        return told.__name__
    spec = told["$symbol"]
    return str(spec.get("key") or spec.get("name") or spec.get("qualname"))


_OF_KIND = {"exp": _experiment, "mg": _graph, "fs": _feature_set, "ckpt": _checkpoint}


# -- as text ----------------------------------------------------------------------------------------------------------------


def tree_lines(items: list[dict[str, Any]], above: str = "") -> Iterator[str]:
    """A plan as a tree of text."""
    for i, item in enumerate(items):
        is_last = i == len(items) - 1
        yield f"{above}{'└─ ' if is_last else '├─ '}{_item_text(item)}"
        yield from tree_lines(item.get("items", []), above + ("   " if is_last else "│  "))


def _item_text(item: Mapping[str, Any]) -> str:
    return f"{item['label']} (group)" if "items" in item else f"{item['label']}: {item_facts(item)}"


def item_facts(item: Mapping[str, Any]) -> str:
    """What a phase of a plan does, in a line; of a group that it is one."""
    if "items" in item:
        return "group"
    parts = [item["type"], *(f"{name} {item[name]}" for name in ("n_epochs", "batch_size", "freeze_after_fit") if name in item)]
    parts += [f"{name} {', '.join(item[name])}" for name in ("nodes", "splits", "losses", "callbacks") if item[name]]
    return "; ".join(parts)
