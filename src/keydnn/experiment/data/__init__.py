"""Data: samples in named columns, with splits, scalers and batches; Arrow inside, views outside."""

from keydnn.experiment.data.audit import AuditReport, Finding
from keydnn.experiment.data.batch import Batch
from keydnn.experiment.data.batch_view import BatchView, SampledView
from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.execution_context import ExecutionContext
from keydnn.experiment.data.feature_set import FeatureSet
from keydnn.experiment.data.formats import DataFormat
from keydnn.experiment.data.roles import RoleData
from keydnn.experiment.data.sample_data import SampleData, SampleShapes
from keydnn.experiment.data.schema import SampleSchema, build_sample_schema_table
from keydnn.experiment.data.view import FeatureSetView
from keydnn.experiment.names import (
    ALL_DOMAINS,
    ALL_REPS,
    DOMAIN_FEATURES,
    DOMAIN_OUTPUTS,
    DOMAIN_SAMPLE_UUIDS,
    DOMAIN_TAGS,
    DOMAIN_TARGETS,
    INVALID_LABEL_CHARACTERS,
    METADATA_SCHEMA_VERSION_KEY,
    REP_RAW,
    REP_TRANSFORMED,
    ROLE_ANCHOR,
    ROLE_DEFAULT,
    ROLE_NEGATIVE,
    ROLE_PAIR,
    ROLE_POSITIVE,
    SCHEMA_VERSION,
    STREAM_DEFAULT,
)  # fmt: skip

__all__ = [
    "ALL_DOMAINS", "ALL_REPS", "AuditReport", "Batch", "BatchView", "DOMAIN_FEATURES", "DOMAIN_OUTPUTS", "DOMAIN_SAMPLE_UUIDS",
    "DOMAIN_TAGS", "DOMAIN_TARGETS", "DataFormat", "ExecutionContext", "FeatureSet", "FeatureSetView", "Finding",
    "INVALID_LABEL_CHARACTERS", "METADATA_SCHEMA_VERSION_KEY", "REP_RAW", "REP_TRANSFORMED", "ROLE_ANCHOR", "ROLE_DEFAULT",
    "ROLE_NEGATIVE", "ROLE_PAIR", "ROLE_POSITIVE", "RoleData", "SCHEMA_VERSION", "STREAM_DEFAULT", "SampleCollection", "SampleData",
    "SampleSchema", "SampleShapes", "SampledView", "build_sample_schema_table",
]  # fmt: skip
