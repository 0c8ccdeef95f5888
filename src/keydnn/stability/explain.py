"""What went wrong in a run, named with the step and the evidence; and formats that would have sufficed.

A quantised run that fails usually stays finite: look at the level of the loss, at saturation and at lost updates, not only at
``diverged``.  Stable but useless looks like: underflow near 1, actual_update_norm 0, radius 0, a flat loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.stability.dtypes import ap_fixed
from keydnn.stability.history import FitHistory
from keydnn.stability.precision import PrecisionDict

VERDICTS = ("curvature", "not finite", "infeasible interval", "saturation", "underflow", "truncation bias", "healthy", "no progress")
_LIMIT = 2.0
_IMPROVED = 0.1  # a loss below this share of the first counts as learned


@dataclass(frozen=True)
class Explanation:
    """The verdict on a run.

    Attributes:
        verdict: One of ``curvature``, ``not finite``, ``infeasible interval``, ``saturation``, ``underflow``,
            ``truncation bias``, ``healthy``, ``no progress``.
        step: Where it began; None for a healthy run.
        text: One sentence.
        evidence: The numbers behind it.
    """

    verdict: str
    step: int | None
    text: str
    evidence: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        where = "" if self.step is None else f" from step {self.step} on"
        return f"{self.verdict}{where}: {self.text}"


def _series(h: FitHistory, key: str, steps: int) -> np.ndarray:
    return np.asarray(h.get(key, np.full(steps, np.nan)), np.float64)


def _first(condition: np.ndarray) -> int:
    return int(np.argmax(condition))


def explain(history: FitHistory) -> Explanation:
    """Name the failure of a run, the step at which it began, and the evidence.

    Args:
        history: Of an instrumented run; metrics that are missing are not used.

    Raises:
        ValueError: The history has no loss.

    Example:
        >>> from keydnn.stability import FitHistory, explain
        >>> h = FitHistory(loss=[1.0, 9.0, 1e9], diverged=[0, 0, 1.0], stability_margin_lambda_raw=[3.0, 3.0, 3.0], alpha=[1.0, 1.0, 1.0])
        >>> print(explain(h))
        curvature from step 0 on: the margin alpha * eta * lambda_max is 3, above 2, and the loss grew from 1 to 1e+09
    """
    if "loss" not in history or not history.steps:
        raise ValueError("explain: the history has no loss; log at least the profile 'core'")
    n = history.steps
    loss = history["loss"] if "rmse" not in history else history["rmse"] ** 2  # a quantised loss can be 0 for want of bits
    for rule in (_curvature, _infeasible, _saturation, _state, _truncation, _underflow):
        found = rule(history, loss, n)
        if found is not None:
            return found
    end = float(np.mean(loss[-max(n // 10, 1) :]))
    if end <= _IMPROVED * loss[0] or end <= loss[0] and n < 3:
        return Explanation("healthy", None, f"the loss fell from {loss[0]:.4g} to {loss[-1]:.4g}", {"loss": float(loss[-1])})
    text = f"the loss went from {loss[0]:.4g} to {loss[-1]:.4g}; no cause among the metrics"
    return Explanation("no progress", 0, text, {"loss": float(loss[-1])})


def _curvature(h: FitHistory, loss: np.ndarray, n: int) -> Explanation | None:
    diverged = _series(h, "diverged", n)[-1] == 1 or not np.isfinite(loss[-1])
    grew = diverged or loss[-1] > 10 * loss[0]
    margin = _series(h, "stability_margin_lambda_raw", n) * np.nan_to_num(_series(h, "alpha", n), nan=1.0)
    margin = np.where(np.isfinite(margin), margin, _series(h, "eta_eff", n) * _series(h, "curvature_proxy", n))
    above = margin > _LIMIT
    if not grew:
        return None
    if above.mean() > 0.3:
        i = _first(above)
        text = f"the margin alpha * eta * lambda_max is {margin[i]:.3g}, above 2, and the loss grew from {loss[0]:.3g} to {loss[-1]:.3g}"
        return Explanation("curvature", i, text, {"margin": float(margin[i]), "loss": float(loss[-1])})
    if diverged:
        return Explanation("not finite", n - 1, f"the loss ended at {loss[-1]:.3g} without a margin above 2", {"loss": float(loss[-1])})
    return None


def _stuck(loss: np.ndarray) -> bool:
    """Whether the run ended without having learned, or above where it has been."""
    end = float(np.mean(loss[-max(len(loss) // 10, 1) :]))
    return not end <= _IMPROVED * loss[0]


def _infeasible(h: FitHistory, loss: np.ndarray, n: int) -> Explanation | None:
    low, high = _series(h, "useful_alpha_min", n), _series(h, "useful_alpha_max", n)
    empty = low > high
    if not (_stuck(loss) and empty.mean() > 0.5):
        return None
    i = _first(empty)
    text = f"steps must be below {high[i]:.3g} to be stable and above {low[i]:.3g} to be representable"
    return Explanation("infeasible interval", i, text, {"useful_alpha_min": float(low[i]), "useful_alpha_max": float(high[i])})


def _saturation(h: FitHistory, loss: np.ndarray, n: int) -> Explanation | None:
    late = slice(-max(n // 4, 1), None)
    shares = {key: _series(h, f"{key}_saturation_fraction_max", n) for key in ("weight", "gradient", "update")}
    worst = max(shares, key=lambda key: float(np.nan_to_num(shares[key][late]).mean()))
    share = np.nan_to_num(shares[worst])
    if not (_stuck(loss) and share[late].mean() > 0.05):
        return None
    text = f"{share[late].mean():.0%} of the {worst}s lie at the rails of their format; it needs more integer bits"
    return Explanation("saturation", _first(share > 0.05), text, {f"{worst}_saturation": float(share[late].mean())})


def _state(h: FitHistory, loss: np.ndarray, n: int) -> Explanation | None:
    lost = np.nan_to_num(_series(h, "state_underflow_fraction_max", n))
    i = _first(lost > 0.5)
    if not (_stuck(loss) and lost[i] > 0.5 and (lost.mean() > 0.5 or loss[-1] > 10 * loss[i])):
        return None
    text = f"{lost[i]:.0%} of the update rule's state rounds to zero, so steps no longer fit the gradient; it needs more fractional bits"
    return Explanation("underflow", i, text, {"state_underflow": float(lost[i])})


def _underflow(h: FitHistory, loss: np.ndarray, n: int) -> Explanation | None:
    lost, radius = _series(h, "update_underflow_fraction_max", n), _series(h, "update_radius_ratio", n)
    still = (np.nan_to_num(lost) > 0.9) | (radius < 0.05)
    late = slice(-max(n // 4, 1), None)
    if not (_stuck(loss) and still[late].mean() > 0.5):
        return None
    i = _first(still)
    share = float(np.nan_to_num(lost)[i])
    if _series(h, "grad_norm", n)[i] == 0.0:
        text = "every gradient is zero although the error is not: gradients, or the numbers they come from, need more fractional bits"
    elif share < 0.5:
        arrived = f"{radius[i]:.0%} of their length arrives in the stored weights"
        text = f"updates survive their own format, but {arrived}; these need more fractional bits"
    else:
        text = f"{share:.0%} of the updates round to zero and {radius[i]:.0%} of their length arrives; more fractional bits are needed"
    return Explanation("underflow", i, text, {"underflow": share, "radius": float(radius[i])})


def _truncates(h: FitHistory) -> bool:
    """Whether a format of the run truncates, or it is not known which formats it had."""
    precision = h.meta.get("precision")
    return precision is None or any("AP_TRN," in str(text) for fields in precision.values() for text in fields.values())


def _truncation(h: FitHistory, loss: np.ndarray, n: int) -> Explanation | None:
    radius, cosine = _series(h, "update_radius_ratio", n), _series(h, "update_cosine", n)
    bent, moved = radius > 1.3, np.nan_to_num(radius) > 0
    bent[:1] = moved[:1] = False  # the first update holds the rounding of the initial weights
    if not (_stuck(loss) and _truncates(h) and bent.sum() > 0.5 * moved.sum()):
        return None
    i = _first(bent)
    text = f"updates come out {radius[i]:.2g} times too long at cosine {cosine[i]:.2g}: rounding pushes in one direction; use AP_RND"
    return Explanation("truncation bias", i, text, {"radius": float(radius[i]), "cosine": float(cosine[i])})


# -- formats from an observed run


@dataclass(frozen=True)
class Suggestion:
    """Formats, and how they did.

    Attributes:
        precision: The map.
        verified: Whether the short run met the target.
        float_loss: Loss of the float run at its end.
        loss: Loss of the quantised run at its end.
        extra_bits: Fractional bits added until it met the target.
    """

    precision: PrecisionDict
    verified: bool
    float_loss: float
    loss: float
    extra_bits: int


def _integer_bits(largest: float, headroom: int) -> int:
    """Bits before the point of a signed format that holds values up to ``largest``."""
    return (math.floor(math.log2(largest)) + 2 if largest > 0 else 1) + headroom


def suggest_precision(
    model: Any, X: Any, Y: Any, *, target: float = 0.1, headroom: int = 1, percentile: float = 10.0, most_extra: int = 6, **train: Any
) -> Suggestion:
    """Formats for every tensor of a model of Dense layers, from a float run and checked by a quantised one.

    Integer bits come from the observed ranges with head-room, fractional bits of updates from the smallest useful one,
    ``q <= eta * percentile(|G|)``, those of accumulators from the fan-in, ``IWL_x + IWL_w + ceil(log2 n)``.

    Args:
        model: A `BaseModel`; its weights are as before afterwards.
        X: Samples.
        Y: Targets.
        target: Allowed excess of the final loss over that of the float run, as a share of the first loss.
        headroom: More integer bits than observed.
        percentile: Of the gradients' sizes, in per cent.
        most_extra: Most fractional bits to add.
        train: Arguments of `BaseModel.train_instrumented`.

    Returns:
        The map and whether the quantised run met the target.
    """
    start = model.get_weights()
    seen = _Ranges(model, X)
    try:
        float_run = model.train_instrumented(X, Y, callbacks=[seen], **train)
        end = float(float_run["loss"][-1])
        eta = float(train.get("learning_rate", 0.05))
        gradient = float(np.median(float_run["grad_norm"])) / math.sqrt(sum(w.size for w in start))
        for extra in range(most_extra + 1):
            precision = seen.formats(eta, gradient * percentile / 100, headroom, extra)
            model.set_weights(start)
            loss = float(model.train_instrumented(X, Y, precision_dict=precision, **train)["loss"][-1])
            verified = loss <= end + target * float(float_run["loss"][0])
            if verified:
                break
    finally:
        model.set_weights(start)
    return Suggestion(precision, verified, end, loss, extra)


class _Ranges:
    """Largest sizes seen during a run, by layer."""

    def __init__(self, model: Any, X: Any) -> None:
        self.model, self.x = model, np.asarray(X, np.float32)
        self.weight: dict[str, float] = {}
        self.activation: dict[str, float] = {}
        self.gradient = 0.0
        self(0, {"grad_norm": 0.0})

    def __call__(self, step: int, row: dict[str, float]) -> bool:
        self.gradient = max(self.gradient, float(np.nan_to_num(row.get("grad_norm", 0.0))))
        z: Any = Tensor(data=self.x)
        for name, layer in self.model.model.named_children():
            z = layer(z)
            self.activation[name] = max(self.activation.get(name, 0.0), float(np.abs(z.numpy()).max()))
            for p in layer.parameters():
                self.weight[name] = max(self.weight.get(name, 0.0), float(np.abs(p.numpy()).max()))
        return False

    def formats(self, eta: float, smallest: float, headroom: int, extra: int) -> PrecisionDict:
        def fixed(iwl: int, fraction: int) -> Any:
            return ap_fixed(max(iwl + fraction, 1), iwl, "AP_RND", "AP_SAT")

        fine = max(math.ceil(-math.log2(max(eta * smallest, 2.0**-20))), 2) + extra
        x_iwl = _integer_bits(float(np.abs(self.x).max()), 0)
        scopes: dict[str, Any] = {"input": {"value": fixed(x_iwl, min(fine, 12))}}
        before = x_iwl
        for name, layer in self.model.model.named_children():
            out = _integer_bits(self.activation[name], headroom)
            scopes[name] = {"activation": fixed(out, fine)}
            if name in self.weight:
                w = _integer_bits(self.weight[name], headroom)
                fan_in = int(np.prod(next(layer.parameters()).shape[1:]))
                wide = before + w + math.ceil(math.log2(max(fan_in, 1)))
                narrow = lambda iwl: fixed(iwl, min(fine, 24 - iwl))  # noqa: E731 - what float32 holds
                scopes[name] |= {"weight": narrow(w), "bias": narrow(w), "accumulator": fixed(wide, fine + 4), "update": narrow(w)}
                scopes[name]["gradient"] = narrow(_integer_bits(self.gradient, headroom))
            before = out
        return PrecisionDict(scopes)
