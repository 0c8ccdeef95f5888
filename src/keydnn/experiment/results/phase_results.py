"""PhaseResults: what a phase left behind, asked for by node, epoch and batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import to_backend
from keydnn.experiment.contracts import ICallbackResult
from keydnn.experiment.data import DataFormat, ExecutionContext, FeatureSetView
from keydnn.experiment.data.formats import backend_of_format
from keydnn.experiment.data.sample_data import Deferred
from keydnn.experiment.names import DOMAIN_OUTPUTS, DOMAIN_SAMPLE_UUIDS, DOMAIN_TARGETS, ROLE_DEFAULT
from keydnn.experiment.phases.recording import RECORDABLE, ResultRecording, bytes_per_sample, warn_if_large
from keydnn.experiment.results.contexts import ContextStore, Place
from keydnn.experiment.results.disk_stores import StoredArtifacts, StoredCallbacks, StoredMetrics, callback_entries
from keydnn.experiment.results.folders import PhaseFolder
from keydnn.experiment.results.kinds import kind_of, result_kind
from keydnn.experiment.results.nodes import NodeTable
from keydnn.experiment.results.phase_state import parts_from_state, phase_state
from keydnn.experiment.results.segments import EpochSteps
from keydnn.experiment.results.series import (
    ArtifactSeries,
    BatchSeries,
    CallbackSeries,
    ContextSeries,
    LossSeries,
    MetricSeries,
    TensorSeries,
)
from keydnn.experiment.results.shelf import Shelf
from keydnn.experiment.results.stores import ArtifactStore, MetricStore
from keydnn.experiment.results.unscaling import Unscaler, rows_used
from keydnn.experiment.series import Later


@result_kind("phase")
@dataclass(repr=False, eq=False)
class PhaseResults:
    """Steps, metrics, callback results and artifacts of a phase.

    A ``node`` is given by itself, its id or its label; one that did not run in a step is absent from its series.  Nothing here needs the
    context of the run to be active.  Objects of steps are made when they are asked for, from one tensor per epoch and output.

    Args:
        label: Of the phase.
        context_store: Recorded steps.
        callback_results: What callbacks returned.
        metric_store: Metrics.
        artifact_store: Artifacts.

    Example:
        >>> from keydnn.experiment.results import PhaseResults
        >>> results = PhaseResults("train")
        >>> results.metric_store.log(name="train_loss", value=0.5, epoch_idx=0, batch_idx=1)
        >>> results.metrics().where(name="train_loss").to_pandas()
                 name  epoch  batch  value
        0  train_loss      0      1    0.5
    """

    label: str
    context_store: ContextStore = field(default_factory=ContextStore)
    callback_results: list[Any] | StoredCallbacks = field(default_factory=list)
    metric_store: MetricStore = field(default_factory=MetricStore)
    artifact_store: ArtifactStore = field(default_factory=ArtifactStore)
    nodes: NodeTable = field(default_factory=NodeTable)
    _folder: PhaseFolder | None = field(default=None, init=False)

    # -- recording

    def start_recording(
        self,
        recording: ResultRecording | str = ResultRecording.ALL,
        *,
        keep: Any = None,
        graph: Any = None,
        active_nodes: Any = None,
        n_epochs: int = 1,
        n_samples: int = 0,
    ) -> None:
        """A phase begins.

        Args:
            recording: Which epochs stay.
            keep: Domains that are recorded, of outputs, targets, tags and sample_uuids; None keeps all.
            graph: The graph, whose labels, connections and scaler records are noted; None looks nodes up in the active context.
            active_nodes: Nodes that run, for the estimate of what recording takes; None means all of the graph.
            n_epochs: Epochs, for the estimate.
            n_samples: Samples of an epoch, for the estimate.

        Raises:
            ValueError: An unknown mode or domain, or steps are recorded already and would be kept differently.

        Warns:
            UserWarning: The outputs will take more than 1 GiB.
        """
        fresh = ContextStore(recording, keep, self.context_store.shelf)
        if len(self.context_store) and (fresh.recording, fresh.keep) != (self.context_store.recording, self.context_store.keep):
            raise ValueError(f"{self.label!r} holds steps recorded as {self.context_store.recording.value!r}; use new results")
        if not len(self.context_store):
            self.context_store = fresh
        if graph is None:
            return
        self.nodes.learn_graph(graph)
        if fresh.keep is None or DOMAIN_OUTPUTS in fresh.keep:
            size = bytes_per_sample(graph.executed_nodes(active_nodes))
            warn_if_large(fresh.recording, n_epochs=n_epochs, n_samples=n_samples, bytes_per_sample=size)

    @property
    def records_steps(self) -> bool:
        """Whether steps are recorded at all."""
        return self.context_store.records_steps

    @property
    def keeps_outputs(self) -> bool:
        """Whether outputs of steps are recorded."""
        return self.context_store.records_steps and self.context_store.keeps_outputs

    def start_epoch(self, epoch: int) -> None:
        """An epoch begins: the one before is packed and, of the mode ``LAST``, let go."""
        self.context_store.start_epoch(epoch)
        self.metric_store.settle()
        self._put_away()

    def keep_epoch(self, epoch: int | None) -> None:
        """Of the mode ``LAST``: this epoch is the best so far, and stays instead of the last one."""
        self.context_store.keep_epoch(epoch)

    def finish(self) -> None:
        """The phase is over: what is open is packed."""
        self.context_store.finish()
        self.metric_store.settle()
        self._put_away()

    def write_to(self, folder: PhaseFolder) -> None:
        """Write what is recorded to disk, an epoch when it is over, artifacts at once; queries read it from there.

        Args:
            folder: Where, and what.
        """
        parts = {name: getattr(self, name) for name in ("metric_store", "artifact_store", "callback_results")}
        if folder.execution is not None:
            self.context_store.shelf = Shelf(folder.execution)
            self.context_store.put_away()
        if folder.metrics is not None:
            self.metric_store = StoredMetrics(folder.metrics)
            self.metric_store.extend(parts["metric_store"].get_state())
        if folder.artifacts is not None:
            self.artifact_store = StoredArtifacts(folder.artifacts)
            for entry in parts["artifact_store"]:
                self.artifact_store.add(entry)
        if folder.callbacks is not None:
            self.callback_results = StoredCallbacks(folder.callbacks, self.artifact_store)
            for one in parts["callback_results"]:
                self.callback_results.append(one)
        self._folder = folder
        self._put_away()

    def _put_away(self) -> None:
        for store in (self.metric_store, self.callback_results):
            if isinstance(store, StoredMetrics | StoredCallbacks):
                store.put_away()

    def add_execution_context(self, ctx: ExecutionContext) -> None:
        """Record a step: copies of its outputs without history, its losses, and which rows it read; its inputs are not kept.

        Raises:
            TypeError: Something other than an ExecutionContext.
            ValueError: The batch of this epoch is recorded already.
        """
        if self.context_store.add(ctx) and not self.nodes.knows(ctx):
            self.nodes.learn(ctx)

    def add_steps(self, steps: EpochSteps) -> None:
        """Record the steps of an epoch that ran in one call.

        Raises:
            ValueError: A batch of this epoch is recorded already.
        """
        self.context_store.add_steps(steps)
        if self.context_store.records_steps and len(steps):
            ctx = Place(steps, 0).context()
            if not self.nodes.knows(ctx):
                self.nodes.learn(ctx)

    def add_callback_result(self, res: Any) -> None:
        """Keep what a callback returned.

        Raises:
            TypeError: No callback result: it does not say of which kind and callback it is, and when it came.
        """
        if not isinstance(res, ICallbackResult):
            raise TypeError(
                f"a callback result is expected, with kind, callback_label, epoch_idx, batch_idx and edge; got {type(res).__name__}"
            )
        self.callback_results.append(res)

    # -- state

    def get_state(self) -> dict[str, Any]:
        """Everything, as plain values and arrays; also while a phase is half done.

        Warns:
            UserWarning: Something a callback left behind cannot be written and is left out.
        """
        return {"kind": kind_of(self), "label": self.label, **phase_state(self)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take back :meth:`get_state`: queries give the same answers, and recording goes on as if nothing had happened.

        Feature sets are those of the active context; what needs their columns waits until they are there.

        Raises:
            ValueError: The state of results of another kind.
        """
        if state["kind"] != kind_of(self):
            raise ValueError(f"{self.label!r} holds results of kind {kind_of(self)!r}, the state is of kind {state['kind']!r}")
        self.__dict__.update(parts_from_state(state), label=state["label"])
        if self._folder is not None:
            self.write_to(self._folder)

    # -- asking

    def _checked(self, node: Any) -> str:
        return self.nodes.id_of(node)

    def _places(self, node_id: str, epoch: int | None = None, batch: int | None = None) -> Iterator[Place]:
        for place in self.context_store.places(epoch=epoch, batch=batch):
            if place.frame.node(node_id) is not None:
                yield place

    def execution_contexts(self) -> ContextSeries:
        """Steps by epoch and batch; their ``inputs`` are empty."""
        places = self.context_store.places()
        return ContextSeries(("epoch", "batch"), {(place.epoch, place.batch): Later(place.context) for place in places})

    def batches(self, node: Any) -> BatchSeries:
        """Output batches of a node by epoch and batch.

        Raises:
            KeyError: Unknown node.
        """
        node_id = self._checked(node)
        found = {(place.epoch, place.batch): Later(place.output, node_id) for place in self._places(node_id)}
        return BatchSeries(("epoch", "batch"), found)

    def tensors(
        self, node: Any, domain: str, *, role: str = ROLE_DEFAULT, fmt: DataFormat | str | None = None, unscale: bool = False
    ) -> TensorSeries:
        """Tensors of a node by epoch and batch.

        Args:
            node: The node.
            domain: "outputs", "targets", "tags" or "sample_uuids".
            role: Which samples of a step.
            fmt: Tensor-like format; None keeps the framework.
            unscale: Undo the scaling of targets and, of a node that no other reads, of outputs, which are taken to be in the units of its
                targets; columns that were never scaled, tags, ids and outputs inside the graph stay as they are.

        Raises:
            KeyError: Unknown node, domain or role.
            ValueError: A format that is not tensor-like; or, to unscale, no feature set upstream, or shapes that do not fit its columns.
            RuntimeError: To unscale: several feature sets upstream.
        """
        if domain not in RECORDABLE:
            raise KeyError(f"unknown domain {domain!r}; expected one of {', '.join(RECORDABLE)}")
        backend = None if fmt is None else backend_of_format(DataFormat.from_value(fmt))
        node_id = self._checked(node)
        wanted = unscale and (domain == DOMAIN_TARGETS or (domain == DOMAIN_OUTPUTS and self.nodes.is_tail(node_id)))
        unscaler = Unscaler(self.nodes, node_id) if wanted else None
        found: dict[tuple[int, int], Later] = {}
        roles: set[str] = set()
        for place in self._places(node_id):
            frame = place.frame.node(node_id)
            assert frame is not None
            roles.update(one.role for one in frame.roles)
            if _stored(place, node_id, role, domain) is not None:
                found[place.epoch, place.batch] = Later(_tensor, place, node_id, role, domain, backend, unscaler)
        if roles and role not in roles:
            raise KeyError(f"node {self.nodes.name_of(node_id)!r} has no role {role!r}; there are {', '.join(sorted(roles))}")
        return TensorSeries(("epoch", "batch"), found)

    def losses(self, node: Any) -> LossSeries:
        """LossRecords of a node by epoch, batch and label.

        Raises:
            KeyError: Unknown node.
        """
        node_id = self._checked(node)
        found = {}
        for place in self.context_store.places():
            for record in place.records():
                if record.node_id == node_id:
                    found[place.epoch, place.batch, record.label] = record
        return LossSeries(("epoch", "batch", "label"), found)

    def metrics(self) -> MetricSeries:
        """Metrics by name, epoch and batch (None for a whole epoch)."""
        return self.metric_store.series()

    def metric_names(self) -> list[str]:
        """Names of the metrics."""
        return self.metric_store.names

    def callbacks(self, *, kind: str | None = None) -> CallbackSeries:
        """Callback results by kind, label, epoch, batch and edge.

        Args:
            kind: Only this kind: "payload", "metric", "artifact", "evaluation" or "early_stopping".
        """
        axes = ("kind", "label", "epoch", "batch", "edge")
        return CallbackSeries(axes, {key: one for key, one in callback_entries(self.callback_results) if kind is None or key[0] == kind})

    def artifacts(self) -> ArtifactSeries:
        """Artifacts by name, epoch and batch; an entry loads its object when it is first asked for."""
        return self.artifact_store.series()

    def artifact_names(self) -> list[str]:
        """Names of the artifacts."""
        return self.artifact_store.names

    def source_views(
        self, node: Any, *, role: str = ROLE_DEFAULT, epoch: int | None = None, batch: int | None = None
    ) -> dict[str, FeatureSetView]:
        """The distinct rows that were read for a node, with all columns, by feature-set label.

        Args:
            node: The node; what its upstream nodes read counts.
            role: Which samples of a step.
            epoch: Only this epoch.
            batch: Only this batch.

        Raises:
            KeyError: Unknown node or role.
        """
        return self._views(node, role, epoch, batch)

    def source_view(self, node: Any, *, role: str = ROLE_DEFAULT, epoch: int | None = None, batch: int | None = None) -> FeatureSetView:
        """:meth:`source_views` of the only feature set.

        Raises:
            KeyError: Unknown node or role.
            ValueError: Rows of no or of several feature sets were read.
        """
        return self._only_view(node, self._views(node, role, epoch, batch))

    def _views(self, node: Any, role: str, epoch: int | None = None, batch: int | None = None) -> dict[str, FeatureSetView]:
        node_id = self._checked(node)
        return rows_used([place.frame for place in self._places(node_id, epoch, batch)], self.nodes.heads(node_id), role)

    def _only_view(self, node: Any, views: dict[str, FeatureSetView]) -> FeatureSetView:
        if len(views) != 1:
            name = self.nodes.name_of(self._checked(node))
            told = ", ".join(views) or "none"
            raise ValueError(f"source_view needs rows of exactly one feature set upstream of {name!r}, there are: {told}; use source_views")
        return next(iter(views.values()))

    def to_pandas(self) -> Any:
        """The metrics as a frame with columns name, epoch, batch and value.

        Raises:
            ImportError: pandas is not installed.
        """
        return self.metric_store.to_pandas()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(label={self.label!r})"


def _stored(place: Place, node_id: str, role: str, domain: str) -> Any:
    """The tensor of a step as it is held; None if there is none."""
    if domain == DOMAIN_OUTPUTS:
        return place.segment.features((node_id, role), place.i)
    frame = place.frame.node(node_id)
    assert frame is not None
    return next((dict(one.domains).get(domain) for one in frame.roles if one.role == role), None)


def _tensor(place: Place, node_id: str, role: str, domain: str, backend: Backend | None, unscaler: Unscaler | None) -> Any:
    value = _ready(_stored(place, node_id, role, domain))
    if unscaler is not None:
        ids = None if place.frame.views else _ready(_stored(place, node_id, role, DOMAIN_SAMPLE_UUIDS))
        value = unscaler(value, place.frame, role, ids)
    return value if backend is None else to_backend(value, backend)


def _ready(value: Any) -> Any:
    return value.fresh().get() if isinstance(value, Deferred) else value
