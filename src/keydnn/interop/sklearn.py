"""scikit-learn: ``KeyDNNClassifier`` and ``KeyDNNRegressor``, estimators that train a network.

The network is a chain of dense layers, or whatever ``network(n_features, n_outputs)`` returns.  The loss of a batch is

    sum_i w_i l_i / sum_i w_i,     l_i = -log softmax(z_i)[label_i]   or   mean over outputs of (z_i - y_i)^2

with sample weights w (1 without), so doubling a weight is like repeating the sample (see :mod:`keydnn.nn.weighted`), and rows
of weight 0 are left out.

The two classes derive from scikit-learn's, so they are made when they are first asked for; all they do stands in the plain
classes of this file.

>>> from sklearn.datasets import load_iris
>>> from keydnn.interop.sklearn import KeyDNNClassifier
>>> x, y = load_iris(return_X_y=True)
>>> KeyDNNClassifier(learning_rate=0.01, random_state=0).fit(x, y).score(x, y) > 0.9
True
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from keydnn.domain.errors import MissingExtraError
from keydnn.nn import ELU, GELU, Dense, Module, ReLU, Sigmoid, SiLU, Tanh
from keydnn.optim import OPTIMIZERS
from keydnn.random import generator_state, set_generator_state
from keydnn.saving import module_from_config, module_to_config
from keydnn.training import Model, Sequential

__all__ = ["KeyDNNClassifier", "KeyDNNRegressor"]  # noqa: F822 - through __getattr__

ACTIVATIONS = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "gelu": GELU, "silu": SiLU, "elu": ELU, "identity": None}
MOST_AUTOMATIC = 200  # rows of a batch when batch_size is "auto"


class _Network:
    """What both estimators share.

    Args:
        network: Function (n_features, n_outputs) that returns an untrained module whose outputs are logits or values;
            None makes dense layers as follows.
        hidden: Sizes of the hidden layers.
        activation: After each hidden layer: relu, tanh, sigmoid, gelu, silu, elu or identity.
        optimizer: sgd, adam or adamw.
        learning_rate: Of the optimizer.
        weight_decay: Of the optimizer.
        epochs: Passes over the data.
        batch_size: Rows per step; "auto" is at most 200.
        shuffle: Whether rows are in a new order each epoch.
        random_state: Fixes first weights and orders; None draws from NumPy's global generator.
        verbose: 0 is silent, 1 shows the progress of each epoch.

    Attributes:
        model_: The trained model.
        history_: What ``fit`` logged, by name.
        n_iter_: Epochs trained.
        n_features_in_: Features.

    Raises:
        ValueError: Data of wrong shapes, with NaN or infinity, no weight above zero, or an argument out of range.
        TypeError: Sparse data.
    """

    model_: Model
    n_features_in_: int
    loss = "mse"

    def __init__(
        self,
        network: Any = None,
        hidden: tuple[int, ...] = (100,),
        activation: str = "relu",
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        epochs: int = 200,
        batch_size: int | str = "auto",
        shuffle: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.hidden = hidden
        self.activation = activation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train from fresh weights.

        Args:
            X: Array-like (n, n_features).
            y: Labels (n,), or values (n,) or (n, n_outputs).
            sample_weight: Weights (n,), not negative; None is 1 for each.

        Returns:
            self.
        """
        X, targets, weights = self._checked(X, y, sample_weight, is_first=True)
        self._start(X.dtype, self._n_outputs(targets))
        self._train(X, targets, weights, self.epochs)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One pass over the data, going on from where the last call ended; arguments as :meth:`fit`."""
        is_first = not hasattr(self, "model_")  # scikit-learn's own sign of being fitted
        X, targets, weights = self._checked(X, y, sample_weight, is_first=is_first)
        if is_first:
            self._start(X.dtype, self._n_outputs(targets))
        self._train(X, targets, weights, 1)
        return self

    # -- the network

    def _start(self, dtype: Any, n_outputs: int) -> None:
        """A new network and its optimizer."""
        from sklearn.utils import check_random_state

        key = "".join(c for c in str(self.optimizer).lower() if c.isalnum())
        if key not in OPTIMIZERS:
            raise ValueError(f"{type(self).__name__}: optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        self._rng = check_random_state(self.random_state)
        with self._own_generators():
            made = self._dense(n_outputs, dtype) if self.network is None else self.network(self.n_features_in_, n_outputs)
            if not isinstance(made, Module):
                raise TypeError(f"{type(self).__name__}: network(n_features, n_outputs) must return a Module, got {type(made).__name__}")
            model = made if isinstance(made, Model) else Sequential(made)
            model.build((1, self.n_features_in_), dtype=dtype)
        self.model_ = model
        settings: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        self._updates = OPTIMIZERS[key](list(model.parameters()), **settings)
        self.history_: dict[str, list[float]] = {}
        self.n_iter_ = 0

    def _dense(self, n_outputs: int, dtype: Any) -> Sequential:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"{type(self).__name__}: activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        model, kind = Sequential(), ACTIVATIONS[self.activation]
        for size in self.hidden:
            model.add(Dense(int(size), dtype=dtype))
            if kind is not None:
                model.add(kind())
        model.add(Dense(n_outputs, dtype=dtype))
        return model

    @contextlib.contextmanager
    def _own_generators(self) -> Iterator[None]:
        """The global generators start from a number of ours, and are given back as they were."""
        before, number = generator_state(), int(self._rng.randint(2**31))
        np.random.seed(number)
        random.seed(number)
        try:
            yield
        finally:
            set_generator_state(before)

    def _train(self, X: np.ndarray, targets: np.ndarray, weights: np.ndarray | None, epochs: int) -> None:
        size = min(MOST_AUTOMATIC, len(X)) if self.batch_size == "auto" else self.batch_size
        with self._own_generators():
            history = self.model_.fit(
                X,
                targets,
                loss=self.loss,
                optimizer=self._updates,
                epochs=epochs,
                batch_size=size,  # type: ignore[arg-type]
                shuffle=self.shuffle,
                verbose=self.verbose,
                sample_weight=weights,
            )
        for name, values in history.history.items():
            self.history_.setdefault(name, []).extend(values)
        self.n_iter_ += epochs

    def _outputs(self, X: Any) -> np.ndarray:
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(self, "model_")
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return self.model_.predict(X, batch_size=4096).numpy()

    # -- data

    def _checked(self, X: Any, y: Any, sample_weight: Any, is_first: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """X, targets and weights, None without; rows of weight 0 are left out."""
        from sklearn.utils.validation import _check_sample_weight, validate_data

        X, y = validate_data(self, X, y, reset=is_first, dtype=[np.float64, np.float32], multi_output=True, y_numeric=self._is_numeric)
        targets = self._targets(y, is_first)
        if sample_weight is None:
            return X, targets, None
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        kept = weights > 0
        return X[kept], targets[kept], weights[kept]

    _is_numeric = True

    def _targets(self, y: np.ndarray, is_first: bool) -> np.ndarray:
        """What the loss takes."""
        raise NotImplementedError

    def _n_outputs(self, targets: np.ndarray) -> int:
        """Outputs of the network."""
        return int(targets.shape[1])

    # -- pickling, which scikit-learn does: the model as config and arrays

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        if "model_" not in state:
            return state
        node, weights = module_to_config(self.model_), self.model_.state_dict()
        return {**state, "model_": (node, weights), "_updates": (type(self._updates), self._updates.state_dict())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        if "model_" not in state:
            return
        node, weights = state["model_"]
        with self._own_generators_kept():
            self.model_ = module_from_config(node)
        self.model_.load_state_dict(weights)
        kind, settings = state["_updates"]
        self._updates = kind(list(self.model_.parameters()))
        self._updates.load_state_dict(settings)

    @contextlib.contextmanager
    def _own_generators_kept(self) -> Iterator[None]:
        before = generator_state()
        try:
            yield
        finally:
            set_generator_state(before)


class _Classifier(_Network):
    """Classes: any labels; the network has one output for each."""

    classes_: np.ndarray
    loss = "cross_entropy"
    _is_numeric = False

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:  # type: ignore[override]
        """One pass over the data, going on from where the last call ended.

        Args:
            X: Array-like (n, n_features).
            y: Labels (n,).
            classes: All labels that will ever come; needed in the first call unless ``y`` has them all.
            sample_weight: Weights (n,).

        Raises:
            ValueError: A label is not among the classes.
        """
        from sklearn.utils.multiclass import unique_labels

        if classes is not None:
            known = unique_labels(classes)
            if hasattr(self, "model_") and not np.array_equal(known, self.classes_):  # scikit-learn's own sign of being fitted
                raise ValueError(f"{type(self).__name__}: classes {known} are not those of the first call, {self.classes_}")
            self.classes_ = known
        return super().partial_fit(X, y, sample_weight)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train from fresh weights; see the arguments of the regressor's ``fit``, with labels (n,) for y."""
        self.__dict__.pop("classes_", None)
        return super().fit(X, y, sample_weight)

    def _targets(self, y: np.ndarray, is_first: bool) -> np.ndarray:
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import column_or_1d

        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if is_first and "classes_" not in self.__dict__:
            self.classes_ = np.unique(labels)
        places = np.searchsorted(self.classes_, labels)
        places[places == len(self.classes_)] = 0
        if not np.array_equal(self.classes_[places], labels):
            raise ValueError(f"{type(self).__name__}: y has labels that are not among the classes {self.classes_}")
        return places

    def _n_outputs(self, targets: np.ndarray) -> int:
        return len(self.classes_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, n_classes), in the order of ``classes_``.

        Args:
            X: Array-like (n, n_features).
        """
        z = self._outputs(X)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,).

        Args:
            X: Array-like (n, n_features).
        """
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]


class _Regressor(_Network):
    """Values: one or several per row."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def _targets(self, y: np.ndarray, is_first: bool) -> np.ndarray:
        if is_first:
            self._is_flat = y.ndim == 1
        return y.reshape(len(y), -1)

    def predict(self, X: Any) -> np.ndarray:
        """Values, (n,) or (n, n_outputs) as those of ``fit``.

        Args:
            X: Array-like (n, n_features).
        """
        z = self._outputs(X)
        return z[:, 0] if self._is_flat else z


def _make(name: str) -> type:
    """The class with scikit-learn's below it."""
    try:
        from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    except ImportError as error:
        raise MissingExtraError(name, "scikit-learn", "sklearn") from error
    own, mixin = (_Classifier, ClassifierMixin) if name == "KeyDNNClassifier" else (_Regressor, RegressorMixin)
    names = {"__module__": __name__, "__qualname__": name, "__doc__": f"{inspect.getdoc(own)}\n\n{inspect.getdoc(_Network)}"}
    return type(name, (own, mixin, BaseEstimator), names)


def __getattr__(name: str) -> Any:
    if name not in ("KeyDNNClassifier", "KeyDNNRegressor"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = _make(name)
    return made
