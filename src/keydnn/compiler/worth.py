"""Whether recording pays: it does not where what a step stands on is another at most calls."""

from __future__ import annotations

_MOST_CHANGES = 64  # recordings after which it is asked whether they were used


class Worth:
    """How often a recorded step could serve and how often one had to be made.

    Attributes:
        made: Recordings.
        served: Calls that found one.
    """

    def __init__(self) -> None:
        self.made = self.served = 0

    @property
    def is_lost(self) -> bool:
        """Whether recording costs more than it gains, so that calls should run eagerly."""
        return self.made > _MOST_CHANGES and self.served < self.made
