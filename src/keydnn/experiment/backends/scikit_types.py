"""The types that a fitted scikit-learn estimator in a file may be made of: a fixed list, whatever else is installed.

Estimators that read indices without looking, and whose arrays :mod:`keydnn.experiment.models.estimator_checks` does not know
(``HDBSCAN``, ``BisectingKMeans``), are left out, as is what holds functions of users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ESTIMATORS = """
calibration CalibratedClassifierCV
cluster AffinityPropagation AgglomerativeClustering DBSCAN FeatureAgglomeration KMeans MeanShift MiniBatchKMeans OPTICS SpectralBiclustering
    SpectralClustering SpectralCoclustering
compose ColumnTransformer TransformedTargetRegressor
covariance EllipticEnvelope EmpiricalCovariance GraphicalLasso GraphicalLassoCV LedoitWolf MinCovDet OAS ShrunkCovariance
cross_decomposition CCA PLSCanonical PLSRegression PLSSVD
decomposition DictionaryLearning FactorAnalysis FastICA IncrementalPCA KernelPCA LatentDirichletAllocation MiniBatchDictionaryLearning
    MiniBatchNMF MiniBatchSparsePCA NMF PCA SparseCoder SparsePCA TruncatedSVD
discriminant_analysis LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis
dummy DummyClassifier DummyRegressor
ensemble AdaBoostClassifier AdaBoostRegressor BaggingClassifier BaggingRegressor ExtraTreesClassifier ExtraTreesRegressor
    GradientBoostingClassifier GradientBoostingRegressor HistGradientBoostingClassifier HistGradientBoostingRegressor IsolationForest
    RandomForestClassifier RandomForestRegressor RandomTreesEmbedding StackingClassifier StackingRegressor VotingClassifier VotingRegressor
feature_selection GenericUnivariateSelect RFE RFECV SelectFdr SelectFpr SelectFromModel SelectFwe SelectKBest SelectPercentile
    SequentialFeatureSelector VarianceThreshold
gaussian_process GaussianProcessClassifier GaussianProcessRegressor
impute KNNImputer MissingIndicator SimpleImputer
isotonic IsotonicRegression
kernel_approximation AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler
kernel_ridge KernelRidge
linear_model ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV LassoLars
    LassoLarsCV LassoLarsIC LinearRegression LogisticRegression LogisticRegressionCV MultiTaskElasticNet MultiTaskElasticNetCV
    MultiTaskLasso MultiTaskLassoCV OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV PassiveAggressiveClassifier
    PassiveAggressiveRegressor Perceptron PoissonRegressor QuantileRegressor RANSACRegressor Ridge RidgeCV RidgeClassifier
    RidgeClassifierCV SGDClassifier SGDOneClassSVM SGDRegressor TheilSenRegressor TweedieRegressor
manifold ClassicalMDS Isomap LocallyLinearEmbedding MDS SpectralEmbedding TSNE
mixture BayesianGaussianMixture GaussianMixture
multiclass OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier
multioutput ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain
naive_bayes BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB
neighbors KNeighborsClassifier KNeighborsRegressor KNeighborsTransformer KernelDensity LocalOutlierFactor NearestCentroid NearestNeighbors
    NeighborhoodComponentsAnalysis RadiusNeighborsClassifier RadiusNeighborsRegressor RadiusNeighborsTransformer
neural_network BernoulliRBM MLPClassifier MLPRegressor
pipeline FeatureUnion Pipeline
preprocessing Binarizer FunctionTransformer KBinsDiscretizer KernelCenterer LabelBinarizer LabelEncoder MaxAbsScaler MinMaxScaler
    MultiLabelBinarizer Normalizer OneHotEncoder OrdinalEncoder PolynomialFeatures PowerTransformer QuantileTransformer RobustScaler
    SplineTransformer StandardScaler TargetEncoder
random_projection GaussianRandomProjection SparseRandomProjection
semi_supervised LabelPropagation LabelSpreading SelfTrainingClassifier
svm LinearSVC LinearSVR NuSVC NuSVR OneClassSVM SVC SVR
tree DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor
"""
_INNER = """
sklearn._loss.link HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit
sklearn._loss.loss AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss HalfSquaredError
    HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss
sklearn.calibration _CalibratedClassifier _SigmoidCalibration
sklearn.ensemble._hist_gradient_boosting.binning _BinMapper
sklearn.ensemble._hist_gradient_boosting.predictor TreePredictor
sklearn.gaussian_process._gpc _BinaryGaussianProcessClassifierLaplace
sklearn.gaussian_process.kernels CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF
    RationalQuadratic Sum WhiteKernel
sklearn.metrics._dist_metrics ChebyshevDistance64 EuclideanDistance64 ManhattanDistance64 MinkowskiDistance64
sklearn.neighbors._ball_tree BallTree
sklearn.neighbors._kd_tree KDTree
sklearn.neural_network._stochastic_optimizers AdamOptimizer SGDOptimizer
"""
_LOSSES = """
sklearn._loss._loss CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss CyHalfPoissonLoss
    CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss
sklearn.linear_model._sgd_fast EpsilonInsensitive Hinge ModifiedHuber SquaredEpsilonInsensitive SquaredHinge
"""
_FUNCTIONS = """
numpy mean median max min
sklearn.feature_selection._univariate_selection chi2 f_classif f_regression r_regression
sklearn.feature_selection._mutual_info mutual_info_classif mutual_info_regression
sklearn.utils.validation check_array
"""
_NUMBERS = "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc intp float16 float32 float64 str_"


def _names(table: str) -> frozenset[str]:
    """``"module A B"`` per line, indented lines going on, as ``{"module.A", "module.B"}``."""
    joined = table.replace("\n    ", " ").split("\n")
    return frozenset(f"{module}.{name}" for module, *names in map(str.split, filter(None, joined)) for name in names)


_PUBLIC = _names(_ESTIMATORS)
_NUMBER_TYPES = _names("numpy " + _NUMBERS)
_BY_LOADER: dict[str, frozenset[str]] = {  # kind of entry in a file of skops -> what it may name
    "DictNode": frozenset({"builtins.dict", "sklearn.utils._bunch.Bunch"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "SetNode": frozenset({"builtins.set"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "JsonNode": frozenset({"builtins.str"}),
    "NdArrayNode": _NUMBER_TYPES | {"numpy.ndarray"},
    "DTypeNode": frozenset({"numpy.dtype"}),
    "TypeNode": _NUMBER_TYPES | _names("builtins bool float int str"),
    "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "SparseMatrixNode": _names("scipy.sparse._csr csr_array csr_matrix\nscipy.sparse._csc csc_array csc_matrix"),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "LossNode": _names(_LOSSES),
    "FunctionNode": _names(_FUNCTIONS),
    "PartialNode": frozenset({"functools.partial"}),
    "ObjectNode": _names(_INNER),
}


def is_trusted(loader: str, module: str, name: str) -> bool:
    """Whether an entry of a file may be made without permission.

    Args:
        loader: Kind of entry, as skops names it.
        module: Where the type stands: ``"sklearn.tree._classes"``.
        name: Name of the type.

    Example:
        >>> from keydnn.experiment.backends.scikit_types import is_trusted
        >>> is_trusted("ObjectNode", "sklearn.svm._classes", "SVC"), is_trusted("FunctionNode", "os", "system")
        (True, False)
    """
    if f"{module}.{name}" in _BY_LOADER.get(loader, frozenset()):
        return True
    package, *inside = module.split(".")
    return loader == "ObjectNode" and package == "sklearn" and "tests" not in inside and f"{'.'.join(inside[:1])}.{name}" in _PUBLIC


def entries(told: Any) -> Iterator[dict[str, Any]]:
    """Every entry in the ``schema.json`` of a skops file, wherever it stands."""
    waiting = [told]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__loader__" in value or "__id__" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def foreign_types(told: Any) -> list[str]:
    """Names of the types in a ``schema.json`` that are not trusted, sorted.

    Raises:
        ValueError: Entries that name nothing, or that share a number and differ: what is read would not be what was checked.
    """
    found: set[str] = set()
    by_id: dict[Any, Any] = {}
    for entry in entries(told):
        loader, module, name = (str(entry.get(key)) for key in ("__loader__", "__module__", "__class__"))
        if not is_trusted(loader, module, name):
            found.add(f"{module}.{name}")
        if by_id.setdefault(entry.get("__id__"), entry) != entry and entry.get("__id__") is not None:
            raise ValueError(f"two entries have the number {entry['__id__']}, and differ")
    return sorted(found)
