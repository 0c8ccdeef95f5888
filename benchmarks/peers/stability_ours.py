"""Instrumented training by KeyDNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.remote import Session
from benchmarks.stability import CHECKED, CHI, EPS, ETA, FORMATS, RHO, STEPS, Case
from keydnn.stability import AffineDataset, LinearBlockModel, PrecisionDict
from keydnn.stability.dtypes import ap_fixed


def precision() -> PrecisionDict:
    """The map of a quantised case."""
    made = {name: ap_fixed(*bits, "AP_RND", "AP_SAT") for name, bits in FORMATS.items()}
    return PrecisionDict({"dense0": made, "input": {"value": made["input"]}, "loss": {"value": made["loss"]}})


def make(case: Case) -> Session:
    """A call of many steps, from the same weights each time."""
    X, Y, A, W = case.data()
    model = LinearBlockModel(AffineDataset(1000, seed=1), num_hidden=[], seed=0)

    def train(steps: int) -> Any:
        model.set_weights([W, np.zeros(2)])
        return model.train_instrumented(
            X, Y, epochs=steps, batch_size=len(X), learning_rate=ETA, curvature_ema_rho=RHO, chi=CHI, eps=EPS, use_controller=True,
            reference_A=A, precision_dict=precision() if case.quantised else None,
        )  # fmt: skip

    def answer() -> list[np.ndarray]:
        h = train(CHECKED)
        last = [h[key][-1] for key in ("loss", "alpha", "grad_norm", "update_radius_ratio", "weight_error_fro", "forward_gain_spectral")]
        return [np.array([h["loss"][0], *last]), model.get_weights()[0]]

    return Session(lambda: train(STEPS), answer)
