"""Every optimizer keeps its promises: a row per rule and setting; and what concerns all of them at once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keydnn import Tensor
from keydnn.domain.protocols import IOptimizer
from keydnn.optim import LAMB, OPTIMIZERS, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, NAdam, RMSprop
from keydnn.testing.optimizers import OptimizerCase, check_optimizer
from tests.optim import definitions

CASES = [
    OptimizerCase("sgd", lambda ps: SGD(ps, lr=0.1), definitions.sgd()),
    OptimizerCase("sgd default rate", lambda ps: SGD(ps), definitions.sgd()),
    OptimizerCase("sgd decay", lambda ps: SGD(ps, lr=0.1, weight_decay=0.2), definitions.sgd(weight_decay=0.2)),
    OptimizerCase("momentum", lambda ps: SGD(ps, lr=0.05, momentum=0.9), definitions.sgd(0.9)),
    OptimizerCase("momentum decay", lambda ps: SGD(ps, lr=0.05, momentum=0.7, weight_decay=0.1), definitions.sgd(0.7, weight_decay=0.1)),
    OptimizerCase("nesterov", lambda ps: SGD(ps, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1), definitions.sgd(0.9, True, 0.1)),
    OptimizerCase("adam", lambda ps: Adam(ps, lr=0.02), definitions.adam()),
    OptimizerCase(
        "adam settings",
        lambda ps: Adam(ps, lr=0.02, betas=(0.5, 0.7), eps=1e-3, weight_decay=0.3),
        definitions.adam((0.5, 0.7), 1e-3, 0.3),
    ),
    OptimizerCase("adamw", lambda ps: AdamW(ps, lr=0.02), definitions.adam(weight_decay=0.01, decoupled=True)),
    OptimizerCase(
        "adamw settings",
        lambda ps: AdamW(ps, lr=0.02, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.5),
        definitions.adam((0.8, 0.9), 1e-6, 0.5, True),
    ),
]


MORE = {  # class, its definition, settings beside the defaults
    "rmsprop": (RMSprop, definitions.rmsprop, {"alpha": 0.8, "eps": 1e-3, "weight_decay": 0.2, "momentum": 0.6, "centered": True}),
    "adagrad": (Adagrad, definitions.adagrad, {"eps": 1e-3, "weight_decay": 0.2, "initial": 0.1}),
    "adadelta": (Adadelta, definitions.adadelta, {"rho": 0.7, "eps": 1e-3, "weight_decay": 0.2}),
    "adamax": (Adamax, definitions.adamax, {"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2}),
    "nadam": (NAdam, definitions.nadam, {"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2}),
    "lion": (Lion, definitions.lion, {"betas": (0.8, 0.7), "weight_decay": 0.2}),
    "lamb": (LAMB, definitions.lamb, {"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2}),
}
for _name, (_cls, _define, _settings) in MORE.items():
    CASES.append(OptimizerCase(_name, lambda ps, cls=_cls: cls(ps, lr=0.02), _define()))
    CASES.append(OptimizerCase(f"{_name} settings", lambda ps, cls=_cls, s=_settings: cls(ps, lr=0.02, **s), _define(**_settings)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_optimizer_keeps_its_promises(case):
    check_optimizer(case)


@pytest.mark.parametrize(
    "broken",
    [
        OptimizerCase("other decay", lambda ps: SGD(ps, lr=0.1, weight_decay=0.1), definitions.sgd()),
        OptimizerCase("other rate", lambda ps: SGD(ps, lr=0.1), lambda p, g, memory, lr: p - 0.1 * g),
        OptimizerCase("coupled", lambda ps: Adam(ps, weight_decay=0.5), definitions.adam(weight_decay=0.5, decoupled=True)),
    ],
    ids=str,
)
def test_the_check_notices_a_broken_promise(broken):
    with pytest.raises(AssertionError):
        check_optimizer(broken)


def test_every_named_optimizer_has_a_row():
    tested = {type(case.make([])) for case in CASES}
    assert set(OPTIMIZERS.values()) <= tested


def test_optimizers_satisfy_their_protocol():
    assert all(isinstance(cls([]), IOptimizer) for cls in OPTIMIZERS.values())


def parameter(*values):
    return Tensor(data=np.array(values, np.float32), requires_grad=True)


def with_grad(p, *values):
    p.grad = parameter(*values)
    return p


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda ps: SGD(ps, lr=0.0), "lr must be above 0"),
        (lambda ps: SGD(ps, lr=-1.0), "lr must be above 0"),
        (lambda ps: SGD(ps, lr=float("nan")), "lr must be finite"),
        (lambda ps: SGD(ps, weight_decay=-0.1), "weight_decay must be at least 0"),
        (lambda ps: SGD(ps, momentum=-0.1), "momentum must be at least 0"),
        (lambda ps: SGD(ps, nesterov=True), "nesterov needs a momentum"),
        (lambda ps: SGD(ps, lr=0.1, learning_rate=0.2), "two names for one setting"),
        (lambda ps: Adam(ps, lr=0), "lr must be above 0"),
        (lambda ps: Adam(ps, eps=0), "eps must be above 0"),
        (lambda ps: Adam(ps, betas=(0.0, 0.9)), "beta1 must lie between 0 and 1"),
        (lambda ps: Adam(ps, betas=(0.9, 1.0)), "beta2 must lie between 0 and 1"),
        (lambda ps: Adam(ps, betas=(0.9,)), "betas must be a pair"),
        (lambda ps: AdamW(ps, weight_decay=-1e-3), "weight_decay must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make([parameter(1.0)])


@pytest.mark.parametrize("params", [[np.zeros(2)], [None], Tensor((2,)), [{"params": []}, Tensor((2,))], [{"lr": 0.1}]])
def test_other_things_than_parameters_are_refused(params):
    with pytest.raises(TypeError):
        SGD(params)


def test_a_string_is_no_rate():
    with pytest.raises(TypeError, match="lr must be a number"):
        SGD([parameter(1.0)], lr="fast")


def test_learning_rate_is_another_name():
    optimizer = Adam([parameter(1.0)], learning_rate=0.25)
    assert optimizer.lr == optimizer.learning_rate == 0.25
    optimizer.learning_rate = 0.5
    assert optimizer.lr == 0.5


@pytest.mark.parametrize("value", [-1.0, float("inf"), "x"])
def test_a_bad_rate_leaves_the_old_one(value):
    optimizer = SGD([parameter(1.0)], lr=0.5)
    with pytest.raises((ValueError, TypeError)):
        optimizer.lr = value
    assert optimizer.lr == 0.5


def test_params_is_a_list_in_order_from_any_iterable():
    params = [parameter(1.0), parameter(2.0)]
    assert [id(p) for p in SGD(p for p in params).params] == [id(p) for p in params]
    assert type(SGD(iter(params)).params) is list
    assert SGD([]).params == []


def test_groups_have_their_own_settings():
    a, b = with_grad(parameter(1.0), 1.0), with_grad(parameter(1.0), 1.0)
    optimizer = SGD([{"params": [a]}, {"params": b, "lr": 1.0, "weight_decay": 0.5}], lr=0.1)
    optimizer.step()
    assert_allclose([a.item(), b.item()], [0.9, 1.0 - 1.0 * 1.5], rtol=1e-6)


def test_setting_the_rate_keeps_the_ratio_of_the_groups():
    optimizer = SGD([{"params": [parameter(1.0)]}, {"params": [parameter(1.0)], "lr": 1.0}], lr=0.1)
    optimizer.lr = 0.2
    assert [group.lr for group in optimizer.groups] == [0.2, pytest.approx(2.0)]
    optimizer.lr = 0.0
    assert [group.lr for group in optimizer.groups] == [0.0, 0.0]


def test_groups_survive_config_and_state():
    params, others = [parameter(1.0, 2.0), parameter(3.0)], [parameter(1.0, 2.0), parameter(3.0)]
    optimizer = Adam([{"params": params[:1], "betas": (0.5, 0.6)}, {"params": params[1:], "lr": 0.3}], lr=0.1)
    optimizer.lr = 0.07
    twin = Adam.from_config(optimizer.get_config(), others)
    twin.load_state_dict(optimizer.state_dict())
    for both in (params, others):
        with_grad(both[0], 1.0, -1.0), with_grad(both[1], 2.0)
    optimizer.step(), twin.step()
    assert twin.get_config() == optimizer.get_config()
    assert [p.tolist() for p in params] == [q.tolist() for q in others]
    twin.lr, optimizer.lr = 0.01, 0.01
    assert [group.lr for group in twin.groups] == [group.lr for group in optimizer.groups]


@pytest.mark.parametrize("groups", [[{"params": [0]}, {"params": [0]}], [{"params": [0], "momentum": -1}]])
def test_bad_groups_are_refused(groups):
    shared = parameter(1.0)
    with pytest.raises(ValueError):
        SGD([{**group, "params": [shared]} for group in groups])


def test_an_unknown_setting_of_a_group_is_named():
    with pytest.raises(TypeError, match="velocity"):
        SGD([{"params": [parameter(1.0)], "velocity": 1}])


def test_config_keeps_the_given_rate_and_state_the_present_one():
    optimizer = SGD([parameter(1.0)], lr=0.5)
    optimizer.lr = 0.0  # a schedule may go there
    twin = SGD.from_config(optimizer.get_config(), [parameter(1.0)])
    assert twin.lr == 0.5
    twin.set_state(optimizer.get_state())
    assert twin.lr == 0.0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda state: state.pop("0.m"), KeyError),
        (lambda state: state.update(extra=np.zeros(1)), KeyError),
        (lambda state: state.update({"0.v": np.zeros(3, np.float32)}), ValueError),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, error):
    p = with_grad(parameter(1.0, 2.0), 1.0, 1.0)
    optimizer = Adam([p])
    optimizer.step()
    before = optimizer.get_state()
    bad = {name: array * 2 for name, array in before.items()}
    change(bad)
    with pytest.raises(error):
        optimizer.set_state(bad)
    for name, array in optimizer.get_state().items():
        assert_array_equal(array, before[name])


def test_the_state_of_another_rule_is_refused():
    with pytest.raises(TypeError, match="the state is of SGD"):
        Adam([parameter(1.0)]).load_state_dict(SGD([parameter(1.0)]).state_dict())


def test_loading_a_state_keeps_the_tensors_a_recorded_step_reads():
    a, b = Adam([parameter(1.0)], lr=0.1), Adam([parameter(2.0)], lr=0.7, betas=(0.1, 0.2))
    tensors = [a.groups[0].rate, *a.groups[0].slots[0].values()]
    a.load_state_dict(b.state_dict())
    assert a.lr == 0.7 and a.get_config()["betas"] == [0.1, 0.2]
    assert all(x is y for x, y in zip(tensors, [a.groups[0].rate, *a.groups[0].slots[0].values()], strict=True))


def test_momentum_can_be_gained_with_a_state():
    plain, heavy = SGD([with_grad(parameter(1.0), 1.0)]), SGD([with_grad(parameter(1.0), 1.0)], momentum=0.9)
    heavy.step()
    plain.load_state_dict(heavy.state_dict())
    assert plain.get_state().keys() == heavy.get_state().keys()
    assert plain.get_config() == heavy.get_config()


def test_state_never_passes_to_a_parameter_that_reuses_an_id():
    seen = set()
    for _ in range(50):  # freed parameters give their ids back
        p = with_grad(parameter(1.0), 1.0)
        seen.add(id(p))
        optimizer = Adam([p], lr=0.5)
        optimizer.step()
        assert p.item() == 0.5  # a first step, never a second
        del p, optimizer
    assert len(seen) < 50  # ids were reused, so the test had a chance to fail


def test_a_gradient_of_another_dtype_is_cast():
    p = parameter(1.0, 2.0)
    p.grad = Tensor(data=np.array([1.0, 1.0]), dtype=np.float64)
    SGD([p], lr=0.5).step()
    assert p.dtype == np.float32 and p.tolist() == [0.5, 1.5]


def test_a_rate_beyond_float32_is_used_exactly():
    p = Tensor(data=np.array([0.0]), requires_grad=True, dtype=np.float64)
    p.grad = Tensor(data=np.array([1.0]), dtype=np.float64)
    SGD([p], lr=0.1).step()
    assert p.item() == -0.1
