"""Resident memory of training, each figure in a fresh process: the peak of W3 beyond the import, and growth over many steps of W5."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.contestants import STEPS, Entry
from benchmarks.options import Options
from benchmarks.remote import ContestantError
from benchmarks.workloads import Case

COUNTED = ("keydnn", "keydnn eager", "torch")
WARM_STEPS, STEPS_COUNTED = 1_000, 10_000


@dataclass
class Figure:
    """A figure in MiB for each contestant; of those without, why."""

    name: str
    mebibytes: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def peak(entry: Entry, options: Options) -> float:
    """Peak of 21 steps of W3 minus what was resident after the import."""
    process = entry.process(options.interpreters, options.threads)
    try:
        before, _ = process.memory()
        process.prepare(Case("W3", "step"))
        return process.memory()[1] - before
    finally:
        process.close()


def growth(entry: Entry, options: Options) -> float:
    """How much more is resident after so many steps of W5."""
    process = entry.process(options.interpreters, options.threads)
    try:
        process.prepare(Case("W5", "step"))
        process.repeat(WARM_STEPS)
        before, _ = process.memory()
        process.repeat(WARM_STEPS if options.quick else STEPS_COUNTED)
        return process.memory()[0] - before
    finally:
        process.close()


def figures(options: Options) -> list[Figure]:
    """Both figures, printed and returned; those of rows that were not asked for are left out."""
    wanted = {
        "W3": ("W3 peak resident memory beyond import", peak),
        "W5": (f"W5 growth over {WARM_STEPS if options.quick else STEPS_COUNTED:,} steps", growth),
    }
    found = []
    for row, (name, measure) in wanted.items():
        if options.only and row not in options.only:
            continue
        figure = Figure(name)
        for entry in STEPS:
            if entry.name not in COUNTED or (options.peers and entry.peer not in (*options.peers, "keydnn")):
                continue
            try:
                figure.mebibytes[entry.name] = measure(entry, options)
            except ContestantError as error:
                figure.notes[entry.name] = str(error)
        shown = [f"{who} {value:.2f} MiB" for who, value in figure.mebibytes.items()]
        print(f"{name}: " + ", ".join(shown + [f"{who} {note}" for who, note in figure.notes.items()]), flush=True)
        found.append(figure)
    return found
