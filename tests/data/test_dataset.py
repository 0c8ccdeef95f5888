"""Data sets: samples, batches of rows, subsets, chains, and what is random about them."""

import numpy as np
import pytest

import keydnn
from keydnn.data import ArrayDataset, Augmented, ConcatDataset, DataLoader, Dataset, IterableDataset, Mapped, Subset, collate, random_split


class Numbers(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        return np.float32(i), i


def shifted(x, rng):
    return x + rng.integers(1000)


def test_array_dataset_gives_rows_and_batches():
    x, y = np.arange(6.0).reshape(3, 2), np.array([5, 6, 7])
    d = ArrayDataset(x, keydnn.tensor(y, dtype="int64"))
    assert len(d) == 3 and d[1][0].tolist() == [2.0, 3.0] and d[1][1] == 6
    gathered = d.gather([2, 0], None)
    assert gathered[0].tolist() == [[4.0, 5.0], [0.0, 1.0]] and gathered[1].tolist() == [7, 5]
    assert ArrayDataset(x)[0].tolist() == [0.0, 1.0] and ArrayDataset(x).gather([1], None).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize(
    ("arrays", "error", "text"),
    [((), ValueError, "at least one"), (([1, 2],), TypeError, "list"), ((np.ones(2), np.ones(3)), ValueError, "different numbers of rows")],
)
def test_array_dataset_refuses(arrays, error, text):
    with pytest.raises(error, match=text):
        ArrayDataset(*arrays)


def test_subset_concat_and_map_agree_with_indexing():
    d = ConcatDataset(Numbers(3), Subset(Numbers(10), [7, 2]), [(np.float32(50), 50)])
    assert [d[i][1] for i in range(len(d))] == [0, 1, 2, 7, 2, 50]
    assert d[-1][1] == 50
    with pytest.raises(IndexError):
        d[6]
    assert Mapped(d, lambda s: s[1] * 2)[3] == 14
    assert Subset(ArrayDataset(np.arange(5)), [4, 1]).gather([1, 0], None).tolist() == [1, 4]
    with pytest.raises(IndexError, match="0 to 9"):
        Subset(Numbers(5), [0, 9])


def test_randomness_reaches_through_wrappers_and_depends_on_key_and_sample_alone():
    base = Augmented(ArrayDataset(np.zeros((4, 1)), np.arange(4)), shifted)
    d = Subset(ConcatDataset(base, Numbers(1)), [3, 0])
    assert d.is_random and base.is_random and not Numbers(1).is_random
    one, again, other = d.gather([0, 1], 7), d.gather([0, 1], 7), d.gather([0, 1], 8)
    assert one[0].tolist() == again[0].tolist() != other[0].tolist()
    assert one[0][0].tolist() == base.gather([3], 7)[0][0].tolist()
    assert d[0][0].shape == (1,)


def test_random_split_divides_all():
    parts = random_split(Numbers(11), [0.5, 0.3, 0.2], seed=3)
    assert sorted(i for part in parts for i in part.rows.tolist()) == list(range(11))
    assert [len(p) for p in random_split(Numbers(11), [4, 7])] == [4, 7]
    assert [p.rows.tolist() for p in parts] == [p.rows.tolist() for p in random_split(Numbers(11), [0.5, 0.3, 0.2], seed=3)]
    for bad in ([4, 8], [0.5, 0.6], [-1, 12]):
        with pytest.raises(ValueError, match="random_split"):
            random_split(Numbers(11), bad)


def test_collate():
    batch = collate([{"a": (1, keydnn.ones((2,))), "b": 0.5}, {"a": (2, keydnn.zeros((2,))), "b": 1.5}])
    assert batch["a"][0].tolist() == [1, 2] and batch["a"][1].shape == (2, 2) and batch["b"].tolist() == [0.5, 1.5]
    for bad, error, text in [
        ([], ValueError, "no samples"),
        ([np.zeros(2), np.zeros(3)], ValueError, "different shapes"),
        ([(1, 2), (1, 2, 3)], ValueError, "sample 1"),
        ([(1, 2), 3], ValueError, "sample 1"),
        (["a", "b"], TypeError, "str"),
    ]:
        with pytest.raises(error, match=text):
            collate(bad)


def test_what_a_subclass_did_not_write():
    with pytest.raises(NotImplementedError, match="Empty does not implement __len__"):
        len(type("Empty", (Dataset,), {})())
    with pytest.raises(NotImplementedError, match="__iter__"):
        next(iter(DataLoader(type("Empty", (IterableDataset,), {})())))
