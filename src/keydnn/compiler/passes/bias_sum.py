"""The bias's gradient of a linear layer beside the weight's: g is read once.

    dw = g.T @ x;   db = sum(g, 0)

becomes ``dw, db = matmul_sums(g, x)``, with the bits of the two ops.  Only for a g that is too large for the nearest cache: adding
up a small one costs less than looking after it inside the product.
"""

from __future__ import annotations

from keydnn.compiler.ir import Op, Step, View
from keydnn.compiler.lower import TYPES

_FEWEST = 16  # columns; sums of fewer run in another order
_LARGE = 1 << 16  # elements of g


def join_bias_sums(step: Step) -> tuple[Step, str]:
    """The step with each such pair as one op, at the place of the product."""
    dropped: set[int] = set()
    ops: list[Op] = []
    for i, op in enumerate(step.ops):
        total = next((o for o in step.ops[i + 1 :] if id(o) not in dropped and _is_sum(o, op.operands[0])), None) if _fits(op) else None
        if total is not None:
            dropped.add(id(total))
            op = Op("matmul_sums", op.operands, op.params, (*op.results, *total.results), (), f"{op.label}+{total.label}")
        ops.append(op)
    step.ops = [op for op in ops if id(op) not in dropped]
    return step, f"{len(dropped)} bias gradients with the weight's product" if dropped else ""


def _fits(product: Op) -> bool:
    """Whether it is ``g.T @ x`` of two matrices, with a g that nothing writes after it was made."""
    if product.kernel != "matmul" or any(len(view.shape) != 2 for view in product.reads()):
        return False
    g, x = product.operands
    turned = product.params["transpose_a"] and not product.params["transpose_b"]
    sized = g.size >= _LARGE and g.shape[1] >= _FEWEST and x.size > 0
    return bool(turned) and sized and _stays(g) and g.dtype in TYPES and product.results[0].dtype == g.dtype


def _stays(g: View) -> bool:
    return g.is_contiguous and g.buffer.kind == "made" and g.buffer.version == 0


def _is_sum(op: Op, g: View) -> bool:
    """Whether ``op`` adds up the rows of g."""
    if op.kernel != "sum" or op.params["axis"] not in (0, (0,)):
        return False
    return op.operands[0].same_place(g) and op.results[0].is_contiguous and op.results[0].dtype == g.dtype
