"""Many steps of a graph in one native call, over the rows of batches that lie one under the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.data.execution_context import InputKey
from keydnn.experiment.graph.recorded import Slot, Warm
from keydnn.experiment.training import Optimizer
from keydnn.experiment.training.applied_loss import holds_whole

Rows = Mapping[InputKey, Mapping[str, Mapping[str, NDArray[Any]]]]  # input to role to domain to rows
_BUDGET_S = 0.1  # after which a call comes back, so that an interrupt is heard


@dataclass(frozen=True)
class ManySteps:
    """Steps that were made in one call.

    Attributes:
        losses: (n_steps, n_losses), as they were computed.
        loss_keys: Node id and label of each loss.
        outputs: (node id, role) to features (n_steps, B, ...); empty if they were not asked for.
    """

    losses: NDArray[Any]
    loss_keys: list[tuple[str, str]]
    outputs: dict[tuple[str, str], Any]

    def __len__(self) -> int:
        return len(self.losses)


def run_many(warm: Warm, rows: Rows, optimizer: Optimizer, keep: bool) -> ManySteps | None:
    """Make steps for about a tenth of a second.

    Args:
        warm: The plan.
        rows: By input, role and domain, the rows of consecutive batches that are all as long as the one the plan was asked for.
        optimizer: Whose updates the plan makes.
        keep: Whether outputs are kept.

    Returns:
        The first of these steps, at least one; None if the rows are not what the plan takes.
    """
    step, batch = warm.step, int(warm.tensors[0].shape[0])
    arrays = [_array(rows, slot, tensor) for slot, tensor in zip(warm.slots, warm.tensors, strict=True)]
    if any(array is None for array in arrays):
        return None
    n = len(arrays[0]) // batch  # type: ignore[arg-type]
    k = len(warm.losses)
    wanted = [True] * k + [keep and key is not None for key in warm.outputs]
    made = [np.empty((n, *out.shape), out.dtype) if yes else None for yes, out in zip(wanted, step.outputs, strict=True)]
    done = step.replay_rows(arrays, made, np.arange(n * batch), batch, _BUDGET_S)  # type: ignore[arg-type]
    optimizer.count(done)
    losses = np.stack([np.asarray(values[:done]).reshape(done) for values in made[:k]], axis=1)  # type: ignore[index]
    outputs = {}
    if keep:
        like = warm.tensors[0]
        for key, values in zip(warm.outputs, made[k:], strict=True):
            if key is not None and values is not None:
                outputs[key] = like._from_op(values if done == n else values[:done].copy(), None)
    return ManySteps(losses, list(warm.losses), outputs)


def _array(rows: Rows, slot: Slot, tensor: Any) -> NDArray[Any] | None:
    """The rows of an input as the plan takes them; None if they are not of that kind."""
    key, role, domain = slot
    array = rows[key][role][domain]
    wanted = np.dtype(tensor.dtype)
    if array.shape[1:] != tuple(tensor.shape[1:]):
        return None
    if array.dtype != wanted:
        if wanted != np.int64 or not holds_whole(array):  # class numbers
            return None
        array = array.astype(np.int64)
    return np.ascontiguousarray(array)
