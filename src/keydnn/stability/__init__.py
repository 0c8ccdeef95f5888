"""Stability lab: where training diverges, saturates or silently stops learning, under any number format.

>>> from keydnn.stability import AffineDataset, quantize_np
>>> from keydnn.stability.dtypes import ap_fixed
>>> quantize_np(AffineDataset(3, seed=0).Y[0], ap_fixed(6, 3, "AP_RND", "AP_SAT")).tolist()
[1.0, -0.25]
"""

from keydnn.stability import dataset, dtypes, precision, quantization, utils
from keydnn.stability.dataset import AffineDataset, BaseDataset, DataType, DriftModel
from keydnn.stability.precision import RESERVED_NAMES, PrecisionDict, ensure_precision_dict
from keydnn.stability.quantization import RailStats, quantize_np, quantize_tensor, rail_stats
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
    "AffineDataset", "BaseDataset", "DataType", "DriftModel", "PrecisionDict", "RESERVED_NAMES", "RailStats", "analytic_dense_hessian",
    "analytic_single_dense_hessian", "dataset", "dtypes", "ensure_precision_dict", "flatten_tensors", "half_mse_batch_loss",
    "hessian_metrics_np", "matrix_norms_np", "precision", "quantization", "quantize_np", "quantize_tensor", "rail_stats", "safe_cosine",
    "spectral_norm_np", "stability_metrics_from_hessian", "tensor_l2_norm", "utils",
]  # fmt: skip
