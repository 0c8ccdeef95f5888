"""History, data adapters, metrics and progress, each on its own."""

import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from keydnn import Tensor
from keydnn.training import METRICS, BatchHooks, History, Model, Totals, accuracy, mean_absolute_error, mean_squared_error, run_steps
from keydnn.training.data import ArrayBatches, IterableBatches, batch_size_of, iter_minibatches_xy, make_batches, split_rows
from keydnn.training.progress import Lines, Silence, Terminal, make_progress, progress_text

# -- History


def test_history_collects_floats():
    history = History()
    history.append_epoch(0, {"loss": np.float32(0.5), "acc": 1})
    history.append_epoch(2, {"loss": Tensor(data=[0.25]), "val_loss": 3})
    assert history.history == {"loss": [0.5, 0.25], "acc": [1.0], "val_loss": [3.0]}
    assert all(type(v) is float for values in history.history.values() for v in values)
    assert history.epoch == [0, 2]
    assert history.last() == {"loss": 0.25, "acc": 1.0, "val_loss": 3.0}
    assert History() == History() and History().last() == {}


def test_a_refused_epoch_adds_nothing():
    history = History()
    with pytest.raises((TypeError, ValueError)):
        history.append_epoch(0, {"loss": 1.0, "name": "x"})
    assert history == History()


# -- batches


def arrays(n):
    x = np.arange(n * 2, dtype=np.float64).reshape(n, 2)
    return x, x[:, :1] * 10


@given(n=st.integers(1, 23), size=st.integers(1, 25), shuffle=st.booleans(), as_tensors=st.booleans())
def test_every_row_comes_once_with_its_target(n, size, shuffle, as_tensors):
    x, y = arrays(n)
    if as_tensors:
        x, y = Tensor(data=x), Tensor(data=y)
    batches = ArrayBatches(x, y, batch_size=size, shuffle=shuffle, dtype=np.float32, owner="test")
    parts = list(batches.epoch(batches.draw_key()))
    assert len(parts) == batches.n_batches == -(-n // size)
    assert [len(b) for b, _ in parts] == [size] * (n // size) + [n % size] * (n % size > 0)
    rows = np.concatenate([b.to_numpy() for b, _ in parts])
    targets = np.concatenate([t.to_numpy() for _, t in parts])
    assert_allclose(targets[:, 0], rows[:, 0] * 10)
    order = rows[:, 0] if not shuffle else np.sort(rows[:, 0])
    assert_allclose(order, np.arange(n) * 2.0)
    assert rows.dtype == (np.float64 if as_tensors else np.float32)


def test_the_order_follows_from_one_key_of_pythons_generator():
    x, y = arrays(20)
    batches = ArrayBatches(x, y, batch_size=8, shuffle=True, dtype=np.float32, owner="test")
    random.seed(4)
    key = random.getrandbits(64)
    random.seed(4)
    assert batches.draw_key() == key
    want = np.random.Generator(np.random.Philox(key)).permutation(20)
    got = np.concatenate([b.to_numpy()[:, 0] for b, _ in batches.epoch(key)])
    assert_allclose(got, want * 2.0)
    rest = np.concatenate([b.to_numpy()[:, 0] for b, _ in batches.epoch(key, first=1)])
    assert_allclose(rest, want[8:] * 2.0)


def test_without_shuffling_nothing_is_drawn():
    before = random.getstate()
    batches = ArrayBatches(*arrays(5), batch_size=2, shuffle=False, dtype=np.float32, owner="test")
    assert batches.draw_key() is None
    assert random.getstate() == before


def test_batches_are_copies_outside_the_graph():
    x, y = Tensor(data=np.ones((4, 2), np.float32), requires_grad=True), Tensor((4, 1))
    ((bx, _),) = ArrayBatches(x, y, batch_size=4, shuffle=False, dtype=None, owner="test").epoch(None)
    assert not bx.requires_grad
    bx.fill(7.0)
    assert x.sum().item() == 8.0
    array = np.ones((4, 2), np.float32)
    ((bx, _),) = ArrayBatches(array, array, batch_size=4, shuffle=False, dtype=np.float32, owner="test").epoch(None)
    bx.fill(7.0)
    assert array.sum() == 8.0


class Frame:
    """A table of another library."""

    def __array__(self, dtype=None, copy=None):
        return np.zeros((1, 1))


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), ValueError, r"different numbers of rows\n  x \(3, 2\)\n  y \(4, 2\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), ValueError, "no rows"),
        (Tensor(()), Tensor(()), ValueError, "no rows"),
        ([[1.0]], np.zeros((1, 1)), TypeError, r"x must be .*got list; pass np.asarray"),
        (np.zeros((1, 1)), [[1.0]], TypeError, "y must be"),
        (Frame(), np.zeros((1, 1)), TypeError, r"x must be .*got Frame; pass np.asarray"),
        (np.zeros((1, 1)), None, TypeError, "y is missing"),
        (3, None, TypeError, "iterable"),
        ("ab", None, TypeError, "iterable"),
    ],
)
def test_data_that_does_not_fit(x, y, error, message):
    with pytest.raises(error, match=message):
        make_batches(x, y, batch_size=2, shuffle=False, dtype=np.float32, owner="fit")


@pytest.mark.parametrize("item", [[np.zeros(1), np.zeros(1)], (np.zeros(1),), (np.zeros(1),) * 3, np.zeros((2, 1)), 3])
def test_items_must_be_pairs(item):
    with pytest.raises(TypeError, match="batch 1 must be a tuple"):
        list(IterableBatches([(np.zeros(1), np.zeros(1)), item], dtype=np.float32, owner="fit").epoch(None))


def test_parts_of_pairs_must_be_arrays():
    with pytest.raises(TypeError, match="y of batch 0 must be a Tensor or an ndarray, got list"):
        list(IterableBatches([(np.zeros(1), [0.0])], dtype=np.float32, owner="fit").epoch(None))


def test_an_iterable_is_walked_lazily_and_known_if_sized():
    def endless():
        while True:
            yield np.zeros((2, 1)), np.ones((2, 1))

    batches = IterableBatches(endless(), dtype=np.float64, owner="fit")
    assert batches.n_batches is None and batches.draw_key() is None
    x, y = next(batches.epoch(None))
    assert x.dtype == y.dtype == np.float64
    pairs = [(np.full((1, 1), i), np.zeros((1, 1))) for i in range(5)]
    sized = IterableBatches(pairs, dtype=np.float32, owner="fit")
    assert sized.n_batches == 5
    assert [b.item() for b, _ in sized.epoch(None, first=3)] == [3.0, 4.0]


def test_an_exhausted_iterator_is_noticed():
    batches = IterableBatches(iter([(np.zeros((1, 1)), np.zeros((1, 1)))]), dtype=np.float32, owner="fit")
    assert len(list(batches.epoch(None))) == 1
    with pytest.raises(ValueError, match="walked only once"):
        list(batches.epoch(None))


def test_split_rows():
    (x, y), (xv, yv) = split_rows(arrays(10), 0.3, "fit")
    assert x.shape == (7, 2) and xv[:, 0].tolist() == [14.0, 16.0, 18.0] and yv[:, 0].tolist() == [140.0, 160.0, 180.0] and len(y) == 7
    for bad in (0, 1.0, -0.1, 0.01, "half", True):
        with pytest.raises(ValueError):
            split_rows(arrays(2), bad, "fit")


def test_small_helpers():
    assert batch_size_of(Tensor((3, 2))) == 3 and batch_size_of(Tensor(())) == 1 and batch_size_of(object()) == 1
    x, y = arrays(5)
    assert [len(b) for b, _ in iter_minibatches_xy(x, y, batch_size=2)] == [2, 2, 1]
    assert [len(b) for b, _ in Model._iter_minibatches_xy(x, y, batch_size=3, shuffle=True)] == [3, 2]
    assert Model._batch_size_of(x) == 5


# -- totals and the loop


def test_totals_are_weighted():
    totals = Totals()
    totals.add({"loss": 1.0}, 3)
    totals.add({"loss": 5.0, "late": 2.0}, 1)
    assert totals.means() == {"loss": 2.0, "late": 2.0} and (totals.samples, totals.batches) == (4, 2)


def test_run_steps_tells_its_hooks_and_can_be_ended():
    told = []

    class Hooks(BatchHooks):
        def before(self, i):
            told.append(i)

        def after(self, i, logs, totals):
            told.append((i, logs["loss"], totals.batches))
            return i == 3

    totals = run_steps(lambda x, y: {"loss": float(y)}, ((Tensor((2,)), i) for i in range(10)), Totals(batches=2), Hooks())
    assert told == [2, (2, 0.0, 3), 3, (3, 1.0, 4)] and totals.samples == 4
    assert run_steps(lambda x, y: {"loss": 1.0}, [(Tensor((2,)), 0)] * 3, Totals()).batches == 3


# -- metrics


def tensor(values, dtype=np.float32):
    return Tensor(data=np.array(values, dtype), dtype=dtype)


SCORES = [[0.1, 0.9, 0.0], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0]]  # argmax 1 0 2 0


@pytest.mark.parametrize(
    ("truth", "want"),
    [
        ([[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]], 0.75),
        ([[0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0, 1, 0], [1, 0, 0]], 0.5),
        ([1, 0, 2, 0], 1.0),
        ([1.0, 1.0, 1.0, 1.0], 0.25),
        ([[1], [0], [0], [0]], 0.75),
    ],
)
def test_accuracy_of_classes(truth, want):
    assert accuracy(tensor(truth), tensor(SCORES)).item() == want
    if np.array(truth).dtype.kind == "i":
        assert accuracy(tensor(truth, np.int64), tensor(SCORES, np.float64)).item() == want


@pytest.mark.parametrize(
    ("truth", "prediction", "want"),
    [
        ([[1], [0], [1], [0]], [[0.9], [0.1], [0.4], [0.5]], 0.75),
        ([1, 0, 1, 0], [[0.9], [0.1], [0.4], [0.6]], 0.5),
        ([1, 0, 1], [0.9], None),
        (1.0, 0.7, 1.0),
    ],
)
def test_accuracy_of_numbers(truth, prediction, want):
    if want is None:
        with pytest.raises(ValueError, match=r"\(3,\).*\(1,\)"):
            accuracy(tensor(truth), tensor(prediction))
    else:
        assert accuracy(tensor(truth), tensor(prediction)).item() == want


def test_accuracy_of_other_shapes_is_refused():
    for truth in ([0, 1], [[0, 1], [1, 0], [0, 1], [1, 0]], [[1, 0, 0, 2]]):
        with pytest.raises(ValueError, match="accuracy"):
            accuracy(tensor(truth), tensor(SCORES))


def test_accuracy_of_a_sequence():
    scores = np.random.default_rng(0).normal(size=(2, 5, 3))
    truth = scores.argmax(-1)
    truth[0, 0] = (truth[0, 0] + 1) % 3
    assert accuracy(tensor(truth, np.int64), tensor(scores)).item() == 0.9


@given(st.integers(0, 2**32 - 1))
def test_errors_agree_with_their_definitions(seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 4, 3)).astype(np.float32)
    assert_allclose(mean_absolute_error(tensor(a), tensor(b)).item(), np.abs(a.astype(np.float64) - b).mean(), rtol=1e-6)
    assert_allclose(mean_squared_error(tensor(a), tensor(b)).item(), ((a.astype(np.float64) - b) ** 2).mean(), rtol=1e-6)
    with pytest.raises(ValueError):
        mean_squared_error(tensor(a), tensor(b[:2]))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_stay_out_of_the_graph(name):
    prediction = Tensor(data=np.ones((2, 3), np.float32), requires_grad=True)
    value = METRICS[name](tensor(np.ones((2, 3))), prediction)
    assert value.shape == () and not value.requires_grad


# -- progress


def test_the_text_of_progress():
    logs = {"loss": 0.123456789, "val_acc": 1.0}
    assert progress_text(1, 5, 16, 32, logs) == (
        "Epoch 2/5 [===============...............] 16/32 (50%) - loss: 0.123457 - val_acc: 1.000000"
    )
    assert progress_text(0, 1, 3, 3, {}) == f"Epoch 1/1 [{'=' * 30}] 3/3 (100%)"
    assert progress_text(0, 1, 0, 3, {}) == f"Epoch 1/1 [{'.' * 30}] 0/3 (0%)"
    assert progress_text(0, 2, 7, None, {"loss": 2.0}) == "Epoch 1/2 7 batches - loss: 2.000000"


def run_epochs(progress):
    for epoch in range(2):
        progress.begin(epoch)
        for i in range(3):
            progress.update(i + 1, {"loss": 0.5})
        progress.end(3, {"loss": 0.5}, 17)
    progress.close()


def test_plain_lines_have_no_carriage_return():
    stream = io.StringIO()
    run_epochs(Lines(2, 3, 1, stream))
    assert stream.getvalue() == "".join(f"Epoch {i}/2 [{'=' * 30}] 3/3 (100%) - loss: 0.500000\n" for i in (1, 2))


def test_the_summary_ends_with_the_number_of_samples():
    stream = io.StringIO()
    run_epochs(Lines(2, 3, 2, stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4 and lines[1] == "Epoch 1/2 done - loss: 0.500000 - samples: 17"


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_the_same_text(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Screen()
    run_epochs(Terminal(2, 3, 2, stream))
    text = stream.getvalue()
    for i in (1, 2):
        assert f"Epoch {i}/2 [{'=' * 30}] 3/3 (100%) - loss: 0.500000" in text
        assert f"Epoch {i}/2 done - loss: 0.500000 - samples: 17\n" in text


def test_closing_an_unfinished_epoch_restores_the_cursor(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Screen()
    progress = Terminal(2, 3, 1, stream)
    progress.begin(0)
    progress.close()
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_what_is_drawn_depends_on_verbose_and_terminal(monkeypatch):
    assert type(make_progress(0, 1, 1)) is Silence
    assert type(make_progress(1, 1, 1)) is Lines
    monkeypatch.setattr("sys.stdout", Screen())
    assert type(make_progress(1, 1, 1)) is Terminal and type(make_progress(0, 1, 1)) is Silence


def test_making_batches_leaves_the_grad_mode_alone():
    x = Tensor(data=np.ones((2, 2), np.float32), requires_grad=True)
    list(ArrayBatches(x, x, batch_size=1, shuffle=False, dtype=None, owner="test").epoch(None))
    assert (x * 2.0).requires_grad
