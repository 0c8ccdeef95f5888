"""What can be typed after ``keydnn``: each command reads its options and calls the file that does the work."""

from __future__ import annotations

from pathlib import Path

import click

import keydnn
from keydnn.cli import digits, doctor, inspect_file
from keydnn.domain.errors import KeyDNNError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(keydnn.__version__, prog_name="keydnn")
def commands() -> None:
    """KeyDNN: a deep learning engine written to be read."""


@commands.command("run")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Splits the data, draws the first weights, shuffles."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.  [default: runs/digits-seed<N>]")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Stop after so many passes at the latest.")
@click.option("--verbose", type=click.IntRange(0, 2), default=1, show_default=True, help="0: no progress.")
def run_command(seed: int, out: Path | None, epochs: int, verbose: int) -> None:
    """Train a convolutional network on real handwritten digits and leave curves and a checkpoint."""
    try:
        digits.run(seed=seed, folder=out or Path("runs") / f"digits-seed{seed}", epochs=epochs, verbose=verbose)
    except (KeyDNNError, OSError) as error:
        raise click.ClickException(str(error)) from error


@commands.command("doctor")
def doctor_command() -> None:
    """Show versions, the native kernels, threads, and which extras are installed."""
    click.echo(doctor.report())


@commands.command("inspect")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def inspect_command(file: Path) -> None:
    """Show what is in a checkpoint FILE: layers, shapes, numbers of parameters."""
    try:
        click.echo(inspect_file.report(file))
    except (KeyDNNError, OSError) as error:
        raise click.ClickException(str(error)) from error
