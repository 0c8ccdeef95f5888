"""What the command line asks of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """Choices of one run.

    Attributes:
        rounds: How often each contestant is timed; None is the benchmark's own number.
        quick: Few rounds, short turns, small epochs: to see that everything works.
        only: Rows to run, such as W1; empty is all.
        peers: Peers that take part; empty is all.
        interpreters: Python of a peer that is installed elsewhere.
        threads: Threads of every contestant.
    """

    rounds: int | None = None
    quick: bool = False
    only: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    interpreters: dict[str, str] = field(default_factory=dict)
    threads: int = 2
