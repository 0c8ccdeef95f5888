"""TrainPhase: epochs of training steps over batches that samplers draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.torch_precision import PRECISION, computing_in
from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.graph.diagram import FROZEN
from keydnn.experiment.names import STREAM_DEFAULT
from keydnn.experiment.phases.checkpointing import Checkpointing
from keydnn.experiment.phases.feeding import PREFETCH, RESAMPLE, TrainFeeding
from keydnn.experiment.phases.holding import bystanders, held
from keydnn.experiment.phases.phase import ExperimentPhase, active_graph, bindings_for_split
from keydnn.experiment.phases.recording import RECORDABLE, ResultRecording, checked_keep
from keydnn.experiment.phases.schedule import BatchSchedulingPolicy
from keydnn.experiment.samplers import BaseSampler
from keydnn.experiment.training import AppliedLoss

TRAIN_LOSS = "train_loss"


class TrainPhase(ExperimentPhase):
    """Trains the unfrozen ones among its active nodes; nodes that run only because others read them stay as they are.

    Args:
        label: Name, unique in its group.
        input_sources: A binding with a sampler for every feature set that an executed node reads.  Bindings with equal samplers, the same
            feature set and the same split share what is drawn.
        losses: At least one, with labels of their own.
        n_epochs: At least 1.
        active_nodes: Ids, labels or nodes; None takes all nodes of the active context's graph.
        batch_schedule: How several samplers share an epoch: "zip_strict", "zip_cycle", "alternate_strict" or "alternate_cycle".
        callbacks: With labels of their own.
        checkpointing: When the state of the graph is kept; None keeps none.
        result_recording: "all", "last" or "none".
        accelerator: Where nodes stand that do not say themselves.
        resample: "never": batches are drawn once; "epoch": they are put in another order each epoch; "epoch_full": samples, such as
            pairs, are drawn anew, too.
        accumulate: Steps per update: gradients are added up, weighted by the rows of each batch, as if the batches were one.  For graphs on
            torch or on keydnn alone, under one optimizer; steps are then not recorded as plans.
        prefetch: "all": all batches are made before the first step; "lazy": each shortly before its step; "auto": lazily if they would
            take more than a quarter of the free memory, or if the data are mapped from a file.
        keep: What recorded steps hold, of "outputs", "targets", "tags" and "sample_uuids"; None holds all.  Losses, and which rows a
            step read, are held in any case.
        precision: "fp32", or, for torch, "bf16": forward passes and losses run under ``torch.autocast``; weights, gradients and outputs
            stay single precision.

    Raises:
        TypeError: Something in a list that does not belong there.
        ValueError: A binding without sampler, no loss, fewer than 1 epoch, doubled labels, a feature set that no binding feeds, an
            unknown word, or "bf16" for a node of another backend than torch.
        KeyError: An active node that is not in the graph.
        RuntimeError: The active context has no graph.

    Example:
        >>> from keydnn.experiment import AppliedLoss, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer, TrainPhase
        >>> from keydnn.experiment.samplers import SimpleSampler
        >>> cells = FeatureSet.from_dict("rows", {"u": np.ones((8, 4)), "age": np.ones(8)}, "u", "age")
        >>> node = ModelNode("net", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.Dense(1)), cells)
        >>> graph = ModelGraph([node], Optimizer("sgd", backend="keydnn"))
        >>> loss = AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs", "targets"])
        >>> phase = TrainPhase.from_split("train", split=None, sampler=SimpleSampler(batch_size=4), losses=[loss], n_epochs=3)
        >>> phase
        TrainPhase('train', 1 nodes, 1 losses, 3 epochs)
    """

    phase_type = "TrainPhase"

    def __init__(
        self,
        label: str,
        *,
        input_sources: Sequence[InputBinding],
        losses: Sequence[AppliedLoss],
        n_epochs: int = 1,
        active_nodes: Sequence[Any] | None = None,
        batch_schedule: BatchSchedulingPolicy | str = "zip_strict",
        callbacks: Sequence[Any] | None = None,
        checkpointing: Checkpointing | None = None,
        result_recording: ResultRecording | str = "all",
        accelerator: Accelerator | str | None = None,
        resample: str = "never",
        accumulate: int = 1,
        prefetch: str = "auto",
        keep: Iterable[str] | str | None = None,
        precision: str = "fp32",
    ) -> None:
        if not losses:
            raise ValueError(f"training phase {label!r} needs at least one loss")
        if isinstance(n_epochs, bool) or int(n_epochs) != n_epochs or n_epochs < 1:
            raise ValueError(f"training phase {label!r}: n_epochs must be a whole number of at least 1, got {n_epochs!r}")
        if isinstance(accumulate, bool) or int(accumulate) != accumulate or accumulate < 1:
            raise ValueError(f"training phase {label!r}: accumulate must be a whole number of at least 1, got {accumulate!r}")
        self.n_epochs, self.accumulate = int(n_epochs), int(accumulate)
        self.batch_schedule = BatchSchedulingPolicy.from_value(batch_schedule)
        self.result_recording = ResultRecording.from_value(result_recording)
        if self.accumulate > 1 and self.batch_schedule.alternates:
            raise ValueError(f"training phase {label!r}: accumulate goes with zip schedules, not with {self.batch_schedule.value!r}")
        self.resample, self.prefetch = _word(resample, RESAMPLE, "resample"), _word(prefetch, PREFETCH, "prefetch")
        self.keep, self.precision = checked_keep(keep), _word(precision, PRECISION, "precision")
        self._stop = False
        super().__init__(
            label,
            input_sources=input_sources,
            losses=losses,
            active_nodes=active_nodes,
            callbacks=callbacks,
            accelerator=accelerator,
        )
        if self.precision != PRECISION[0]:
            _check_torch(active_graph(), self)
        for binding in self.input_sources:
            if binding.sampler is None:
                raise ValueError(
                    f"training phase {label!r}: the binding of {binding.upstream_ref.node_label!r} has no sampler; use for_training"
                )
        self.set_checkpointing(checkpointing)

    @classmethod
    def from_split(
        cls,
        label: str,
        *,
        split: str | None,
        sampler: BaseSampler,
        losses: Sequence[AppliedLoss],
        n_epochs: int = 1,
        active_nodes: Sequence[Any] | None = None,
        batch_schedule: BatchSchedulingPolicy | str = "zip_strict",
        callbacks: Sequence[Any] | None = None,
        checkpointing: Checkpointing | None = None,
        result_recording: ResultRecording | str = "all",
        accelerator: Accelerator | str | None = None,
        resample: str = "never",
        accumulate: int = 1,
        prefetch: str = "auto",
        keep: Iterable[str] | str | None = None,
        precision: str = "fp32",
    ) -> Self:
        """A phase whose heads all read one split of one feature set, by one sampler.

        Args:
            label: Name.
            split: Name of the split; None takes all rows.
            sampler: Draws the batches of all heads.
            losses: As for the class, like the rest.
            n_epochs: See the class.
            active_nodes: See the class.
            batch_schedule: See the class.
            callbacks: See the class.
            checkpointing: See the class.
            result_recording: See the class.
            accelerator: See the class.
            resample: See the class.
            accumulate: See the class.
            prefetch: See the class.
            keep: See the class.
            precision: See the class.

        Raises:
            ValueError: The heads do not read exactly one feature set, the same for all, or the split is unknown.
        """

        def bound(node: Any, upstream: Any) -> InputBinding:
            return InputBinding.for_training(node=node, sampler=sampler, upstream=upstream, split=split, stream=STREAM_DEFAULT)

        return cls(
            label,
            input_sources=bindings_for_split(active_nodes, bound),
            losses=losses,
            n_epochs=n_epochs,
            active_nodes=active_nodes,
            batch_schedule=batch_schedule,
            callbacks=callbacks,
            checkpointing=checkpointing,
            result_recording=result_recording,
            accelerator=accelerator,
            resample=resample,
            accumulate=accumulate,
            prefetch=prefetch,
            keep=keep,
            precision=precision,
        )

    # -- control

    @property
    def checkpointing(self) -> Checkpointing | None:
        """When the state of the graph is kept."""
        return self._checkpointing

    def set_checkpointing(self, c: Checkpointing | None) -> None:
        """Keep the state of the graph otherwise, or, with None, not at all.

        Raises:
            TypeError: Something else.
            ValueError: A hook that a training phase does not have.
        """
        if c is not None:
            if not isinstance(c, Checkpointing):
                raise TypeError(f"checkpointing must be a Checkpointing or None, got {type(c).__name__}")
            c.check_for_phase()
        self._checkpointing = c

    def request_stop(self) -> None:
        """End the training after the epoch that runs."""
        self._stop = True

    def reset_stop(self) -> None:
        """Forget :meth:`request_stop`; done when the phase starts."""
        self._stop = False

    @property
    def stop_requested(self) -> bool:
        """Whether the training ends after this epoch."""
        return self._stop

    # -- running

    def iter_execution(
        self,
        *,
        results: Any = None,
        show_sampler_progress: bool = True,
        show_training_progress: bool = True,
        persist_progress: bool | None = None,
        persist_epoch_progress: bool | None = None,
        val_loss_metric: str = "val_loss",
    ) -> Iterator[ExecutionContext]:
        """The contexts of all steps of all epochs, with inputs; the caller makes each step with the graph's ``train_step``.

        Callbacks, checkpoints and progress of epochs belong to the experiment that runs the phase, not to this loop.

        Args:
            results: Gets every context and the metric ``train_loss``, when the step was made.
            show_sampler_progress: Whether drawing that takes long shows how far it is.
            show_training_progress: Unused here, like the rest.
            persist_progress: Unused here.
            persist_epoch_progress: Unused here.
            val_loss_metric: Unused here.

        Raises:
            RuntimeError: A sampler draws no batch.
        """
        self.reset_stop()
        graph = active_graph()
        feeding = TrainFeeding(self, graph, show_progress=show_sampler_progress)
        for epoch in range(self.n_epochs):
            values: list[float] = []
            for i, (inputs, views) in enumerate(feeding.epoch(epoch)):
                ctx = ExecutionContext(self.label, epoch, i, inputs, views)
                with held(graph, self.active_nodes), computing_in(self.precision):
                    yield ctx
                if results is not None and ctx.losses is not None:
                    values.append(float(sum(record.to_float() for record in ctx.losses.values())))
                    results.add_execution_context(ctx)
                    results.metric_store.log(name=TRAIN_LOSS, value=values[-1], epoch_idx=epoch, batch_idx=i)
            if values:
                results.metric_store.log(name=TRAIN_LOSS, value=sum(values) / len(values), epoch_idx=epoch)
            if self._stop:
                return

    def _held(self, graph: ModelGraph) -> dict[str, str]:
        return {node.node_id: FROZEN for node in bystanders(graph, self.active_nodes)}

    def summary_rows(self) -> list[tuple[str, Any]]:
        """What :meth:`summary` says, as pairs."""
        return [("epochs", self.n_epochs), *super().summary_rows()]

    # -- config

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments, and ``phase_type``."""
        return {
            **super().get_config(),
            "n_epochs": self.n_epochs,
            "batch_schedule": self.batch_schedule.value,
            "checkpointing": None if self._checkpointing is None else self._checkpointing.get_config(),
            "result_recording": self.result_recording.value,
            "resample": self.resample,
            "accumulate": self.accumulate,
            "prefetch": self.prefetch,
            "keep": None if self.keep is None else [domain for domain in RECORDABLE if domain in self.keep],
            "precision": self.precision,
        }

    @classmethod
    def _arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        told = config["checkpointing"]
        return {**super()._arguments(config), "checkpointing": None if told is None else Checkpointing.from_config(told)}

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.n_epochs} epochs)"


def _word(value: str, known: Sequence[str], what: str) -> str:
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {value!r}")
    return value


def _check_torch(graph: ModelGraph, phase: TrainPhase) -> None:
    """Refuse a precision for nodes that cannot be told.

    Raises:
        ValueError: A node that learns by gradients and is not torch's.
    """
    for node in graph.executed_nodes(phase.active_nodes):
        if isinstance(node, ModelNode) and node.has_gradients and node.backend is not Backend.TORCH:
            told = f"is for torch, and node {node.label!r} is {node.backend.value}'s"
            raise ValueError(f"training phase {phase.label!r}: precision {phase.precision!r} {told}")
