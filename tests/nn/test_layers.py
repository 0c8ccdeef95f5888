"""Every layer keeps its promises, and every registered layer has a row in the table."""

import pytest

import keydnn.nn
from keydnn.saving import registered, registered_names
from keydnn.testing.layers import check_layer
from tests.nn.layer_cases import LAYER_CASES


@pytest.mark.parametrize("case", LAYER_CASES, ids=str)
def test_every_layer_keeps_its_promises(case):
    check_layer(case)


def test_every_registered_layer_has_a_row():
    layers = {registered(name) for name in registered_names()}
    layers = {cls for cls in layers if cls.__module__.startswith(f"{keydnn.nn.__name__}.")}
    assert len(layers) > 20
    assert {cls.__name__ for cls in layers - {case.layer for case in LAYER_CASES}} == set()


def test_the_names_of_the_rows_differ():
    names = [case.name for case in LAYER_CASES]
    assert len(set(names)) == len(names)
