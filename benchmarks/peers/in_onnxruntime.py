"""onnxruntime: predictions of a graph written with onnx.helper."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.remote import Session
from benchmarks.sessions import asking, offered, refuse
from benchmarks.workloads import Arrays, Case, Workload, weights

_WINDOW = {"kernel_shape": [2, 2], "strides": [2, 2]}
NODES = {  # operations and attributes of one layer
    "linear": [("Gemm", {"transB": 1})],
    "relu": [("Relu", {})],
    "conv": [("Conv", {"pads": [1, 1, 1, 1]})],
    "batch_norm": [("BatchNormalization", {"epsilon": 1e-5})],
    "max_pool": [("MaxPool", _WINDOW)],
    "global_avg_pool": [("GlobalAveragePool", {}), ("Flatten", {})],
    "flatten": [("Flatten", {})],
}


def _constants(kind: str, arrays: Arrays) -> list[np.ndarray]:
    if kind != "batch_norm":
        return list(arrays.values())
    n = len(arrays["weight"])
    return [*arrays.values(), np.zeros(n, np.float32), np.ones(n, np.float32)]


def model_of(workload: Workload) -> bytes:
    """The graph, serialised."""
    offered(workload, NODES)
    nodes, constants, at = [], [], "x"
    for i, (layer, arrays) in enumerate(zip(workload.layers, weights(workload), strict=True)):
        for j, (operation, attributes) in enumerate(NODES[layer.kind]):
            given = _constants(layer.kind, arrays) if j == 0 else []
            names = [f"c{i}_{k}" for k in range(len(given))]
            constants += [numpy_helper.from_array(a, name) for a, name in zip(given, names, strict=True)]
            out = f"y{i}_{j}"
            nodes.append(helper.make_node(operation, [at, *names], [out], **attributes))
            at = out
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *workload.shape[1:]])
    y = helper.make_tensor_value_info(at, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "model", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def make(case: Case) -> Session:
    """Predictions only."""
    if case.mode != "infer":
        return refuse("predictions only")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(model_of(case.work), options, providers=["CPUExecutionProvider"])
    return asking(case, lambda x: session.run(None, {"x": x})[0], lambda a: a)
