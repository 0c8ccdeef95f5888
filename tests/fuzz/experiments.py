"""Good files of the experiment wing, and what reads them; also unpacked, so that damage inside a member meets a checksum that fits."""

import contextlib
import io
import zipfile

import numpy as np

import keydnn

MEMBER = b"\n%%%% member "  # between the members of an unpacked archive
QUIET = {"show_sampler_progress": False, "show_training_progress": False}


def feature_set():
    from keydnn.experiment.data import FeatureSet

    data = {"b": np.arange(6.0), "a": np.ones((6, 3)), "y": np.arange(6), "t": ["x", "y"] * 3}
    fs = FeatureSet.from_dict("six", data, ["b", "a"], "y", "t")
    fs.split_random({"train": 0.5, "test": 0.5})
    return fs


@contextlib.contextmanager
def context():
    from keydnn.experiment.context import ExperimentContext

    with ExperimentContext(registration_policy="overwrite").activate() as ctx:
        yield ctx


def unpacked(files):
    result = []
    for data in files:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            result.append(b"".join(MEMBER + name.encode() + b"\n" + archive.read(name) for name in archive.namelist()))
    return result


def packed(data, path):
    with zipfile.ZipFile(path, "w") as archive:
        for part in data.split(MEMBER)[1:]:
            name, _, content = part.partition(b"\n")
            archive.writestr(zipfile.ZipInfo(name.decode("latin-1") or "unnamed"), content)
    return path


# -- samplers, scalers, feature sets -------------------------------------------------------------------------------------------


def artifacts(folder):
    from keydnn.experiment.predicates import GT, Lambda
    from keydnn.experiment.samplers import PairedSampler, SimilarityCondition
    from keydnn.experiment.scalers import Scaler
    from keydnn.experiment.splitters import ConditionSplitter

    with context():
        fs = feature_set()
        fs["train"].split_by_condition({"big": {"b": GT(1)}, "all": {"b": Lambda("lambda x: x >= 0")}})
        fs.fit_transform("PerSampleZeroStart", domain="features", keys="a", fit_to_split="train")
        fs.encode_labels("t")
        sampler = PairedSampler({"b": SimilarityCondition(tolerance=1)}, batch_size=3, seed=1, source=fs)
        sampler.materialize_batches()
        own = Scaler("SegmentedScaler", {"boundaries": (0, 2), "scaler": "Negate"}).fit(np.ones((3, 2)))
        objects = [fs, sampler, own, ConditionSplitter(a={"t": ["x"]}), SimilarityCondition(tolerance=2)]
        return [obj.save(folder / f"good{i}").read_bytes() for i, obj in enumerate(objects)]


def read_artifact(path, folder):
    from keydnn.experiment.data import FeatureSet
    from keydnn.experiment.errors import ArtifactKindError
    from keydnn.experiment.io import inspect_packaged_code, load_artifact

    with context():
        feature_set()  # for the sampler, whose source must be there
        inspect_packaged_code(path)
        for kind in ("sm", "sc", "sp", "smc"):
            try:
                return load_artifact(path, kind)
            except ArtifactKindError:
                continue
        return FeatureSet.load(path)


# -- models, graphs, rules, checkpoints ------------------------------------------------------------------------------------------


def net(fs):
    from keydnn.experiment.graph import ModelGraph, ModelNode
    from keydnn.experiment.models.keydnn import SequentialMLP
    from keydnn.experiment.training import Optimizer

    first = ModelNode("first", SequentialMLP(output_shape=(2,), hidden_dim=2), fs.reference(features="a", targets="y"))
    second = ModelNode("second", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(2, 1), keydnn.Dropout(0.5)), first)
    return ModelGraph([first, second], Optimizer("adam", backend="keydnn"), "net"), second


def models(folder):
    from keydnn.experiment.io import Checkpoint
    from keydnn.experiment.models import wrap_model
    from keydnn.experiment.training import Loss, Optimizer

    with context():
        graph, _ = net(feature_set())
        graph.build()
        model = wrap_model(keydnn.Sequential(keydnn.Dense(2), keydnn.nn.BatchNorm1d(2)))
        model.build((3,))
        kept = Checkpoint({"graph": graph, "plain": {"a": (1, b"x"), 3: np.arange(3)}}, {"epoch": 1, "w": np.ones(2)})
        objects = [graph, model, Optimizer("sgd", opt_kwargs={"lr": 0.5}, backend="keydnn"), Loss(keydnn.nn.CrossEntropy), kept]
        return [obj.save(folder / f"good{i}").read_bytes() for i, obj in enumerate(objects)]


def read_model(path, folder):
    from keydnn.experiment.errors import ArtifactKindError
    from keydnn.experiment.graph import ModelGraph
    from keydnn.experiment.io import Checkpoint, load_artifact

    with context():
        feature_set()
        for kind in ("md", "op", "ls"):
            try:
                return load_artifact(path, kind)
            except ArtifactKindError:
                continue
        try:
            return Checkpoint.load(path)
        except ArtifactKindError:
            return ModelGraph.load(path)


# -- experiments -------------------------------------------------------------------------------------------------------------------


def experiment():
    from keydnn.experiment import AppliedLoss, Experiment, Loss, TrainPhase
    from keydnn.experiment.callbacks import EarlyStopping
    from keydnn.experiment.samplers import SimpleSampler

    _, tail = net(feature_set())
    made = Experiment.from_active_context("trial", seed=1)
    loss = AppliedLoss(Loss("mse", backend="keydnn"), tail, ["outputs", "targets"])
    sampler = SimpleSampler(batch_size=2, shuffle=True)
    stop = EarlyStopping(monitor="train_loss", patience=3)
    made.execution_plan.add_phase(
        TrainPhase.from_split("train", split="train", sampler=sampler, losses=[loss], n_epochs=1, callbacks=[stop])
    )
    return made


def experiments(folder):
    with context():
        made = experiment()
        made.run(**QUIET)
        return [made.save(folder / "whole").read_bytes(), made.save(folder / "bare", include_data=False).read_bytes()]


def read_experiment(path, folder):
    from keydnn.experiment import Experiment
    from keydnn.experiment.context import ExperimentContext

    with ExperimentContext().activate():
        return Experiment.load(path)


def documents(folder):
    with context() as ctx:
        made = experiment()
        phase = made.execution_plan["train"]
        objects = [made, ctx.model_graph, phase, phase.input_sources[0].sampler]
        return [obj.to_yaml(folder / f"good{i}").read_bytes() for i, obj in enumerate(objects)]


def read_document(path, folder):
    from keydnn.experiment.io import from_yaml

    with context():
        net(feature_set())
        return from_yaml(path, overwrite=True)


# -- estimators ---------------------------------------------------------------------------------------------------------------------


def estimators(folder):
    from sklearn import cluster, ensemble, linear_model, neighbors, pipeline, preprocessing, svm, tree

    from keydnn.experiment.models import estimator_file

    x = np.random.default_rng(0).normal(size=(30, 3))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    made = [
        tree.DecisionTreeClassifier(max_depth=3), ensemble.RandomForestRegressor(2, max_depth=2),
        neighbors.KNeighborsClassifier(leaf_size=5),
        ensemble.GradientBoostingRegressor(n_estimators=2, max_depth=2),
        ensemble.HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=3),
        ensemble.IsolationForest(n_estimators=2, random_state=np.random.RandomState(0)), svm.SVC(), cluster.KMeans(2, n_init=1),
        pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.SGDClassifier()),
    ]  # fmt: skip
    return unpacked(estimator_file.dumps(one.fit(x, y)) for one in made)


def read_estimator(path, folder):
    from keydnn.experiment.models import estimator_file

    made = estimator_file.loads(packed(path.read_bytes(), folder / "packed.zip").read_bytes(), False)
    with contextlib.suppress(Exception), np.errstate(all="ignore"):  # scikit-learn may refuse it; it must not crash
        made.predict(np.random.default_rng(1).normal(size=(40, 3)))
