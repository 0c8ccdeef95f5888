"""AxisSeries: questions, parts, reductions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.experiment.results import AxisSeries


@pytest.fixture
def losses():
    return AxisSeries(("epoch", "batch"), {(1, 0): 4.0, (0, 0): 1.0, (0, 1): 3.0, (0, None): 2.0})


def test_axes_and_values(losses):
    assert losses.axes == ("epoch", "batch") and losses.shape == {"epoch": 2, "batch": 3}
    assert losses.axes_values() == {"epoch": [0, 1], "batch": [None, 0, 1]}
    assert losses.values() == [4.0, 1.0, 3.0, 2.0] and list(losses) == losses.keys() and len(losses) == 4
    assert losses.at(epoch=0, batch=1) == 3.0 and losses[0, None] == 2.0
    assert AxisSeries(("epoch",), {(0,): "a"})[0] == "a"


@pytest.mark.parametrize("ask", [{"epoch": 0}, {"epoch": 5, "batch": 0}, {"epoch": 0, "batch": 0, "phase": 1}])
def test_at_needs_every_axis_and_an_entry(losses, ask):
    with pytest.raises(KeyError):
        losses.at(**ask)


def test_where_takes_values_collections_and_predicates(losses):
    assert losses.where(epoch=0).values() == [1.0, 3.0, 2.0]
    assert losses.where(batch=[0, 1]).values() == [4.0, 1.0, 3.0]
    assert losses.select(batch=lambda b: b is not None and b > 0) == [3.0]
    assert losses.where(epoch=7).values() == []
    with pytest.raises(KeyError, match="no axis 'fold'"):
        losses.where(fold=1)


def test_one_first_last(losses):
    assert losses.where(epoch=1).one() == 4.0
    with pytest.raises(ValueError, match="there are 3"):
        losses.where(epoch=0).one()
    assert losses.first() == 4.0 and losses.last() == 2.0
    assert losses.first(sort_by="epoch") == 1.0 and losses.last(sort_by=["batch", "epoch"]) == 3.0 and losses.first(sort_by="batch") == 2.0
    for ask in (losses.where(epoch=9).first, losses.where(epoch=9).last):
        with pytest.raises(ValueError, match="empty"):
            ask()


def test_collapse_and_squeeze(losses):
    whole = losses.where(batch=[0, 1])
    assert whole.collapse("batch", "mean").to_dict() == {(1,): 4.0, (0,): 2.0}
    assert whole.collapse("batch", "sum")[0] == 4.0 and whole.collapse("batch", max)[0] == 3.0
    assert losses.where(epoch=1).squeeze().axes == () and losses.where(epoch=1).squeeze().one() == 4.0
    empty = losses.where(epoch=9)
    assert empty.squeeze().axes == losses.axes
    with pytest.raises(ValueError, match="concat"):
        losses.collapse("batch", "concat")
    with pytest.raises(ValueError, match="empty"):
        empty.collapse("batch", "mean")


def test_tensors_are_joined():
    series = AxisSeries(("batch",), {(0,): np.ones((2, 1)), (1,): np.zeros((3, 1))})
    assert series.collapse("batch", "concat").one().shape == (5, 1)
    with pytest.raises(ValueError, match="'mean'"):
        series.collapse("batch", "mean")


def test_map_and_pandas(losses):
    assert losses.map(lambda value: value * 2).values() == [8.0, 2.0, 6.0, 4.0]
    frame = losses.to_pandas()
    assert list(frame.columns) == ["epoch", "batch", "value"] and frame["value"].tolist() == losses.values()


@pytest.mark.parametrize("keys", [{(1,): 1}, {1: 1}])
def test_keys_must_fit_the_axes(keys):
    with pytest.raises(ValueError, match="a key must be a tuple"):
        AxisSeries(("epoch", "batch"), keys)


@given(st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from("abc")), st.floats(-9, 9), min_size=1))
def test_collapsing_sums_agree_whichever_axis_goes_first(data):
    series = AxisSeries(("n", "name"), data)
    one = series.collapse("n", "sum").collapse("name", "sum").one()
    other = series.collapse("name", "sum").collapse("n", "sum").one()
    assert one == pytest.approx(sum(data.values())) and other == pytest.approx(one)
