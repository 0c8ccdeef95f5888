"""``keydnn run experiment``: images and tables of the digits, two kinds of models joined, five folds, a file and a page.

    image (1, 8, 8)       ->  sight: convolution, ReLU, pool, dense 32, ReLU  (keydnn)           \\
                                                                                                both -> head: dense 10
    sums, moments (3, 8)  ->  table: logistic regression, probabilities of 10 digits (sklearn)  /

The plan fits ``table`` and freezes it, trains ``sight`` and ``head`` on the cross entropy, then checks on rows that were not seen.  It runs
once per fold of the training and validation rows, and then on the split itself, whose test rows are read at the end alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import keydnn
from keydnn.domain.errors import MissingExtraError

FOLDS, BATCH_SIZE, LEARNING_RATE = 5, 32, 2e-3
PARTS = {"train": 0.65, "val": 0.15, "test": 0.2}
TABLE = ("row_sums", "column_sums", "moments")
FILE, PAGE = "digits", "report.html"


def columns(images: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of the table.

    Args:
        images: Grey values (N, 8, 8) from 0 to 16.

    Returns:
        ``image`` (N, 8, 8) in [0, 1]; ``row_sums`` and ``column_sums`` (N, 8); ``moments`` (N, 8): ink, its centre (y, x), its spread
        (yy, xx, yx), and how much the image differs from its mirror images (left-right, up-down); all float32.
    """
    ink = images / 16
    places = np.arange(8) - 3.5
    total = ink.sum((1, 2))
    weights = ink / total[:, None, None]
    y, x = ((weights.sum(axis) * places).sum(1) for axis in (2, 1))
    yy, xx = ((weights.sum(axis) * (places - middle[:, None]) ** 2).sum(1) for axis, middle in ((2, y), (1, x)))
    yx = np.einsum("nij,i,j->n", weights, places, places) - y * x
    mirrored = [np.abs(ink - np.flip(ink, axis)).mean((1, 2)) for axis in (2, 1)]
    moments = np.stack([total, y, x, yy, xx, yx, *mirrored], 1)
    found = {"image": ink, "row_sums": ink.sum(2), "column_sums": ink.sum(1), "moments": moments}
    return {name: value.astype(np.float32) for name, value in found.items()}


def sight() -> keydnn.Sequential:
    """The branch that sees images."""
    return keydnn.Sequential(
        keydnn.Conv2d(1, 16, 3, padding=1), keydnn.ReLU(), keydnn.MaxPool2d(2), keydnn.Flatten(), keydnn.Dense(32), keydnn.ReLU()
    )


def make(seed: int, epochs: int) -> tuple[Any, Any]:
    """The experiment, in a context of its own, and its feature set.

    Args:
        seed: Of the split, the weights and the order of rows.
        epochs: Of training.

    Raises:
        ImportError: scikit-learn or the extra ``experiment`` is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("keydnn run experiment", "scikit-learn", "sklearn") from error
    from keydnn.experiment import (
        AppliedLoss,
        ConcatNode,
        Evaluation,
        Experiment,
        ExperimentContext,
        FeatureSet,
        Loss,
        ModelGraph,
        ModelNode,
        Optimizer,
    )
    from keydnn.experiment.callbacks import EvalLossMetric
    from keydnn.experiment.models import ScikitModelWrapper
    from keydnn.experiment.phases import EvalPhase, FitPhase, TrainPhase
    from keydnn.experiment.samplers import SimpleSampler

    keydnn.seed(seed)  # layers that know their sizes draw their weights when they are made
    experiment = Experiment("digits", ctx=ExperimentContext(), seed=seed)
    with experiment.ctx.activate():
        images, digits = load_digits().images, load_digits().target
        told = {**columns(images), "digit": digits.astype(np.int64), "written": [str(n) for n in digits]}
        rows = FeatureSet.from_dict("digits", told, feature_keys=["image", *TABLE], target_keys="digit", tag_keys="written")
        rows.split_random(PARTS, stratify_by="written", seed=seed)
        for key in TABLE:
            rows.fit_transform("StandardScaler", domain="features", keys=key, fit_to_split="train")
        scaled = rows.reference(features=[f"{key}.transformed" for key in TABLE], targets="digit.raw")
        estimator = ScikitModelWrapper(LogisticRegression(max_iter=1000), output_method="predict_proba", training_mode="batch_fit")
        estimator.build(output_shape=(10,))  # an estimator cannot say so before it is fitted
        table = ModelNode("table", estimator, scaled)
        eye = ModelNode("sight", sight(), rows.reference(features="image.raw", targets="digit.raw"))
        both = ConcatNode("both", [table, eye], concat_axis=-1, concat_axis_targets="first")
        head = ModelNode("head", keydnn.Sequential(keydnn.Flatten(), keydnn.Dense(10)), both)
        ModelGraph([table, eye, both, head], Optimizer("adam", opt_kwargs={"lr": LEARNING_RATE}, backend="keydnn"))
        loss = AppliedLoss(Loss("cross_entropy", backend="keydnn"), head, ["outputs", "targets"], label="cross_entropy")
        watch = Evaluation.from_split(label="watch", split="val", metrics=[EvalLossMetric(loss=loss)])
        sampler = SimpleSampler(batch_size=BATCH_SIZE, shuffle=True, seed=seed)
        train = TrainPhase.from_split(
            "train", split="train", sampler=sampler, losses=[loss], n_epochs=epochs, callbacks=[watch], result_recording="none"
        )
        plan = experiment.execution_plan.add_phase(FitPhase.from_split("fit", split="train", active_nodes=[table])).add_phase(train)
        plan.add_phase(EvalPhase.from_split("check", split="val", losses=[loss]))
    return experiment, rows


def run(*, seed: int, folder: Path, epochs: int, verbose: int) -> None:
    """The whole job: five folds, the split itself, a file, a page.

    Raises:
        ImportError: scikit-learn or the extra ``experiment`` is not installed.
        OSError: The folder cannot be written to.
    """
    experiment, rows = make(seed, epochs)
    from keydnn.experiment import CrossValidation, CVBinding
    from keydnn.experiment.phases import EvalPhase

    folder.mkdir(parents=True, exist_ok=True)
    sizes = ", ".join(f"{len(rows[name])} {name}" for name in rows.available_splits)
    print(f"digits, seed {seed}: {sizes}; {FOLDS} folds of train and val, {epochs} epochs each", flush=True)
    shown = {"show_sampler_progress": False, "show_training_progress": verbose > 0}
    with experiment.ctx.activate():
        cv = CrossValidation(
            bindings=CVBinding(rows, ["train", "val"], stratify_by="written"), n_folds=FOLDS, seed=seed, experiment=experiment
        )
        found = []
        for i in range(FOLDS):
            started = time.perf_counter()
            found.append(accuracy(cv.run_fold(i, **shown)["check"]))
            print(f"fold {i}: accuracy {found[-1]:.4f} ({time.perf_counter() - started:.1f} s)", flush=True)
        print(f"folds: accuracy {np.mean(found):.4f} ± {np.std(found):.4f}", flush=True)
        experiment.run(**shown)
        test = experiment.run_phase(EvalPhase.from_split("test", split="test", losses=experiment.execution_plan["check"].losses))
    print(f"test accuracy {accuracy(test):.4f}")
    file = experiment.save(folder / FILE, overwrite=True)
    page = experiment.report(folder / PAGE)
    print(f"wrote {file}; its numbers again: keydnn experiment reproduce {file}")
    print(f"report: {page}")


def accuracy(results: Any) -> float:
    """Share of rows whose largest output is that of their digit."""
    outputs, digits = (results.stacked_tensors("head", domain, fmt="np") for domain in ("outputs", "targets"))
    return float(np.mean(outputs.argmax(-1).reshape(-1) == digits.reshape(-1)))
