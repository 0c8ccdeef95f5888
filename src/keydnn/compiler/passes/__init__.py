"""Passes: each maps a step to a better step that does the same."""

from __future__ import annotations

from keydnn.compiler.ir import Step
from keydnn.compiler.passes.bias_sum import join_bias_sums
from keydnn.compiler.passes.chains import fuse_chains
from keydnn.compiler.passes.constants import fold_constants
from keydnn.compiler.passes.conv_bias import join_bias_gradients
from keydnn.compiler.passes.conv_finish import finish_convolutions
from keydnn.compiler.passes.dead import remove_dead
from keydnn.compiler.passes.linear_relu import fuse_linear_relu
from keydnn.compiler.passes.norm_relu import fuse_norm_relu
from keydnn.compiler.passes.relu_grad import fuse_relu_grad
from keydnn.compiler.passes.relu_pool import fuse_relu_pool
from keydnn.compiler.passes.updates import merge_updates

_EXACT = (  # these keep every bit
    fold_constants,
    remove_dead,
    fuse_linear_relu,
    fuse_relu_pool,
    finish_convolutions,
    fuse_norm_relu,
    fuse_relu_grad,
    join_bias_sums,
    merge_updates,
    fuse_chains,
)
_FUSING = (join_bias_gradients,)


def improve(step: Step, fuse: bool) -> tuple[Step, list[str]]:
    """All passes in order; returns the step and a line per pass that changed it.

    Args:
        step: The recorded step.
        fuse: Whether to run the passes that may round differently.
    """
    notes = []
    for improved in (*_EXACT, *(_FUSING if fuse else ())):
        n = len(step.ops)
        step, note = improved(step)
        if note:
            notes.append(f"{note} ({n} -> {len(step.ops)} ops)")
    return step, notes
