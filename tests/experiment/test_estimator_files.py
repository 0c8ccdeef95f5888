"""Fitted estimators in files: the same bits in another process, and nothing hostile gets as far as compiled code."""

import io
import json
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

from keydnn.experiment.errors import ArtifactError, PackagedCodeError
from keydnn.experiment.io.packed import Packed
from keydnn.experiment.models import BaseModel, ScikitModelWrapper, estimator_file
from keydnn.experiment.models.estimator_checks import check_estimator, depth_of_tree

pytest.importorskip("sklearn", reason="needs the sklearn extra")
pytest.importorskip("skops", reason="needs the sklearn extra")

from sklearn import (  # noqa: E402
    calibration,
    cluster,
    compose,
    decomposition,
    dummy,
    ensemble,
    feature_selection,
    gaussian_process,
    isotonic,
    linear_model,
    mixture,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=(60, 4)))
Y = X @ [1.0, 0.5, 3.0, 0.5]
C = (Y > 3).astype(int) + (Y > 5)


def regressors():
    fixed = {"random_state": 0}
    return [
        linear_model.LinearRegression(), linear_model.Ridge(), linear_model.Lasso(0.1), linear_model.SGDRegressor(**fixed),
        linear_model.BayesianRidge(), linear_model.PoissonRegressor(),
        svm.SVR(), svm.NuSVR(kernel="linear"), svm.LinearSVR(**fixed, max_iter=20000),
        tree.DecisionTreeRegressor(max_depth=4, **fixed), tree.ExtraTreeRegressor(**fixed),
        ensemble.RandomForestRegressor(4, **fixed), ensemble.ExtraTreesRegressor(3, **fixed),
        ensemble.GradientBoostingRegressor(n_estimators=4, **fixed), ensemble.AdaBoostRegressor(n_estimators=3, **fixed),
        ensemble.HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=5, categorical_features=[0], **fixed),
        ensemble.BaggingRegressor(n_estimators=3, max_features=2, **fixed),
        ensemble.StackingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(**fixed))]),
        neighbors.KNeighborsRegressor(3), neighbors.KNeighborsRegressor(3, algorithm="ball_tree", leaf_size=4, metric="manhattan"),
        neighbors.KNeighborsRegressor(3, algorithm="brute"), neighbors.RadiusNeighborsRegressor(5.0),
        neural_network.MLPRegressor(hidden_layer_sizes=(5,), max_iter=30, **fixed),
        gaussian_process.GaussianProcessRegressor(1.5 * gaussian_process.kernels.RBF(), **fixed),
        dummy.DummyRegressor(), isotonic.IsotonicRegression(),
        pipeline.make_pipeline(preprocessing.StandardScaler(), preprocessing.PolynomialFeatures(), linear_model.Ridge()),
        compose.TransformedTargetRegressor(linear_model.Ridge(), transformer=preprocessing.MinMaxScaler()),
    ]  # fmt: skip


def classifiers():
    fixed = {"random_state": 0}
    return [
        linear_model.LogisticRegression(max_iter=500), linear_model.SGDClassifier(**fixed), linear_model.RidgeClassifier(),
        linear_model.Perceptron(**fixed), svm.SVC(), svm.LinearSVC(**fixed), svm.NuSVC(nu=0.2),
        tree.DecisionTreeClassifier(**fixed), tree.DecisionTreeClassifier(ccp_alpha=0.02, **fixed),
        tree.DecisionTreeClassifier(max_leaf_nodes=5, **fixed), ensemble.RandomForestClassifier(4, **fixed),
        ensemble.GradientBoostingClassifier(n_estimators=3, **fixed),
        ensemble.HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5, **fixed),
        ensemble.AdaBoostClassifier(n_estimators=3, **fixed), ensemble.VotingClassifier([("a", naive_bayes.GaussianNB())]),
        neighbors.KNeighborsClassifier(), neighbors.NearestCentroid(), naive_bayes.GaussianNB(), naive_bayes.MultinomialNB(),
        naive_bayes.BernoulliNB(), neural_network.MLPClassifier(hidden_layer_sizes=(5,), max_iter=30, solver="sgd", **fixed),
        dummy.DummyClassifier(),
        multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2),
        pipeline.make_pipeline(feature_selection.SelectKBest(k=2), svm.SVC()),
    ]  # fmt: skip


def others():
    fixed = {"random_state": 0}
    return [
        cluster.KMeans(3, n_init=1, **fixed), cluster.MiniBatchKMeans(3, n_init=1, **fixed), cluster.MeanShift(bandwidth=1.0),
        decomposition.PCA(2), decomposition.TruncatedSVD(2, **fixed), decomposition.NMF(2, **fixed, max_iter=2000),
        decomposition.LatentDirichletAllocation(2, **fixed), ensemble.IsolationForest(n_estimators=3, max_features=2, **fixed),
        ensemble.RandomTreesEmbedding(n_estimators=3, sparse_output=False, **fixed), mixture.GaussianMixture(2, **fixed), svm.OneClassSVM(),
        preprocessing.StandardScaler(), preprocessing.QuantileTransformer(n_quantiles=9), preprocessing.PowerTransformer(),
        compose.ColumnTransformer([("a", preprocessing.StandardScaler(), [0, 1])], remainder="passthrough"),
        neighbors.LocalOutlierFactor(novelty=True), pipeline.make_union(decomposition.PCA(1), preprocessing.MinMaxScaler()),
    ]  # fmt: skip


def fitted(places=slice(None)):
    """Estimators and their bytes; a prediction changes these, as looks at a tree are counted."""
    pairs = [(e, Y) for e in regressors()] + [(e, C) for e in classifiers()] + [(e, None) for e in others()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = [e.fit(X[:, :1] if isinstance(e, isotonic.IsotonicRegression) else X, y) for e, y in pairs[places]]
    return [(estimator, estimator_file.dumps(estimator)) for estimator in done]


READ = """
import pathlib, sys, warnings, numpy as np
warnings.simplefilter("error")
from keydnn.experiment.models import BaseModel
folder = pathlib.Path(sys.argv[1])
for x, y in zip(sorted(folder.glob("*.x.npy")), sorted(folder.glob("*.y.npy"))):
    model = BaseModel.load(folder / x.name.split(".")[0])
    out = model(np.load(x))
    assert out.tobytes() == np.load(y).tobytes(), model
print("all")
"""


@pytest.mark.slow
def test_predictions_have_the_same_bits_in_another_process(tmp_path):
    for i, (estimator, _) in enumerate(fitted()):
        model = ScikitModelWrapper(estimator)
        model.save(tmp_path / f"{i:03d}")
        x = X[:, : getattr(estimator, "n_features_in_", 1)] + 0.125
        np.save(tmp_path / f"{i:03d}.x.npy", x)
        np.save(tmp_path / f"{i:03d}.y.npy", model(x))
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "all", done.stderr[-2000:]


def test_equal_estimators_give_equal_bytes():
    pairs = zip(fitted(slice(2, None, 9)), fitted(slice(2, None, 9)), strict=True)
    assert not [type(estimator).__name__ for (estimator, data), (_, again) in pairs if data != again]


def test_an_unfitted_estimator_and_settings(tmp_path):
    model = ScikitModelWrapper(naive_bayes.GaussianNB(), output_method="predict_proba", partial_fit_kwargs={"classes": [0, 1]})
    again = BaseModel.load(model.save(tmp_path / "a"))
    assert again == model and not again.is_fitted and again.get_config() == model.get_config()


# -- hostile ones ---------------------------------------------------------------------------------------------------------


def parts(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def with_array(data, is_meant, change):
    """The bytes of an estimator with each array that is meant changed."""
    members, changed = parts(data), 0
    for name, old in members.items():
        if name.endswith(".npy") and is_meant(array := np.load(io.BytesIO(old)).copy()):
            array = change(array)
            members[name], changed = npy(array), changed + 1
    assert changed
    return packed(members)


def put(array, place, value, field=None):
    (array if field is None else array[field])[place] = value
    return array


def named(field):
    return lambda array: array.dtype.names is not None and field in array.dtype.names


def wide(array):
    told = [(name, "<f8" if name == "feature" else array.dtype[name]) for name in array.dtype.names]
    return array.astype(told)


BAD_TREES = {
    "a child far away": lambda a: put(a, 0, 10**9, "left_child"),
    "a child before the start": lambda a: put(a, 0, -7, "left_child"),
    "a node that is its own child": lambda a: put(a, 0, 0, "left_child"),
    "a circle": lambda a: put(a, a["left_child"][0], 0, "left_child"),
    "two parents": lambda a: put(a, 0, a["left_child"][0], "right_child"),
    "a feature far away": lambda a: put(a, 0, 4, "feature"),
    "a negative feature": lambda a: put(a, 0, -3, "feature"),
    "fewer nodes": lambda a: a[:-1],
    "no nodes": lambda a: a[:0],
    "another dtype": wide,
    "floats": lambda a: np.zeros(len(a)),
}


@pytest.mark.parametrize("change", BAD_TREES.values(), ids=BAD_TREES)
@pytest.mark.parametrize("estimator", [tree.DecisionTreeRegressor(), ensemble.RandomForestRegressor(2)], ids=["tree", "forest"])
def test_trees_are_looked_through(estimator, change):
    data = estimator_file.dumps(estimator.fit(X, Y))
    with pytest.raises(ArtifactError, match="damaged or hostile"):
        estimator_file.loads(with_array(data, named("left_child"), change), False)


def with_schema(data, change):
    members = parts(data)
    told = json.loads(members["schema.json"])
    members["schema.json"] = json.dumps(change(told)).encode()
    return packed(members)


def replaced(told, key, value, by=None):
    """A schema in which the attribute ``key`` has another JSON value."""
    if isinstance(told, dict):
        if key in told and isinstance(told[key], dict):
            told[key] = {**told[key], "content": json.dumps(value), "__id__": 10**6} if by is None else by
        for inner in told.values():
            replaced(inner, key, value, by)
    elif isinstance(told, list):
        for inner in told:
            replaced(inner, key, value, by)
    return told


@pytest.mark.parametrize(
    ("estimator", "key", "value"),
    [
        (tree.DecisionTreeRegressor(), "node_count", 10**6),
        (tree.DecisionTreeRegressor(), "max_depth", 0),
        (tree.DecisionTreeRegressor(), "n_features_in_", 2),
        (ensemble.RandomForestRegressor(2), "n_features_in_", 5),
        (ensemble.GradientBoostingRegressor(n_estimators=2), "n_trees_per_iteration_", 2),
        (ensemble.HistGradientBoostingRegressor(max_iter=1), "n_features_in_", 3),
        (neighbors.KNeighborsRegressor(), "n_features_in_", 9),
        (svm.SVR(), "n_features_in_", 9),
        (cluster.KMeans(2, n_init=1), "n_features_in_", 9),
        (cluster.KMeans(2, n_init=1), "_n_threads", 10**6),
    ],
    ids=lambda value: value if isinstance(value, str | int) else type(value).__name__,
)
def test_sizes_that_do_not_fit(estimator, key, value):
    data = with_schema(estimator_file.dumps(estimator.fit(X, Y)), lambda told: replaced(told, key, value))
    with pytest.raises(ArtifactError, match="damaged or hostile"):
        estimator_file.loads(data, False)


@pytest.mark.parametrize(
    ("estimator", "is_meant", "change"),
    [
        (ensemble.HistGradientBoostingRegressor(max_iter=1), named("feature_idx"), lambda a: put(a, 0, 99, "feature_idx")),
        (ensemble.HistGradientBoostingRegressor(max_iter=1), named("left"), lambda a: put(a, 0, 0, "left")),
        (ensemble.HistGradientBoostingRegressor(max_iter=1), named("left"), lambda a: put(a, 0, 1, "is_categorical")),
        (neighbors.KNeighborsRegressor(leaf_size=5), named("idx_start"), lambda a: put(a, 0, 10**9, "idx_end")),
        (neighbors.KNeighborsRegressor(leaf_size=5), named("idx_start"), lambda a: put(a, -1, 0, "is_leaf")),
        (neighbors.KNeighborsRegressor(leaf_size=5), named("idx_start"), lambda a: a[:-1]),
        (neighbors.KNeighborsRegressor(leaf_size=5), lambda a: a.dtype == np.int64 and a.shape == (60,), lambda a: put(a, 0, -1)),
        (svm.SVR(), lambda a: a.dtype == np.int32 and a.shape == (2,), lambda a: np.zeros(3, np.int32)),
        (linear_model.Ridge(random_state=np.random.RandomState(0)), lambda a: a.dtype == np.uint32, lambda a: a[:-1]),
    ],
)
def test_indices_that_are_not_there(estimator, is_meant, change):
    data = with_array(estimator_file.dumps(estimator.fit(X, Y)), is_meant, change)
    with pytest.raises(ArtifactError, match="damaged or hostile"):
        estimator_file.loads(data, False)


def test_counts_of_vectors_and_classes_that_are_not_there():
    is_count = lambda a: a.dtype == np.int32 and a.shape == (3,) and a.sum() < 61  # noqa: E731
    data = with_array(estimator_file.dumps(svm.SVC().fit(X, C)), is_count, lambda a: a + 1000)
    with pytest.raises(ArtifactError, match="other counts"):
        estimator_file.loads(data, False)
    data = estimator_file.dumps(neighbors.KNeighborsClassifier().fit(X, C))
    data = with_array(data, lambda a: a.shape == (60,) and a.max() == 2, lambda a: put(a, 0, 3))
    with pytest.raises(ArtifactError, match="classes that are not there"):
        estimator_file.loads(data, False)


def test_a_generator_beyond_its_table():
    estimator = ensemble.RandomForestRegressor(2, random_state=np.random.RandomState(0)).fit(X, Y)
    data = with_schema(estimator_file.dumps(estimator), lambda told: replaced(told, "pos", 10**6))
    with pytest.raises(ArtifactError, match="beyond its table"):
        estimator_file.loads(data, False)


def node(loader, module, name, **more):
    return {"__loader__": loader, "__module__": module, "__class__": name, **more}


EMPTY = node("TupleNode", "builtins", "tuple", content=[])
FOREIGN = {
    "a function": node("FunctionNode", "os", "system"),
    "a class": node("TypeNode", "subprocess", "Popen"),
    "made by its class": node("ConstructorFromReduceNode", "os", "system", content=EMPTY),
    "an object": node("ObjectNode", "subprocess", "Popen", content=EMPTY),
    "a partial": node("PartialNode", "functools", "partial", content={"func": node("FunctionNode", "os", "system")}),
    "an operator": node("OperatorFuncNode", "operator", "methodcaller", attrs=EMPTY),
    "a method": node("MethodNode", "builtins", "str", content={"func": "format", "obj": EMPTY}),
    "a test of scikit-learn": node("ObjectNode", "sklearn.tree.tests.test_tree", "DecisionTreeRegressor", content=EMPTY),
    "a reference": {"__id__": 3},
    "a cached one": node("CachedNode", "builtins", "str", __id__=3),
    "no words": {"__loader__": "ObjectNode"},
}


@pytest.mark.parametrize("entry", FOREIGN.values(), ids=FOREIGN)
def test_types_of_others_need_permission(entry):
    data = estimator_file.dumps(tree.DecisionTreeRegressor().fit(X, Y))
    with pytest.raises((PackagedCodeError, ArtifactError)):
        estimator_file.loads(with_schema(data, lambda told: replaced(told, "criterion", 0, entry)), False)


def test_an_entry_is_not_read_under_the_number_of_another():
    def twice(told):
        state = told["content"]["content"]
        state["splitter"] = {**state["splitter"], "__id__": state["tree_"]["__reduce__"]["args"]["__id__"]}
        return told

    data = estimator_file.dumps(tree.DecisionTreeRegressor().fit(X, Y))
    with pytest.raises(ArtifactError, match="and differ"):
        estimator_file.loads(with_schema(data, twice), False)


def test_damage_and_bombs():
    data = estimator_file.dumps(tree.DecisionTreeRegressor(max_depth=2).fit(X, Y))
    members = parts(data)
    bomb = packed({**members, "schema.json": b" " * 10**7 + members["schema.json"]}, zipfile.ZIP_DEFLATED)
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(127) + b"\n"
    huge = packed({name: header if name.endswith(".npy") else old for name, old in members.items()})
    other = with_schema(data, lambda told: {**told, "protocol": 0})
    for bad in (b"", b"x", data[: len(data) // 2], bomb, huge, other, packed({"schema.json": b"[" * 5000})):
        with pytest.raises(ArtifactError):
            estimator_file.loads(bad, False)


def test_an_estimator_of_another_class(tmp_path):
    model = ScikitModelWrapper(linear_model.Ridge().fit(X, Y))
    weights = {"estimator": Packed(estimator_file.dumps(linear_model.Lasso()), is_trusted=False)}
    with pytest.raises(ArtifactError, match="a fitted Lasso for a Ridge"):
        model.set_weights(weights)
    assert model.is_fitted


class Twice(preprocessing.FunctionTransformer):
    """Somebody's own transformer."""

    def transform(self, X):  # noqa: N803 - scikit-learn's name
        return 2 * X


def test_estimators_of_users(tmp_path):
    model = ScikitModelWrapper(pipeline.make_pipeline(Twice(), linear_model.Ridge()).fit(X, Y))
    model.set_weights(model.get_weights())  # what this process made needs no permission
    path = model.save(tmp_path / "own")
    with pytest.raises(PackagedCodeError, match="allow_packaged_code=True"):
        BaseModel.load(path)
    with pytest.raises(PackagedCodeError, match="Twice"):
        ScikitModelWrapper(model.model).set_weights({"estimator": Packed(model.get_weights()["estimator"].data, is_trusted=False)})


@pytest.mark.parametrize(
    ("left", "right"), [([1, -1], [2, -1]), ([1, -1, -1, -1], [2, -1, -1, -1]), ([1, -1, 1, -1, -1], [2, -1, 3, -1, -1])]
)
def test_what_is_no_tree(left, right):
    with pytest.raises(ValueError, match="nodes|parents|behind"):
        depth_of_tree(np.array(left), np.array(right), np.array(left) == -1)
    assert depth_of_tree(np.array([1, -1, -1]), np.array([2, -1, -1]), np.array([False, True, True])) == 1


def test_fitted_estimators_pass():
    for estimator, _ in fitted(slice(1, None, 4)):
        check_estimator(estimator)
