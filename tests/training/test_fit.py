"""fit: what is averaged, what is told to whom, what is printed, what is refused; and that it learns."""

import random

import numpy as np
import pytest
from numpy.testing import assert_allclose

import keydnn
from keydnn import Tensor
from keydnn.nn import BatchNorm1d, Dense, Dropout, Linear, ReLU, Softmax, Tanh
from keydnn.optim import SGD, Adam, CosineLR, ExponentialLR
from keydnn.training import Callback, LambdaCallback, Sequential
from tests.native.common import needs_native

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 3)).astype(np.float32)
Y = RNG.normal(size=(10, 2)).astype(np.float32)


def linear():
    np.random.seed(0)
    return Sequential(Linear(3, 2))


def fit(model, x=X, y=Y, **arguments):
    return model.fit(x, y, **{"loss": "mse", "optimizer": "sgd", "verbose": 0, **arguments})


def frozen(model):
    """An optimizer that never changes anything visible."""
    return SGD(model.parameters(), lr=1e-30)


# -- what is computed


def test_an_epoch_is_the_mean_over_batches_weighted_by_size():
    model = linear()
    seen = []
    note = LambdaCallback(on_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = fit(model, optimizer=frozen(model), batch_size=4, epochs=2, callbacks=[note], metrics=["mae"])
    error = X @ model[0].weight.to_numpy().T - Y
    assert len(seen) == 6
    assert_allclose(history.history["loss"], [(error**2).mean()] * 2, rtol=1e-5)
    assert_allclose(history.history["mae"], [np.abs(error).mean()] * 2, rtol=1e-5)
    assert_allclose(history.history["loss"][0], (4 * seen[0] + 4 * seen[1] + 2 * seen[2]) / 10, rtol=1e-12)
    assert history.epoch == [0, 1]


def test_steps_are_those_of_a_hand_written_loop():
    model, twin = linear(), linear()
    random.seed(7)
    fit(model, optimizer=Adam(model.parameters(), lr=0.05), batch_size=4, epochs=3)
    random.seed(7)
    optimizer = Adam(twin.parameters(), lr=0.05)
    for _ in range(3):
        order = np.random.Generator(np.random.Philox(random.getrandbits(64))).permutation(10)
        for start in (0, 4, 8):
            rows = order[start : start + 4]
            optimizer.zero_grad()
            d = twin(Tensor(data=X[rows])) - Tensor(data=Y[rows])
            (d * d).mean().backward()
            optimizer.step()
    assert_allclose(model[0].weight.to_numpy(), twin[0].weight.to_numpy(), rtol=1e-6)


def test_shuffling_changes_the_order_each_epoch_and_only_then_draws():
    def first_rows(**arguments):
        rows = []
        model = linear()
        step = model.train_on_batch
        model.train_on_batch = lambda x, y, **options: rows.append(x.tolist()) or step(x, y, **options)
        fit(model, batch_size=10, epochs=2, **arguments)
        return rows

    random.seed(0)
    shuffled = first_rows()
    assert shuffled[0] != shuffled[1] and sorted(shuffled[0]) == sorted(shuffled[1]) == sorted(X.tolist())
    before = random.getstate()
    assert first_rows(shuffle=False) == [X.tolist()] * 2
    assert random.getstate() == before


def test_arrays_and_tensors_train_alike():
    results = []
    for convert in (lambda a: a, lambda a: a.astype(np.float64), lambda a: Tensor(data=a)):
        random.seed(0)
        model = linear()
        results.append(fit(model, convert(X), convert(Y), epochs=2, batch_size=3).history)
    assert results[0] == results[1] == results[2]


def test_integer_targets_become_what_the_loss_needs():
    model = Sequential(Linear(3, 2))
    labels = (X[:, 0] > 0).astype(np.int64)
    history = fit(model, X, labels, loss="cross_entropy", metrics=["acc"], epochs=30, optimizer="adam", optimizer_kwargs={"lr": 0.1})
    assert history.last()["acc"] == 1.0
    fit(model, X, np.eye(2, dtype=np.int32)[labels], loss="mse")
    assert model[0].weight.dtype == np.float32 and model[0].weight.grad.dtype == np.float32


def test_iterables_of_pairs():
    model = linear()
    pairs = [(X[:7], Y[:7]), (X[7:], Y[7:])]
    sizes = []
    note = LambdaCallback(on_batch_begin=lambda batch, logs: sizes.append(batch))
    history = fit(model, pairs, None, optimizer=frozen(model), epochs=2, callbacks=[note])
    assert_allclose(history.history["loss"], [((X @ model[0].weight.to_numpy().T - Y) ** 2).mean()] * 2, rtol=1e-5)
    assert sizes == [0, 1, 0, 1]
    fit(model, (pair for pair in pairs), None)
    fit(model, [(Tensor(data=x), Tensor(data=y)) for x, y in pairs], None)


def test_a_one_shot_iterator_cannot_serve_two_epochs():
    with pytest.raises(ValueError, match="walked only once"):
        fit(linear(), iter([(X, Y)]), None, epochs=2)


@pytest.mark.parametrize(
    "data", [(X, Y), (Tensor(data=X), Tensor(data=Y)), [X, Y], [(X[:4], Y[:4]), (X[4:], Y[4:])], ((X[:4], Y[:4]), (X[4:], Y[4:]))]
)
def test_validation_is_plain_evaluation_after_each_epoch(data):
    np.random.seed(0)
    model = Sequential(Linear(3, 4), BatchNorm1d(4), Dropout(0.5), Linear(4, 2))
    losses, flags = [], []

    class Note(Callback):
        def on_epoch_end(self, epoch, logs=None):
            flags.append(self.model.training and self.model[2].training)
            losses.append(self.model.evaluate(X, Y, loss="mse", batch_size=4)["loss"])

    history = fit(model, epochs=3, batch_size=4, validation_data=data, callbacks=[Note()], metrics=["mae"])
    assert list(history.history) == ["loss", "mae", "val_loss", "val_mae"]
    assert_allclose(history.history["val_loss"], losses, rtol=1e-6)
    assert flags == [True] * 3


def test_validation_draws_no_random_numbers():
    results = []
    for validation in (None, (X, Y)):
        random.seed(1), np.random.seed(1)
        model = Sequential(Linear(3, 4), Dropout(0.5), Linear(4, 2))
        fit(model, epochs=2, batch_size=4, validation_data=validation)
        results.append(model[0].weight.tolist())
    assert results[0] == results[1]


def test_validation_split_takes_the_last_rows():
    model = linear()
    history = fit(model, optimizer=frozen(model), validation_split=0.3)
    error = (X @ model[0].weight.to_numpy().T - Y) ** 2
    assert_allclose([history.last()["loss"], history.last()["val_loss"]], [error[:7].mean(), error[7:].mean()], rtol=1e-5)


def test_clipping_reaches_the_step():
    model, twin = linear(), linear()
    for m, options in ((model, {"clip_norm": 1e-3}), (twin, {})):
        random.seed(0)
        fit(m, optimizer=SGD(m.parameters(), lr=1.0), **options)
    assert np.abs(model[0].bias.to_numpy()).max() <= 1e-3 < np.abs(twin[0].bias.to_numpy()).max()


def test_initial_epoch_counts_on():
    history = fit(linear(), epochs=5, initial_epoch=3)
    assert history.epoch == [3, 4]


def test_a_schedule_among_the_callbacks_sets_the_rate():
    model = linear()
    optimizer, rates = SGD(model.parameters(), lr=0.5), []
    note = LambdaCallback(on_batch_begin=lambda batch, logs: rates.append(optimizer.lr))
    fit(model, optimizer=optimizer, epochs=3, callbacks=[ExponentialLR(0.5), note])
    assert rates == [0.5, 0.25, 0.125]


# -- who is told what


def test_fit_tells_everything():
    told = []
    hooks = {
        name: (lambda *args, name=name: told.append((name, *args[:-1], sorted(args[-1]))))
        for name in ("on_train_begin", "on_epoch_begin", "on_batch_begin", "on_batch_end", "on_epoch_end", "on_train_end")
    }
    fit(linear(), batch_size=5, epochs=2, validation_data=(X, Y), callbacks=[LambdaCallback(**hooks)])
    epoch = [
        ("on_batch_begin", 0, []), ("on_batch_end", 0, ["loss"]), ("on_batch_begin", 1, []), ("on_batch_end", 1, ["loss"]),
    ]  # fmt: skip
    assert told == [
        ("on_train_begin", []),
        *[entry for e in (0, 1) for entry in [("on_epoch_begin", e, []), *epoch, ("on_epoch_end", e, ["loss", "val_loss"])]],
        ("on_train_end", ["loss", "val_loss"]),
    ]


def test_a_callback_ends_training_after_the_epoch():
    class Stop(Callback):
        def on_batch_end(self, batch, logs=None):
            self.stop_training = True

    batches = []
    history = fit(linear(), batch_size=2, epochs=9, callbacks=[Stop(), LambdaCallback(on_batch_end=lambda b, logs: batches.append(b))])
    assert history.epoch == [0] and batches == [0, 1, 2, 3, 4]


def test_a_foreign_listener_with_all_hooks_is_a_callback():
    class Foreign:
        stop_training = False
        epochs = 0

        def set_model(self, model):
            self.model = model

        def on_train_begin(self, logs=None): ...
        def on_epoch_begin(self, epoch, logs=None): ...
        def on_batch_begin(self, batch, logs=None): ...
        def on_batch_end(self, batch, logs=None): ...
        def on_train_end(self, logs=None): ...

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            self.stop_training = epoch == 1

    foreign = Foreign()
    fit(linear(), epochs=7, callbacks=[foreign])
    assert foreign.epochs == 2


def test_a_single_callback_needs_no_list():
    seen = []
    fit(linear(), epochs=2, callbacks=LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)))
    assert seen == [0, 1]
    model = linear()
    optimizer = SGD(model.parameters(), lr=0.5)
    fit(model, epochs=2, optimizer=optimizer, callbacks=ExponentialLR(0.5))
    assert optimizer.lr == 0.25


@pytest.mark.parametrize("callback", [3, "x", Callback, lambda epoch: None, object()])
def test_other_things_are_no_callbacks(callback):
    with pytest.raises(TypeError, match="callbacks must hold Callback objects"):
        fit(linear(), callbacks=[callback])


# -- NaN


def test_a_nan_loss_warns_once_and_training_goes_on():
    x = X.copy()
    x[0, 0] = np.nan
    with pytest.warns(RuntimeWarning, match="loss is NaN.*TerminateOnNaN") as caught:
        history = fit(linear(), x, epochs=3, batch_size=2)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert history.epoch == [0, 1, 2] and np.isnan(history.history["loss"]).all()


# -- what is printed


def test_verbose(capsys):
    fit(linear(), epochs=2, verbose=0)
    assert capsys.readouterr().out == ""
    fit(linear(), epochs=2, verbose=1, metrics=["mae"], batch_size=4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith(f"Epoch 2/2 [{'=' * 30}] 3/3 (100%) - loss: ") and " - mae: " in lines[1]
    fit(linear(), [(X, Y)], None, epochs=1, verbose=2)
    assert capsys.readouterr().out.splitlines()[1].endswith("samples: 10")
    fit(linear(), iter([(X, Y)]), None, epochs=1, verbose=True)
    assert capsys.readouterr().out.startswith("Epoch 1/1 1 batches - loss: ")


# -- what is refused


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"epochs": -1}, ValueError),
        ({"epochs": 1.5}, TypeError),
        ({"batch_size": 0}, ValueError),
        ({"batch_size": "8"}, TypeError),
        ({"batch_size": True}, TypeError),
        ({"verbose": -1}, ValueError),
        ({"initial_epoch": -1}, ValueError),
        ({"x": X[:4]}, ValueError),
        ({"x": X.tolist()}, TypeError),
        ({"y": Y.tolist()}, TypeError),
        ({"y": None}, TypeError),
        ({"x": [(X, Y, X)], "y": None}, TypeError),
        ({"x": [[X, Y]], "y": None}, TypeError),
        ({"x": [], "y": None}, ValueError),
        ({"x": X[:0], "y": Y[:0]}, ValueError),
        ({"validation_data": (X, Y[:3])}, ValueError),
        ({"validation_data": (X.tolist(), Y)}, TypeError),
        ({"validation_data": X}, TypeError),
        ({"validation_split": 1.5}, ValueError),
        ({"validation_split": 0.5, "validation_data": (X, Y)}, ValueError),
        ({"x": [(X, Y)], "y": None, "validation_split": 0.5}, ValueError),
        ({"loss": "nope"}, ValueError),
        ({"metrics": ["nope"]}, ValueError),
        ({"metric_names": ["a"]}, ValueError),
        ({"optimizer": "nope"}, ValueError),
        ({"clip_norm": -1.0}, ValueError),
        ({"clip_value": "x"}, TypeError),
        ({"resume": 3}, TypeError),
        ({"resume": "missing.state"}, OSError),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value.__name__,
)
def test_wrong_arguments_change_nothing(arguments, error):
    model = linear()
    model.eval()
    before, generators = model.state_dict(), (random.getstate(), np.random.get_state()[1].tolist())
    data = {"x": X, "y": Y, **arguments}
    with pytest.raises(error):
        fit(model, **data)
    assert all((before[name] == array).all() for name, array in model.state_dict().items())
    assert generators == (random.getstate(), np.random.get_state()[1].tolist())
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert isinstance(data["x"], list) or not model.__dict__.get("_named_optimizers")  # only walking an iterable shows its faults


def test_layers_are_not_touched_by_a_batch_of_a_wrong_shape():
    model = linear()
    with pytest.raises(ValueError, match="Linear"):
        fit(model, RNG.normal(size=(4, 7)), Y[:4])
    assert model[0].weight.shape == (2, 3)


# -- that it learns


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_xor(optimizer):
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    y = np.array([[0], [1], [1], [0]], np.float32)
    np.random.seed(0)
    model = Sequential(Dense(8), Tanh(), Dense(1))
    model.build((1, 2))
    settings = {"lr": 0.3, "momentum": 0.9} if optimizer == "sgd" else {"lr": 0.05}
    history = fit(model, x, y, optimizer=optimizer, optimizer_kwargs=settings, epochs=250, batch_size=4, metrics=["acc"])
    assert history.last()["loss"] < 0.01 and history.last()["acc"] == 1.0
    assert (model.predict(x).to_numpy().round() == y).all()


def test_a_classifier_with_everything():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(3, 5)) * 3
    labels = rng.integers(0, 3, 90)
    x = (centres[labels] + rng.normal(size=(90, 5))).astype(np.float32)
    np.random.seed(0)
    model = Sequential(Dense(16), BatchNorm1d(16), ReLU(), Dropout(0.2), Dense(3), Softmax())
    model.build((1, 5))
    history = fit(
        model, x[:60], np.eye(3)[labels[:60]], loss="cce", optimizer=Adam(model.parameters(), lr=0.02), metrics=["acc"],
        validation_data=(x[60:], np.eye(3)[labels[60:]]), epochs=20, batch_size=16, callbacks=[CosineLR(20)], clip_norm=1.0,
    )  # fmt: skip
    assert history.last()["val_acc"] >= 0.95 and history.last()["loss"] < 0.5 * history.history["loss"][0]
    assert model.evaluate(x[60:], labels[60:], loss=lambda p, y: (p * 0.0).sum(), metrics=["acc"])["acc"] == history.last()["val_acc"]


def test_float64_stays_float64():
    model = Sequential(Linear(3, 2, dtype=np.float64))
    fit(model, X, Y, optimizer="adam")
    assert model[0].weight.dtype == np.float64 and model[0].weight.grad.dtype == np.float64


@needs_native
@pytest.mark.parametrize("as_list", [False, True], ids=["rows", "batches"])
def test_numbers_of_tokens_reach_an_embedding(as_list):
    """They are cast to the model's dtype like everything that is given as arrays."""
    tokens, labels = np.random.default_rng(0).integers(0, 7, (20, 5)), np.arange(20) % 2
    model = Sequential(keydnn.Embedding(7, 4), keydnn.GRU(4, 3, batch_first=True, return_sequences=False, return_state=False), Linear(3, 2))
    batches = [(tokens[:10], labels[:10]), (tokens[10:], labels[10:])]
    data = (batches,) if as_list else (tokens, labels)
    history = model.fit(*data, loss="cross_entropy", optimizer="adam", optimizer_kwargs={"lr": 0.02}, batch_size=10, epochs=60, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    assert model.plan_report().startswith("plan of")
    assert model.predict(tokens).numpy().tolist() == model(keydnn.tensor(tokens, dtype="int64")).numpy().tolist()


@pytest.mark.parametrize("compile", [True, False])
def test_losses_and_metrics_give_one_number(compile):
    with pytest.raises(ValueError, match=r"the loss must be one number of shape \(\), got shape \(10, 2\); take its mean"):
        fit(linear(), loss=lambda p, t: (p - t) ** 2, compile=compile)
    with pytest.raises(ValueError, match=r"metric 'gap' must give one number, got a Tensor of shape \(10,\)"):
        fit(linear(), metrics=[lambda t, p: (p - t).abs().max()], metric_names=["gap"], compile=compile)
