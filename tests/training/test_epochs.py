"""How long an epoch is, when it validates, and the picture of it all."""

import itertools
import random

import numpy as np
import pytest

from keydnn.nn import Linear
from keydnn.optim import SGD
from keydnn.training import History, LambdaCallback, Sequential, TrainingCheckpoint

RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(40, 3)).astype("f4"), RNG.normal(size=(40, 1)).astype("f4")


def run(x=X, y=Y, *, seed=1, callbacks=None, **options):
    random.seed(seed), np.random.seed(seed)
    model = Sequential(Linear(3, 1))
    seen = []
    note = LambdaCallback(on_batch_end=lambda batch, logs: seen.append(batch))
    options = {"loss": "mse", "batch_size": 8, "verbose": 0} | options
    optimizer = SGD(model.parameters(), lr=0.1)
    history = model.fit(x, y, optimizer=optimizer, callbacks=[note] if callbacks is None else callbacks, **options)
    return model, history, seen


@pytest.mark.parametrize("compile", [True, False])
def test_steps_per_epoch_takes_the_first_batches(compile):
    options = {"epochs": 4, "shuffle": False, "steps_per_epoch": 3}
    told, quiet = run(compile=compile, **options), run(compile=compile, callbacks=[], **options)
    first = run(X[:24], Y[:24], epochs=4, shuffle=False)
    assert told[2] == [0, 1, 2] * 4
    assert told[1] == quiet[1] == first[1]
    assert told[0][0].weight.tolist() == quiet[0][0].weight.tolist() == first[0][0].weight.tolist()
    assert run(steps_per_epoch=99)[2] == [0, 1, 2, 3, 4]


def test_an_endless_generator_goes_on():
    drawn = []

    def endless():
        for i in itertools.count():
            drawn.append(i)
            rows = np.arange(8 * i, 8 * i + 8) % 40
            yield X[rows], Y[rows]

    _, history, seen = run(endless(), None, epochs=3, steps_per_epoch=5, class_weight=None)
    assert drawn == list(range(15)) and seen == [0, 1, 2, 3, 4] * 3
    assert history == run(epochs=3, shuffle=False)[1]
    with pytest.raises(ValueError, match="walked only once"):
        run(iter([(X, Y)] * 3), None, epochs=2, steps_per_epoch=3)


def test_class_weights_and_a_list_with_steps():
    pairs = [(X[i : i + 8], (Y[i : i + 8] > 0).astype("f4")) for i in range(0, 40, 8)]
    a = run(pairs, None, steps_per_epoch=2, epochs=2, class_weight={1: 3.0})
    b = run(pairs[:2], None, epochs=2, class_weight={1: 3.0})
    assert a[2] == [0, 1] * 2 and a[1] == b[1]


@pytest.mark.parametrize("every", [None, 1])
def test_resuming_with_steps(every, tmp_path):
    options = {"steps_per_epoch": 3, "epochs": 5}
    whole = run(callbacks=[], **options)
    run(callbacks=[TrainingCheckpoint(tmp_path / "a", every_n_batches=every)], **options | {"epochs": 2})
    again = run(seed=7, callbacks=[], resume=tmp_path / "a", **options)
    assert whole[1] == again[1] and whole[0][0].weight.tolist() == again[0][0].weight.tolist()


def test_validation_now_and_then():
    data = (X[:20], Y[:20])
    options = {"epochs": 5, "validation_data": data}
    whole, some = run(**options)[1], run(**options, validation_freq=2)[1]
    assert some.history["val_loss"] == whole.history["val_loss"][1::2] and some.history["loss"] == whole.history["loss"]
    assert some.epochs_of == {"loss": [0, 1, 2, 3, 4], "val_loss": [1, 3]}
    few = run(**options, validation_steps=1)[1]
    assert few.history["val_loss"] == run(epochs=5, validation_data=(X[:8], Y[:8]))[1].history["val_loss"]
    pairs = [(X[:8], Y[:8]), (X[8:], Y[8:])]
    assert few.history["val_loss"] == run(epochs=5, validation_data=pairs, validation_steps=1)[1].history["val_loss"]


@pytest.mark.parametrize("name", ["steps_per_epoch", "validation_steps", "validation_freq"])
def test_counts_are_checked(name):
    for value, error in [(0, ValueError), (1.5, TypeError), ("3", TypeError)]:
        with pytest.raises(error, match=name):
            run(**{name: value})


@pytest.mark.slow
def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    history = run(epochs=5, validation_data=(X, Y), validation_freq=2, metrics="mae")[1]
    figure = history.plot(path=tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mae"]
    training, validation = figure.axes[0].lines
    assert list(training.get_xdata()) == [1, 2, 3, 4, 5] and list(training.get_ydata()) == history.history["loss"]
    assert list(validation.get_xdata()) == [2, 4] and list(validation.get_ydata()) == history.history["val_loss"]
    assert [axes.get_ylabel() for axes in history.plot(["mae"]).axes] == ["mae"]
    assert len(History({"loss": [1.0, 2.0]}, [0, 1]).plot().axes[0].lines) == 1
    with pytest.raises(KeyError, match="nothing"):
        history.plot(["nothing"])
    with pytest.raises(ValueError, match="nothing to show"):
        History().plot()
