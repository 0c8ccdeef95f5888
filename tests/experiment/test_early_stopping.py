"""EarlyStopping on metrics that are given: when training ends, what is restored from where, what is warned about."""

import math
import warnings
from types import SimpleNamespace

import pytest

from keydnn.experiment.callbacks import Callback, EarlyStopping
from keydnn.experiment.callbacks.checkpoints import CheckpointHooks
from keydnn.experiment.callbacks.dispatch import PhaseHooks
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.phases import Checkpointing
from keydnn.experiment.results import TrainResults

NAN = math.nan


class Graph:
    """Its state is the epoch it was trained for last; ``taken`` are the states that callbacks took."""

    nodes: dict = {}

    def __init__(self):
        self.state, self.taken = None, []

    def get_state(self):
        self.taken.append(self.state)
        return self.state

    def set_state(self, state):
        self.state = state


class Phase:
    label = "train"

    def __init__(self, callbacks, checkpointing=None):
        self.callbacks, self.checkpointing, self.stopped = callbacks, checkpointing, False

    def request_stop(self):
        self.stopped = True


def run(stopping, values, checkpointing=None, graph=None, name="val_loss"):
    """A training phase whose metric takes the values: one per epoch, or a list of those of its batches.  Returns results and epochs run."""
    graph = graph or Graph()
    phase, results = Phase([stopping], checkpointing), TrainResults("train")
    hooks = PhaseHooks([stopping], experiment=SimpleNamespace(model_graph=graph), phase=phase, results=results)
    kept = CheckpointHooks(checkpointing, graph=SimpleNamespace(get_state=lambda: graph.state), phase=phase)
    hooks.phase_start()
    kept.at("phase_start")
    ran = 0
    for epoch, value in enumerate(values):
        ctx = ExecutionContext("train", epoch, 0)
        hooks.epoch_start(ctx)
        kept.at("epoch_start", epoch)
        graph.state = epoch
        for batch, one in enumerate(value if isinstance(value, list) else []):
            results.metric_store.log(name=name, value=one, epoch_idx=epoch, batch_idx=batch)
        if isinstance(value, int | float):
            results.metric_store.log(name=name, value=value, epoch_idx=epoch)
        hooks.epoch_end(ctx)
        kept.at("epoch_end", epoch)
        ran += 1
        if phase.stopped:
            break
    hooks.phase_end()
    kept.at("phase_end")
    return results, ran


def test_worked_numbers():
    stopping = EarlyStopping(patience=3)
    results, ran = run(stopping, [5, 4, 4.5, 4.2, 4.1, 3])
    assert (stopping.best_epoch, stopping.best_value, stopping.stopped_epoch, ran) == (1, 4, 4, 5)
    (result,) = results.callback_results
    assert (result.kind, result.best_epoch, result.best_value, result.stopped_epoch, result.restored) == ("early_stopping", 1, 4, 4, False)
    assert result.scope == (None, None, "end")


def test_worked_delta():
    stopping = EarlyStopping(min_delta=0.5)
    run(stopping, [5, 4.6])
    assert stopping.best_epoch == 0
    run(stopping, [5, 4.6, 4.4])
    assert (stopping.best_epoch, stopping.best_value) == (2, 4.4)
    run(stopping, [5, 4.5])
    assert stopping.best_epoch == 0  # exactly the delta is not enough


def test_max():
    stopping = EarlyStopping(mode="max", patience=2)
    _, ran = run(stopping, [1, 3, 2, 3, 9])
    assert (stopping.best_epoch, stopping.stopped_epoch, ran) == (1, 3, 4)
    run(stopping, [-5, -4, -3])
    assert (stopping.best_epoch, stopping.stopped_epoch) == (2, None)  # an earlier run is forgotten


@pytest.mark.parametrize(("values", "best"), [([NAN, 3, NAN, 2], 3), ([NAN, NAN], None), ([1, NAN], 0)])
def test_nan_never_improves(values, best):
    stopping = EarlyStopping()
    run(stopping, values)
    assert stopping.best_epoch == best


def test_nan_counts():
    stopping = EarlyStopping(patience=2)
    _, ran = run(stopping, [NAN, NAN, 1])
    assert (stopping.stopped_epoch, ran) == (1, 2)


@pytest.mark.parametrize(("reducer", "best"), [("mean", 2.0), ("sum", 6.0), ("last", 3.0), ("first", 1.0)])
def test_values_of_batches(reducer, best):
    stopping = EarlyStopping(reducer=reducer, mode="max")
    run(stopping, [[1.0, 2.0, 3.0]])
    assert stopping.best_value == best


def test_the_value_of_the_epoch_goes_before_those_of_its_batches():
    class Both(Callback):
        def on_epoch_end(self, *, exec_ctx, results, **rest):
            results.metric_store.log(name="val_loss", value=7.0, epoch_idx=exec_ctx.epoch_idx, batch_idx=None)
            for batch in range(3):
                results.metric_store.log(name="val_loss", value=1.0, epoch_idx=exec_ctx.epoch_idx, batch_idx=batch)

        def get_config(self):
            return super().get_config()

    stopping, results = EarlyStopping(), TrainResults("train")
    phase = Phase([Both(), stopping])
    hooks = PhaseHooks([stopping, Both()], experiment=SimpleNamespace(model_graph=Graph()), phase=phase, results=results)
    hooks.epoch_end(ExecutionContext("train", 0, 2))  # Both runs first: its order is lower
    assert stopping.best_value == 7.0


def test_a_missing_metric_counts_and_is_warned_about():
    stopping = EarlyStopping(patience=2, monitor="val_acc")
    with pytest.warns(UserWarning, match="'val_acc' never appeared; there are: 'val_loss'"):
        results, ran = run(stopping, [3, 2, 1])
    assert (ran, stopping.best_epoch, stopping.best_value) == (2, None, None)
    assert not results.callback_results[0].restored
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, ran = run(EarlyStopping(patience=2), [3, None, None, 1])
    assert ran == 3


@pytest.mark.parametrize(
    ("checkpointing", "snapshots"),
    [
        (None, [0, 1]),
        (Checkpointing(), []),
        (Checkpointing(every_n=2), [0]),
        (Checkpointing(max_to_keep=1), []),
        (Checkpointing(save_on="epoch_start"), [0, 1]),  # under the same keys, another state
        (Checkpointing(save_on="phase_end"), [0, 1]),
    ],
    ids=str,
)
def test_restoring_the_best_epoch(checkpointing, snapshots):
    graph, stopping = Graph(), EarlyStopping(patience=3, restore_best=True)
    results, ran = run(stopping, [5, 4, 4.5, 4.2, 4.1, 3], checkpointing, graph)
    assert (graph.state, ran) == (1, 5)
    assert results.callback_results[0].restored
    assert graph.taken == snapshots
    if checkpointing is not None and checkpointing.max_to_keep == 1:
        assert checkpointing.saved_keys == [1, 4]


def test_the_last_epoch_may_be_the_best():
    graph, stopping = Graph(), EarlyStopping(restore_best=True)
    results, _ = run(stopping, [3, 2, 1], graph=graph)
    assert graph.state == 2 and results.callback_results[0].restored and stopping.stopped_epoch is None


def test_without_restoring_no_state_is_taken():
    graph = Graph()
    run(EarlyStopping(patience=1), [1, 2], graph=graph)
    assert graph.taken == [] and graph.state == 1


def test_it_continues_from_its_state():
    first, values = EarlyStopping(patience=3, restore_best=True), [5, 4, 4.5, 4.2, 4.1]
    again = EarlyStopping(patience=3, restore_best=True)
    phase, graph, results = Phase([first]), Graph(), TrainResults("train")
    for epoch, value in enumerate(values):
        stopping = first if epoch < 3 else again
        if epoch == 3:
            again.set_state(first.get_state())
        hooks = PhaseHooks([stopping], experiment=SimpleNamespace(model_graph=graph), phase=phase, results=results)
        ctx = ExecutionContext("train", epoch, 0)
        hooks.epoch_start(ctx)
        graph.state = epoch
        results.metric_store.log(name="val_loss", value=value, epoch_idx=epoch)
        hooks.epoch_end(ctx)
    assert phase.stopped and (again.best_epoch, again.stopped_epoch) == (1, 4)
    hooks.phase_end()
    assert graph.state == 1


@pytest.mark.parametrize(
    "arguments",
    [{"mode": "auto"}, {"reducer": "median"}, {"patience": 0}, {"patience": 1.5}, {"min_delta": -1}, {"min_delta": NAN}],
    ids=str,
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="must be"):
        EarlyStopping(**arguments)


def test_config():
    stopping = EarlyStopping(
        monitor="a", mode="max", patience=2, min_delta=0.1, restore_best=True, reducer="sum", label="es", execution_order=7
    )
    config = stopping.get_config()
    assert set(config) == {
        *("callback_type", "monitor", "mode", "patience", "min_delta", "restore_best", "reducer", "label", "execution_order"),
    }
    assert Callback.from_config(config) == stopping != EarlyStopping()
    assert (EarlyStopping().label, EarlyStopping().execution_order) == ("EarlyStopping", 1)
