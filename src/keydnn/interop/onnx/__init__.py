"""ONNX: models of ours written as ``.onnx`` files, and such files read as models that compute and train here.

Written is operator set 18 in the intermediate representation 9; read are the operators of :data:`RULES` in every version whose
meaning they have (see the table in the documentation).  The package ``onnx`` is needed only for the file itself.

Source: https://onnx.ai/onnx/operators/
"""

from keydnn.interop.onnx.errors import OnnxError, UnsupportedOnnxError
from keydnn.interop.onnx.export import save_onnx, to_onnx
from keydnn.interop.onnx.graph import OnnxModel, from_onnx, load_onnx
from keydnn.interop.onnx.rules import RULES

__all__ = ["RULES", "OnnxError", "OnnxModel", "UnsupportedOnnxError", "from_onnx", "load_onnx", "save_onnx", "to_onnx"]
