"""A run that was stopped and taken up again ends with the bits of one that was not; files that do not fit change nothing."""

import random

import numpy as np
import pytest

from keydnn.nn import BatchNorm1d, BatchNorm2d, Conv2d, Dense, Dropout, Flatten, Linear, ReLU
from keydnn.optim import SGD, Adam, AdamW, CosineLR, WarmupLR
from keydnn.training import (
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    Model,
    ReduceLROnPlateau,
    Sequential,
    TrainingCheckpoint,
    TrainingState,
)

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(37, 5)).astype(np.float32), RNG.integers(0, 3, 37)
IMAGES = RNG.normal(size=(37, 1, 4, 4)).astype(np.float32)


def mlp():
    model = Sequential(Dense(12), BatchNorm1d(12), ReLU(), Dropout(0.3), Dense(3))
    model.build((1, 5))
    return model, X


def cnn():
    model = Sequential(Conv2d(1, 3, 3), BatchNorm2d(3), ReLU(), Dropout(0.2), Flatten(), Dense(3))
    model.build((1, 1, 4, 4))
    return model, IMAGES


def callbacks(path, **when):
    return [
        LearningRateScheduler(WarmupLR(4, CosineLR(26)), by="step"),
        ReduceLROnPlateau(monitor="val_loss", patience=1, factor=0.5),
        EarlyStopping(patience=50, restore_best_weights=True),
        TrainingCheckpoint(path, **when),
    ]


def train(make, optimizer, epochs, listeners, seed, resume=None, **options):
    random.seed(seed), np.random.seed(seed)
    model, x = make()
    history = model.fit(
        x, LABELS, loss="cross_entropy", optimizer=optimizer(model.parameters()), metrics=["acc"], batch_size=8, epochs=epochs, verbose=0,
        validation_data=(x, LABELS), callbacks=listeners, clip_norm=1.0, resume=resume, **options,
    )  # fmt: skip
    return model, history


def assert_same(one, other):
    (a, ha), (b, hb) = one, other
    assert ha == hb
    for name, array in a.state_dict().items():
        assert array.tobytes() == b.state_dict()[name].tobytes(), name
    for name, array in a.last_run.optimizer.get_state().items():
        assert array.tobytes() == b.last_run.optimizer.get_state()[name].tobytes(), name


def generators():
    return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]


@pytest.mark.slow
@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("optimizer", [lambda ps: Adam(ps, lr=0.01), lambda ps: AdamW(ps), lambda ps: SGD(ps, lr=0.1, momentum=0.9)])
def test_stopped_after_epoch_3_of_6(make, optimizer, tmp_path):
    whole = train(make, optimizer, 6, callbacks(tmp_path / "a.state"), seed=1)
    after = generators()
    train(make, optimizer, 3, callbacks(tmp_path / "b.state"), seed=1)
    resumed = train(make, optimizer, 6, callbacks(tmp_path / "c.state"), seed=99, resume=tmp_path / "b.state")
    assert_same(whole, resumed)
    assert generators() == after
    assert whole[1].epoch == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 3, 4])
def test_killed_in_the_middle_of_an_epoch(batches, tmp_path):
    whole = train(mlp, Adam, 4, callbacks(tmp_path / "a.state"), seed=2)

    class Killed(Exception):
        pass

    seen = []

    def kill(batch, logs):
        seen.append(batch)
        if len(seen) == 9:  # in the second epoch of five batches
            raise Killed

    path = tmp_path / "b.state"
    with pytest.raises(Killed):
        train(mlp, Adam, 4, [*callbacks(path, every_n_batches=batches), LambdaCallback(on_batch_begin=kill)], seed=2)
    state = TrainingState.read(path)
    assert state.progress["epoch"] == 1 and state.progress["totals"]["batches"] == {1: 3, 3: 3, 4: 0}[batches]
    resumed = train(mlp, Adam, 4, callbacks(tmp_path / "c.state"), seed=98, resume=state)
    assert_same(whole, resumed)


def test_an_iterable_that_shuffles_itself_is_taken_up_in_the_middle(tmp_path):
    class Loader:
        def __iter__(self):
            order = np.random.permutation(len(X))
            return ((X[order[i : i + 8]], LABELS[order[i : i + 8]]) for i in range(0, len(X), 8))

    def run(epochs, seed, **options):
        random.seed(seed), np.random.seed(seed)
        model, _ = mlp()
        history = model.fit(
            Loader(), loss="cross_entropy", optimizer=Adam(model.parameters(), lr=0.02), epochs=epochs, verbose=0, **options
        )
        return model, history

    whole = run(3, 1)

    def kill(batch, logs):
        if batch == 3:
            raise KeyboardInterrupt

    state = tmp_path / "run.state"
    with pytest.raises(KeyboardInterrupt):
        run(3, 1, callbacks=[TrainingCheckpoint(state, every_n_batches=2), LambdaCallback(on_batch_begin=kill)])
    assert_same(whole, run(3, 77, resume=state))


def test_optimizers_by_name_resume(tmp_path):
    def run(epochs, seed, **options):
        random.seed(seed), np.random.seed(seed)
        model, x = mlp()
        history = model.fit(x, LABELS, loss="cross_entropy", optimizer="adam", epochs=epochs, batch_size=8, verbose=0, **options)
        return model, history

    whole = run(4, 1)
    model, _ = run(2, 1)
    model.save(tmp_path / "half.state")
    assert_same(whole, run(4, 5, resume=str(tmp_path / "half.state")))


@pytest.mark.slow
def test_early_stopping_remembers_its_best(tmp_path):
    def run(epochs, seed, **options):
        stopping = EarlyStopping(monitor="loss", mode="max", patience=4, restore_best_weights=True)
        return (*train(mlp, Adam, epochs, [stopping, TrainingCheckpoint(tmp_path / f"{seed}.state")], seed, **options), stopping)

    *whole, stopping = run(9, 3)
    run(3, 4)
    random.seed(3), np.random.seed(3)
    train(
        mlp,
        Adam,
        3,
        [EarlyStopping(monitor="loss", mode="max", patience=4, restore_best_weights=True), TrainingCheckpoint(tmp_path / "h")],
        3,
    )
    *resumed, again = run(9, 5, resume=tmp_path / "h")
    assert (again.best, again.best_epoch, again.wait, again.stopped_epoch) == (
        stopping.best, stopping.best_epoch, stopping.wait, stopping.stopped_epoch,
    )  # fmt: skip
    assert_same(whole, resumed)


def test_the_table_of_a_csv_logger_is_whole(tmp_path):
    train(mlp, Adam, 4, [CSVLogger(tmp_path / "a.csv")], 1)
    train(mlp, Adam, 2, [CSVLogger(tmp_path / "b.csv"), TrainingCheckpoint(tmp_path / "s")], 1)
    train(mlp, Adam, 4, [CSVLogger(tmp_path / "b.csv")], 7, resume=tmp_path / "s")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    whole = train(mlp, Adam, 2, [TrainingCheckpoint(tmp_path / "s")], 1)
    assert_same(whole, train(mlp, Adam, 2, [], 9, resume=tmp_path / "s"))


def test_every_n_epochs(tmp_path):
    seen = []
    note = LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append((tmp_path / "s").exists()))
    train(mlp, Adam, 4, [TrainingCheckpoint(tmp_path / "s", every_n_epochs=2), note], 1)
    assert seen == [False, False, True, True]


# -- save and load


def test_a_saved_model_loads_with_optimizer_and_history(tmp_path):
    model, history = train(mlp, Adam, 2, [], 1)
    model.save(tmp_path / "deep" / "m.state")
    before = generators()
    again = Sequential.load(tmp_path / "deep" / "m.state")
    assert generators() == before
    assert again.is_built and again.last_run.history == history and again.last_run.epoch == 2
    assert again.predict(X).to_numpy().tobytes() == model.predict(X).to_numpy().tobytes()
    assert isinstance(again.last_run.optimizer, Adam) and [id(p) for p in again.last_run.optimizer.params] == [
        id(p) for p in again.parameters()
    ]
    for name, array in model.last_run.optimizer.get_state().items():
        assert (again.last_run.optimizer.get_state()[name] == array).all()


def test_a_model_that_was_never_trained_saves_with_a_given_optimizer(tmp_path):
    model, _ = mlp()
    model.save(tmp_path / "a")
    assert Sequential.load(tmp_path / "a").last_run.optimizer is None
    model.save(tmp_path / "b", optimizer=SGD([model[4].bias], lr=0.3))
    again = Sequential.load(tmp_path / "b")
    assert again.last_run.optimizer.params[0] is again[4].bias and again.last_run.optimizer.lr == 0.3
    with pytest.raises(TypeError, match="no optimizer of keydnn.optim"):
        model.save(tmp_path / "c", optimizer=object())
    assert not (tmp_path / "c").exists()


def test_a_class_without_config_resumes_but_does_not_load(tmp_path):
    class Own(Model):
        def __init__(self):
            super().__init__()
            self.inner = Linear(5, 3)

        def forward(self, x):
            return self.inner(x)

    def own():
        return Own(), X

    whole = train(own, Adam, 4, [], 1)
    train(own, Adam, 2, [TrainingCheckpoint(tmp_path / "s")], 1)
    assert_same(whole, train(own, Adam, 4, [], 3, resume=tmp_path / "s"))
    with pytest.raises(ValueError, match="no structure"):
        Own.load(tmp_path / "s")


def test_another_class_is_refused(tmp_path):
    class Other(Model):
        pass

    model, _ = mlp()
    model.save(tmp_path / "s")
    with pytest.raises(TypeError, match="Sequential"):
        Other.load(tmp_path / "s")


# -- what does not fit


def resume_error(tmp_path, error, match, make=mlp, optimizer=Adam, listeners=(), change=None):
    train(mlp, Adam, 1, [EarlyStopping(), TrainingCheckpoint(tmp_path / "s")], 1)
    state = TrainingState.read(tmp_path / "s")
    if change is not None:
        change(state)
    model, x = make()
    chosen = optimizer(model.parameters())
    before, slots, now = model.state_dict(), chosen.get_state(), generators()
    with pytest.raises(error, match=match):
        model.fit(x, LABELS, loss="cross_entropy", optimizer=chosen, epochs=2, verbose=0, resume=state, callbacks=list(listeners))
    assert all((before[name] == array).all() for name, array in model.state_dict().items())
    assert all((slots[name] == array).all() for name, array in chosen.get_state().items())
    assert generators() == now


def test_another_architecture(tmp_path):
    resume_error(tmp_path, ValueError, "other parameters", make=cnn, listeners=[EarlyStopping()])


def test_other_sizes(tmp_path):
    def wider():
        model = Sequential(Dense(13), BatchNorm1d(13), ReLU(), Dropout(0.3), Dense(3))
        model.build((1, 5))
        return model, X

    resume_error(tmp_path, ValueError, "shape", make=wider, listeners=[EarlyStopping()])


def test_another_optimizer(tmp_path):
    resume_error(tmp_path, TypeError, "state is of Adam", optimizer=SGD, listeners=[EarlyStopping()])


def test_a_missing_callback(tmp_path):
    resume_error(tmp_path, ValueError, "EarlyStopping callback")


def test_a_state_without_an_optimizer(tmp_path):
    def drop(state):
        state.optimizer = None

    resume_error(tmp_path, ValueError, "has no optimizer", listeners=[EarlyStopping()], change=drop)


def test_bad_generator_states(tmp_path):
    def spoil(state):
        state.random = {"python": 3}

    resume_error(tmp_path, ValueError, "random generators", listeners=[EarlyStopping()], change=spoil)


def test_other_kernels_warn(tmp_path):
    train(mlp, Adam, 1, [TrainingCheckpoint(tmp_path / "s")], 1)
    state = TrainingState.read(tmp_path / "s")
    state.kernels = "abacus"
    with pytest.warns(UserWarning, match="abacus kernels"):
        train(mlp, Adam, 2, [], 1, resume=state)


def test_initial_epoch_and_resume_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="initial_epoch"):
        train(mlp, Adam, 2, [], 1, resume=tmp_path / "s", initial_epoch=1)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:-9] + bytes(9), lambda data: b"{}"]
)
def test_a_damaged_file(damage, tmp_path):
    model, _ = mlp()
    path = tmp_path / "s"
    model.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=str(path)):
        Sequential.load(path)
    with pytest.raises(ValueError, match=str(path)):
        train(mlp, Adam, 1, [], 1, resume=path)


def test_a_file_of_another_kind(tmp_path):
    from keydnn.saving import write_state

    write_state(tmp_path / "s", {"a": np.zeros(2)}, {"kind": "something"})
    with pytest.raises(ValueError, match="no training state"):
        Sequential.load(tmp_path / "s")
