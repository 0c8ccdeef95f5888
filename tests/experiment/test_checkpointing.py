"""Checkpointing: which keys are kept, under which names, and what is refused."""

import numpy as np
import pytest

from keydnn.experiment.callbacks.checkpoints import CheckpointHooks, kept_state
from keydnn.experiment.equality import same_values
from keydnn.experiment.io import Checkpoint
from keydnn.experiment.phases import Checkpointing
from keydnn.experiment.phases.checkpointing import EXPERIMENT_HOOKS, PHASE_HOOKS


class Graph:
    """A state that says when it was taken."""

    def __init__(self):
        self.step = 0

    def get_state(self):
        return self.step


class Phase:
    label = "train"


def run(kept, n_epochs=5, n_batches=2):
    """The hooks of a training phase, in order; what the phase keeps afterwards."""
    graph = Graph()
    hooks = CheckpointHooks(kept, graph=graph, phase=Phase())
    hooks.at("phase_start")
    for epoch in range(n_epochs):
        hooks.at("epoch_start", epoch)
        for batch in range(n_batches):
            hooks.at("batch_start", epoch, batch)
            graph.step += 1
            hooks.at("batch_end", epoch, batch)
        hooks.at("epoch_end", epoch)
    hooks.at("phase_end")
    return {key: kept.get_state(key) for key in kept.saved_keys}


def test_worked_keys():
    kept = Checkpointing(save_on="epoch_end", every_n=2)
    assert run(kept) == {1: 4, 3: 8}
    assert [kept.format_name(phase="train", epoch=epoch) for epoch in kept.saved_keys] == ["train_epoch1", "train_epoch3"]
    assert run(Checkpointing(save_on="epoch_end", every_n=2, max_to_keep=1)) == {3: 8}


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("phase_start", {"phase_start": 0}),
        ("phase_end", {"phase_end": 4}),
        ("epoch_start", {0: 0, 1: 2}),
        ("epoch_end", {0: 2, 1: 4}),
        ("batch_start", {"0_0": 0, "0_1": 1, "1_0": 2, "1_1": 3}),
        ("batch_end", {"0_0": 1, "0_1": 2, "1_0": 3, "1_1": 4}),
    ],
)
def test_keys_of_each_hook(hook, expected):
    kept = Checkpointing(save_on=hook)
    assert run(kept, n_epochs=2) == expected
    assert run(kept, n_epochs=2) == expected  # a second run starts anew
    assert CheckpointHooks(kept, graph=Graph(), phase=Phase()).has_batch_hooks == hook.startswith("batch")


def test_keys_are_in_order_of_numbers_not_of_text():
    kept = Checkpointing(save_on="batch_end")
    assert list(run(kept, n_epochs=11, n_batches=11))[:13] == [f"0_{b}" for b in range(11)] + ["1_0", "1_1"]
    mixed = Checkpointing()
    for key in ("phase_end", 10, "9_10", "9_9", 2, "phase_start"):
        mixed.record_memory(key, None)
    assert mixed.saved_keys == ["phase_start", 2, "9_9", "9_10", 10, "phase_end"]


def test_a_key_that_is_needed_is_spared():
    kept = Checkpointing(max_to_keep=2)
    kept.spare("stopping", 1)
    for epoch in range(5):
        kept.record_memory(epoch, epoch)
    assert kept.saved_keys == [1, 4]
    kept.spare("stopping", 4)
    kept.record_memory(5, 5)
    assert kept.saved_keys == [4, 5]
    one = Checkpointing(max_to_keep=1)
    one.spare("stopping", 0)
    for epoch in range(3):
        one.record_memory(epoch, epoch)
    assert one.saved_keys == [0, 2]


def test_dropped_files_are_deleted(tmp_path):
    kept = Checkpointing(mode="disk", directory=tmp_path, max_to_keep=1)
    paths = [tmp_path / f"{epoch}.ckpt" for epoch in range(3)]
    for epoch, path in enumerate(paths):
        path.touch()
        kept.record_disk(epoch, path)
    assert [path.exists() for path in paths] == [False, False, True]
    assert kept.get_path(2) == paths[2] and kept.get_state(2) is None and kept.has_key(2) and not kept.has_key(0)
    kept.record_disk(2, paths[2])  # the same file again stays
    assert paths[2].exists()
    progress = kept.get_progress()
    again = Checkpointing(mode="disk", max_to_keep=1)
    again.set_progress(progress)
    assert again.saved_keys == [2] and again.get_path(2) == paths[2]


def test_names():
    assert Checkpointing(save_on="batch_end").format_name(phase="a", epoch=1, batch=2) == "a_epoch1_batch2"
    assert Checkpointing(save_on="phase_start").format_name(phase="a") == "a_start"
    assert Checkpointing(save_on="phase_end").format_name(phase="a") == "a_end"
    assert Checkpointing(mode="disk", save_on="group_end").format_name(label="g") == "g"
    assert Checkpointing(name_template="at{epoch:03d}").format_name(phase="a", epoch=7) == "at007"
    with pytest.raises(ValueError, match="epoch"):
        Checkpointing().format_name(phase="a")


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "ram"},
        {"save_on": "epoch"},
        {"every_n": 0},
        {"every_n": 1.5},
        {"max_to_keep": 0},
        {"name_template": "{fold}"},
        {"name_template": "{}"},
        {"name_template": "{phase"},
        {"name_template": "{label}"},
        {"save_on": "group_end", "name_template": "{epoch}"},
    ],
    ids=str,
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="mode|save_on|every_n|max_to_keep|template"):
        Checkpointing(**arguments)


def test_what_fits_where():
    for hook in {*PHASE_HOOKS, *EXPERIMENT_HOOKS}:
        kept = Checkpointing(mode="disk", save_on=hook)
        for check, allowed in ((kept.check_for_phase, PHASE_HOOKS), (kept.check_for_experiment, EXPERIMENT_HOOKS)):
            if hook in allowed:
                check()
            else:
                with pytest.raises(ValueError, match="save_on"):
                    check()
    with pytest.raises(ValueError, match="mode='disk'"):
        Checkpointing(save_on="phase_end").check_for_experiment()
    with pytest.raises(ValueError, match="label"):
        Checkpointing(save_on="phase_end", name_template="{label}").check_for_phase()
    with pytest.raises(ValueError, match="phase"):
        Checkpointing(mode="disk", save_on="phase_end", name_template="{phase}").check_for_experiment()


def test_files_need_a_directory(tmp_path):
    (tmp_path / "old").touch()
    with pytest.warns(UserWarning, match="holds files"):
        Checkpointing(mode="disk", directory=tmp_path)
    with pytest.raises(RuntimeError, match="Checkpointing\\(directory=...\\)"):
        CheckpointHooks(Checkpointing(mode="disk"), graph=Graph(), phase=Phase())


def test_files_of_a_phase(tmp_path):
    for kept, home in [
        (Checkpointing(mode="disk", every_n=2, max_to_keep=2, directory=tmp_path / "own"), tmp_path / "own"),
        (Checkpointing(mode="disk", every_n=2, max_to_keep=2), tmp_path / "all" / Phase().label),
    ]:
        graph = Graph()
        hooks = CheckpointHooks(kept, graph=graph, phase=Phase(), directory=tmp_path / "all")
        hooks.at("phase_start")
        for epoch in range(6):
            hooks.at("epoch_end", epoch)
        assert kept.saved_keys == [3, 5]
        assert sorted(path.name for path in home.iterdir()) == [f"{Phase().label}_epoch{epoch}.ckpt.mml" for epoch in (3, 5)]
        found = Checkpoint.load(kept.get_path(3))
        assert found.meta == {"phase": Phase().label, "epoch": 3} and found.entries == {"modelgraph": graph.get_state()}
        assert kept_state(kept, 5) == graph.get_state()


def test_a_file_of_the_same_name_may_be_protected(tmp_path):
    kept = Checkpointing(mode="disk", save_on="phase_end", directory=tmp_path / "deep", overwrite=False)
    hooks = CheckpointHooks(kept, graph=Graph(), phase=Phase())
    hooks.at("phase_end")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        hooks.at("phase_end")


def test_checkpoints_hold_states_and_plain_words(tmp_path):
    states = {"a": {"w": np.arange(3.0), "steps": (1, 2)}, "b/c": {"w": np.float32(2)}}
    path = Checkpoint(states, {"epoch": 3, "values": np.arange(2), "note": None}).save(tmp_path / "x" / "net.old")
    assert path.name == "net.ckpt.mml"
    again = Checkpoint.load(tmp_path / "x" / "net")
    assert same_values(again.entries["a"], states["a"]) and again.entries["b/c"]["w"] == 2
    assert again.meta["epoch"] == 3 and again.meta["values"].tolist() == [0, 1] and again.meta["note"] is None
    assert path.read_bytes() == Checkpoint.load(path).save(path, overwrite=True).read_bytes()
    with pytest.raises(FileExistsError):
        again.save(path)
    for meta in ({"x": object()}, {"x": {1: 2}}, {"x": [Graph()]}):
        with pytest.raises(TypeError, match="meta.x"):
            Checkpoint({}, meta)
    with pytest.raises(TypeError, match="text"):
        Checkpoint({1: {}})


def test_memory_and_disk_are_kept_apart(tmp_path):
    with pytest.raises(RuntimeError, match="disk"):
        Checkpointing().record_disk(0, tmp_path / "x")
    with pytest.raises(RuntimeError, match="memory"):
        Checkpointing(mode="disk").record_memory(0, {})
    kept = Checkpointing()
    kept.record_memory(0, {})
    assert kept.get_path(0) is None
    with pytest.raises(KeyError, match="no checkpoint"):
        kept.get_state(1)


def test_config():
    kept = Checkpointing(
        mode="disk", save_on="batch_end", every_n=3, directory="kept-states", name_template="{epoch}", max_to_keep=2, overwrite=False
    )
    assert Checkpointing.from_config(kept.get_config()) == kept != Checkpointing()
    assert list(kept.get_config()) == ["mode", "save_on", "every_n", "directory", "name_template", "max_to_keep", "overwrite"]


def test_nothing_is_kept_without_checkpointing():
    hooks = CheckpointHooks(None, graph=Graph(), phase=Phase())
    hooks.at("epoch_end", 0)
    assert not hooks.has_any and not hooks.has_batch_hooks
