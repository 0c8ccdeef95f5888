"""Artifacts: single files that hold one object, read without running anything they bring."""

from keydnn.experiment.io.archive import ArchiveFolder, in_folder, to_json
from keydnn.experiment.io.artifact import (
    ArtifactReader,
    Saved,
    artifact_members,
    artifact_path,
    inspect_packaged_code,
    load_artifact,
    save_artifact,
)
from keydnn.experiment.io.checkpoint import Checkpoint
from keydnn.experiment.io.classes import SerializationPolicy
from keydnn.experiment.io.migrations import migration_registry
from keydnn.experiment.io.values import Encoder, lambda_source
from keydnn.experiment.io.yaml_face import InYaml, from_yaml, to_yaml

__all__ = [
    "ArchiveFolder",
    "ArtifactReader",
    "Checkpoint",
    "Encoder",
    "InYaml",
    "Saved",
    "SerializationPolicy",
    "artifact_members",
    "artifact_path",
    "from_yaml",
    "in_folder",
    "inspect_packaged_code",
    "lambda_source",
    "load_artifact",
    "migration_registry",
    "save_artifact",
    "to_json",
    "to_yaml",
]
