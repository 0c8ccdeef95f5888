"""Stability lab: where training diverges, saturates or silently stops learning, under any number format.

>>> from keydnn.stability import AffineDataset, quantize_np
>>> from keydnn.stability.dtypes import ap_fixed
>>> quantize_np(AffineDataset(3, seed=0).Y[0], ap_fixed(6, 3, "AP_RND", "AP_SAT")).tolist()
[1.0, -0.25]
"""

from keydnn.stability import controllers, curvature, dataset, dtypes, history, nn, precision, quantization, utils
from keydnn.stability.baselines import ClipRule
from keydnn.stability.configs import run_config, stack_precision
from keydnn.stability.controllers import (
    AdGDController,
    BaseController,
    Controller,
    ControllerStep,
    CurvatureSensor,
    GlobalThrottleOrder0Controller,
    GlobalThrottleOrder1Controller,
    GlobalThrottleOrder2Controller,
    NoController,
    QuantizationAwareOrder2Controller,
    make_controller,
)
from keydnn.stability.curvature import ggn_vp, hessian_spectrum, hvp, lambda_max, preconditioned_lambda_max
from keydnn.stability.dataset import AffineDataset, BaseDataset, DataType, DriftModel
from keydnn.stability.explain import explain, suggest_precision
from keydnn.stability.export import c_header, compare_trace, quantizer_list, to_hls4ml_config, write_weights
from keydnn.stability.history import FitHistory
from keydnn.stability.integer import compare_integer, compile_integer
from keydnn.stability.integer_training import train_integer
from keydnn.stability.metrics import MetricsConfig
from keydnn.stability.nn import BaseModel, LinearBlockModel
from keydnn.stability.precision import RESERVED_NAMES, PrecisionDict, ensure_precision_dict
from keydnn.stability.probes import CurvatureProbe, MarginProbe, RailProbe
from keydnn.stability.quantization import RailStats, quantize_np, quantize_tensor, rail_stats
from keydnn.stability.rules import AdamRule, MomentumRule, RMSPropRule, SGDRule, UpdateRule, stability_limit
from keydnn.stability.stress import StressResult, stress, stress_suite
from keydnn.stability.sweep import PrecisionSweep
from keydnn.stability.utils import (
    analytic_dense_hessian,
    analytic_single_dense_hessian,
    flatten_tensors,
    half_mse_batch_loss,
    hessian_metrics_np,
    matrix_norms_np,
    safe_cosine,
    spectral_norm_np,
    stability_metrics_from_hessian,
    tensor_l2_norm,
)

__all__ = [
    "AdGDController", "AdamRule", "AffineDataset", "BaseController", "BaseDataset", "BaseModel", "ClipRule", "Controller", "ControllerStep",
    "CurvatureProbe", "CurvatureSensor", "DataType", "DriftModel", "FitHistory", "GlobalThrottleOrder0Controller",
    "GlobalThrottleOrder1Controller", "GlobalThrottleOrder2Controller", "LinearBlockModel", "MarginProbe", "MetricsConfig",
    "MomentumRule", "NoController", "PrecisionDict", "PrecisionSweep", "QuantizationAwareOrder2Controller", "RESERVED_NAMES",
    "RMSPropRule", "RailProbe", "RailStats", "SGDRule", "StressResult", "UpdateRule", "analytic_dense_hessian",
    "analytic_single_dense_hessian", "c_header", "compare_integer", "compare_trace", "compile_integer", "controllers", "curvature",
    "dataset", "dtypes", "ensure_precision_dict", "explain", "flatten_tensors", "ggn_vp", "half_mse_batch_loss", "hessian_metrics_np",
    "hessian_spectrum", "history", "hvp", "lambda_max", "make_controller", "matrix_norms_np", "nn", "precision",
    "preconditioned_lambda_max", "quantization", "quantize_np", "quantize_tensor", "quantizer_list", "rail_stats", "run_config",
    "safe_cosine", "spectral_norm_np", "stability_limit", "stability_metrics_from_hessian", "stack_precision", "stress", "stress_suite",
    "suggest_precision", "tensor_l2_norm", "to_hls4ml_config", "train_integer", "utils", "write_weights",
]  # fmt: skip
