"""Splits: disjoint and complete, groups whole, strata even, the same in every process; what is registered and what warns."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.errors import SplitOverlapWarning
from keydnn.experiment.predicates import GT, In
from keydnn.experiment.splitters import BaseSplitter, ConditionSplitter, KFoldSplitter, RandomSplitter, TimeSplitter, splitter_registry

RATIOS = st.sampled_from([(0.5, 0.5), (0.7, 0.2, 0.1), (0.6, 0.4), (0.25, 0.25, 0.25, 0.25), (0.34, 0.33, 0.33)])
NAMES = ["train", "val", "test", "rest"]


def feature_set(n, groups=1):
    tags = {"g": [f"g{i}" for i in np.random.default_rng(n).integers(0, groups, n)]}
    return FeatureSet.from_dict(f"fs{n}", {"x": np.arange(n), **tags}, "x", [], "g")


@given(
    n=st.integers(20, 300),
    ratios=RATIOS,
    seed=st.integers(0, 2**32),
    groups=st.integers(5, 12),
    by=st.sampled_from(["", "group_by", "stratify_by"]),
)
def test_splits_are_disjoint_and_complete(n, ratios, seed, groups, by):
    with ExperimentContext(registration_policy="no_register").activate():
        fs = feature_set(n, 2 if by == "stratify_by" else groups)
        ratios = dict(zip(NAMES, ratios, strict=False))
        tags = fs.values("tags.g.raw")
        assume(by != "group_by" or len(set(tags)) >= 10)
        assume(by != "stratify_by" or min(np.unique(tags, return_counts=True)[1]) >= 10)  # else the smallest split may get nothing
        options = {by: "g"} if by else {}
        parts = fs.split_random(ratios, seed=seed, return_views=True, **options)
        rows = np.concatenate([view.indices for view in parts.values()])
        assert sorted(rows.tolist()) == list(range(n))
        seen = {name: set(tags[view.indices]) for name, view in parts.items()}
        if by == "group_by":
            assert sum(map(len, seen.values())) == len(set(tags))
        if by == "stratify_by":
            for value in set(tags):
                count = np.count_nonzero(tags == value)
                for name, view in parts.items():
                    assert abs(np.count_nonzero(tags[view.indices] == value) - ratios[name] * count) <= 1
        if not by:
            assert all(abs(len(view) - ratios[name] * n) < 1 for name, view in parts.items())


def test_every_call_cuts_alike(ten):
    splitter = RandomSplitter({"a": 0.5, "b": 0.5}, seed=3)
    first, second = (ten.split(splitter, return_views=True, register=False)["a"].indices.tolist() for _ in range(2))
    assert first == second
    assert RandomSplitter.from_config(splitter.get_config()) == splitter


def test_the_seed_orders_the_groups():
    fs = feature_set(60, 10)
    cuts = {
        tuple(fs.split_random({"a": 0.5, "b": 0.5}, group_by="g", seed=s, register=False, return_views=True)["a"].indices) for s in range(5)
    }
    assert len(cuts) > 1


def test_no_seed_draws_one_and_keeps_it():
    a, b = RandomSplitter({"a": 1.0}, seed=None), RandomSplitter({"a": 1.0}, seed=None)
    assert a.seed != b.seed and RandomSplitter.from_config(a.get_config()) == a


def test_strict_stratification_cuts_strata_to_the_smallest():
    fs = FeatureSet.from_dict("few", {"x": np.arange(12), "t": list("aaaaaaaabbbb")}, "x", [], "t")
    parts = fs.split_random({"a": 0.5, "b": 0.5}, stratify_by="t", strict_stratification=True, return_views=True)
    assert [len(view) for view in parts.values()] == [4, 4]
    assert RandomSplitter({"a": 1.0}, strict_stratification=True).get_config()["strict_stratification"] is True


def test_registration_is_all_or_nothing(ten):
    ten.split_random({"b": 1.0})
    with pytest.raises(ValueError, match="'b' is registered"):
        ten.split_random({"a": 0.5, "b": 0.5})
    assert ten.available_splits == ["b"] and len(ten.splitter_records) == 1


def test_overlaps_warn_with_counts(ten):
    ten.split_by_condition({"low": {"b": In([0, 1, 2])}})
    with pytest.warns(SplitOverlapWarning, match="'high' and 'low' share 1 samples"):
        ten.split_by_condition({"high": {"b": GT(1)}})


def test_nested_splits_name_their_parent_and_do_not_warn(ten):
    ten.split_random({"train": 0.8, "test": 0.2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ten["train"].split_random({"fit": 0.5, "val": 0.5})
        ten["fit"].split_random({"p": 0.5, "q": 0.5})
    assert [record.applied_to for record in ten.splitter_records] == [None, "train", "fit"]
    assert set(ten["p"].indices) | set(ten["q"].indices) == set(ten["fit"].indices)
    assert ten.split_registry.ancestors("p") == ["p", "fit", "train"]


def test_clear_splits(ten):
    ten.split_random({"a": 1.0})
    ten.clear_splits()
    assert (ten.n_splits, ten.splits, ten.splitter_records) == (0, {}, [])


def test_a_split_shows_columns_that_were_added_later(ten):
    ten.split_random({"train": 0.5, "test": 0.5})
    before = ten["train"]
    ten.fit_transform("Negate", domain="features", fit_to_split="train")
    assert "features.a.transformed" in ten["train"].get_all_keys()
    assert "features.a.transformed" not in before.get_all_keys()


def test_a_splitter_of_ones_own(ten):
    class Ends(BaseSplitter):
        def split(self, view, *, return_views=True):
            return {"first": [0], "last": [len(view) - 1]}

    class Wrong(BaseSplitter):
        def split(self, view, *, return_views=True):
            return {"beyond": [len(view)]}

    ten.split(Ends())
    assert ten["last"].indices.tolist() == [9]
    with pytest.raises(IndexError, match="10 is outside"):
        ten.split(Wrong())
    assert ten.available_splits == ["first", "last"]


def test_blocks_in_time_order():
    fs = FeatureSet.from_dict("t", {"x": np.arange(6), "when": [5, 1, 4, 0, 3, 2]}, "x", [], "when")
    parts = fs.split(TimeSplitter({"past": 0.5, "future": 0.5}, "when"), return_views=True)
    assert [view.indices.tolist() for view in parts.values()] == [[3, 1, 5], [4, 2, 0]]


@pytest.mark.parametrize(
    "splitter",
    [
        RandomSplitter({"a": 0.5, "b": 0.5}, stratify_by=["t"]),
        ConditionSplitter(a={"b": GT(1)}),
        KFoldSplitter(3),
        TimeSplitter({"a": 1.0}, "b"),
    ],
    ids=lambda splitter: type(splitter).__name__,
)
def test_configs_and_files(splitter, tmp_path):
    config = splitter.get_config()
    assert config["splitter_name"] == type(splitter).__name__ and config["splitter_name"].lower() in splitter_registry
    assert BaseSplitter.from_config(config) == type(splitter).from_config(config) == splitter
    path = splitter.save(tmp_path / "cut.v1")
    assert path.name == "cut.sp.mml"
    assert type(splitter).load(tmp_path / "cut") == splitter


SAME_IN_A_NEW_PROCESS = """
import hashlib, numpy as np
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition
fs = FeatureSet.from_dict("fs", {"x": np.sin(np.arange(200.0)), "g": [f"g{i % 7}" for i in range(200)]}, "x", [], "g", )
fs.split_random({"a": .6, "b": .4}, stratify_by="g")
pairs = PairedSampler({"x": SimilarityCondition(tolerance=.1)}, seed=5, shuffle=True, batch_size=7, source=fs["a"])
h = hashlib.sha256(fs["a"].indices.tobytes())
for batch in pairs.get_batches():
    for rows in batch.role_indices.values():
        h.update(rows.tobytes())
print(h.hexdigest(), fs.fingerprint)
"""


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_a_new_process():
    answers = {
        subprocess.run([sys.executable, "-c", SAME_IN_A_NEW_PROCESS], capture_output=True, text=True, check=True).stdout for _ in range(2)
    }
    assert len(answers) == 1 and len(answers.pop().split()) == 2
