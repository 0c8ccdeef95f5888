"""Callbacks and how they are called: order, what is stored, what is put back, configs."""

from types import SimpleNamespace

import numpy as np
import pytest

import keydnn
from keydnn.experiment import FeatureSet
from keydnn.experiment.callbacks import (
    ArtifactResult,
    Callback,
    ExperimentCallback,
    MetricCallback,
    MetricResult,
    PayloadResult,
    callback_registry,
)
from keydnn.experiment.callbacks.dispatch import ExperimentHooks, PhaseHooks
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.errors import PackagedCodeError
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.io import Encoder
from keydnn.experiment.io.archive import ArchiveReader, to_json, write_archive
from keydnn.experiment.io.classes import Symbols
from keydnn.experiment.io.values import Decoder
from keydnn.experiment.phases.callback_configs import callback_config, callback_from_config
from keydnn.experiment.training import Optimizer


class Log(list):
    def log(self, **entry):
        self.append(entry)


class Results:
    """Stores, in order."""

    def __init__(self):
        self.metric_store, self.artifact_store, self.stored = Log(), Log(), []

    def add_callback_result(self, result):
        self.stored.append(result)


class Every(Callback):
    """Tells each hook and returns what it was made with."""

    def __init__(self, label, told, value=None, execution_order=0):
        super().__init__(label, execution_order)
        self.told, self.value = told, value

    def on_phase_start(self, **given):
        return self._tell("phase_start", given)

    def on_phase_end(self, **given):
        return self._tell("phase_end", given)

    def on_epoch_start(self, **given):
        return self._tell("epoch_start", given)

    def on_epoch_end(self, **given):
        return self._tell("epoch_end", given)

    def on_batch_start(self, **given):
        return self._tell("batch_start", given)

    def on_batch_end(self, **given):
        return self._tell("batch_end", given)

    def on_exception(self, **given):
        return self._tell("exception", given)

    def _tell(self, hook, given):
        self.told.append((self.label, hook, sorted(given)))
        return self.value

    def get_config(self):
        return super().get_config()


EXPERIMENT, PHASE = SimpleNamespace(model_graph=None), SimpleNamespace(label="train")
STEP = ExecutionContext("train", 2, 5)


def hooks_of(callbacks, results=None, experiment=EXPERIMENT):
    return PhaseHooks(callbacks, experiment=experiment, phase=PHASE, results=results or Results())


def all_hooks(hooks, error=None):
    hooks.phase_start()
    for hook in (hooks.epoch_start, hooks.batch_start, hooks.batch_end, hooks.epoch_end):
        hook(STEP)
    hooks.phase_end()
    hooks.exception(STEP, error or ValueError())


NAMES = ["phase_start", "epoch_start", "batch_start", "batch_end", "epoch_end", "phase_end", "exception"]
COMMON = ["experiment", "phase", "results"]


def test_order_and_arguments():
    told = []
    all_hooks(
        hooks_of([Every("late", told, execution_order=2), Every("a", told), Every("b", told), Every("early", told, execution_order=-1)])
    )
    assert [label for label, hook, _ in told if hook == "epoch_end"] == ["early", "a", "b", "late"]
    assert [label for label, hook, _ in told if hook == "exception"] == ["early", "a", "b", "late"]
    given = {hook: names for _, hook, names in told}
    assert list(given) == NAMES
    assert given["phase_start"] == given["phase_end"] == COMMON
    assert given["epoch_start"] == given["batch_end"] == sorted([*COMMON, "exec_ctx"])
    assert given["exception"] == sorted([*COMMON, "exec_ctx", "exception"])


def test_scopes():
    results = Results()
    all_hooks(hooks_of([Every("a", [], value=3)], results))
    assert all(isinstance(one, PayloadResult) and one.payload == 3 and one.kind == "payload" for one in results.stored)
    assert [one.scope for one in results.stored] == [
        (None, None, "start"),
        (2, None, "start"),
        (2, 5, "start"),
        (2, 5, "end"),
        (2, None, "end"),
        (None, None, "end"),
        (2, 5, "exception"),
    ]
    last = results.stored[-1]
    assert (last.callback_label, last.phase_label, last.epoch, last.batch, last.edge) == ("a", "train", 2, 5, "exception")
    hooks_of([Every("a", [], value=3)], results).exception(None, ValueError())
    assert results.stored[-1].scope == (None, None, "exception")


def test_what_is_stored():
    results, metric = Results(), MetricResult("norm", 0.5)
    hooks = hooks_of([Every("nothing", []), Every("metric", [], metric), Every("figure", [], ArtifactResult("plot", "picture"))], results)
    hooks.epoch_end(STEP)
    hooks.batch_end(STEP)
    assert [(one.callback_label, one.kind, one.batch) for one in results.stored] == [
        ("metric", "metric", None),
        ("figure", "artifact", None),
        ("metric", "metric", 5),
        ("figure", "artifact", 5),
    ]
    assert results.metric_store == [{"name": "norm", "value": 0.5, "epoch_idx": 2, "batch_idx": batch} for batch in (None, 5)]
    assert results.artifact_store == [{"name": "plot", "artifact": "picture", "epoch_idx": 2, "batch_idx": batch} for batch in (None, 5)]
    assert metric.callback_label is None  # the object of the callback is its own


def test_hooks_that_nobody_wrote_are_not_called():
    class Ends(Callback):
        def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
            return 1

        def get_config(self):
            return super().get_config()

    class Watched:
        """Fails whoever looks for the graph."""

        @property
        def model_graph(self):
            raise AssertionError("a hook was prepared that nobody wrote")

    hooks = hooks_of([Ends()], experiment=Watched())
    assert hooks.has_any and not hooks.has_batch_hooks
    hooks.phase_start()
    hooks.batch_start(STEP)
    hooks.batch_end(STEP)
    hooks.exception(STEP, ValueError())
    with pytest.raises(AssertionError, match="nobody wrote"):
        hooks.epoch_end(STEP)
    assert not hooks_of([]).has_any
    late = Ends()
    late.on_batch_end = lambda **given: None  # written on the object
    assert hooks_of([late]).has_batch_hooks


def test_all_exception_hooks_are_called_whatever_one_raises():
    class Bad(Callback):
        def on_exception(self, **given):
            raise RuntimeError("in the hook")

        def get_config(self):
            return super().get_config()

    told = []
    hooks = hooks_of([Bad(), Every("after", told, execution_order=1)])
    with pytest.raises(RuntimeError, match="in the hook"):
        hooks.exception(STEP, ValueError())
    assert [label for label, _, _ in told] == ["after"]


@pytest.fixture
def graph():
    rows = FeatureSet.from_dict("rows", {"x": np.ones((8, 4), "f4"), "y": np.ones(8, "f4")}, "x", "y")
    body = ModelNode("body", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(4, 4), keydnn.nn.Dropout(0.5)), rows)
    head = ModelNode("head", keydnn.nn.Linear(4, 1), body)
    made = ModelGraph([body, head], Optimizer("sgd", opt_kwargs={"lr": 0.1}))
    made.build()
    return made


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_nodes_and_modes_are_put_back(graph, fails):
    body, head = graph.nodes.values()
    dropout = list(body.model.module.modules())[-1]
    body.set_mode(True)
    dropout.training = False  # one module in another mode than the rest
    head.freeze()

    class Changes(Callback):
        def on_epoch_end(self, **given):
            graph.freeze("body")
            graph.unfreeze("head")
            body.set_mode(False)
            head.set_mode(True)
            if fails:
                raise RuntimeError("in the hook")

        def get_config(self):
            return super().get_config()

    modes = body.face.modes(body.model.module)
    flags = [body.face.is_trainable(p) for p in body.parameters()] + [head.face.is_trainable(p) for p in head.parameters()]
    hooks = hooks_of([Changes()], experiment=SimpleNamespace(model_graph=graph))
    if fails:
        with pytest.raises(RuntimeError, match="in the hook"):
            hooks.epoch_end(STEP)
    else:
        hooks.epoch_end(STEP)
    assert (body.is_frozen, head.is_frozen) == (False, True)
    assert body.face.modes(body.model.module) == modes and modes[-1] is False and modes[0] is True
    assert [body.face.is_trainable(p) for p in body.parameters()] + [head.face.is_trainable(p) for p in head.parameters()] == flags


# -- callbacks of an experiment


def test_experiment_hooks_give_what_is_taken():
    told = []

    class Some(ExperimentCallback):
        def on_experiment_start(self):
            told.append("start")

        def on_phase_start(self, experiment):
            told.append(("phase_start", experiment))

        def on_phase_end(self, experiment, phase, results):
            told.append(("phase_end", experiment, phase, results))

        def on_group_start(self, *everything):
            told.append(("group_start", *everything))

        def on_group_end(self, experiment, *, results):
            told.append(("group_end", experiment, results))

        def on_exception(self, experiment, **rest):
            told.append(("exception", experiment, rest))

    hooks = ExperimentHooks([Some()], experiment="E")
    assert hooks.has_any and not ExperimentHooks([ExperimentCallback()], "E").has_any
    error = ValueError()
    hooks.experiment_start()
    hooks.phase_start("P")
    hooks.phase_end("P", "R")
    hooks.group_start("G")
    hooks.group_end("G", "R")
    hooks.exception("P", error)
    hooks.experiment_end()
    assert told == [
        "start",
        ("phase_start", "E"),
        ("phase_end", "E", "P", "R"),
        ("group_start", "E", "G"),
        ("group_end", "E", "R"),
        ("exception", "E", {"phase": "P", "exception": error}),
    ]


def test_experiment_callbacks_run_in_order():
    told = []

    class Named(ExperimentCallback):
        def on_experiment_end(self, experiment):
            told.append(self.label)

    ExperimentHooks([Named(label="b", execution_order=1), Named(label="c", execution_order=1), Named(label="a")], "E").experiment_end()
    assert told == ["a", "b", "c"]
    again = ExperimentCallback.from_config({**Named(label="b", execution_order=1).get_config()})
    assert (type(again), again.label, again.execution_order) == (Named, "b", 1)


# -- configs


class Own(Callback):
    """Tells of itself only what is its own."""

    def __init__(self, every):
        super().__init__()
        self.every = every

    def get_config(self):
        return {"every": self.every}


SOURCE = """
from keydnn.experiment.callbacks import Callback

class Counted(Callback):
    def __init__(self, every):
        super().__init__()
        self.every = every

    def get_config(self):
        return {**super().get_config(), "every": self.every}
"""


def test_own_callbacks_come_back():
    own = Own(3)
    own.execution_order, own.label = 4, "mine"
    config = callback_config(own)
    assert config == {"callback_type": Own, "label": "mine", "execution_order": 4, "every": 3}
    again = callback_from_config(config)
    assert again == own and (again.every, again.execution_order, again.label) == (3, 4, "mine")
    callback_registry.register("Own", Own)
    try:
        config = callback_config(own)
        assert config["callback_type"] == "Own"
        assert Callback.from_config(config) == own
        assert Encoder().encode(Own)["$symbol"] == {"policy": "registered", "registry": "callback", "name": "Own"}
    finally:
        del callback_registry["Own"]
    with pytest.raises(ValueError, match=r"register the class: callback_registry.register\('Own', cls\)"):
        Callback.from_config(config)


def test_a_callback_that_is_not_registered_travels_with_its_source(tmp_path, monkeypatch):
    (tmp_path / "own_callbacks.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from own_callbacks import Counted

    encoder = Encoder()
    told = to_json(encoder.encode(callback_config(Counted(3))))
    path = tmp_path / "phase.zip"
    write_archive(path, {**encoder.members, "config.json": told}, overwrite=False)
    with ArchiveReader(path) as archive:
        with pytest.raises(PackagedCodeError, match="allow_packaged_code"):
            Decoder(Symbols(archive, allow_packaged_code=False)).decode(archive.json("config.json"))
        again = callback_from_config(Decoder(Symbols(archive, allow_packaged_code=True)).decode(archive.json("config.json")))
    assert type(again).__name__ == "Counted" and type(again) is not Counted and again.every == 3


def test_configs_that_mean_nothing():
    with pytest.raises(ValueError, match="needs a callback_type"):
        callback_from_config({"label": "x"})
    with pytest.raises(ValueError, match="expected the config of a Own, got one of a MAE"):
        Own.from_config({"callback_type": "MAE"})
    assert Own.from_config({"every": 2}).every == 2


def test_basics():
    with pytest.raises(TypeError, match="abstract"):
        Callback()
    own = Own(1)
    assert own.label == "Own" and own.execution_order == 0 and own.phase is None
    own.attach("phase")
    assert own.phase == "phase"
    assert own.get_state() == {}
    own.set_state({})
    told = ExperimentCallback(label="told")
    assert told.get_state() == {}
    told.set_state({})
    assert own != Own(2) and own == Own(1) and hash(own) == hash(Own(1))
    assert repr(own) == "Own(every=1)"

    class Norm(MetricCallback):
        def on_epoch_end(self, **given):
            return MetricResult(self.name, 1.0)

    norm = Norm(name="norm")
    assert norm.label == norm.name == "norm" and Callback.from_config(norm.get_config()) == norm
    with pytest.raises(ValueError, match="reserved"):
        Norm(name="train_loss")
