"""Sensor and controllers: every recursion against its formula, registry, resets, bad input."""

import numpy as np
import pytest

from keydnn.stability import (
    AffineDataset,
    Controller,
    CurvatureSensor,
    GlobalThrottleOrder0Controller,
    GlobalThrottleOrder1Controller,
    GlobalThrottleOrder2Controller,
    LinearBlockModel,
    NoController,
    QuantizationAwareOrder2Controller,
    make_controller,
)
from keydnn.stability.controllers import CANDIDATES, AdGDController, BaseController, RationalThrottleController
from tests.native.common import needs_native

CURVATURES = [0.0, 1.0, 8.0, 3.0, 0.5, 20.0, 2.0, 2.0]
ETA, EPS = 0.5, 1e-12


def alphas(controller, curvatures=CURVATURES, **more):
    return [controller.step(learning_rate=ETA, curvature_proxy=c, curvature_ema=0.0, **more).alpha for c in curvatures]


def clip(a, low=0.0, high=1.0):
    return min(max(a, low), high)


def test_sensor_recursion():
    rng = np.random.default_rng(0)
    thetas, gradients = rng.standard_normal((6, 5)), rng.standard_normal((6, 5))
    sensor, S = CurvatureSensor(rho=0.2, eps=1e-9), 0.0
    assert sensor.update(thetas[0], gradients[0]) == (0.0, 0.0, False)
    for t in range(1, 6):
        C = np.linalg.norm(gradients[t] - gradients[t - 1]) / (np.linalg.norm(thetas[t] - thetas[t - 1]) + 1e-9)
        S = 0.8 * S + 0.2 * C
        assert sensor.update(thetas[t], gradients[t]) == (pytest.approx(C, rel=1e-14), pytest.approx(S, rel=1e-14), True)
    assert sensor.update(thetas[5], gradients[0]) == (pytest.approx(C), pytest.approx(S), False)  # nothing moved: held
    sensor.reset()
    assert sensor.update(thetas[1], gradients[1]) == (0.0, 0.0, False)


def test_sensor_by_formula_after_a_frozen_step():
    sensor = CurvatureSensor(on_zero_step="formula")
    sensor.update(np.zeros(2), np.zeros(2))
    assert sensor.update(np.zeros(2), np.ones(2))[0] == pytest.approx(np.sqrt(2) / 1e-12)
    for bad in ({"rho": 1.5}, {"on_zero_step": "skip"}):
        with pytest.raises(ValueError):
            CurvatureSensor(**bad)


def test_sensor_and_controllers_carry_on_from_a_state():
    a, b = CurvatureSensor(), CurvatureSensor()
    rng = np.random.default_rng(1)
    for _ in range(3):
        a.update(rng.standard_normal(3), rng.standard_normal(3))
    b.set_state(a.get_state())
    theta, G = rng.standard_normal((2, 3))
    assert a.update(theta, G) == b.update(theta, G)
    one, two = GlobalThrottleOrder2Controller(), GlobalThrottleOrder2Controller()
    alphas(one)
    two.set_state(one.get_state())
    assert alphas(one) == alphas(two)


def test_order_0():
    expected = [1.0 if c <= EPS else clip(1.5 / (ETA * (c + EPS))) for c in CURVATURES]
    assert alphas(GlobalThrottleOrder0Controller()) == expected
    bounded = GlobalThrottleOrder0Controller(alpha_min=0.3, alpha_max=0.6, chi=1.0)
    assert alphas(bounded) == [0.6 if c == 0 else clip(1.0 / (ETA * (c + EPS)), 0.3, 0.6) for c in CURVATURES]
    step = GlobalThrottleOrder0Controller().step(learning_rate=ETA, curvature_proxy=1.0, curvature_ema=6.0)
    assert (step.curvature_for_control, step.alpha, step.eta_eff) == (6.0, pytest.approx(0.5), pytest.approx(0.25))
    assert GlobalThrottleOrder0Controller(use_ema_max=False).step(learning_rate=ETA, curvature_proxy=1.0, curvature_ema=6.0).alpha == 1.0


def test_no_controller_tells_what_order_0_would_do():
    steps = [NoController().step(learning_rate=ETA, curvature_proxy=c, curvature_ema=0.0) for c in CURVATURES]
    assert {s.alpha for s in steps} == {1.0} and [s.alpha_would for s in steps] == alphas(GlobalThrottleOrder0Controller())


def test_order_1_and_2():
    alpha, expected = 0.7, []
    for c in CURVATURES:
        alpha = clip(alpha + 0.2 * (1.5 - ETA * alpha * c))
        expected.append(alpha)
    one = GlobalThrottleOrder1Controller(k_alpha=0.2, initial_alpha=0.7)
    assert alphas(one) == pytest.approx(expected, rel=1e-14)
    one.reset()
    assert alphas(one) == pytest.approx(expected, rel=1e-14)
    for anti_windup in (False, True):
        alpha, v, expected = 1.0, 0.0, []
        for c in CURVATURES:
            v = 0.6 * v + 0.2 * (1.5 - ETA * alpha * c)
            free = alpha + v
            alpha = clip(free)
            v = 0.0 if anti_windup and free != alpha else v
            expected.append(alpha)
        two = GlobalThrottleOrder2Controller(k_alpha=0.2, beta=0.6, anti_windup=anti_windup)
        assert alphas(two) == pytest.approx(expected, rel=1e-14)
        two.reset()
        assert alphas(two) == pytest.approx(expected, rel=1e-14)


def test_order_1_settles_at_the_target_margin():
    one = GlobalThrottleOrder1Controller(k_alpha=0.1)
    assert alphas(one, [6.0] * 200)[-1] * ETA * 6.0 == pytest.approx(1.5, rel=1e-9)


def test_quantization_aware():
    qa = QuantizationAwareOrder2Controller(k_alpha=0.3)
    alpha, v = 1.0, 0.0
    for c, norm in [(1.0, 1.0), (8.0, 0.1), (20.0, 0.01), (2.0, 5.0), (40.0, 1.0)]:
        lower, upper = 0.01 / (ETA * norm + EPS), clip(1.5 / (ETA * (c + EPS)))
        v = 0.8 * v + 0.3 * (1.5 - ETA * alpha * c)
        alpha = min(max(alpha + v, min(lower, upper)), upper)
        step = qa.step(learning_rate=ETA, curvature_proxy=c, curvature_ema=0.0, grad_norm=norm, update_quantum=0.01)
        assert step.alpha == pytest.approx(alpha, rel=1e-13) and step.feasible == (lower <= upper)
        assert step.alpha_min == pytest.approx(min(lower, upper)) and step.alpha_max == upper
    for quantum in (None, 0.0):
        assert qa.step(learning_rate=ETA, curvature_proxy=1.0, curvature_ema=0.0, grad_norm=1.0, update_quantum=quantum).alpha_min == 0


def test_division_free_laws():
    def candidate(dG, dtheta):
        return next((a for a in CANDIDATES if a * a * ETA * ETA * dG * dG <= 2.25 * (dtheta * dtheta + 1e-24)), 0.01)

    sensor = CurvatureSensor()
    zero = GlobalThrottleOrder0Controller(law="division_free", alpha_min=0.01)
    one, alpha = GlobalThrottleOrder1Controller(law="division_free", k_alpha=0.3, alpha_min=0.01), 1.0
    theta = np.zeros(2)
    sensor.update(theta, theta)
    for scale in (0.1, 3.0, 10.0, 1000.0, 4.0):
        theta = theta + 1.0
        C, S, _ = sensor.update(theta, theta * scale)
        a = candidate(sensor.d_gradient, sensor.d_theta)
        alpha = clip(alpha + 0.3 * (a - alpha), 0.01)
        now = {"learning_rate": ETA, "curvature_proxy": C, "curvature_ema": S, "sensor": sensor}
        assert zero.step(**now).alpha == a and one.step(**now).alpha == pytest.approx(alpha)


def test_rational():
    c = RationalThrottleController()
    assert c.step(learning_rate=ETA, curvature_proxy=9.0, curvature_ema=3.0).alpha == 0.25
    assert c.step(learning_rate=ETA, curvature_proxy=9.0, curvature_ema=1e9).alpha == 0.01


@needs_native
def test_adgd_grows_slowly_and_stays_below_half():
    c, alpha, ratio = AdGDController(), 1.0, 0.0
    for C in (0.0, 5.0, 5.0, 0.1, 0.1, 0.1, 2.0, 0.0):
        would = min(1.0, 0.5 / (0.8 * (C + 1e-12))) if C > 1e-12 else 1.0
        before, alpha = alpha, max(min(would, np.sqrt(1.0 + ratio) * alpha, 1.0), 1e-6)
        ratio = alpha / (before + 1e-12)
        step = c.step(learning_rate=0.8, curvature_proxy=C, curvature_ema=9.0)  # the average is not used
        assert step.alpha == pytest.approx(alpha, rel=1e-12) and step.alpha_would == pytest.approx(would, rel=1e-12)
    c.reset()
    assert (c.alpha, c.ratio) == (1.0, 0.0)
    data = AffineDataset(50, seed=1)
    model = LinearBlockModel(data, num_hidden=[], seed=0)
    h = model.train_instrumented(
        *data.get(), epochs=400, batch_size=50, learning_rate=20.0, controller=AdGDController(), first_step="probe"
    )
    assert h["loss"][-1] < 1e-3 * h["loss"][0] and h.meta["eager"] is None


def test_registry():
    named = {
        "none": NoController,
        "GT-Order-0": GlobalThrottleOrder0Controller,
        "ctrl-gt-order-1": GlobalThrottleOrder1Controller,
        "CTRL-GT-ORDER-2": GlobalThrottleOrder2Controller,
        "gt-order-2-qa": QuantizationAwareOrder2Controller,
    }
    for name, cls in named.items():
        assert type(make_controller(name)) is cls
        assert make_controller(name).controller_id.lower().endswith(name.lower().removeprefix("ctrl-"))
    made = Controller.from_str("gt-order-0", chi=1.1)
    assert made.chi == 1.1 and Controller.from_controller(made) is made and type(make_controller(None)) is NoController
    assert "chi=1.1" in repr(made)
    with pytest.raises(ValueError, match="gt-order-2-qa"):
        make_controller("gt-order-3")
    with pytest.raises(TypeError):
        make_controller(3)
    with pytest.raises(ValueError, match="settings already"):
        make_controller(made, chi=2.0)
    for bad in ({"chi": 0.0}, {"alpha_min": 0.5, "alpha_max": 0.2}, {"law": "square"}):
        with pytest.raises(ValueError):
            GlobalThrottleOrder0Controller(**bad)
    with pytest.raises(ValueError):
        GlobalThrottleOrder2Controller(beta=1.0)
    with pytest.raises(NotImplementedError):
        BaseController().step(learning_rate=ETA, curvature_proxy=1.0, curvature_ema=0.0)
