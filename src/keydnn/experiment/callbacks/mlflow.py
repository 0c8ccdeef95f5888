"""MLflowLogger: metrics as a run of MLflow, where mlflow is installed."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.callbacks.loggers import LATE, Metrics, MetricsLogger
from keydnn.experiment.optional import need


class MLflowLogger(MetricsLogger):
    """Logs the metrics of every epoch, with the epoch as step, in a run of MLflow of its own; a phase that is taken up again goes on in it.

    Args:
        tracking_uri: Where MLflow keeps runs; None takes MLflow's setting.
        experiment_name: MLflow's experiment, made if there is none; None takes the label of the experiment that runs.
        label: Name; None takes that of the class.
        execution_order: Lower ones run first.

    Attributes:
        run_id: Of MLflow's run; None before the first phase.

    Raises:
        ImportError: mlflow is not installed.
    """

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        label: str | None = None,
        execution_order: int = LATE,
    ) -> None:
        need("mlflow", "MLflowLogger")
        super().__init__(label=label, execution_order=execution_order)
        self.tracking_uri, self.experiment_name = tracking_uri, experiment_name
        self.run_id: str | None = None
        self._is_again = False  # whether the run was taken up, so that some of it may be there

    def _client(self) -> Any:
        return need("mlflow", "MLflowLogger").MlflowClient(tracking_uri=self.tracking_uri)

    def begin(self, experiment: Any, phase: Any) -> None:
        """Make a run with the phase's label."""
        client, name = self._client(), self.experiment_name or experiment.label
        known = client.get_experiment_by_name(name)
        place = client.create_experiment(name) if known is None else known.experiment_id
        self.run_id, self._is_again = client.create_run(place, run_name=phase.label).info.run_id, False

    def write(self, phase: str, epoch: int | None, metrics: Metrics) -> None:
        """Log the metrics that are not there yet."""
        client, step = self._client(), epoch or 0
        for name, value in metrics.items():
            if self._is_again and any(one.step == step for one in client.get_metric_history(self.run_id, name)):
                continue  # logged before the run was cut off, with the same value
            client.log_metric(self.run_id, name, value, step=step)

    def on_phase_end(self, *, experiment: Any, phase: Any, results: Any) -> None:
        """Take what is left, and end the run."""
        super().on_phase_end(experiment=experiment, phase=phase, results=results)
        if not experiment.is_preview:
            self._client().set_terminated(self.run_id)

    def on_exception(self, *, experiment: Any, phase: Any, exec_ctx: Any, results: Any, exception: BaseException) -> None:
        """Mark the run as failed."""
        if self.run_id is not None and not experiment.is_preview:
            self._client().set_terminated(self.run_id, status="FAILED")

    def get_config(self) -> dict[str, Any]:
        """Type, label, order and the arguments."""
        return {**self._base_config(), "tracking_uri": self.tracking_uri, "experiment_name": self.experiment_name}

    def get_state(self) -> dict[str, Any]:
        """How many epochs were taken, and the run."""
        return {**super().get_state(), "run_id": self.run_id}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        super().set_state(state)
        self.run_id, self._is_again = state["run_id"], True
