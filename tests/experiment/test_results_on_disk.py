"""Results that are written while they occur: the same answers as in memory, previews that leave no trace, memory that stays flat."""

import gc
import tracemalloc

import numpy as np
import pytest

from keydnn.experiment import Experiment, FeatureSet, ResultsConfig
from keydnn.experiment.backends.tensors import to_numpy
from keydnn.experiment.callbacks import ArtifactResult, Callback, callback_registry
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.errors import PackagedCodeError
from keydnn.experiment.phases import Checkpointing, TrainPhase
from keydnn.experiment.results import TrainResults
from keydnn.experiment.results.blocks import SUFFIX, read_block
from keydnn.experiment.results.folders import PhaseFolder, file_name
from keydnn.experiment.results.state import results_from_state
from tests.experiment.result_answers import answers
from tests.experiment.test_result_states import BACKENDS, Odd, experiment, read_back, steps_of

FLAGS = ("save_execution", "save_metrics", "save_artifacts")


def everything(folder, **flags):
    return ResultsConfig(folder, **{**dict.fromkeys(FLAGS, True), **flags})


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run_with(config, backend="keydnn", **options):
    """The results of a run in a context of its own, where ids of nodes are always the same."""
    with ExperimentContext().activate():
        exp = experiment(backend, config=config, **options)
        results = exp.run()
        return exp, results, same_ids(answers(results, unscale=True), exp)


def same_ids(value, exp):
    """Answers with labels instead of ids."""
    names = {node.node_id: node.label for node in exp.ctx.available_nodes.values()}
    text = repr(value)
    for node_id, label in names.items():
        text = text.replace(node_id, label)
    return text


@pytest.fixture
def samples():
    rows = np.arange(24)
    return FeatureSet.from_dict("rows", {"a": 10.0 * rows, "y": 2.0 * rows, "t": [f"t{i % 11}" for i in rows]}, ["a"], "y", "t")


# -- the config


def test_config(tmp_path):
    config = ResultsConfig(tmp_path / "new", save_metrics=True)
    assert (config.results_dir, config.save_execution, config.save_metrics, config.save_artifacts) == (tmp_path / "new", True, True, True)
    assert not (tmp_path / "new").exists()  # nothing is made before something is written
    told = {"results_dir": str(tmp_path / "new"), "save_execution": True, "save_metrics": True, "save_artifacts": True}
    assert config.get_config() == told
    assert ResultsConfig.from_config(told) == config and hash(ResultsConfig.from_config(told)) == hash(config)
    assert config != ResultsConfig(tmp_path / "new") and "save_metrics=True" in repr(config)
    assert config.phase_dir("0_run/train") == tmp_path / "new" / "0_run" / "train"
    assert ResultsConfig().phase_dir("0_run/train") is None and ResultsConfig().run_folder(0, "run") is None
    for suffix in ("/etc", "../x", "a/../../x"):
        with pytest.raises(ValueError, match="leads out of results_dir"):
            config.phase_dir(suffix)
    with pytest.raises(TypeError, match="save_metrics must be True or False, got 'yes'"):
        ResultsConfig(save_metrics="yes")


def test_the_directory_must_be_absent_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    ResultsConfig(tmp_path / "empty")
    (tmp_path / "empty" / "file").write_text("x")
    for taken in (tmp_path / "empty", tmp_path / "empty" / "file"):
        with pytest.raises(ValueError, match="must be absent or empty"):
            ResultsConfig(taken)
    again = ResultsConfig.from_config({**ResultsConfig().get_config(), "results_dir": str(tmp_path / "empty")})
    assert again.results_dir == tmp_path / "empty"  # of an experiment that goes on


def test_an_experiment_takes_one_and_tells_it(tmp_path):
    config = ResultsConfig(tmp_path / "r")
    exp = Experiment("e", results_config=config)
    assert exp.results_config is config and exp.get_config()["results_config"] == config.get_config()
    with ExperimentContext().activate():
        assert Experiment.from_config(exp.get_config()).results_config == config
    assert Experiment("f").results_config is None
    with pytest.raises(TypeError, match="results_config must be a ResultsConfig or None, got str"):
        Experiment("g", results_config=str(tmp_path))


@pytest.mark.parametrize(
    ("label", "name"), [("a/b", "a_b"), ("..", "_"), ("über 1", "über 1"), ("", "_"), ("c:\\x", "c__x"), ("x" * 300, "x" * 100)]
)
def test_labels_become_names_of_folders(label, name):
    assert file_name(label) == name


# -- runs


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flags", [{}, {"save_metrics": False}, {"save_execution": False}, {"save_artifacts": False}])
def test_written_results_answer_as_those_in_memory(backend, flags, tmp_path):
    _, _, expected = run_with(None, backend, batch_hooks=True)
    exp, results, found = run_with(everything(tmp_path / "r", **flags), backend, batch_hooks=True)
    assert found == expected
    written = {name.split("/")[-2] for name in files(tmp_path / "r")}
    kinds = {"execution_data": "save_execution", "callbacks": "save_execution", "metrics": "save_metrics", "artifacts": "save_artifacts"}
    assert written == {kind for kind, flag in kinds.items() if flags.get(flag, True)}
    assert {name.split("/")[0] for name in files(tmp_path / "r")} == {"0_run"}
    with exp.ctx.activate():
        back = read_back(results, tmp_path)  # a file of its own, without the folder
        assert same_ids(answers(back, unscale=True), exp) == expected


def test_folders_follow_the_plan(tmp_path):
    exp = experiment("keydnn", config=everything(tmp_path / "r"))
    exp.run()
    exp.run_phase(exp.execution_plan.get_train_phase("train"))
    folders = sorted({str(path.parent.relative_to(tmp_path / "r")) for path in (tmp_path / "r").rglob(f"*{SUFFIX}")})
    of_train = [f"train/{kind}" for kind in ("artifacts", "callbacks", "execution_data", "metrics")]
    of_test = [f"after/test/{kind}" for kind in ("execution_data", "metrics")]
    assert folders == sorted([*(f"0_run/{one}" for one in (*of_train, *of_test)), *(f"1_train/{one}" for one in of_train)])
    assert not list((tmp_path / "r").rglob("*.tmp"))


def test_an_epoch_is_there_when_the_next_one_begins(tmp_path):
    seen = []

    class Looks(Callback):
        def get_config(self):
            return super().get_config()

        def on_epoch_start(self, *, experiment, phase, exec_ctx, results):
            seen.append(len(list((tmp_path / "r").rglob(f"steps_*{SUFFIX}"))))

    exp = experiment("keydnn", config=everything(tmp_path / "r"))
    phase = exp.execution_plan.get_train_phase("train")
    more = TrainPhase("more", input_sources=phase.input_sources, losses=phase.losses, n_epochs=3, callbacks=[Looks()])
    results = exp.run_phase(more)
    assert seen == [0, 1, 2] and len(list((tmp_path / "r").rglob(f"steps_*{SUFFIX}"))) == 3
    assert len(list((tmp_path / "r").rglob(f"frames_*{SUFFIX}"))) <= 3 and results.n_epochs == 3


def test_previews_write_nothing(tmp_path):
    exp = experiment("keydnn", config=everything(tmp_path / "r"))
    results = exp.preview_run()
    assert len(results.get_train_result().execution_contexts()) and not (tmp_path / "r").exists()
    exp.run()
    before = files(tmp_path / "r")
    exp.preview_phase(exp.execution_plan.get_train_phase("train"))
    assert files(tmp_path / "r") == before
    assert not [name for name in before if "watch" in name]  # the evaluation inside of training is a preview


def test_a_failed_run_leaves_what_there_was(tmp_path):
    class Fails(Callback):
        def get_config(self):
            return super().get_config()

        def on_epoch_start(self, *, experiment, phase, exec_ctx, results):
            if exec_ctx.epoch_idx == 2:
                raise RuntimeError("on purpose")

    exp = experiment("keydnn", config=everything(tmp_path / "r"))
    phase = exp.execution_plan.get_train_phase("train")
    with pytest.raises(RuntimeError, match="on purpose"):
        exp.run_phase(TrainPhase("more", input_sources=phase.input_sources, losses=phase.losses, n_epochs=3, callbacks=[Fails()]))
    results = exp.last_run.results
    assert results.epoch_indices == [0, 1] and len(list((tmp_path / "r").rglob(f"steps_*{SUFFIX}"))) == 2
    assert results.history["train_loss"].size == 2


def test_only_the_best_or_last_epoch_stays_on_disk(tmp_path):
    exp = experiment("keydnn", config=everything(tmp_path / "r"))
    phase = exp.execution_plan.get_train_phase("train")
    results = exp.run_phase(TrainPhase("more", input_sources=phase.input_sources, losses=phase.losses, n_epochs=4, result_recording="last"))
    assert results.epoch_indices == [3]
    assert len(list((tmp_path / "r").rglob(f"steps_*{SUFFIX}"))) == 1


@pytest.mark.slow
def test_a_loaded_experiment_writes_its_results_where_it_is_told(tmp_path):
    with ExperimentContext().activate():
        exp = experiment("keydnn", config=everything(tmp_path / "r"), told=False)
        exp.run()
        exp.run_phase(exp.execution_plan.get_train_phase("train"))
        expected = [same_ids(answers(run.results, unscale=True), exp) for run in exp.history]
        path = exp.save(tmp_path / "saved")
    written = files(tmp_path / "r")
    with ExperimentContext().activate(), pytest.warns(UserWarning, match="brings results that were on disk; pass results_dir="):
        loaded = Experiment.load(path)
        assert [same_ids(answers(run.results, unscale=True), loaded) for run in loaded.history] == expected
        assert loaded.results_config == exp.results_config
    with ExperimentContext().activate():
        with pytest.raises(ValueError, match="must be absent or empty"):
            Experiment.load(path, results_dir=tmp_path / "r")
        loaded = Experiment.load(path, results_dir=tmp_path / "new")
        assert [same_ids(answers(run.results, unscale=True), loaded) for run in loaded.history] == expected
        assert {name.rpartition("/")[0] for name in files(tmp_path / "new")} == {name.rpartition("/")[0] for name in written}
        assert loaded.results_config.get_config() == {**exp.results_config.get_config(), "results_dir": str(tmp_path / "new")}
        loaded.run_phase(loaded.execution_plan.get_train_phase("train"))
        assert (tmp_path / "new" / "2_train" / "train" / "execution_data").is_dir()
    assert files(tmp_path / "r") == written


# -- stores by themselves


def folder_of(path):
    return PhaseFolder(path / "execution_data", path / "callbacks", path / "metrics", path / "artifacts")


def record(results, contexts, epochs, start=0):
    for epoch in range(start, epochs):
        results.start_epoch(epoch)
        for ctx in contexts(epoch):
            results.add_execution_context(ctx)
            results.metric_store.log(name="loss", value=epoch + ctx.batch_idx / 3, epoch_idx=epoch, batch_idx=ctx.batch_idx)
        results.keep_epoch(min(epoch, 1))
    results.finish()
    return results


def outputs_of(ctx):
    (batch,) = ctx.outputs.values()
    return to_numpy(batch.outputs).tolist()


@pytest.mark.parametrize("recording", ["all", "last"])
@pytest.mark.parametrize("reshuffled", [False, True])
def test_frames_are_written_once_and_deleted_with_their_last_epoch(recording, reshuffled, samples, tmp_path):
    plain = [[0, 1, 2], [3, 4], [5]]
    fixed = steps_of(samples, "numpy", plain, ["default"], 2)

    def contexts(epoch):
        moved = [[(row + 6 * epoch) % 24 for row in rows] for rows in plain]
        return steps_of(samples, "numpy", moved, ["default"], 2)(epoch) if reshuffled else fixed(epoch)

    found = {}
    for name in ("memory", "disk"):
        results = TrainResults("t")
        if name == "disk":
            results.write_to(folder_of(tmp_path))
        results.start_recording(recording)
        found[name] = record(results, contexts, 4)
    tensors = {
        name: [to_numpy(one).tolist() for ctx in r.execution_contexts().values() for one in [next(iter(ctx.outputs.values())).outputs]]
        for name, r in found.items()
    }
    assert tensors["disk"] == tensors["memory"] and len(tensors["disk"]) == (3 if recording == "last" else 12)
    counts = {kind: len(list((tmp_path / "execution_data").glob(f"{kind}_*"))) for kind in ("steps", "frames")}
    assert counts == {"steps": 1 if recording == "last" else 4, "frames": 1 if recording == "last" or not reshuffled else 4}
    if not reshuffled:
        assert answers(found["disk"]) == answers(found["memory"])


def test_set_state_writes_what_it_was_given(samples, tmp_path):
    contexts = steps_of(samples, "numpy", [[0, 1], [2]], ["default"], 1)
    half = record(TrainResults("t"), contexts, 2)
    half.artifact_store.log(name="a", artifact=Odd(1), epoch_idx=0)
    results = TrainResults("t")
    results.write_to(folder_of(tmp_path))
    results.set_state(half.get_state())
    record(results, contexts, 4, start=2)
    record(half, contexts, 4, start=2)
    assert {name.split("_0")[0] for name in files(tmp_path)} == {
        "artifacts/artifact",
        "execution_data/frames",
        "execution_data/steps",
        "metrics/metrics",
    }
    told = answers(half)
    assert results.artifacts().first().artifact == Odd(1)
    assert told | {"artifacts": None} == answers(results) | {"artifacts": None}


def test_artifacts_are_read_each_time_and_trusted_only_as_written(tmp_path):
    results = TrainResults("t")
    results.write_to(folder_of(tmp_path))
    results.artifact_store.log(name="odd", artifact=Odd(3), epoch_idx=0)
    results.artifact_store.log(name="plain", artifact={"w": np.ones(3)}, epoch_idx=0)
    entry = results.artifacts().at(name="odd", epoch=0, batch=None)
    assert entry.artifact == Odd(3) and entry.artifact is not entry.artifact
    (path, _) = sorted((tmp_path / "artifacts").iterdir())
    assert read_block(path)["unsafe"].data is None and read_block(path, allow_packaged_code=True)["unsafe"].open() == Odd(3)
    data = bytearray(path.read_bytes())
    data[-1] ^= 0  # the same bytes are trusted
    path.write_bytes(bytes(data))
    assert entry.artifact == Odd(3)
    path.write_bytes(sorted((tmp_path / "artifacts").iterdir())[1].read_bytes())
    other = TrainResults("u")
    other.write_to(folder_of(tmp_path / "other"))
    other.artifact_store.log(name="odd", artifact=Odd(4), epoch_idx=0)
    path.write_bytes(next((tmp_path / "other" / "artifacts").iterdir()).read_bytes())  # somebody put another pickle there
    with pytest.raises(PackagedCodeError, match="a pickle of a .*Odd can run code"):
        _ = entry.artifact
    with pytest.warns(UserWarning, match="artifact 'call' stays in memory"):
        results.artifact_store.log(name="call", artifact=lambda: 7, epoch_idx=1)
    assert results.artifacts().at(name="call", epoch=1, batch=None).artifact() == 7


def test_two_writers_do_not_mix(tmp_path):
    for fails in (False, True):
        results = TrainResults("t")
        results.write_to(folder_of(tmp_path))
        if fails:
            with pytest.raises(FileExistsError):
                results.artifact_store.log(name="a", artifact=2, epoch_idx=0)
        else:
            results.artifact_store.log(name="a", artifact=1, epoch_idx=0)
    config = ResultsConfig(tmp_path / "runs")
    paths = [config.run_folder(0, label).path.name for label in ("a", "a", "b/c")]
    assert paths == ["0_a", "1_a", "2_b_c"]
    folder = config.run_folder(0, "labels")
    assert [folder.phase(label).execution.parent.name for label in ("a/b", "a_b", "A_B")] == ["a_b", "a_b_2", "A_B_3"]


def test_results_of_hooks_keep_their_class_and_order(tmp_path):
    class Local(ArtifactResult):
        pass

    results = TrainResults("t")
    results.write_to(folder_of(tmp_path))
    for epoch in range(3):
        results.start_epoch(epoch)
        one = Local("w", np.full(2, epoch))
        one.callback_label, one.epoch_idx, one.edge = "cb", epoch, "end"
        results.add_callback_result(one)
        results.artifact_store.log(name="w", artifact=one.artifact, epoch_idx=epoch)
    assert len(results.callback_results) == 3
    assert [one.artifact.tolist() for one in results.callback_results] == [[0, 0], [1, 1], [2, 2]]
    assert [one.epoch for one in results.callback_results[1:]] == [1, 2] and results.callback_results[-1].epoch == 2
    assert all(type(one) is Local for one in results.callbacks(kind="artifact").values())
    with pytest.raises(IndexError):
        results.callback_results[3]
    sizes = {name: (tmp_path / name).stat().st_size for name in files(tmp_path)}
    assert max(size for name, size in sizes.items() if name.startswith("callbacks")) < 2000  # the array stands in the artifact's file alone


@pytest.mark.slow
def test_memory_stays_flat_while_a_run_records(tmp_path):
    n = 2000
    fs = FeatureSet.from_dict("many", {"a": np.arange(float(n)), "y": np.arange(float(n)), "t": np.arange(n)}, ["a"], "y", "t")
    contexts = steps_of(fs, "numpy", [list(range(i, i + 100)) for i in range(0, n, 100)], ["default"], 25)

    def held(write):
        results = TrainResults("t")
        if write:
            results.write_to(folder_of(tmp_path))
        sizes = []
        for epoch in range(24):
            results.start_epoch(epoch)
            for ctx in contexts(epoch):
                results.add_execution_context(ctx)
                results.metric_store.log(name="loss", value=1.0, epoch_idx=epoch, batch_idx=ctx.batch_idx)
            if epoch in (7, 23):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes[1] - sizes[0]

    tracemalloc.start()
    try:
        in_memory, on_disk = held(False), held(True)
    finally:
        tracemalloc.stop()
    outputs = 16 * n * 25 * 4
    assert in_memory > outputs > 40 * on_disk


def test_a_state_of_written_results_is_that_of_results_in_memory(samples, tmp_path):
    contexts = steps_of(samples, "numpy", [[0, 1], [2]], ["default"], 1)
    results = TrainResults("t")
    results.write_to(folder_of(tmp_path))
    record(results, contexts, 3)
    back = results_from_state(results.get_state())
    assert answers(back) == answers(results) and back._folder is None


def test_a_run_that_goes_on_writes_its_results_again(tmp_path):
    class Fails(Callback):
        armed = True

        def get_config(self):
            return super().get_config()

        def on_epoch_start(self, *, experiment, phase, exec_ctx, results):
            if exec_ctx.epoch_idx == 2 and Fails.armed:
                raise RuntimeError("on purpose")

    callback_registry.register("fails_once", Fails)
    try:
        with ExperimentContext().activate():
            exp = experiment("keydnn", config=everything(tmp_path / "r"), told=False)
            train = exp.execution_plan.get_train_phase("train")
            train.add_callback(Fails())
            train.set_checkpointing(Checkpointing(mode="disk"))
            with pytest.raises(RuntimeError, match="on purpose"):
                exp.run(run_dir=tmp_path / "run")
        Fails.armed = False
        with ExperimentContext().activate():
            whole = experiment("keydnn", told=False)
            expected = same_ids(answers(whole.run(), unscale=True), whole)
        with ExperimentContext().activate():
            gone_on = Experiment.resume(tmp_path / "run")
            assert same_ids(answers(gone_on.last_run.results, unscale=True), gone_on) == expected
        folders = {name.split("/")[0] for name in files(tmp_path / "r")}
        assert folders == {"0_run", "1_run"}
        assert len(list((tmp_path / "r" / "1_run" / "train" / "execution_data").glob("steps_*"))) >= 3
    finally:
        del callback_registry["fails_once"]
