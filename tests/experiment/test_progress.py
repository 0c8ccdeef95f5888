"""Progress is seen by whoever asked for it and can see it, after a while, and by nobody else."""

import sys
import threading

import numpy as np
import pytest

from keydnn.experiment import progress
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.progress import showing, task
from keydnn.experiment.progress_bars import evaluation_progress, training_progress
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition


class Recorded:
    """A display that keeps what it is told."""

    def __init__(self, persist=False):
        self.tasks, self.drawn, self.notes, self.left, self.closed = [], [], [], [], False

    def add(self, what, total):
        self.tasks.append((what, total))
        return len(self.tasks) - 1

    def draw(self, number, done, note=""):
        self.drawn.append((self.tasks[number][0], done))
        self.notes.append(note)

    def renew(self, number, what, total):
        self.tasks[number] = (what, total)

    def remove(self, number):
        self.drawn.append((self.tasks[number][0], "gone"))

    def leave(self, text):
        self.left.append(text)

    def close(self):
        self.closed = True


@pytest.fixture
def shown(monkeypatch):
    """Displays that were opened; everything is slow enough to be shown, and somebody looks."""
    displays = []
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    monkeypatch.setattr(progress, "DRAW_S", 0.0)
    monkeypatch.setattr(progress, "can_be_seen", lambda: True)
    monkeypatch.setattr(progress, "is_installed", lambda name: True)
    monkeypatch.setattr(progress, "Bars", lambda persist: displays.append(Recorded(persist)) or displays[-1])
    return displays


def work(parts=3):
    with task("counting", parts) as advance:
        for _ in range(parts):
            advance(1)


def test_tasks_inside_are_shown_and_the_display_is_closed(shown):
    with showing(True):
        work()
        work(2)
    (display,) = shown
    assert display.tasks == [("counting", 3), ("counting", 2)] and display.closed
    assert display.drawn == [("counting", n) for n in (1, 2, 3, 1, 2)]


def test_an_error_closes_the_display_too(shown):
    with pytest.raises(ZeroDivisionError), showing(True), task("x") as advance:
        advance(1)
        raise ZeroDivisionError
    assert shown[0].closed
    work()
    assert len(shown) == 1


def test_what_is_silenced_shows_nothing(shown):
    work()
    with showing(False, "spinner"), showing(True):
        pass
    with showing(True), showing(False):
        work()
    assert shown == []


def test_blocks_inside_share_the_display_of_the_outer_one(shown):
    with showing(True):
        work()
        with showing(True, "inner"):
            work()
        work()
    assert len(shown) == 1 and len(shown[0].tasks) == 3


def test_short_work_and_work_without_an_audience_show_nothing(shown, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_S", 60.0)
    with showing(True):
        work()
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    monkeypatch.setattr(progress, "can_be_seen", lambda: False)
    with showing(True, "spinner"):
        work()
    assert shown == []


def test_threads_count_together(shown):
    with showing(True), task("shared", 400) as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [done for _, done in shown[0].drawn] == list(range(1, 401))


def test_a_spinner_turns_while_the_work_is_silent(shown):
    turned = threading.Event()
    with showing(True, "drawing"):
        threading.Thread(target=lambda: turned.set() if until(lambda: shown and shown[0].drawn) else None).start()
        assert turned.wait(10)
    assert shown[0].tasks == [("drawing", None)] and set(shown[0].drawn) == {("drawing", 0)} and shown[0].closed


def until(met):
    for _ in range(1000):
        if met():
            return True
        threading.Event().wait(0.01)
    return False


@pytest.mark.parametrize("rich", [True, False])
def test_what_a_terminal_gets(rich, monkeypatch, capsys):
    if rich:
        pytest.importorskip("rich")
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    monkeypatch.setattr(progress, "can_be_seen", lambda: True)
    monkeypatch.setattr(progress, "is_installed", lambda name: rich)
    with showing(True, persist=True):
        work()
    out, err = capsys.readouterr()
    assert out == "" and "counting" in err and ("3/3" in err) is rich
    if not rich:
        assert err == "counting: 1/3, 0 s, 0 s left\n"  # at most a line a second


def test_standard_error_that_is_no_terminal_sees_nothing():
    assert not sys.stderr.isatty() and not progress.can_be_seen()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("on_sampler", "on_call"), [(True, True), (True, False), (False, True)])
def test_samplers_tell_how_far_they_are(workers, on_sampler, on_call, shown):
    fs = FeatureSet.from_dict("v", {"v": np.arange(50.0)}, "v", [])
    sampler = PairedSampler({"v": SimilarityCondition(tolerance=1)}, n_workers=workers, show_progress=on_sampler, source=fs)
    sampler.materialize_batches(show_progress=on_call)
    if on_sampler and on_call:
        found = [done for what, done in shown[0].drawn if what == "partners for 50 samples"]
        assert found == sorted(found) and found[-1] == 50
    else:
        assert shown == []


# -- bars of phases -----------------------------------------------------------------------------------------------------


def train(n_epochs=2, n_steps=3, evaluate=False, **flags):
    with training_progress("train", n_epochs, **flags) as bars:
        for epoch in range(n_epochs):
            step = bars.epoch(epoch, n_steps)
            for i in range(n_steps):
                step(1.0 + i)
            if evaluate:
                with evaluation_progress("val", 2) as done:
                    done()
                    done()
            bars.epoch_done(2.0, 4.0 if evaluate else None)


def test_a_training_shows_epochs_steps_and_losses(shown):
    train(evaluate=True)
    (display,) = shown
    assert display.tasks[:2] == [("train", 2), ("epoch 2", 3)]
    assert display.drawn[:4] == [("train", 0), ("epoch 1", 1), ("epoch 1", 2), ("epoch 1", 3)]
    assert [done for what, done in display.drawn if what == "train"] == [0, 1, 2]
    assert display.notes[1] == "loss=1" and "loss=2 | val_loss=4" in display.notes and display.notes[-1] == "loss=2 | val_loss=4"
    assert display.drawn.count(("val", "gone")) == 2 and display.closed and display.left == []


def test_steps_that_ran_in_one_call_are_counted_at_the_end_of_the_epoch(shown):
    with training_progress("train", 1) as bars:
        bars.epoch(0, 7)
        bars.epoch_done(2.0, n_steps=7)
    assert ("epoch 1", 7) in shown[0].drawn


def test_bars_that_persist(shown):
    train(persist=True, persist_epoch=True)
    assert shown[0].left == ["epoch 1: loss=2", "epoch 2: loss=2"]
    with evaluation_progress("test", 1, persist=True) as done:
        done()
    assert shown[1].drawn == [("test", 1)] and shown[1].closed


def test_flags_that_are_false_show_nothing(shown, monkeypatch):
    monkeypatch.setattr(progress, "Stage", None)
    train(wanted=False, evaluate=False)
    with evaluation_progress("test", 1, wanted=False) as done, showing(False, "materialising batches"):
        done()
    assert shown == []


def test_bars_move_at_most_every_quarter_of_a_second(shown, monkeypatch):
    monkeypatch.setattr(progress, "DRAW_S", 60.0)
    read = []

    class Device:
        """A loss on a device: whoever reads it waits for the device."""

        shape = ()

        def __float__(self):
            read.append(1)
            return 1.0

    with training_progress("train", 1) as bars:
        step = bars.epoch(0, 1000)
        for _ in range(1000):
            step(Device())
        bars.epoch_done(1.0)
    assert [done for what, done in shown[0].drawn if what == "epoch 1"] == [1, 1000] and len(read) == 1


@pytest.mark.parametrize("rich", [True, False])
def test_what_a_terminal_gets_of_a_training(rich, monkeypatch, capsys):
    if rich:
        pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    monkeypatch.setattr(progress, "can_be_seen", lambda: True)
    monkeypatch.setattr(progress, "is_installed", lambda name: rich)
    train(evaluate=True, persist=True, persist_epoch=True)
    out, err = capsys.readouterr()
    assert out == ""
    if rich:
        assert "2/2" in err and "epoch 2: loss=2 | val_loss=4" in err
    else:
        assert err == "train: 0/2, 0 s\n"  # at most a line a second
