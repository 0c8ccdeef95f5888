"""The command line: ``keydnn run``, ``test``, ``train``, ``evaluate``, ``predict``, ``summary``, ``convert``, ``inspect``, ``doctor``,
``stability ..``, ``experiment ..``."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0 fine, 1 failed, 2 called wrongly.

    Args:
        arguments: What follows the program's name; None takes ``sys.argv``.
    """
    from keydnn.cli.commands import commands

    commands(args=None if arguments is None else list(arguments), prog_name="keydnn")
