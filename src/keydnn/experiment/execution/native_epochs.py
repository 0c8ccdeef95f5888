"""Native epochs: steps of a training phase that need no Python between them, made in calls of a tenth of a second.

Where somebody watches, the last step of an epoch is made by itself, so that hooks find a context with all it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.names import DOMAIN_OUTPUTS
from keydnn.experiment.phases import TrainPhase
from keydnn.experiment.phases.feeding import StepInput, TrainFeeding
from keydnn.experiment.results.contexts import EpochSteps
from keydnn.experiment.results.frames import Frame

_TRIES = 8  # steps of an epoch after which a phase whose steps are not served by a plan is left alone


class NativeEpochs:
    """Makes many steps at a time, where that can be.

    Args:
        phase: The phase, whose batches nobody watches.
        graph: Its graph.
        feeding: What its steps read.
        results: Where steps are recorded.
        where: The place of the phase.
        is_watched: Whether hooks are called at the end of an epoch.

    Attributes:
        can: Whether steps may be served; what was not for a while is left alone.
    """

    def __init__(
        self, phase: TrainPhase, graph: ModelGraph, feeding: TrainFeeding, results: Any, where: Accelerator | None, *, is_watched: bool
    ) -> None:
        self._phase, self._graph, self._feeding, self._results, self._where = phase, graph, feeding, results, where
        self._nodes = graph.executed_nodes(phase.active_nodes)
        engine = all(node.backend is Backend.KEYDNN for node in self._nodes)
        self.can = engine and phase.accumulate == 1
        self._is_watched = is_watched
        self._tries = 0
        self._of: Any = None
        self._frames: dict[int, Frame] = {}

    def advance(self, ctx: ExecutionContext, steps: Any) -> NDArray[np.float64] | None:
        """Make this step and some that follow, and record them.

        Args:
            ctx: The step, with its inputs.
            steps: Inputs of all steps of the epoch.

        Returns:
            Their training losses; None if the step has to be made by itself.
        """
        first, last = ctx.batch_idx, self._feeding.n_steps - self._is_watched
        if not self.can or last - first < 2 - self._is_watched:
            return None
        rows = self._feeding.block(first, last)
        keep = self._results.records_steps
        outputs = keep and (self._phase.keep is None or DOMAIN_OUTPUTS in self._phase.keep)
        phase, made = self._phase, None
        if rows is not None:
            made = self._graph.train_steps(ctx, phase.losses, rows, active_nodes=phase.active_nodes, accelerator=self._where, keep=outputs)
        if made is None:
            self._tries += 1
            self.can = self._tries < _TRIES
            return None
        self._tries = 0
        if keep:
            frames = self._framed(steps, first, len(made))
            place = (phase.label, ctx.epoch_idx, frames)
            self._results.add_steps(EpochSteps(*place, made.losses, made.loss_keys, made.outputs, first_batch=first))
        total = made.losses[:, 0]
        for i in range(1, made.losses.shape[1]):
            total = total + made.losses[:, i]  # in the dtype and order in which a step adds them
        return total.astype(np.float64)

    def _framed(self, steps: Sequence[StepInput], first: int, n: int) -> list[Frame]:
        """What steps have besides outputs and losses; held once as long as the batches stay the same."""
        if self._of is not steps and (self._of is None or self._phase.resample != "never"):
            self._of, self._frames = steps, {}
        for i in range(first, first + n):
            if i not in self._frames:
                inputs, views = steps[i]
                self._frames[i] = Frame.of_inputs(self._nodes, inputs, views, self._phase.keep)
        return [self._frames[i] for i in range(first, first + n)]
