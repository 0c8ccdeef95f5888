"""Folds: which rows validate and train, the set as a fold sees it, and a plan run on every fold."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.experiment import (
    AppliedLoss,
    CrossValidation,
    CVBinding,
    EvalPhase,
    Evaluation,
    Experiment,
    ExperimentContext,
    FeatureSet,
    Loss,
    ModelGraph,
    ModelNode,
    Optimizer,
    PhaseGroup,
    TrainPhase,
)
from keydnn.experiment.callbacks import Callback
from keydnn.experiment.data.resplitting import resplit
from keydnn.experiment.results import CVResults
from keydnn.experiment.results.cv_results import FoldSummary
from keydnn.experiment.samplers import SimpleSampler

QUIET = {"show_fold_progress": False, "show_sampler_progress": False, "show_training_progress": False}


def ten(n=10, **more):
    fs = FeatureSet.from_dict("ten", {"x": np.arange(float(n)), "lot": [f"l{i // 2}" for i in range(n)], **more}, "x", [], ["lot", *more])
    fs.split_random({"train": 0.7, "val": 0.2, "test": 0.1})
    return fs


# -- rows -----------------------------------------------------------------------------------------------------------------


def test_five_folds_of_ten_rows():
    fs = FeatureSet.from_dict("pool", {"x": np.arange(10.0)}, "x", [])
    fs.split_random({"train": 0.7, "val": 0.3})
    folds = CVBinding(fs, ["train", "val"]).folds(5, 13)
    assert [fold.val.tolist() for fold in folds] == [[6, 1], [5, 0], [4, 7], [2, 8], [3, 9]]
    for fold in folds:
        assert fold.train.tolist() == [row for row in range(10) if row not in fold.val]


@given(st.integers(12, 60), st.integers(2, 6), st.integers(0, 2**32), st.booleans())
def test_every_pooled_row_validates_once(n, n_folds, seed, twice):
    with ExperimentContext().activate():
        fs = FeatureSet.from_dict("pool", {"x": np.arange(float(n))}, "x", [])
        fs.split_random({"train": 0.6, "val": 0.2, "test": 0.2})
        binding = CVBinding(fs, ["val", "train", "val"] if twice else ["train", "val"])
    pool = np.sort(np.concatenate([fs["train"].indices, fs["val"].indices]))
    assert binding.pool().tolist() == pool.tolist()
    folds = binding.folds(n_folds, seed)
    assert np.sort(np.concatenate([fold.val for fold in folds])).tolist() == pool.tolist()
    for fold in folds:
        assert np.array_equal(np.sort(np.concatenate([fold.train, fold.val])), pool)
        assert (np.diff(fold.train) > 0).all()


def test_groups_stay_together_and_strata_are_spread():
    fs = ten(40, kind=["a", "b", "b", "b"] * 10)
    lots = lambda rows: {row // 2 for row in rows.tolist()}  # noqa: E731
    for seed in (0, 1):
        for fold in CVBinding(fs, ["train", "val"], group_by="lot").folds(4, seed):
            pool = {row // 2 for row in fold.train.tolist()} | lots(fold.val)
            assert not lots(fold.train) & lots(fold.val) and pool == lots(np.concatenate([fs["train"].indices, fs["val"].indices]))
    by_kind = [CVBinding(fs, ["train", "val"], stratify_by="kind").folds(3, seed) for seed in (0, 0, 1)]
    assert [fold.val.tolist() for fold in by_kind[0]] == [fold.val.tolist() for fold in by_kind[1]]
    assert [fold.val.tolist() for fold in by_kind[0]] != [fold.val.tolist() for fold in by_kind[2]]
    shares = [np.mean(fold.val % 4 == 0) for fold in by_kind[0]]
    assert max(shares) - min(shares) <= 0.1


def test_too_few_groups_and_too_rare_values_are_told():
    fs = ten(40, kind=["a", *["b"] * 39])
    with pytest.raises(ValueError, match=r"'ten' cannot be cut into 21 folds, take fewer: .* would get no groups \(there are"):
        CVBinding(fs, ["train", "val"], group_by="lot").folds(21, 0)
    with pytest.warns(UserWarning, match="stratify_by kind: the rarest value has 1 of 36 rows, so not each of 3 folds validates on it"):
        CVBinding(fs, ["train", "val"], stratify_by="kind").folds(3, 0)


def test_a_part_of_the_pool_validates():
    fs = ten(100)
    folds = CVBinding(fs, ["train", "val"], val_size=0.1).folds(3, 0)
    assert [len(fold.val) for fold in folds] == [9, 9, 9] and [len(fold.train) for fold in folds] == [81, 81, 81]
    assert len(set(np.concatenate([fold.val for fold in folds]).tolist())) == 27
    (one,) = CVBinding(fs, "train", val_size=0.5).folds(1, 0)
    assert len(one.val) == len(one.train) == 35


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source_splits": ["train", "other"]}, "no split 'other': feature set 'ten' has the splits train, val, test"),
        ({"source_splits": []}, "no split to pool is named"),
        ({"train_split_name": "fit"}, "no split 'fit'"),
        ({"group_by": "lot", "stratify_by": "lot"}, "exclude each other"),
        ({"val_size": 0.0}, "between 0 and 1, got 0.0"),
        ({"val_size": 1}, "between 0 and 1, got 1"),
    ],
)
def test_bindings_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words):
        CVBinding(ten(), **{"source_splits": ["train"], **options})


def test_bindings_name_sets_in_three_ways_and_warn_of_unused_rows():
    fs = ten()
    assert CVBinding("ten", "train").featureset is CVBinding(fs.node_id, "train").featureset is CVBinding(fs, "train").featureset
    with pytest.raises(ValueError, match="needs a registered FeatureSet: no node 'nine'"):
        CVBinding("nine", "train")
    with pytest.warns(UserWarning, match="no split 'later', the validation rows of folds are unused"):
        binding = CVBinding(fs, "train", val_split_name="later")
    assert binding.folded(binding.folds(3, 0)[0]).available_splits == ["train", "val", "test"]


# -- the set of a fold -------------------------------------------------------------------------------------------------------


def test_derived_splits_follow_and_others_stay():
    fs = ten(40)
    fs["train"].split_random({"fit": 0.75, "tune": 0.25}, seed=3)
    fs["fit"].split_random({"a": 0.5, "b": 0.5}, seed=4)
    rows = np.arange(0, 40, 2)
    other = resplit(fs, {"train": rows, "val": [1, 3]})
    assert (other.node_id, other.label, other.fingerprint) == (fs.node_id, fs.label, fs.fingerprint)
    assert other["train"].indices.tolist() == rows.tolist() and other["val"].indices.tolist() == [1, 3]
    assert np.array_equal(other["test"].indices, fs["test"].indices)
    fresh = fs.to_view().take(rows, "train").split_random({"fit": 0.75, "tune": 0.25}, seed=3, return_views=True, register=False)
    assert np.array_equal(other["fit"].indices, fresh["fit"].indices) and np.array_equal(other["tune"].indices, fresh["tune"].indices)
    both = np.concatenate([other["a"].indices, other["b"].indices])
    assert sorted(both.tolist()) == sorted(other["fit"].indices.tolist())
    assert other.collection.uuids(rows).tolist() == fs.collection.uuids(rows).tolist()


def test_scalers_see_only_the_training_rows_of_a_fold():
    fs = ten(30)
    fs.fit_transform("StandardScaler", domain="features", fit_to_split="train")
    fs.fit_transform("MinMaxScaler", domain="features", fit_to_split="train")
    binding = CVBinding(fs, ["train", "val"])
    before = fs.values("features.x.transformed").copy()
    for fold in binding.folds(3, 0):
        seen = binding.folded(fold)
        x = np.arange(30.0)
        scaled = (x - x[fold.train].mean()) / x[fold.train].std()
        expected = (scaled - scaled[fold.train].min()) / (scaled[fold.train].max() - scaled[fold.train].min())
        np.testing.assert_allclose(seen.values("features.x.transformed"), expected, rtol=1e-12, atol=1e-12)
        assert seen.audit(splits=["train", "val", "test"]).ok
    assert np.array_equal(fs.values("features.x.transformed"), before) and len(fs.scaler_records) == 2


# -- runs ---------------------------------------------------------------------------------------------------------------------


class Bench:
    """A set, a net with dropout, an experiment that trains and evaluates it."""

    def __init__(self, backend, *, seed=3):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(40, 3))
        self.fs = FeatureSet.from_dict("cells", {"u": x, "y": x.sum(axis=1, keepdims=True) * 3 + 5}, "u", "y")
        self.fs.split_random({"train": 0.6, "val": 0.2, "test": 0.2}, seed=1)
        self.fs.fit_transform("StandardScaler", domain="features", fit_to_split="train")
        models = pytest.importorskip(f"keydnn.experiment.models.{backend}")
        model = models.SequentialMLP(hidden_dim=6, dropout=0.3)
        self.net = ModelNode("net", model, self.fs.reference(features="u.transformed", targets="y.raw"))
        self.graph = ModelGraph([self.net], Optimizer("adam", opt_kwargs={"lr": 0.02}, backend=backend))
        self.loss = AppliedLoss(Loss("mse", backend=backend), self.net, ["outputs", "targets"], label="error")
        self.exp = Experiment.from_active_context("exp", seed=seed)
        watch = Evaluation.from_split(label="watch", split="val", losses=[self.loss])
        sampler = SimpleSampler(batch_size=8, shuffle=True, seed=5)
        self.train = TrainPhase.from_split("train", split="train", sampler=sampler, losses=[self.loss], n_epochs=2, callbacks=[watch])
        self.test = EvalPhase.from_split("test", split="test", losses=[self.loss])
        self.exp.execution_plan.add_phase(self.train).add_phase(self.test)
        self.binding = CVBinding(self.fs, ["train", "val"])

    def everything(self):
        state = self.graph.get_state() if self.graph.is_built else None
        rows = {name: view.indices.tolist() for name, view in self.fs.splits.items()}
        return repr(state), rows, self.fs.values("features.u.transformed").tobytes(), repr(self.exp.get_state()["random"])


@pytest.fixture(params=["keydnn", pytest.param("torch", marks=pytest.mark.torch)])
def bench(request):
    if request.param == "torch":
        pytest.importorskip("torch")
    return Bench(request.param)


def rows_of(ctx):
    """The rows that a step saw."""
    return [row for view in ctx.input_views.values() for rows in view.role_indices.values() for row in rows.tolist()]


def numbers(results):
    """Losses, metrics and outputs of a run of the plan."""
    train, test = results["train"], results["test"]
    return (
        train.losses("net").to_dict(),
        train.metrics().to_dict(),
        [part.tobytes() for part in train.tensors("net", "outputs", fmt="np").values()],
        test.stacked_tensors("net", "outputs", fmt="np").tobytes(),
    )


def told(results):
    return [repr(part) for part in numbers(results)]


def test_every_fold_is_a_run_of_its_own(bench):
    bench.exp.run_phase(bench.train, show_sampler_progress=False, show_training_progress=False)
    before = bench.everything()
    cv = CrossValidation(label="cv", bindings=bench.binding, n_folds=4, experiment=bench.exp)
    results = cv.run(**QUIET)
    assert isinstance(results, CVResults) and results.fold_labels == ["fold_0", "fold_1", "fold_2", "fold_3"]
    assert bench.everything() == before
    assert [run.label for run in bench.exp.history] == ["train", *(f"cv_fold_{i}" for i in range(4))]
    assert bench.exp.ctx.get_node("cells") is bench.fs and bench.exp.execution_plan.label == "exp"
    assert told(results.get_fold(2)) == told(cv.run_fold(2, show_sampler_progress=False, show_training_progress=False))
    for i, fold in enumerate(cv.folds[0]):
        shown = {row for ctx in results.get_fold(i)["train"].execution_contexts().values() for row in rows_of(ctx)}
        assert shown == set(fold.train.tolist())
    summary = results.summary("train_loss")
    assert isinstance(summary, FoldSummary) and len(set(summary.per_fold)) == 4 and summary.mean == np.mean(summary.per_fold)
    assert repr(summary).startswith("train_loss: ") and results.summary("train/train_loss").per_fold == summary.per_fold
    losses = results.losses("net")
    assert losses.axes == ("fold", "epoch", "batch", "label") and losses.shape == {"fold": 4, "epoch": 2, "batch": 3, "label": 1}
    assert results.epoch_losses("net").axes == ("fold", "epoch", "label")
    assert results.collect(lambda fold: len(fold)).to_dict() == {(0,): 2, (1,): 2, (2,): 2, (3,): 2}


def test_a_fold_is_what_an_experiment_with_these_splits_does(bench):
    cv = CrossValidation(label="cv", bindings=bench.binding, n_folds=3)
    fold = cv.folds[0][1]
    got = cv.run_fold(1, show_sampler_progress=False, show_training_progress=False)
    fs = bench.fs
    state = fs.get_state()
    state["splits"]["rows"] |= {"train": fold.train, "val": fold.val}
    state["sample_collection"], state["scaler_records"] = fs.collection.copy(raw_only=True), []
    fs.set_state(state)
    fs.fit_transform("StandardScaler", domain="features", fit_to_split="train")
    group = PhaseGroup("fold_1", bench.exp.execution_plan.all)
    expected = bench.exp.run_apart(group, label="cv_fold_1", show_sampler_progress=False, show_training_progress=False)
    assert told(got) == told(expected)


class Stops(Callback):
    def __init__(self, at):
        super().__init__("stops")
        self.at = at

    def get_config(self):
        return {"at": self.at}

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        if exec_ctx.epoch_idx == self.at:
            raise ArithmeticError("enough")


def test_everything_is_put_back_after_an_exception(bench):
    bench.graph.build()
    bench.train.add_callback(Stops(1))
    before = bench.everything()
    with pytest.raises(ArithmeticError, match="enough"):
        CrossValidation(label="cv", bindings=bench.binding, n_folds=3).run(**QUIET)
    assert bench.everything() == before
    assert [(run.label, run.status) for run in bench.exp.history] == [("cv_fold_0", "failed")]
    assert bench.exp.ctx.get_node("cells") is bench.fs


def test_folds_start_from_the_weights_there_are_or_from_fresh_ones(bench):
    quiet = {"show_sampler_progress": False, "show_training_progress": False}
    cv = CrossValidation(label="cv", bindings=bench.binding, n_folds=3, phase=bench.train)
    fresh = repr(cv.run_fold(0, **quiet)["train"].losses("net").to_dict())
    bench.exp.run_phase(bench.train, **quiet)
    assert repr(cv.run_fold(0, **quiet)["train"].losses("net").to_dict()) != fresh
    assert repr(cv.run_fold(0, reset_weights=True, **quiet)["train"].losses("net").to_dict()) == fresh


def test_what_cannot_be_validated(bench):
    make = lambda **options: CrossValidation(**{"bindings": bench.binding, **options})  # noqa: E731
    with ExperimentContext().activate():
        other = ten()
    for options, kind, words in [
        ({"n_folds": 0}, ValueError, "n_folds must be a whole number of at least 1, got 0"),
        ({"n_folds": 1}, ValueError, "a single fold of 'cells' needs val_size"),
        ({"n_folds": 2.5}, ValueError, "n_folds must be a whole number of at least 1, got 2.5"),
        ({"n_folds": 50}, ValueError, "50 folds of the 32 rows of 'cells': some would get no samples; take fewer folds"),
        ({"bindings": CVBinding(other, "train")}, ValueError, "'ten' is not in the context of the experiment, which has 'cells'"),
        ({"bindings": CVBinding(bench.fs, "train", val_size=0.4), "n_folds": 3}, ValueError, "val_size 0.4 of 'cells' is too large for 3"),
        ({"phase": bench.test}, TypeError, "a TrainPhase or a PhaseGroup, got EvalPhase"),
        ({"bindings": []}, TypeError, "one or more CVBindings"),
        ({"bindings": [bench.binding, bench.binding]}, ValueError, "two bindings cut the same feature set"),
        ({"experiment": bench.graph}, TypeError, "must be an Experiment, got ModelGraph"),
    ]:
        with pytest.raises(kind, match=words):
            make(**options)
    with pytest.raises(TypeError, match="unknown keywords show_nothing"):
        make().run(show_nothing=True)
    assert bench.exp.history == []
    bench.exp.ctx.set_experiment(None)
    with pytest.raises(TypeError, match="no experiment"):
        make()


def test_questions_without_an_answer(bench):
    results = CrossValidation(label="cv", bindings=bench.binding, n_folds=2).run(**QUIET)
    with pytest.raises(KeyError, match="no fold 2"):
        results.get_fold(2)
    with pytest.raises(KeyError, match="has no training phase 'test'"):
        results.losses("net", phase="test")
    with pytest.raises(KeyError, match="has no metric 'accuracy'"):
        results.summary("accuracy")


def test_no_warning_of_overlaps(bench):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CrossValidation(bindings=bench.binding, n_folds=2, phase=bench.train).run(**QUIET)
