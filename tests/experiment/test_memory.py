"""A large set needs little memory beside its columns: measured in a process of its own, with more rows by `python -m benchmarks data`."""

from pathlib import Path

import pytest

from benchmarks.data_memory import MOST_MEMORY, measured


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc as Linux has it")
def test_building_splitting_and_drawing_take_a_third_of_the_columns_at_most():
    figures = measured(500_000, n_batches=2_000, rounds=1)  # 40 MB; batches are read more than once
    assert set(figures["peaks"]) == {"construction", "split", "drawing", "batches"}
    assert max(figures["peaks"].values()) <= MOST_MEMORY, figures["peaks"]
    assert figures["peaks"]["construction"] < 0.05
