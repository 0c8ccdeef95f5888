"""Fitted estimators of a file, looked through before use: scikit-learn's compiled code reads indices and sizes without looking.

A node's children stand behind it, so no tree runs in a circle; every node but the first has one parent, so none is walked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

_MOST_THREADS = 1024


def check(ok: Any, what: str) -> None:
    """Refuse what is not so.

    Raises:
        ValueError: ``ok`` is false.
    """
    if not ok:
        raise ValueError(what)


# -- trees --------------------------------------------------------------------------------------------------------------


def depth_of_tree(left: np.ndarray, right: np.ndarray, is_leaf: np.ndarray) -> int:
    """Depth of a binary tree told by the numbers of children, 0 for a root alone.

    Raises:
        ValueError: Children that are not there, stand before their parent, or have two parents.
    """
    n, inner = len(left), np.flatnonzero(~is_leaf)
    children = np.concatenate([left[inner], right[inner]]).astype(np.int64)
    check(n > 0 and len(children) == n - 1, f"a tree of {n} nodes has {len(inner)} inner ones")
    check(((children > np.tile(inner, 2)) & (children < n)).all(), "a node's children are not behind it, or are not there")
    check((np.bincount(children, minlength=n)[1:] == 1).all(), "a node has two parents, or none")
    depth, level = 0, np.zeros(1, np.int64)
    while len(level := level[~is_leaf[level]]):
        level, depth = np.concatenate([left[level], right[level]]).astype(np.int64), depth + 1
    return depth


def check_tree(n_features: Any, n_classes: np.ndarray, n_outputs: Any, state: Mapping[str, Any]) -> None:
    """What a ``sklearn.tree._tree.Tree`` is made of: arguments of its constructor and its state.

    Raises:
        ValueError: It would read or write where nothing is.
    """
    nodes, values = state["nodes"], state["values"]
    check(isinstance(n_features, int) and n_features > 0 and isinstance(n_outputs, int), "a tree without features or outputs")
    check(n_classes.shape == (n_outputs,) and n_classes.dtype == np.intp and n_outputs > 0, "numbers of classes that are none")
    check((n_classes > 0).all(), "numbers of classes that are none")
    check(nodes.ndim == 1 and values.shape == (len(nodes), n_outputs, n_classes.max()), f"values of shape {values.shape}")
    check(state["node_count"] == len(nodes) and isinstance(state["node_count"], int), f"{state['node_count']} nodes, {len(nodes)} given")
    is_leaf = nodes["left_child"] == -1
    depth = depth_of_tree(nodes["left_child"], nodes["right_child"], is_leaf)
    check(isinstance(state["max_depth"], int) and depth <= state["max_depth"] <= len(nodes), f"depth {depth} is above max_depth")
    features = nodes["feature"][~is_leaf]
    check(((features >= 0) & (features < n_features)).all(), f"a node asks for a feature that is not among the {n_features}")


def _check_predictor(tree: Any, n_features: int, is_categorical: np.ndarray) -> None:
    """A ``TreePredictor`` of the gradient boosting on histograms."""
    nodes, sets = tree.nodes, tree.raw_left_cat_bitsets
    is_leaf = nodes["is_leaf"] != 0
    depth_of_tree(nodes["left"], nodes["right"], is_leaf)
    inner = nodes[~is_leaf]
    check(((inner["feature_idx"] >= 0) & (inner["feature_idx"] < n_features)).all(), f"a node asks for none of {n_features} features")
    check(sets.ndim == 2 and sets.shape[1] == 8 and sets.dtype == np.uint32, f"sets of categories of shape {sets.shape}")
    chosen = inner[inner["is_categorical"] != 0]
    check((chosen["bitset_idx"] < len(sets)).all(), "a node asks for a set of categories that is not there")
    check(is_categorical[chosen["feature_idx"]].all(), "a node asks for the category of a feature that has none")


def _check_histograms(estimator: Any, state: Mapping[str, Any]) -> None:
    n, mapper = state["n_features_in_"], state["_bin_mapper"]
    is_categorical = np.asarray(mapper.is_categorical_)
    check(is_categorical.shape == (n,) and len(mapper.bin_thresholds_) == n, "bins of other features")
    for trees in state["_predictors"]:
        check(len(trees) == state["n_trees_per_iteration_"], "a round with trees too many or too few")
        for tree in trees:
            _check_predictor(tree, n, is_categorical)


def _check_neighbors(tree: Any, n_features: int) -> None:
    """A ``KDTree`` or ``BallTree``."""
    data, places, nodes, bounds, leaf_size, n_levels, n_nodes, *_, metric, weights = tree.__getstate__()
    n = len(data)
    check(data.ndim == 2 and data.shape[1] == n_features and n and leaf_size > 0, f"samples of shape {data.shape}, {n_features} features")
    check(places.shape == (n,) and ((places >= 0) & (places < n)).all(), "places of samples that are not there")
    check(0 < n_levels < 63 and n_nodes == 2**n_levels - 1 == len(nodes), f"{n_levels} levels and {n_nodes} nodes, {len(nodes)} given")
    rows = {"KDTree": 2, "BallTree": 1}[type(tree).__name__]
    check(bounds.shape == (rows, n_nodes, n_features), f"bounds of shape {bounds.shape}")
    check(
        ((nodes["idx_start"] >= 0) & (nodes["idx_start"] <= nodes["idx_end"]) & (nodes["idx_end"] <= n)).all(), "samples that are not there"
    )
    check((nodes["is_leaf"][n_nodes // 2 :] != 0).all(), "a node of the last level has children")
    check(weights is None or np.shape(weights) == (n,), "weights of other samples")
    vector = metric.__getstate__()[1]
    check(type(metric).__name__ != "MinkowskiDistance64" or len(vector) in (0, n_features), "weights of other features")


# -- estimators that hold them --------------------------------------------------------------------------------------------


def _inner_trees(value: Any) -> list[Any]:
    """The ``Tree`` in each of some estimators that has one."""
    found = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    held = [getattr(inner, "tree_", None) for inner in found]
    return [tree for tree in held if type(tree).__name__ == "Tree"]


_TOGETHER = ("Forest", "ExtraTrees", "RandomTrees", "GradientBoosting")  # their trees are given the rows without a look at them


def _check_ensemble(estimator: Any, state: Mapping[str, Any]) -> None:
    if not any(part in type(estimator).__name__ for part in _TOGETHER):
        return
    trees, n = _inner_trees(state["estimators_"]), state.get("n_features_in_")
    columns = state.get("estimators_features_")
    sizes = [n] * len(trees) if columns is None else [len(chosen) for chosen in columns]
    check(not trees or [tree.n_features for tree in trees] == sizes, f"trees of other than {n} features")
    if isinstance(state["estimators_"], np.ndarray):
        check(
            state["estimators_"].ndim == 2 and state["estimators_"].shape[1] == state["n_trees_per_iteration_"], "trees too many or too few"
        )


def _check_single_tree(estimator: Any, state: Mapping[str, Any]) -> None:
    tree = state["tree_"]
    if type(tree).__name__ == "Tree":
        check(tree.n_features == state["n_features_in_"] and tree.n_outputs == state["n_outputs_"], "a tree of other features or outputs")
    else:
        _check_neighbors(tree, state["n_features_in_"])


def _check_samples(estimator: Any, state: Mapping[str, Any]) -> None:
    kept, n = state["_fit_X"], state["n_features_in_"]
    check(kept.ndim == 2 and kept.shape[1] == n, f"samples of shape {kept.shape}, {n} features")
    if state.get("_tree") is not None:
        _check_neighbors(state["_tree"], n)
    if "classes_" in state and not state["outputs_2d_"]:
        y = state["_y"]
        check(y.shape == (len(kept),) and ((y >= 0) & (y < len(state["classes_"]))).all(), "classes that are not there")


def _check_vectors(estimator: Any, state: Mapping[str, Any]) -> None:
    """A support vector machine of libsvm."""
    check(not state["_sparse"], "vectors in a sparse matrix")
    n, support = state["n_features_in_"], state["support_"]
    counts, weights, offsets = state["_n_support"], state["_dual_coef_"], state["_intercept_"]
    classes = len(state["classes_"]) if "classes_" in state else 2
    pairs = classes * (classes - 1) // 2
    check(classes > 1 and weights.shape == (classes - 1, len(support)) and offsets.shape == (pairs,), f"weights of shape {weights.shape}")
    check(
        state["support_vectors_"].shape == ((0, 0) if state["kernel"] == "precomputed" else (len(support), n)), "vectors of other features"
    )
    check(((support >= 0) & (support < state["shape_fit_"][0])).all(), "vectors that are not there")
    check(
        counts.shape == (classes,) and ("classes_" not in state or ((counts >= 0).all() and counts.sum() == len(support))), "other counts"
    )
    check(all(state[name].shape in ((0,), (pairs,)) for name in ("_probA", "_probB")), "probabilities of other classes")


def _check_centers(estimator: Any, state: Mapping[str, Any]) -> None:
    centers = state["cluster_centers_"]
    check(centers.ndim == 2 and centers.shape[1] == state["n_features_in_"], f"centers of shape {centers.shape}")


def _check_topics(estimator: Any, state: Mapping[str, Any]) -> None:
    words = state["components_"]
    check(state["exp_dirichlet_component_"].shape == words.shape and words.shape[1] == state["n_features_in_"], "topics of other words")


_BY_ATTRIBUTE: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {  # an attribute that only such estimators have -> their check
    "estimators_": _check_ensemble,
    "tree_": _check_single_tree,
    "_predictors": _check_histograms,
    "_fit_X": _check_samples,
    "_n_support": _check_vectors,
    "cluster_centers_": _check_centers,
    "exp_dirichlet_component_": _check_topics,
}


def _check_generator(state: Mapping[str, Any]) -> None:
    """The place of a Mersenne twister in its table, which NumPy reads without looking."""
    check(state.get("bit_generator") != "MT19937" or 0 <= state["state"]["pos"] <= 624, "a random generator beyond its table")


def _check_one(value: Any) -> None:
    if isinstance(value, np.random.RandomState):
        _check_generator(value.get_state(legacy=False))
    elif isinstance(value, np.random.Generator):
        _check_generator(value.bit_generator.state)
    elif hasattr(value, "check_format"):  # a sparse matrix
        value.check_format(full_check=True)
    elif hasattr(value, "__dict__"):
        state = vars(value)
        for name in ("_n_threads", "n_threads"):
            check(state.get(name) is None or 0 < state[name] <= _MOST_THREADS, f"{state.get(name)} threads")
        for name in _BY_ATTRIBUTE.keys() & state.keys():
            _BY_ATTRIBUTE[name](value, state)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value
    elif isinstance(value, np.ndarray):
        yield from value.ravel().tolist() if value.dtype.hasobject else ()
    elif not isinstance(value, type) and hasattr(value, "__dict__"):
        yield from vars(value).values()


def check_estimator(estimator: Any) -> None:
    """Look through an estimator and all that it holds.

    Raises:
        ValueError: Something in it asks for what is not there.
        KeyError: Something that belongs to it is missing.
    """
    waiting, seen = [estimator], set()
    while waiting:
        value = waiting.pop()
        if value is None or isinstance(value, bool | int | float | str | np.generic) or id(value) in seen:
            continue
        seen.add(id(value))
        _check_one(value)
        waiting += _parts(value)
