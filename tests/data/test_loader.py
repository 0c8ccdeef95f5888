"""DataLoader: the same bits for any number of workers, errors from workers, and use in fit, evaluate and predict."""

import pickle
import random
import threading

import numpy as np
import pytest

import keydnn
from keydnn.data import ArrayDataset, Augmented, DataLoader, Dataset, IterableDataset, Mapped, RandomCrop
from keydnn.training import Callback

IMAGES = np.random.default_rng(0).random((37, 1, 6, 6))
LABELS = np.arange(37) % 3


def images():
    return Augmented(ArrayDataset(IMAGES, LABELS), RandomCrop(padding=2))


def epochs(loader, n=2):
    random.seed(5)
    found = [[(x.numpy(), y.numpy()) for x, y in loader] for _ in range(n)]
    loader.close()
    return found


def same(a, b):
    return all(
        np.array_equal(x, u) and np.array_equal(y, v) for p, q in zip(a, b, strict=True) for (x, y), (u, v) in zip(p, q, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kind"), [(1, "threads"), (3, "threads"), (2, "processes")])
def test_the_number_of_workers_changes_no_bit(workers, kind):
    plain = epochs(DataLoader(images(), 5, shuffle=True))
    assert same(plain, epochs(DataLoader(images(), 5, shuffle=True, workers=workers, worker_kind=kind)))
    assert not same(plain[:1], plain[1:])  # another epoch, another order and other crops
    assert sorted(np.concatenate([y for _, y in plain[0]]).tolist()) == sorted(LABELS.tolist())


def test_batches_are_tensors_of_the_wanted_dtype_and_of_the_right_sizes():
    loader = DataLoader(ArrayDataset(IMAGES, LABELS), 10)
    batches = list(loader)
    assert len(loader) == loader.n_batches == 4 and [x.shape[0] for x, _ in batches] == [10, 10, 10, 7]
    assert batches[0][0].dtype == np.float32 and batches[0][1].dtype == np.int64
    assert len(DataLoader(ArrayDataset(IMAGES), 10, drop_last=True)) == len(list(DataLoader(ArrayDataset(IMAGES), 10, drop_last=True))) == 3
    x, _ = next(iter(DataLoader(ArrayDataset(IMAGES, LABELS), 2, dtype=np.float64)))
    assert x.dtype == np.float64
    raw, _ = next(iter(DataLoader(ArrayDataset(IMAGES, LABELS), 2, as_tensors=False)))
    assert isinstance(raw, np.ndarray) and raw.dtype == np.float64
    own = DataLoader([1, 2, 3], 2, collate=lambda samples: {"n": np.array(samples), "text": "t"})
    assert [(b["n"].tolist(), b["text"]) for b in own] == [([1, 2], "t"), ([3], "t")]


def test_an_epoch_can_be_entered_anywhere():
    loader = DataLoader(images(), 5, shuffle=True, workers=2)
    whole = [x.numpy() for x, _ in loader.epoch(99)]
    rest = [x.numpy() for x, _ in loader.epoch(99, 3)]
    loader.close()
    assert len(rest) == len(whole) - 3 and all(np.array_equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


class Fails(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i == 7:
            raise KeyError("row 7 is broken")
        return i


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_sample_reaches_the_caller_in_its_place(workers):
    loader = DataLoader(Fails(), 2, workers=workers)
    seen = []
    with pytest.raises(KeyError, match="row 7"):
        for batch in loader:
            seen.append(batch.tolist())
    assert seen == [[0, 1], [2, 3], [4, 5]]
    loader.close()


def die(sample):
    import os

    os._exit(3)


@pytest.mark.slow
def test_a_worker_process_that_dies_is_told():
    loader = DataLoader(Mapped([1, 2, 3], die), workers=1, worker_kind="processes")
    with pytest.raises(RuntimeError, match="worker process died"):
        list(loader)


def test_a_loader_left_early_ends_its_threads():
    loader = DataLoader(ArrayDataset(IMAGES), 1, workers=2)
    for _ in loader:
        break
    loader.close()
    del loader
    assert not [t for t in threading.enumerate() if t.name.startswith("keydnn-data") and not t.join(5.0) and t.is_alive()]


class Stream(IterableDataset):
    def __init__(self, n, fails=False):
        self.n, self.fails = n, fails

    def __iter__(self):
        yield from ((np.float32([i]), np.float32([2 * i])) for i in range(self.n))
        if self.fails:
            raise OSError("the line went dead")


@pytest.mark.parametrize("workers", [0, 1])
def test_iterable_datasets_keep_their_order(workers):
    loader = DataLoader(Stream(7), 3, workers=workers)
    assert loader.n_batches is None
    assert [x.numpy().ravel().tolist() for x, _ in loader] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [x.shape[0] for x, _ in loader.epoch(None, 1)] == [3, 1]
    next(iter(loader))  # left early
    with pytest.raises(TypeError, match="no length"):
        len(loader)
    with pytest.raises(OSError, match="went dead"):
        list(DataLoader(Stream(4, fails=True), 3, workers=workers))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an int"),
        ({"workers": -1}, ValueError, "workers"),
        ({"prefetch": 0}, ValueError, "prefetch"),
        ({"worker_kind": "fibers"}, ValueError, "worker_kind"),
        ({"dataset": 5}, TypeError, "got int"),
        ({"dataset": "text"}, TypeError, "got str"),
        ({"dataset": Stream(3), "shuffle": True}, ValueError, "cannot be shuffled"),
        ({"dataset": Stream(3), "workers": 1, "worker_kind": "processes"}, ValueError, "one thread"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        DataLoader(**{"dataset": ArrayDataset(IMAGES), **options})


def test_a_copy_has_no_workers():
    loader = DataLoader(ArrayDataset(IMAGES, LABELS), 5, workers=1)
    list(loader)
    copy = pickle.loads(pickle.dumps(loader))
    assert same([[(x.numpy(), y.numpy()) for x, y in copy]], [[(x.numpy(), y.numpy()) for x, y in loader]])
    loader.close()
    copy.close()


# -- in training


def model():
    np.random.seed(1)
    return keydnn.Sequential(keydnn.Flatten(), keydnn.Linear(36, 3))


def trained(data, labels=None, **options):
    m = model()
    random.seed(2)
    history = m.fit(data, labels, loss="cross_entropy", optimizer="adam", epochs=3, verbose=0, **options)
    return history.history["loss"], [p.numpy() for p in m.parameters()]


def equal(a, b):
    return a[0] == b[0] and all(np.array_equal(p, q) for p, q in zip(a[1], b[1], strict=True))


def test_fit_with_arrays_with_a_dataset_and_with_a_loader_is_the_same_run():
    arrays = trained(IMAGES, LABELS, batch_size=8)
    dataset = ArrayDataset(IMAGES, LABELS)
    assert equal(arrays, trained(dataset, batch_size=8))
    with_workers = DataLoader(dataset, 8, shuffle=True, workers=2)
    assert np.allclose(arrays[0], trained(with_workers)[0], rtol=1e-6)  # labels are integers here and floats there
    with_workers.close()


def test_evaluate_and_predict():
    m, dataset = model(), ArrayDataset(IMAGES, LABELS)
    loader = DataLoader(dataset, 10)
    want = m.evaluate(IMAGES, LABELS, loss="cross_entropy", batch_size=10)
    assert m.evaluate(loader, loss="cross_entropy") == pytest.approx(want, rel=1e-6)
    assert m.evaluate(dataset, loss="cross_entropy", batch_size=10) == pytest.approx(want, rel=1e-6)
    y = m.predict(IMAGES).numpy()
    for source in (loader, dataset, DataLoader(ArrayDataset(IMAGES), 7), ArrayDataset(IMAGES)):
        np.testing.assert_allclose(m.predict(source).numpy(), y, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="shuffles"):
        m.predict(DataLoader(dataset, 10, shuffle=True))
    history = m.fit(dataset, loss="cross_entropy", optimizer="sgd", validation_data=loader, verbose=0)
    assert "val_loss" in history.history


def test_a_loader_without_batches():
    with pytest.raises(ValueError, match="no batches"):
        model().fit(DataLoader(ArrayDataset(IMAGES, LABELS), 40, drop_last=True), loss="mse", optimizer="sgd", verbose=0)
    with pytest.raises(TypeError, match="tuple .x, y."):
        model().fit(DataLoader(ArrayDataset(IMAGES), 4), loss="mse", optimizer="sgd", verbose=0)


def test_a_run_over_a_loader_is_resumed_in_the_middle_of_an_epoch(tmp_path):
    class Stop(Callback):
        def __init__(self, at):
            super().__init__()
            self.at = at

        def on_batch_end(self, batch, logs=None):
            if self.at is not None and batch == self.at:
                self.model.save(tmp_path / "run.safetensors")
                raise KeyboardInterrupt

    def run(at, resume=None):
        m = model()
        random.seed(2)
        optimizer = keydnn.Adam(m.parameters())
        loader = DataLoader(images(), 8, shuffle=True)
        history = m.fit(loader, loss="cross_entropy", optimizer=optimizer, epochs=2, verbose=0, callbacks=[Stop(at)], resume=resume)
        return history.history["loss"], [p.numpy() for p in m.parameters()]

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(2)
    assert equal(whole, run(None, resume=tmp_path / "run.safetensors"))


@pytest.mark.torch
def test_tensors_of_torch_are_taken_where_arrays_are():
    import torch

    x, y = torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
    assert equal(trained(IMAGES, LABELS, batch_size=8), trained(x, y, batch_size=8))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    m = model()
    pairs = [tuple(pair) for pair in loader]
    assert m.evaluate(pairs, loss="cross_entropy") == pytest.approx(m.evaluate(IMAGES, LABELS, loss="cross_entropy", batch_size=8))
    np.testing.assert_array_equal(m.predict(x).numpy(), m.predict(IMAGES).numpy())
    with pytest.raises(TypeError, match="cannot be read as an array"):
        m.predict(x.clone().requires_grad_())
