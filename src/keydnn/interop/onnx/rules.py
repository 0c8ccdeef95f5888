"""All operators: name to rule ``(node, *inputs) -> output``, or a tuple of outputs."""

from __future__ import annotations

from keydnn.interop.onnx.rules_attention import ATTENTION
from keydnn.interop.onnx.rules_control import CONTROL
from keydnn.interop.onnx.rules_elementwise import ELEMENTWISE
from keydnn.interop.onnx.rules_grid import GRIDS
from keydnn.interop.onnx.rules_network import NETWORK
from keydnn.interop.onnx.rules_quantized import QUANTIZED
from keydnn.interop.onnx.rules_recurrent import RECURRENT
from keydnn.interop.onnx.rules_reduction import REDUCTIONS
from keydnn.interop.onnx.rules_resize import RESIZE
from keydnn.interop.onnx.rules_select import SELECTION
from keydnn.interop.onnx.rules_sequence import SEQUENCES
from keydnn.interop.onnx.rules_shape import SHAPES
from keydnn.interop.onnx.rules_training import TRAINING
from keydnn.interop.onnx.values import Rule

RULES: dict[str, Rule] = {
    **ELEMENTWISE,
    **SHAPES,
    **SELECTION,
    **REDUCTIONS,
    **RESIZE,
    **GRIDS,
    **NETWORK,
    **ATTENTION,
    **RECURRENT,
    **SEQUENCES,
    **QUANTIZED,
    **TRAINING,
    **CONTROL,
}
