"""Checkpoints of whole experiments: where they go, what they bring back, and when runs write them."""

import numpy as np
import pytest

from keydnn.experiment import Experiment, ExperimentContext, FeatureSet
from keydnn.experiment.callbacks import ExperimentCallback
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ArtifactError, ArtifactKindError, PackagedCodeError, StateMismatchError
from keydnn.experiment.io import Checkpoint, inspect_packaged_code
from keydnn.experiment.phases import Checkpointing
from tests.experiment.test_experiment_files import QUIET, Bench, everything


@pytest.fixture
def bench(tmp_path):
    made = Bench()
    made.exp.set_checkpoint_dir(tmp_path / "kept")
    return made


def whole(bench):
    """All that a checkpoint brings back."""
    cells = bench.cells
    columns = {name: cells.collection.array(name) for name in cells.get_all_keys()}
    rows = [(name, view.indices, cells.split_registry.parent(name)) for name, view in cells.splits.items()]
    runs = [(run.label, run.status) for run in bench.exp.history]
    return [everything(bench.exp), columns, rows, cells.scaler_records, runs]


def same(a, b):
    return same_values(a[:3], b[:3]) and a[3:] == b[3:]


# -- where ----------------------------------------------------------------------------------------------------------------


def test_the_folder(tmp_path):
    exp = Experiment("exp", ctx=ExperimentContext())
    assert exp.checkpoint_dir is None
    with pytest.raises(RuntimeError, match="set_checkpoint_dir"):
        exp.save_checkpoint("first")
    with pytest.raises(FileNotFoundError, match="create=True"):
        exp.set_checkpoint_dir(tmp_path / "a" / "b", create=False)
    exp.set_checkpoint_dir(str(tmp_path / "a" / "b"))
    assert exp.checkpoint_dir == tmp_path / "a" / "b" and exp.checkpoint_dir.is_dir()
    path = exp.save_checkpoint("first")
    with pytest.warns(UserWarning, match=r"holds checkpoints already: first.ckpt.mml"):
        exp.set_checkpoint_dir(path.parent)
    with pytest.raises(NotADirectoryError, match="is a file"):
        exp.set_checkpoint_dir(path)
    assert exp.checkpoint_dir == path.parent


def test_names(bench):
    path = bench.exp.save_checkpoint("first.v1", meta={"why": "because", "at": np.arange(2)})
    assert path.name == "first.ckpt.mml" and bench.exp.available_checkpoints == {"first": path}
    meta = Checkpoint.load(path).meta
    assert (meta["label"], meta["why"], meta["at"].tolist()) == ("exp", "because", [0, 1])
    with pytest.raises(ValueError, match="overwrite=True"):
        bench.exp.save_checkpoint("first")
    assert bench.exp.save_checkpoint("first", overwrite=True) == path
    for wrong in ("", ".hidden", "a/b", "..\\b", "c:d"):
        with pytest.raises(ValueError, match="name of a"):
            bench.exp.save_checkpoint(wrong)
    with pytest.raises(TypeError, match="text"):
        bench.exp.save_checkpoint(3)
    with pytest.raises(TypeError, match=r"meta\.f"):
        bench.exp.save_checkpoint("second", meta={"f": object()})
    path.unlink()
    assert bench.exp.available_checkpoints == {}


def test_what_cannot_be_restored(bench, tmp_path):
    exp = bench.exp
    exp.save_checkpoint("first")
    before = whole(bench)
    with pytest.raises(ValueError, match="no checkpoint 'second'.*first"):
        exp.restore_checkpoint("second")
    with pytest.raises(TypeError, match="holds other"):
        exp.restore_checkpoint(Checkpoint({"other": {}}).save(tmp_path / "other"))
    with pytest.raises(ArtifactKindError):
        exp.restore_checkpoint(bench.graph.save(tmp_path / "net"))
    state = Checkpoint.load(exp.available_checkpoints["first"]).entries["experiment"]
    with pytest.raises(ArtifactError, match="malformed: KeyError"):
        exp.restore_checkpoint(Checkpoint({"experiment": {**state, "callbacks": {}, "history": [{}]}}).save(tmp_path / "odd"))
    (tmp_path / "bad.ckpt.mml").write_bytes(b"no")
    with pytest.raises(ArtifactError):
        exp.restore_checkpoint(tmp_path / "bad")
    assert same(whole(bench), before)


# -- what -----------------------------------------------------------------------------------------------------------------


def test_the_full_state_comes_back(bench):
    exp = bench.exp
    exp.run(**QUIET)
    bench.cells.clear_splits()
    bench.cells.split_random({"val": 0.5, "train": 0.5}, seed=1)
    bench.cells["val"].split_random({"deep": 0.5, "alone": 0.5}, seed=1)
    bench.graph.freeze("one")
    kept = whole(bench)
    path = exp.save_checkpoint("first")
    for name in ("first", path, path.parent / "first"):
        bench.graph.unfreeze()
        exp.run(**QUIET)
        bench.cells.undo_all_transforms()
        bench.cells.fit_transform("Negate", domain="targets")
        assert bench.cells.available_splits == ["val", "train", "deep", "alone"]
        bench.cells.clear_splits()
        bench.cells.split_random({"x": 0.3, "y": 0.7}, seed=2)
        bench.cells.encode_labels("lot")
        assert not same(whole(bench), kept)
        exp.restore_checkpoint(name)
        assert same(whole(bench), kept)
    straight = [exp.run(**QUIET) and whole(bench), exp.restore_checkpoint("first"), exp.run(**QUIET) and whole(bench)]
    assert same(straight[0], straight[2])


def test_equal_labels_are_enough(bench, tmp_path):
    bench.exp.run(**QUIET)
    path = bench.exp.save_checkpoint("first")
    with ExperimentContext().activate():
        other = Bench("other")
        ids = set(other.graph.nodes)
        other.exp.restore_checkpoint(path)
        assert set(other.graph.nodes) == ids and other.exp.label == "other" and len(other.exp.history) == 1
        for label in ("one", "two", "head"):
            assert same_values(other.graph.get_node(label).model.get_weights(), bench.graph.get_node(label).model.get_weights())
        bench.exp.run(**QUIET)
        sampler, mine = (b.exp.execution_plan["train"].input_sources[0].sampler for b in (bench, other))
        mine.seed = sampler.seed
        assert same_values(other.exp.get_state()["random"], bench.exp.get_state()["random"]) is False


def test_other_nodes_or_data_leave_everything_as_it_was(bench):
    path = bench.exp.save_checkpoint("first")
    with ExperimentContext().activate():
        other = Bench("other")
        other.graph.remove_node("two")
        before = whole(other)
        with pytest.raises(ValueError, match="'?nodes both, head, one, two"):
            other.exp.restore_checkpoint(path)
        assert same(whole(other), before)
    with ExperimentContext().activate():
        other = Bench("other", noise=1.0)
        before = whole(other)
        with pytest.raises(StateMismatchError, match="'cells' by fingerprint"):
            other.exp.restore_checkpoint(path)
        assert same(whole(other), before)
    with ExperimentContext().activate():
        exp = Experiment("empty", ctx=ExperimentContext.get_active())
        with pytest.raises(ValueError, match="feature sets that are not here: 'cells'"):
            exp.restore_checkpoint(path)
        FeatureSet("cells", bench.cells.collection)
        with pytest.raises(ValueError, match="has none"):
            exp.restore_checkpoint(path)


def test_checkpoints_of_a_training_phase(bench, tmp_path):
    exp, phase = bench.exp, bench.exp.execution_plan["train"]
    phase.set_checkpointing(Checkpointing(mode="disk"))
    weights = []

    class Seen(ExperimentCallback):
        def on_phase_end(self, experiment, phase):
            weights.append(bench.graph.get_state())

    exp.add_callback(Seen())
    exp.run_phase(phase, **QUIET)
    folder = exp.checkpoint_dir / "train"
    assert exp.available_checkpoints == {f"train/train_epoch{i}": folder / f"train_epoch{i}.ckpt.mml" for i in (0, 1)}
    exp.run_phase(phase, **QUIET)
    copy = (folder / "train_epoch1.ckpt.mml").read_bytes()
    for name in ("train/train_epoch1", folder / "train_epoch1.ckpt.mml", "train/train_epoch0"):
        exp.restore_checkpoint(name)
        assert same_values(bench.graph.get_state(), weights[1]) == ("epoch1" in str(name))
    assert len(exp.history) == 2
    exp._callbacks.clear()
    path = exp.save(tmp_path / "trial")
    with ExperimentContext().activate():
        again = Experiment.load(path, checkpoint_dir=tmp_path / "there")
        assert list(again.available_checkpoints) == ["train/train_epoch0", "train/train_epoch1"]
        assert (tmp_path / "there" / "train" / "train_epoch1.ckpt.mml").read_bytes() == copy
        again.restore_checkpoint("train/train_epoch1")
        assert same_values(again.model_graph.get_state(), weights[1])


# -- when -----------------------------------------------------------------------------------------------------------------


class Notes(ExperimentCallback):
    """Writes down which hooks it saw, and which checkpoints were there."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def _note(self, experiment, what):
        self.notes.append((what, *sorted(experiment.available_checkpoints)))

    def on_experiment_start(self, experiment):
        self._note(experiment, "start")

    def on_experiment_end(self, experiment):
        self._note(experiment, "end")

    def on_phase_end(self, experiment, phase):
        self._note(experiment, phase.label)

    def on_group_end(self, experiment, group):
        self._note(experiment, group.label)


@pytest.mark.parametrize(
    ("hook", "names"),
    [
        ("experiment_start", ["START"]),
        ("experiment_end", ["END"]),
        ("phase_start", ["a", "b", "train"]),
        ("phase_end", ["a", "b", "train"]),
        ("group_start", ["deep", "exp", "inner"]),
        ("group_end", ["deep", "exp", "inner"]),
    ],
)
def test_hooks(bench, hook, names):
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on=hook))
    bench.exp.run(**QUIET)
    assert sorted(bench.exp.available_checkpoints) == names
    assert all(path == bench.exp.checkpoint_dir / f"{name}.ckpt.mml" for name, path in bench.exp.available_checkpoints.items())


def test_order_counts_names_and_limits(bench, tmp_path):
    notes = []
    bench.exp.add_callback(Notes(notes))
    own = Checkpointing(mode="disk", save_on="phase_end", every_n=2, directory=tmp_path / "own", name_template="at {label}!", max_to_keep=1)
    bench.exp.set_checkpointing(own)
    bench.exp.run(**QUIET)  # train, a, b
    assert notes == [
        ("start",),
        ("train",),
        ("a",),
        ("deep", "at a_"),
        ("b", "at a_"),
        ("inner", "at a_"),
        ("exp", "at a_"),
        ("end", "at a_"),
    ]
    bench.exp.run_phase(bench.eval("own/one"))
    assert bench.exp.available_checkpoints == {"at own_one_": tmp_path / "own" / "at own_one_.ckpt.mml"}
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["at own_one_.ckpt.mml"]


def test_the_run_that_goes_on_is_in_the_checkpoint(bench):
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="phase_end"))
    bench.exp.run(**QUIET)
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="experiment_end"))
    bench.exp.run(**QUIET)
    for name, runs in {"a": ["stopped"], "END": ["completed", "completed"]}.items():
        bench.exp.restore_checkpoint(name)
        assert [run.status for run in bench.exp.history] == runs


def test_previews_callbacks_and_blocks_write_nothing(bench):
    class Inner(ExperimentCallback):
        def on_phase_end(self, experiment, phase):
            if phase.label == "train":
                experiment.run_phase(bench.eval("inside"))

    bench.exp.add_callback(Inner())
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="phase_end"))
    bench.exp.preview_run(**QUIET)
    with bench.exp.disable_checkpointing():
        bench.exp.run(**QUIET)
    assert bench.exp.available_checkpoints == {}
    bench.exp.run(**QUIET)
    assert sorted(bench.exp.available_checkpoints) == ["a", "b", "train"]


def test_runs_without_a_folder_do_not_begin():
    bench = Bench()
    bench.exp.set_checkpointing(Checkpointing(mode="disk", save_on="phase_end"))
    with pytest.raises(RuntimeError, match="set_checkpoint_dir"):
        bench.exp.run(**QUIET)
    assert bench.exp.history == []


# -- in files -------------------------------------------------------------------------------------------------------------


def test_checkpoints_travel_with_the_experiment(bench, tmp_path):
    exp = bench.exp
    exp.set_checkpointing(Checkpointing(mode="disk", save_on="phase_end", every_n=2))
    exp.run(**QUIET)
    exp.save_checkpoint("mine")
    path = exp.save(tmp_path / "trial")
    with ExperimentContext().activate(), pytest.warns(UserWarning, match="brings 2 checkpoints"):
        assert Experiment.load(path).available_checkpoints == {}
    with ExperimentContext().activate():
        again = Experiment.load(path, checkpoint_dir=tmp_path / "there")
        assert {name: p.name for name, p in again.available_checkpoints.items()} == {"a": "a.ckpt.mml", "mine": "mine.ckpt.mml"}
        assert again.checkpoint_dir == tmp_path / "there"
        assert again.save(tmp_path / "second").read_bytes() == path.read_bytes()
        again.restore_checkpoint("mine")
        assert again.checkpointing.get_progress()["counts"] == {"phase_end": 3}
    with ExperimentContext().activate() as ctx:
        with pytest.raises(FileExistsError, match="overwrite=True"):
            Experiment.load(path, checkpoint_dir=tmp_path / "there")
        assert not ctx.available_nodes and ctx.get_experiment() is None
        with pytest.warns(UserWarning, match="holds checkpoints already"):
            assert len(Experiment.load(path, checkpoint_dir=tmp_path / "there", overwrite=True).available_checkpoints) == 2


def test_names_that_lead_out_of_the_folder(bench, tmp_path):
    bench.exp.save_checkpoint("mine")
    for name in ("../out", "/out", "a/b/c/d", "..", "a\\b", "c:x"):
        bench.exp._checkpoints = {name: bench.exp.checkpoint_dir / "mine.ckpt.mml"}
        path = bench.exp.save(tmp_path / "trial", overwrite=True)
        with ExperimentContext().activate() as ctx:
            with pytest.raises(ArtifactError, match="leads out of the folder"):
                Experiment.load(path, checkpoint_dir=tmp_path / "there")
            assert not (tmp_path / "there").exists() and not ctx.available_nodes


SCALER = """
from keydnn.experiment.scalers import Absolute

class Doubled(Absolute):
    def transform(self, X):
        return 2 * super().transform(X)
"""


def test_code_in_checkpoints_needs_permission(bench, tmp_path, monkeypatch):
    (tmp_path / "own_scalers.py").write_text(SCALER)
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_scalers import Doubled

    bench.cells.fit_transform(Doubled(), domain="features", keys="t")
    path = bench.exp.save_checkpoint("mine")
    values = bench.cells.collection.array("features.t.transformed")
    bench.cells.undo_last_transform("features", "t")
    with pytest.raises(PackagedCodeError, match="inspect_packaged_code"):
        bench.exp.restore_checkpoint("mine")
    assert list(inspect_packaged_code(path).values()) == [SCALER]
    assert [name.split("/")[:2] for name in inspect_packaged_code(bench.exp.save(tmp_path / "trial"))] == [["checkpoints", "0000.ckpt.mml"]]
    bench.exp.restore_checkpoint("mine", allow_packaged_code=True)
    assert np.array_equal(bench.cells.collection.array("features.t.transformed"), values)
