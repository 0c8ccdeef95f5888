"""What a preview puts back: everything that training can change, or, for an evaluation, flags and random states alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from keydnn.experiment import random_states
from keydnn.experiment.callbacks.dispatch import settings_kept
from keydnn.experiment.context import ExperimentContext


@contextlib.contextmanager
def restoring(ctx: ExperimentContext, *, flags_only: bool) -> Iterator[None]:
    """After the block, also when it raised, the context and all random generators are as they were before.

    Put back are weights, buffers, what optimizers learned, frozen nodes and modes, splits, scalers and the registry.  Tables, row numbers
    and scaler records are shared; weights and states of optimizers are copied.  A graph that is not built is built first: the weights
    that it gets are those that it would get later, too.

    Args:
        ctx: The context.
        flags_only: Whether what runs inside changes no more than frozen nodes and modes, as an evaluation does; then nothing is copied.
    """
    graph = ctx.model_graph
    with random_states.kept():
        if graph is not None and not flags_only:
            graph.build()
        with settings_kept(graph):
            state = None if flags_only else ctx.get_state()
            try:
                yield
            finally:
                if state is not None:
                    ctx.set_state(state)
