"""Runs the plan of :mod:`tests.experiment.kill_world` undisturbed, then again and again with ``kill -9`` at an event, goes on, compares.

``python -m tests.experiment.kill_trials torch 50`` prints a line per kill and ends with 1 if anything differs.  Every run is a process of
its own, forked from this one, which has imported everything and run nothing.
"""

import argparse
import os
import pickle
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import pandas  # noqa: F401  (once for all processes)

from keydnn.experiment import Experiment, ExperimentContext
from keydnn.experiment.io import Checkpoint
from tests.experiment import kill_world
from tests.experiment.kill_world import EVENTS


def in_child(work):
    """Do something in a process of its own; how it ended: its exit status, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            with ExperimentContext(registration_policy="error").activate():
                work()
            os._exit(0)
        finally:  # whatever it was
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Trials:
    """Trials of one backend.

    Args:
        backend: "torch" or "keydnn".
        home: A folder.
        **options: Of the plan.
    """

    def __init__(self, backend, home, **options):
        self.backend, self.home, self.options = backend, Path(home), options
        self.log, self.told, self.run_dir = self.home / "steps.txt", self.home / "answer.pkl", self.home / "run"

    def begin(self, kill_at=None, run_dir=True):
        """The run from its start."""

        def work():
            made = kill_world.experiment(self.backend, **self.options)
            EVENTS.start(self.log, kill_at)
            made.run(run_dir=self.run_dir, show_sampler_progress=False, show_training_progress=False)
            self._tell(made)

        return in_child(work)

    def go_on(self, kill_at=None):
        """The run from where it was killed."""

        def work():
            EVENTS.start(self.log, kill_at)
            options = {"show_sampler_progress": False, "show_training_progress": False}
            self._tell(Experiment.resume(self.run_dir, allow_packaged_code=True, **options))

        return in_child(work)

    def _tell(self, made):
        n = EVENTS.n
        self.told.write_bytes(pickle.dumps((n, kill_world.answer(made))))

    def answer(self):
        """Events, and what must be equal."""
        return pickle.loads(self.told.read_bytes())

    def clear(self):
        """Away with the latest run."""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.told.unlink(missing_ok=True)

    def lines(self):
        """Steps and hooks so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def is_begun(self):
        """Whether the start of the run is written."""
        return (self.run_dir / "start.ckpt.mml").exists()

    def reached(self):
        """How much of the undisturbed log the latest complete checkpoint stands for: its last line."""
        files = [*self.run_dir.glob("plan.ckpt.mml"), *(self.run_dir / "checkpoints").rglob("*.ckpt.mml")]
        loaded = [Checkpoint.load(file, only=["run"]) for file in files]
        if not loaded:
            return None
        cursor = max(loaded, key=lambda one: one.meta["number"]).entries["run"]["cursor"]
        return cursor["hook"], tuple(cursor["path"]), cursor["epoch"], cursor["batch"]

    def load_all(self):
        """Whether every file there is can be read."""

        def work():
            for file in self.run_dir.rglob("*.ckpt.mml"):
                Checkpoint.load(file, allow_packaged_code=True)
            Experiment.load(self.run_dir / "start", allow_packaged_code=True)

        return in_child(work) == 0


LAST_LINES = {  # what the undisturbed log ends with when a checkpoint is written
    "finished": lambda path, epoch, batch: "hook experiment end",
    "done": lambda path, epoch, batch: f"hook group {path[-1]} end" if path[-1] == "late" else f"hook around {path[-1]} end",
    "epoch_end": lambda path, epoch, batch: f"hook {path[-1]} {epoch} end",
    "batch_end": lambda path, epoch, batch: f"step {path[-1]} {epoch} {batch}",
}


def expected_lines(undisturbed, at):
    """What is to happen after a checkpoint."""
    if at is None:
        return undisturbed
    hook, path, epoch, batch = at
    return undisturbed[undisturbed.index(LAST_LINES[hook](path, epoch, batch)) + 1 :]


def difference(a, b, where=""):
    """The first place where two answers are not equal; None if there is none."""
    if isinstance(a, dict) and isinstance(b, dict):
        if sorted(a) != sorted(b):
            return f"{where}: keys {sorted(a)} and {sorted(b)}"
        pairs = [(a[key], b[key], f"{where}.{key}") for key in a]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{where}: lengths {len(a)} and {len(b)}"
        pairs = [(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if repr(a) == repr(b) else f"{where}: {a!r:.200} and {b!r:.200}"
    return next((found for pair in pairs if (found := difference(*pair)) is not None), None)


def trial(trials, undisturbed, wanted, kills):
    """Kill the run at an event, and what goes on at others, then let it end; what is wrong, or None."""
    trials.clear()
    how = trials.begin(kills[0])
    for i, next_kill in enumerate([*kills[1:], None]):
        if how != -signal.SIGKILL:
            return f"kill {i}: the process ended with {how}"
        before = trials.lines()
        if not trials.is_begun():
            if before and not before[0].startswith("hook experiment"):
                return "steps were made before the start was written"
            how = trials.begin(next_kill)  # nothing to take up: the same call again
            expected = undisturbed
        else:
            if not trials.load_all():
                return f"kill {i}: a file cannot be read"
            expected = expected_lines(undisturbed, trials.reached())
            how = trials.go_on(next_kill)
        made = trials.lines()[len(before) :]
        if made != expected[: len(made)] or (next_kill is None and len(made) != len(expected)):
            return f"kill {i}: after the checkpoint {expected[:6]} .. were expected, got {made[:6]} .."
    if how != 0:
        return f"the run that went on ended with {how}"
    if not trials.load_all():
        return "a file cannot be read"
    return difference(wanted, trials.answer()[1])


def _say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main():
    """Trials from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=["torch", "keydnn"])
    parser.add_argument("kills", type=int)
    parser.add_argument("--save-on", default="epoch_end")
    parser.add_argument("--whole-epochs", action="store_true", help="no hooks of batches, so that epochs of keydnn are single calls")
    parser.add_argument("--twice", action="store_true", help="kill what goes on, too")
    options = parser.parse_args()
    if options.backend == "torch":
        import torch
        import torch._dynamo  # which optimizers import, for seconds

        torch.set_num_threads(1)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # flushes cost nothing there
    with tempfile.TemporaryDirectory(prefix="keydnn-kills-", dir=memory) as home:
        trials = Trials(options.backend, home, by_batch=not options.whole_epochs, save_on=options.save_on)
        if trials.begin() != 0:
            return 1
        (n_events, wanted), undisturbed = trials.answer(), trials.lines()
        places = [int((i + 0.5) * n_events / options.kills) for i in range(options.kills)]
        _say(f"{options.backend}: {n_events} events, {len([line for line in undisturbed if line.startswith('step')])} steps")
        failed = 0
        for place in places:
            wrong = trial(trials, undisturbed, wanted, [place, (n_events - place) // 2] if options.twice else [place])
            failed += wrong is not None
            _say(f"kill at event {place}: {wrong or 'equal'}")
        _say(f"{options.backend}: {len(places) - failed} of {len(places)} equal")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
