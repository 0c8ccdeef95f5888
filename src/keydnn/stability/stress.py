"""The stress suite: runs that are known to be hard, judged by four criteria.

    ST-000 excess learning rate      ST-004 dead zone of the updates
    ST-001 shift of the inputs       ST-005 precision of the optimizer's state
    ST-002 spike of one batch        ST-006 naive clipping
    ST-003 pressure on the rails     ST-007 projection by kappa

A run passes if the loss stays finite, few values lie at a rail, updates arrive as long as there is something to learn, and the error
falls.  The first four pass with a throttle; the last four show what a remedy has to mend, and fail as they stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.stability.baselines import ClipRule
from keydnn.stability.configs import stack_precision
from keydnn.stability.dataset import AffineDataset, DriftModel, spike, step_at
from keydnn.stability.explain import explain
from keydnn.stability.history import FitHistory
from keydnn.stability.nn import LinearBlockModel
from keydnn.stability.rules import AdamRule

STEPS = 400
_SHIFT_AT = 150
_SPIKE_AT, _SPIKE_STEPS = 40, 60  # while the weights still move, or the sensor is blind; and no time to recover
_MOST_AT_RAILS, _MOST_STILL, _LEARNED = 0.05, 0.5, 0.1
_SATURATIONS = tuple(f"{what}_saturation_fraction_max" for what in ("weight", "gradient", "update"))
Arguments = dict[str, Any]


def _excess(limit: float) -> Arguments:
    return {"learning_rate": 1.3 * limit}


def _shift(limit: float) -> Arguments:
    return {"learning_rate": 0.8 * limit, "drift": DriftModel(target="consistent", schedule=step_at(_SHIFT_AT, gain=2.0))}


def _spike(limit: float) -> Arguments:
    return {"learning_rate": 0.8 * limit, "epochs": _SPIKE_STEPS, "drift": DriftModel(schedule=spike(_SPIKE_AT, gain=20.0))}


def _rails(limit: float) -> Arguments:
    return {"learning_rate": 1.2 * limit, "precision_dict": stack_precision(14, 2)}


def _dead_zone(limit: float) -> Arguments:
    return {"learning_rate": 0.05 * limit, "precision_dict": stack_precision(6, 3)}


def _state(limit: float) -> Arguments:
    return {"learning_rate": 0.01, "update_rule": AdamRule(), "precision_dict": {"dense0": {"adam_v": "ap_fixed<12,2,AP_TRN,AP_SAT>"}}}


def _clipping(limit: float) -> Arguments:
    return {"learning_rate": 1.3 * limit, "update_rule": ClipRule(clip_update=0.25)}


def _kappa(limit: float) -> Arguments:
    return {"learning_rate": 0.5 * limit, "update_rule": ClipRule(kappa=1.0, project="row")}


@dataclass(frozen=True)
class Scenario:
    """One of the suite.

    Attributes:
        title: What is hard about it.
        arguments: From the largest stable learning rate to arguments of `BaseModel.train_instrumented`.
        controller: The controller unless another one is asked for.
    """

    title: str
    arguments: Callable[[float], Arguments]
    controller: str = "gt-order-0"


SCENARIOS = {
    "ST-000": Scenario("excess learning rate", _excess),
    "ST-001": Scenario("shift of the inputs", _shift),
    "ST-002": Scenario("spike of one batch", _spike),
    "ST-003": Scenario("pressure on the rails", _rails),
    "ST-004": Scenario("dead zone of the updates", _dead_zone, "none"),
    "ST-005": Scenario("precision of the optimizer's state", _state, "none"),
    "ST-006": Scenario("naive clipping", _clipping, "none"),
    "ST-007": Scenario("projection by kappa", _kappa, "none"),
}


@dataclass(frozen=True)
class StressResult:
    """How a run did.

    Attributes:
        name: Of the scenario.
        title: What was hard.
        checks: By criterion whether it holds.
        evidence: The number that decided each.
        verdict: What `explain` says.
        history: The run.
    """

    name: str
    title: str
    checks: dict[str, bool]
    evidence: dict[str, float]
    verdict: str
    history: FitHistory

    @property
    def passed(self) -> bool:
        """Whether all criteria hold."""
        return all(self.checks.values())

    def __str__(self) -> str:
        failed = ", ".join(f"{name} ({self.evidence[name]:.3g})" for name, holds in self.checks.items() if not holds)
        return f"{self.name} {self.title}: " + ("passed" if self.passed else f"failed: {failed}")


def stress(name: str, *, seed: int = 1, **changes: Any) -> StressResult:
    """Run one scenario: a Dense layer that learns an affine map of 4 inputs, full batch, 400 steps (60 around the spike).

    Args:
        name: ``"ST-000"`` to ``"ST-007"``.
        seed: Of data and weights.
        changes: Arguments of `BaseModel.train_instrumented` that replace those of the scenario: the remedy to be tried.

    Returns:
        The criteria ``finite loss``, ``bounded rails``, ``non-zero updates`` and ``falling error``, and the run.

    Raises:
        ValueError: An unknown scenario.

    Example:
        >>> from keydnn.stability import stress
        >>> print(stress("ST-000"))
        ST-000 excess learning rate: passed
        >>> print(stress("ST-000", controller="none").passed)
        False
    """
    if name not in SCENARIOS:
        raise ValueError(f"stress: unknown scenario {name!r}; there are {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[name]
    data = AffineDataset(200, seed=seed, use_bias=False)
    given: Arguments = {"epochs": STEPS, "batch_size": 200, "reference_A": data.A, "controller": scenario.controller}
    given |= scenario.arguments(data.analytic_hessian["eta_max"]) | changes
    history = LinearBlockModel(data, num_hidden=[], use_bias=False, seed=seed).train_instrumented(*data.get(), **given)
    checks, evidence = _judged(history)
    return StressResult(name, scenario.title, checks, evidence, explain(history).verdict, history)


def stress_suite(*, seed: int = 1, **changes: Any) -> list[StressResult]:
    """All scenarios, with the same changes; arguments as for `stress`."""
    return [stress(name, seed=seed, **changes) for name in SCENARIOS]


def _judged(h: FitHistory) -> tuple[dict[str, bool], dict[str, float]]:
    late = slice(-max(h.steps // 4, 1), None)
    rmse, moved = h["rmse"], h["actual_update_norm"]
    learning = rmse > _LEARNED * rmse[0]  # there still is something to learn
    evidence = {
        "finite loss": float(h["loss"][-1]),
        "bounded rails": max(float(h[key][late].mean()) for key in _SATURATIONS),
        "non-zero updates": float((moved[learning] == 0.0).mean()) if learning.any() else 0.0,
        "falling error": float(rmse[-max(h.steps // 10, 1) :].mean() / rmse[0]),
    }
    checks = {
        "finite loss": not h["diverged"].any() and bool(np.isfinite(h["loss"]).all()),
        "bounded rails": evidence["bounded rails"] <= _MOST_AT_RAILS,
        "non-zero updates": evidence["non-zero updates"] <= _MOST_STILL,
        "falling error": evidence["falling error"] <= _LEARNED,
    }
    return checks, evidence
