"""Schedules against their formulas; what they write as JSON they become again."""

import json
import math

import pytest

from keydnn.optim import (
    SCHEDULES,
    CosineLR,
    CosineRestartsLR,
    ExponentialLR,
    InverseSqrtLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    StepLR,
    WarmupLR,
    schedule_from_config,
)

ROWS = [
    (StepLR(3, 0.5), [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    (StepLR(1), [1, 0.1, 0.01, 0.001]),
    (MultiStepLR([4, 2], 0.1), [1, 1, 0.1, 0.1, 0.01, 0.01]),
    (ExponentialLR(0.9), [0.9**t for t in range(5)]),
    (CosineLR(4), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0, 0]),
    (CosineLR(2, floor=0.2), [1, 0.6, 0.2, 0.2]),
    (CosineRestartsLR(2, floor=0.2), [1, 0.6, 1, 0.6]),
    (CosineRestartsLR(1, 2), [1, 1, 0.5, 1, (1 + math.sqrt(0.5)) / 2]),
    (OneCycleLR(11, rise=3 / 11, start=10.0, end=10.0), [0.1, 0.55, 1, 0.01 + 0.99 * (1 + math.cos(math.pi / 8)) / 2]),
    (InverseSqrtLR(4), [0.25, 0.5, 0.75, 1, math.sqrt(0.8)]),
    (PolynomialLR(4), [1, 0.75, 0.5, 0.25, 0, 0]),
    (PolynomialLR(2, power=2), [1, 0.25, 0, 0]),
    (WarmupLR(4), [0.25, 0.5, 0.75, 1, 1]),
    (WarmupLR(2, StepLR(2, 0.5)), [0.5, 1, 1, 1, 0.5, 0.5, 0.25]),
]


@pytest.mark.parametrize(("schedule", "factors"), ROWS, ids=lambda row: repr(row)[:40])
def test_factors(schedule, factors):
    assert [schedule(t) for t in range(len(factors))] == pytest.approx(factors, abs=1e-15)
    assert schedule.lr(0.3, 1) == pytest.approx(0.3 * factors[1])


@pytest.mark.parametrize("schedule", [row[0] for row in ROWS], ids=repr)
def test_config_round_trip(schedule):
    twin = schedule_from_config(type(schedule).__name__, json.loads(json.dumps(schedule.get_config())))
    assert type(twin) is type(schedule)
    assert [twin(t) for t in range(9)] == [schedule(t) for t in range(9)]


def test_every_schedule_has_a_row():
    assert {type(schedule) for schedule, _ in ROWS} == set(SCHEDULES.values())


def test_a_function_is_a_schedule_without_config():
    schedule = LambdaLR(lambda t: 1 / (t + 1))
    assert [schedule(t) for t in range(3)] == [1, 0.5, pytest.approx(1 / 3)]
    with pytest.raises(NotImplementedError):
        schedule.get_config()


@pytest.mark.parametrize(
    "make",
    [
        lambda: StepLR(0),
        lambda: StepLR(2, gamma=0.0),
        lambda: MultiStepLR([0]),
        lambda: ExponentialLR(-1),
        lambda: CosineLR(0),
        lambda: CosineLR(3, floor=-0.1),
        lambda: PolynomialLR(2, power=0),
        lambda: OneCycleLR(5, rise=1.0),
        lambda: CosineRestartsLR(2, growth=0),
        lambda: InverseSqrtLR(0),
        lambda: WarmupLR(0),
        lambda: schedule_from_config("Sawtooth", {}),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("make", [lambda: StepLR(1.5), lambda: WarmupLR(True), lambda: LambdaLR(3), lambda: ExponentialLR("x")])
def test_wrong_types_are_refused(make):
    with pytest.raises(TypeError):
        make()
