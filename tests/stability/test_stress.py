"""The stress suite, and the clips and projections it compares a throttle with."""

import numpy as np
import pytest

from keydnn.stability import AffineDataset, ClipRule, LinearBlockModel, stack_precision, stress, stress_suite
from keydnn.stability.stress import SCENARIOS


@pytest.mark.slow
def test_the_suite_as_it_stands():
    results = {result.name: result for result in stress_suite()}
    assert list(results) == list(SCENARIOS)
    assert [name for name, result in results.items() if result.passed] == ["ST-000", "ST-001", "ST-002", "ST-003"]
    assert results["ST-004"].verdict == results["ST-005"].verdict == "underflow"
    for result in results.values():
        assert list(result.checks) == ["finite loss", "bounded rails", "non-zero updates", "falling error"] == list(result.evidence)
    assert str(results["ST-004"]).startswith("ST-004 dead zone of the updates: failed: non-zero updates")
    adam = results["ST-005"].history  # the lost state shows before the loss does
    assert np.argmax(adam["state_underflow_fraction_max"] > 0.5) < np.argmax(adam["loss"] > 10 * adam["loss"][0])


@pytest.mark.parametrize("name, failing", [
    ("ST-000", "finite loss"), ("ST-001", "finite loss"), ("ST-002", "falling error"), ("ST-003", "bounded rails"),
])  # fmt: skip
def test_the_first_four_need_the_throttle(name, failing):
    result = stress(name, controller="none")
    assert not result.passed and not result.checks[failing]


@pytest.mark.slow
@pytest.mark.parametrize("name, remedy", [
    ("ST-004", {"precision_dict": stack_precision(16, 3)}),
    ("ST-005", {"precision_dict": {"dense0": {"adam_v": "ap_fixed<40,2,AP_RND,AP_SAT>"}}, "learning_rate": 0.05}),
    ("ST-006", {"update_rule": None, "controller": "gt-order-0"}),
    ("ST-007", {"update_rule": ClipRule(kappa=4.0, project="row")}),
])  # fmt: skip
def test_the_last_four_have_a_remedy(name, remedy):
    result = stress(name, **remedy)
    assert result.passed, str(result)


def test_an_unknown_scenario():
    with pytest.raises(ValueError, match="there are ST-000"):
        stress("ST-008")


# -- clips and projections


def test_bounds_by_hand():
    g, theta = [np.array([[3.0, -4.0], [0.0, 0.5]])], [np.array([[1.0, 1.0], [0.25, -2.0]])]
    size = np.sqrt(9 + 16 + 0.25)
    expected = {
        ClipRule(learning_rate=0.5): -0.5 * g[0],
        ClipRule(clip_norm=1.0, learning_rate=0.5): -0.5 * g[0] / size,
        ClipRule(clip_norm=9.0, learning_rate=0.5): -0.5 * g[0],
        ClipRule(clip_gradient=1.0, learning_rate=0.5): -0.5 * np.clip(g[0], -1, 1),
        ClipRule(clip_update=0.1, learning_rate=0.5): np.clip(-0.5 * g[0], -0.1, 0.1),
        ClipRule(clip_weight=1.0, learning_rate=0.5): np.clip(theta[0] - 0.5 * g[0], -1, 1) - theta[0],
    }
    for rule, delta in expected.items():
        found = rule.propose(g, theta)[0]
        np.testing.assert_allclose(found, delta, rtol=1e-12, err_msg=repr(rule))
        cosine = -(found * g[0]).sum() / (np.linalg.norm(found) * size)
        assert rule.cosines == pytest.approx([cosine], rel=1e-12)
    for project, axis in (("layer", None), ("row", 1), ("column", 0)):
        moved = theta[0] + ClipRule(kappa=0.75, project=project, learning_rate=0.5).propose(g, theta)[0]
        free = theta[0] - 0.5 * g[0]
        np.testing.assert_allclose(np.linalg.norm(moved, axis=axis), np.minimum(np.linalg.norm(free, axis=axis), 0.75), rtol=1e-12)
    assert ClipRule(kappa=0.1, learning_rate=1.0).propose([np.ones(3)], [np.ones(3)])[0].tolist() == [-1.0] * 3  # a bias is free


def test_a_run_with_a_rule_whose_limit_is_unknown():
    data = AffineDataset(20, seed=0)
    rule = ClipRule(clip_norm=0.1)
    h = LinearBlockModel(data, num_hidden=[], seed=0).train_instrumented(*data.get(), epochs=3, batch_size=20, update_rule=rule)
    assert np.isnan(h["stability_limit"]).all() and len(rule.cosines) == 3
    np.testing.assert_allclose(h["optimizer_update_norm"], 0.05 * np.minimum(h["grad_norm"], 0.1), rtol=1e-9)


def test_bad_arguments():
    with pytest.raises(ValueError, match="clip_norm must be above 0"):
        ClipRule(clip_norm=0.0)
    with pytest.raises(ValueError, match="project must be one of layer, row, column"):
        ClipRule(kappa=1.0, project="rows")
    assert "kappa=2.0" in repr(ClipRule(kappa=2.0))
