"""Each callback against a story of logs, and within fit."""

import csv
import io
import json
import math

import numpy as np
import pytest

from keydnn import Tensor
from keydnn.nn import BatchNorm1d, Linear
from keydnn.optim import SGD, CosineLR, StepLR, WarmupLR
from keydnn.training import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
    Sequential,
    TerminateOnNaN,
    TrainingCheckpoint,
)

NAN = float("nan")
X, Y = np.random.default_rng(0).normal(size=(2, 8, 2)).astype(np.float32)


def tell(callback, values, name="val_loss", model=None):
    """Run through a story of one value per epoch; returns the epochs that were told."""
    listener = CallbackList([callback])
    listener.set_model(model)
    listener.on_train_begin({})
    told = 0
    for epoch, value in enumerate(values):
        listener.on_epoch_begin(epoch, {})
        if model is not None:
            model.state = value
        listener.on_epoch_end(epoch, {"loss": 9.0, name: value})
        told = epoch + 1
        if listener.stop_training:
            break
    listener.on_train_end({})
    return told


class Weights:
    """A model whose whole state is one number."""

    state = None

    def state_dict(self):
        return {"w": np.array(self.state)}

    def load_state_dict(self, state):
        self.state = float(state["w"])


# -- EarlyStopping


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([3, 2, 1, 1.5, 0.5, 1, 1, 1], {"patience": 2}, 7, (0.5, 4)),
        ([3, 2, 1, 1.5, 0.5], {"patience": 0}, 4, (1, 2)),
        ([3, 2, 1, 1.5, 0.5], {"patience": 1}, 4, (1, 2)),
        ([1, 1, 1, 1], {"patience": 2}, 3, (1, 0)),
        ([1, 0.95, 0.9, 0.85, 0.8], {"patience": 3, "min_delta": 0.12}, 5, (0.85, 3)),
        ([1, 2, 3, 2], {"patience": 1, "mode": "max"}, 4, (3, 2)),
        ([NAN, NAN, NAN], {"patience": 2}, 2, (math.inf, -1)),
        ([1, NAN, 0.5, NAN, NAN], {"patience": 2}, 5, (0.5, 2)),
        ([5, 4, 3, 2], {"patience": 1}, 4, (2, 3)),
    ],
)
def test_early_stopping(values, options, epochs, best):
    stopping = EarlyStopping(**options)
    assert tell(stopping, values) == epochs
    assert (stopping.best, stopping.best_epoch) == best
    stopped = stopping.stop_training
    assert stopping.stopped_epoch == (epochs - 1 if stopped else -1)
    assert tell(stopping, [1.0]) == 1 and stopping.best == 1.0 and not stopping.stop_training  # begins anew


@pytest.mark.parametrize(("name", "mode"), [("val_acc", "max"), ("accuracy", "max"), ("val_loss", "min"), ("loss", "min")])
def test_auto_mode(name, mode):
    assert EarlyStopping(monitor=name).mode == ModelCheckpoint("x", monitor=name).mode == ReduceLROnPlateau(monitor=name).mode == mode


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarlyStopping(mode="best"),
        lambda: EarlyStopping(patience=-1),
        lambda: EarlyStopping(min_delta=-0.1),
        lambda: ModelCheckpoint("x", mode="best"),
        lambda: ReduceLROnPlateau(factor=1.0),
        lambda: ReduceLROnPlateau(patience=0),
        lambda: ReduceLROnPlateau(cooldown=-1),
        lambda: ReduceLROnPlateau(mode="up"),
        lambda: TrainingCheckpoint("x", every_n_epochs=0),
        lambda: TrainingCheckpoint("x", every_n_batches=0),
        lambda: LearningRateScheduler(StepLR(1), by="second"),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("make", [lambda: LearningRateScheduler(0.1), lambda: LambdaCallback(on_epoch_end=3)])
def test_wrong_types(make):
    with pytest.raises(TypeError):
        make()


def test_a_missing_monitor_warns_once_and_is_ignored():
    stopping = EarlyStopping(monitor="val_los", restore_best_weights=True)
    with pytest.warns(UserWarning, match="'val_los' is not logged.*there is loss, val_loss") as caught:
        assert tell(stopping, [1, 2, 3, 4], model=Weights()) == 4
    assert len(caught) == 1


@pytest.mark.parametrize(("values", "kept"), [([3, 1, 2, 2, 2], 1), ([3, 1, 2], 1), ([3, 2, 1], 1), ([NAN, NAN], NAN)])
def test_best_weights_come_back_with_and_without_an_early_stop(values, kept):
    model = Weights()
    tell(EarlyStopping(patience=2, restore_best_weights=True), values, model=model)
    assert model.state == kept or (math.isnan(kept) and math.isnan(model.state))
    tell(EarlyStopping(patience=2), values, model=model)
    assert model.state == values[-1] or math.isnan(model.state)


def test_restored_weights_include_buffers_in_place():
    np.random.seed(0)
    model = Sequential(Linear(2, 2), BatchNorm1d(2))
    states = []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: states.append(model.state_dict()))
    arrays = [t.to_numpy() for t in (*model.parameters(), *model.buffers())]
    stopping = EarlyStopping(monitor="loss", mode="max", patience=3, restore_best_weights=True)  # the best is the first
    model.fit(X, Y, loss="mse", optimizer="adam", optimizer_kwargs={"lr": 0.1}, epochs=6, verbose=0, callbacks=[note, stopping])
    assert stopping.best_epoch == 0 and len(states) == 4
    assert all((states[0][name] == array).all() for name, array in model.state_dict().items())
    assert all(a is b.to_numpy() for a, b in zip(arrays, (*model.parameters(), *model.buffers()), strict=True))


# -- ModelCheckpoint


def checkpoint_story(path, values, **options):
    saved = []

    class Model(Weights):
        def save_json(self, path):
            saved.append((self.state, str(path)))

    tell(ModelCheckpoint(path, **options), values, model=Model())
    return saved


def test_model_checkpoint_saves_the_best():
    assert [v for v, _ in checkpoint_story("m.json", [3, 4, 2, NAN, 2, 1])] == [3, 2, 1]
    assert [v for v, _ in checkpoint_story("m.json", [3, 4, 2], save_best_only=False)] == [3, 4, 2]
    assert [v for v, _ in checkpoint_story("m.json", [3, 4, 2], mode="max")] == [3, 4]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("m{epoch:02d}.json", "m01.json"),
        ("m-{epoch}-{val_loss:.2f}.json", "m-1-3.00.json"),
        ("m-{unknown}.json", "m-{unknown}.json"),
        ("m-{epoch.json", "m-{epoch.json"),
        ("m-{}.json", "m-{}.json"),
        ("m-{epoch:x.y}.json", "m-{epoch:x.y}.json"),
    ],
)
def test_the_name_of_a_checkpoint(template, name):
    assert checkpoint_story(template, [3]) == [(3, name)]


def test_a_checkpoint_needs_its_monitor_only_for_the_best():
    with pytest.warns(UserWarning, match="'val_acc' is not logged") as caught:
        assert checkpoint_story("m.json", [3, 4], monitor="val_acc") == []
    assert len(caught) == 1
    assert len(checkpoint_story("m.json", [3, 4], monitor="val_acc", save_best_only=False)) == 2


def test_a_checkpoint_written_by_fit_loads(tmp_path, capsys):
    model = Sequential(Linear(2, 2), BatchNorm1d(2))
    path = tmp_path / "deep" / "best-{epoch}.json"
    model.fit(X, Y, loss="mse", optimizer="adam", epochs=2, verbose=0, callbacks=[ModelCheckpoint(path, monitor="loss", verbose=1)])
    last = sorted(path.parent.iterdir())[-1]
    assert f"saved to {last}" in capsys.readouterr().out
    again = Sequential.load_json(last)
    assert again.is_built and again.predict(X).shape == (8, 2)


# -- learning rates


def rates_of(callback, epochs=4, optimizer=None, **options):
    model = Sequential(Linear(2, 2))
    optimizer = SGD(model.parameters(), lr=0.8) if optimizer is None else optimizer(model)
    rates = []
    note = LambdaCallback(on_batch_begin=lambda batch, logs: rates.append(optimizer.lr))
    model.fit(X, Y, loss="mse", optimizer=optimizer, epochs=epochs, batch_size=4, verbose=0, callbacks=[callback, note], **options)
    return rates


def test_a_schedule_by_epoch_and_by_step():
    assert rates_of(LearningRateScheduler(StepLR(2, 0.5))) == [0.8] * 4 + [0.4] * 4
    assert rates_of(LearningRateScheduler(StepLR(2, 0.5), by="step")) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1]
    assert rates_of(LearningRateScheduler(WarmupLR(4, CosineLR(2)), by="step"), 3) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.4])


def test_a_function_of_count_and_rate():
    assert rates_of(LearningRateScheduler(lambda epoch, rate: rate / (epoch + 1)), 3) == pytest.approx(
        [0.8, 0.8, 0.4, 0.4, 0.4 / 3, 0.4 / 3]
    )


def test_only_a_schedule_by_step_costs_batch_hooks():
    assert not CallbackList([LearningRateScheduler(StepLR(1)), EarlyStopping(), CSVLogger("x"), TrainingCheckpoint("x")]).has_batch_hooks
    assert CallbackList([LearningRateScheduler(StepLR(1), by="step")]).has_batch_hooks
    assert CallbackList([TrainingCheckpoint("x", every_n_batches=2)]).has_batch_hooks
    assert CallbackList([TerminateOnNaN()]).has_batch_hooks
    assert not CallbackList([LambdaCallback(on_epoch_end=print)]).has_batch_hooks
    assert CallbackList([LambdaCallback(on_batch_end=print)]).has_batch_hooks


def test_the_starting_rate_is_kept_over_runs():
    model = Sequential(Linear(2, 2))
    optimizer, callback = SGD(model.parameters(), lr=0.8), LearningRateScheduler(StepLR(1, 0.5))
    for _ in range(2):
        model.fit(X, Y, loss="mse", optimizer=optimizer, epochs=3, verbose=0, callbacks=[callback])
        assert optimizer.lr == 0.2


def plateau(values, **options):
    model = Sequential(Linear(2, 2))
    callback = ReduceLROnPlateau(monitor="val_loss", **options)
    callback.set_run(SGD(model.parameters(), lr=1.0), None)
    rates = []

    class Note(Callback):
        def on_epoch_end(self, epoch, logs=None):
            rates.append(callback.optimizer.lr)

    listener = CallbackList([callback, Note()])
    listener.on_train_begin({})
    for epoch, value in enumerate(values):
        listener.on_epoch_end(epoch, {"val_loss": value})
    return rates


@pytest.mark.parametrize(
    ("values", "options", "rates"),
    [
        ([3, 3, 3, 3, 3], {"factor": 0.5, "patience": 2}, [1, 1, 0.5, 0.5, 0.25]),
        ([3, 3, 2, 2, 2], {"factor": 0.5, "patience": 2}, [1, 1, 1, 1, 0.5]),
        ([3, 3, 3, 3, 3, 3, 3], {"factor": 0.5, "patience": 1, "cooldown": 2}, [1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
        ([3, 3, 3, 3], {"factor": 0.1, "patience": 1, "min_lr": 0.05}, [1, 0.1, 0.05, 0.05]),
        ([3, 2.99999, 2.99998], {"factor": 0.5, "patience": 1}, [1, 0.5, 0.25]),
        ([1, 2, 3, 3], {"factor": 0.5, "patience": 1, "mode": "max"}, [1, 1, 1, 0.5]),
        ([NAN, NAN, 1, 1], {"factor": 0.5, "patience": 1}, [0.5, 0.25, 0.25, 0.125]),
    ],
)
def test_reduce_on_plateau(values, options, rates):
    assert plateau(values, **options) == pytest.approx(rates)


def test_reduce_on_plateau_speaks_on_request(capsys):
    plateau([1, 1], factor=0.5, patience=1, verbose=1)
    assert capsys.readouterr().out == "ReduceLROnPlateau: epoch 2 reduces lr from 1 to 0.5\n"


# -- the rest


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_terminate_on_nan_stops_at_once(bad):
    values = iter([0.5, bad, 0.5, 0.5])
    batches = []
    model = Sequential(Linear(2, 2))
    model.train_on_batch = lambda x, y, **options: {"loss": next(values)}
    callbacks = [TerminateOnNaN(), LambdaCallback(on_batch_end=lambda batch, logs: batches.append(batch))]
    if math.isnan(bad):
        with pytest.warns(RuntimeWarning, match="loss is NaN"):
            history = model.fit(X, Y, loss="mse", optimizer="sgd", epochs=5, batch_size=2, verbose=0, callbacks=callbacks)
    else:
        history = model.fit(X, Y, loss="mse", optimizer="sgd", epochs=5, batch_size=2, verbose=0, callbacks=callbacks)
    assert batches == [0, 1] and history.epoch == [0] and not math.isfinite(history.last()["loss"])


def read(path, separator=","):
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def test_csv_logger(tmp_path):
    path = tmp_path / "deep" / "log.csv"
    model = Sequential(Linear(2, 2))
    history = model.fit(X, Y, loss="mse", optimizer="sgd", epochs=3, verbose=0, validation_data=(X, Y), callbacks=[CSVLogger(path)])
    rows = read(path)
    assert rows[0] == ["epoch", "loss", "val_loss"] and [row[0] for row in rows[1:]] == ["0", "1", "2"]
    assert [float(row[2]) for row in rows[1:]] == history.history["val_loss"]


def test_csv_logger_starts_anew_or_appends(tmp_path):
    path = tmp_path / "log.csv"
    tell(CSVLogger(path, separator=";"), [1, 2])
    assert read(path, ";") == [["epoch", "loss", "val_loss"], ["0", "9.0", "1"], ["1", "9.0", "2"]]
    tell(CSVLogger(path, separator=";", append=True), [3])
    assert [row[2] for row in read(path, ";")] == ["val_loss", "1", "2", "3"]
    tell(CSVLogger(path), [4])
    assert read(path) == [["epoch", "loss", "val_loss"], ["0", "9.0", "4"]]
    tell(CSVLogger(tmp_path / "new.csv", append=True), [4])
    assert read(tmp_path / "new.csv")[0] == ["epoch", "loss", "val_loss"]


def test_csv_logger_keeps_its_columns(tmp_path):
    logger = CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin({})
    logger.on_epoch_end(0, {"loss": 1, "acc": 2})
    logger.on_epoch_end(1, {"acc": 3, "new": 4})
    assert read(tmp_path / "log.csv") == [["epoch", "loss", "acc"], ["0", "1", "2"], ["1", "", "3"]]


def test_a_resumed_csv_logger_drops_rows_from_after_the_state(tmp_path):
    path = tmp_path / "log.csv"
    logger = CSVLogger(path)
    logger.on_train_begin({})
    logger.on_epoch_end(0, {"loss": 1})
    state = json.loads(json.dumps(logger.get_state()))
    logger.on_epoch_end(1, {"loss": 99})
    again = CSVLogger(path)
    again.on_train_begin({})
    again.set_state(state)
    again.on_epoch_end(1, {"loss": 2})
    assert read(path) == [["epoch", "loss"], ["0", "1"], ["1", "2"]]


def test_a_training_checkpoint_outside_of_fit_says_so():
    with pytest.raises(RuntimeError, match="pass it to fit"):
        TrainingCheckpoint("x").on_epoch_end(0, {})


def test_states_find_their_callbacks():
    first, second = EarlyStopping(), EarlyStopping()
    listener = CallbackList([LambdaCallback(), first, second])
    states = listener.get_states()
    assert [callback for callback, _ in listener.match(states)] == [first, second]
    with pytest.raises(ValueError, match="had a EarlyStopping callback"):
        CallbackList([first]).match(states)


def test_the_model_is_stored():
    callback, model = Callback(), Sequential(Linear(2, 2))
    model.fit(Tensor(data=X), Tensor(data=Y), loss="mse", optimizer="sgd", verbose=0, callbacks=CallbackList([callback]))
    assert callback.model is model and callback.optimizer is model.last_run.optimizer


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_the_progress_bar_writes_the_line_of_fit(capsys):
    plain, screen = io.StringIO(), Screen()
    for stream in (plain, screen, None):
        model = Sequential(Linear(2, 1, initializer="zeros"))
        x, y = np.ones((5, 2)), np.ones((5, 1))
        bar = ProgressBar(3, stream=stream)
        model.fit(x, y, loss="mse", optimizer="sgd", batch_size=2, epochs=2, verbose=0, callbacks=[bar], shuffle=False)
        assert bar.steps == 3
    lines = plain.getvalue().splitlines()
    assert lines == capsys.readouterr().out.splitlines()
    assert [line.partition(" - ")[0] for line in lines] == [f"Epoch {i}/3 [{'=' * 30}] 3/3 (100%)" for i in (1, 2)]
    drawn = screen.getvalue().split("\r")
    assert drawn[0] == "" and [text for text in drawn if text.endswith("\n")] == [line + "\n" for line in lines]
    assert len(drawn) > 3  # it also grew in between
