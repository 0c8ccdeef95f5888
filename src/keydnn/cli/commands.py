"""What can be typed after ``keydnn``: each command reads its options and calls the file that does the work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import keydnn
from keydnn.cli import convert, digits, digits_experiment, doctor, experiment, images, inspect_file, stability, summary
from keydnn.cli.job import config, train, use
from keydnn.cli.table import table
from keydnn.domain.errors import KeyDNNError

File = click.Path(exists=True, dir_okay=False, path_type=Path)
Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors as one line: status 2 for a configuration that cannot be done, 1 for the rest."""
    try:
        yield
    except config.ConfigError as error:
        raise click.UsageError(str(error)) from error
    except (KeyDNNError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(keydnn.__version__, prog_name="keydnn")
def commands() -> None:
    """KeyDNN: a deep learning engine written to be read."""


@commands.command("run")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Splits the data, draws the first weights, shuffles."
)
@click.argument("what", type=click.Choice(["digits", "experiment"]), default="digits")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.  [default: runs/<WHAT>-seed<N>]")
@click.option("--epochs", type=click.IntRange(1), help="Stop after so many passes at the latest.  [default: 40; of the experiment 8]")
@click.option("--verbose", type=click.IntRange(0, 2), default=1, show_default=True, help="0: no progress.")
def run_command(what: str, seed: int, out: Path | None, epochs: int | None, verbose: int) -> None:
    """Learn real handwritten digits.

    \b
    digits      a convolutional network; leaves curves and a checkpoint (default)
    experiment  a scikit-learn and a keydnn branch joined, five folds; leaves a file that proves its numbers, and a page
    """
    job, most = {"digits": (digits.run, 40), "experiment": (digits_experiment.run, 8)}[what]
    with plain_errors():
        job(seed=seed, folder=out or Path("runs") / f"{what}-seed{seed}", epochs=epochs or most, verbose=verbose)


@commands.command("test")
@click.option("--train_mnist_example", "--train-mnist-example", "mnist", is_flag=True, help="A perceptron learns MNIST.")
@click.option("--train_cifar_example", "--train-cifar-example", "cifar", is_flag=True, help="A convolutional network learns CIFAR-10.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("data"), show_default=True, help="Of the data sets.")
@click.option("--device", default="cpu", show_default=True, help="Where the network lives.")
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True, help="Passes over the training rows.")
@click.option("--batch-size", type=click.IntRange(1), default=128, show_default=True, help="Rows per step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True, help="Step size.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of weights and order.")
@click.option("--no-shuffle", is_flag=True, help="Rows in the order of the files.")
@click.option("--limit-train", type=click.IntRange(0), default=0, show_default=True, help="Use so many training rows; 0: all.")
@click.option("--limit-test", type=click.IntRange(0), default=0, show_default=True, help="Use so many test rows; 0: all.")
@click.option("--verbose", type=click.IntRange(0, 2), default=1, show_default=True, help="0: the result alone; 2: progress within epochs.")
@click.option("--hidden-dim", type=click.IntRange(1), default=256, show_default=True, help="MNIST: width of the hidden layer.")
@click.option("--normalize", is_flag=True, help="Standardise the images.")
def test_command(mnist: bool, cifar: bool, device: str, no_shuffle: bool, **choices: Any) -> None:
    """Train a small network on MNIST or CIFAR-10, which are downloaded if they are not there."""
    if mnist == cifar:
        raise click.UsageError("pass one of --train_mnist_example and --train_cifar_example")
    try:
        keydnn.Device(device)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with plain_errors():
        images.run("mnist" if mnist else "cifar", device=device, shuffle=not no_shuffle, **choices)


@commands.command("doctor")
def doctor_command() -> None:
    """Show versions, the native kernels, threads, and which extras are installed."""
    click.echo(doctor.report())


@commands.command("inspect")
@click.argument("file", type=File)
def inspect_command(file: Path) -> None:
    """Show what is in a checkpoint FILE: layers, shapes, numbers of parameters."""
    with plain_errors():
        click.echo(inspect_file.report(file))


@commands.command("summary")
@click.argument("file", type=File)
@click.option("--input-shape", help="Shape of a batch, such as 1,1,8,8: shows output shapes and numbers of parameters.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def summary_command(file: Path, input_shape: str | None, as_json: bool) -> None:
    """Show the layers of the model in FILE (.json, .json.gz, .msgpack, .keras, .h5)."""
    with plain_errors():
        click.echo(summary.report(file, shape_of(input_shape), as_json))


def shape_of(text: str | None) -> tuple[int, ...] | None:
    """``1,8,8`` as a tuple; None stays None."""
    try:
        return None if text is None else tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"--input-shape must be whole numbers with commas between, got {text!r}") from error


@commands.command("convert")
@click.option("--src", required=True, type=File, help="File to read: .keras, .h5, .json, .json.gz, .msgpack, .onnx.")
@click.option(
    "--dst",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write: .json, .json.gz, .msgpack, .onnx, .safetensors.",
)
@click.option("--device", default="cpu", show_default=True, help="Keras: where the parameters live meanwhile.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help="Keras: of the parameters.")
@click.option("--no-strict", is_flag=True, help="Keras: leave out layers without a counterpart, with a warning.")
@click.option("--allow-non-linear-activation", is_flag=True, help="Keras: an activation inside a layer becomes a layer.")
@click.option("--config-only", is_flag=True, help="Write types and configs of the layers alone, as JSON.")
@click.option("--input-shape", help="ONNX: full shape of a batch, such as 1,3,32,32.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def convert_command(src: Path, dst: Path, no_strict: bool, input_shape: str | None, as_json: bool, **choices: Any) -> None:
    """Convert a model between files of Keras, KeyDNN, ONNX and safetensors."""
    with plain_errors():
        convert.convert(src, dst, strict=not no_strict, input_shape=shape_of(input_shape), **choices)
    click.echo(json.dumps({"written": str(dst), "bytes": dst.stat().st_size}) if as_json else f"wrote {dst}")


@commands.command("train")
@click.argument("config", type=File)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.  [default: runs/<name of CONFIG>]")
@click.option("--resume", is_flag=True, help="Go on where an earlier call stopped; the end is the same to the last bit.")
@click.option("--verbose", type=click.IntRange(0, 2), default=1, show_default=True, help="0: no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, and nothing else.")
def train_command(config: Path, out: Path | None, resume: bool, verbose: int, as_json: bool) -> None:
    """Train the network that a TOML file CONFIG describes, on rows of a csv or npz file."""
    with plain_errors():
        results = train.train(config, out, resume=resume, verbose=0 if as_json else verbose)
    if as_json:
        click.echo(json.dumps(results))
        return
    parts = {name: row for name, row in results.items() if isinstance(row, dict) and row["rows"]}
    names = list(next(iter(parts.values())))
    rows = [(part, *(row[n] if n == "rows" else f"{row[n]:.6f}" for n in names)) for part, row in parts.items()]
    click.echo(table(("part", *names), rows, right=names))
    click.echo(f"wrote {out or Path('runs') / config.stem}/")


@commands.command("evaluate")
@click.argument("run", type=Folder)
@click.option("--data", type=File, help="Rows to measure on, instead of the run's own.")
@click.option(
    "--part", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True, help="Of the run's own rows."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate_command(run: Path, data: Path | None, part: str, as_json: bool) -> None:
    """Measure the model in the folder RUN that `keydnn train` left."""
    with plain_errors():
        results = use.evaluate(run, data, part)
    click.echo(json.dumps(results) if as_json else "\n".join(f"{name}: {value:.6g}" for name, value in results.items()))


@commands.command("predict")
@click.argument("run", type=Folder)
@click.argument("data", type=File)
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: standard output]")
@click.option("--json", "as_json", is_flag=True, help="Columns and rows as JSON, not csv.")
def predict_command(run: Path, data: Path, out: Path | None, as_json: bool) -> None:
    """Predict for the rows of DATA (csv, or npz with x) with the model in the folder RUN that `keydnn train` left."""
    with plain_errors():
        text = use.predict(run, data, out, as_json=as_json)
    if out is None:
        click.echo(text, nl=False)


@commands.group("stability")
def stability_group() -> None:
    """Where training diverges, saturates or silently stops, under any number format."""


OutFolder = click.Path(file_okay=False, path_type=Path)


@stability_group.command("run")
@click.argument("config", type=File)
@click.option("--out", type=OutFolder, help="Folder for the history.  [default: runs/stability]")
def stability_run_command(config: Path, out: Path | None) -> None:
    """One instrumented run as the JSON file CONFIG describes: history and verdict."""
    with plain_errors():
        click.echo(stability.run(config, out))


@stability_group.command("sweep")
@click.argument("config", type=File)
@click.option("--out", type=OutFolder, help="Folder for the results.  [default: runs/stability]")
@click.option("--resume", is_flag=True, help="Go on where an earlier call stopped; finished cells are not computed again.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--quiet", is_flag=True, help="No progress.")
def stability_sweep_command(config: Path, out: Path | None, resume: bool, workers: int, quiet: bool) -> None:
    """All runs over the axes of the JSON file CONFIG."""
    with plain_errors():
        click.echo(stability.sweep(config, out, resume, workers, not quiet))


@stability_group.command("report")
@click.argument("folder", type=Folder)
def stability_report_command(folder: Path) -> None:
    """One HTML page on the runs and sweeps in FOLDER."""
    with plain_errors():
        click.echo(stability.report(folder))


@commands.group("experiment")
def experiment_group() -> None:
    """Files of experiments, feature sets, graphs and checkpoints."""


@experiment_group.command("show")
@click.argument("file", type=File)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def experiment_show_command(file: Path, as_json: bool) -> None:
    """Show what is in FILE (.exp.mml, .fs.mml, .mg.mml, .ckpt.mml, ..); no code in it is run."""
    with plain_errors():
        click.echo(experiment.show(file, as_json))


@experiment_group.command("report")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="The page.  [default: FILE's name with .html beside it]")
def experiment_report_command(file: Path, out: Path | None) -> None:
    """Make one HTML page on the experiment in FILE (.exp.mml): graph, data and audit, curves, metrics per fold, evaluations, runs.

    FILE may also be the folder of a run (run_dir), finished or not; the page is then report.html inside.
    The page loads nothing and runs no script.  No code in FILE is run, and the frameworks of its models need not be installed.
    """
    with plain_errors():
        click.echo(experiment.report(file, out))


@experiment_group.command("sweep")
@click.argument("config", type=File)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where trials are written; runs/experiment/<name>.jsonl.")
@click.option("--resume", is_flag=True, help="Go on with the file of a sweep that was stopped.")
@click.option("--allow-packaged-code", is_flag=True, help="Run code that the experiment's file brings.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def experiment_sweep_command(config: Path, out: Path | None, resume: bool, allow_packaged_code: bool, as_json: bool) -> None:
    """Run the plan of an experiment under many settings, as CONFIG (YAML) says.

    \b
    experiment: study.exp.mml      # or a .yaml file, with its feature sets:
    data: [cells.fs.mml]
    space: {phases.train.n_epochs: [5, 10], seed: [1, 2, 3]}
    metric: train/train_loss
    """
    with plain_errors():
        click.echo(experiment.sweep(config, out, resume, allow_packaged_code, as_json))


@experiment_group.command("reproduce")
@click.argument("file", type=File)
@click.option("--data", "data", multiple=True, type=File, help="A feature set (.fs.mml) whose values FILE left out; may be repeated.")
@click.option("--allow-packaged-code", is_flag=True, help="Run code that the files bring.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def experiment_reproduce_command(ctx: click.Context, file: Path, data: tuple[Path, ...], allow_packaged_code: bool, as_json: bool) -> None:
    """Run the plan of FILE again from where its latest run began, and compare metrics, outputs of evaluations and weights.

    Exit codes: 0 nothing is different or missing, 1 something is, 2 it could not be run.
    """
    with plain_errors():
        text, ok = experiment.reproduced(file, data, allow_packaged_code, as_json)
    click.echo(text)
    ctx.exit(0 if ok else 1)


@experiment_group.command("compare")
@click.argument("a", type=File)
@click.argument("b", type=File)
@click.option("--allow-packaged-code", is_flag=True, help="Run code that the files bring.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def experiment_compare_command(ctx: click.Context, a: Path, b: Path, allow_packaged_code: bool, as_json: bool) -> None:
    """Compare the latest runs and the weights of the experiments A and B; nothing is run. Exit codes as of reproduce."""
    with plain_errors():
        text, ok = experiment.compared(a, b, allow_packaged_code, as_json)
    click.echo(text)
    ctx.exit(0 if ok else 1)
