"""The page on the command line names every command, its arguments and what it does."""

import re
from pathlib import Path

import click

from keydnn.cli.commands import commands

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"


def rows(group, name):
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from rows(command, f"{name} {word}")
        else:
            arguments = [one.name.upper() for one in command.params if isinstance(one, click.Argument)]
            yield " ".join([name, word, *arguments]), command.get_short_help_str(200)


def test_every_command_is_told():
    told = re.findall(r"^\| `(keydnn [^`]*)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(told) == sorted(rows(commands, "keydnn"))
