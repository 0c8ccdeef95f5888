"""check_backend: does the adapter of a framework do what graphs need of it?"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np


def check_backend(backend: Any) -> None:
    """Build, run, train, evaluate, fit, freeze, save and resume a small model of a framework as a node of a graph.

    Args:
        backend: A :class:`keydnn.experiment.Backend` or its name: "keydnn", "torch", "tensorflow" or "scikit".

    Raises:
        AssertionError: Something does not hold; the message says what.
        ImportError: The framework, or what the experiment wing needs, is not installed.
    """
    from keydnn.experiment import Backend
    from keydnn.experiment.context import ExperimentContext

    wanted = Backend.from_value(backend)
    with ExperimentContext(registration_policy="overwrite").activate():
        check = _learner if wanted.needs_optimizer else _estimator
        check(wanted)


class _Bench:
    """A graph of one node over eight rows."""

    def __init__(self, backend: Any, dropout: float = 0.5) -> None:
        from keydnn.experiment import FeatureSet
        from keydnn.experiment.backends.tensors import adapter
        from keydnn.experiment.graph import ModelGraph, ModelNode
        from keydnn.experiment.training import AppliedLoss, Loss, Optimizer

        rng = np.random.default_rng(0)
        data = {"x": rng.standard_normal((8, 4)).astype("f4"), "y": rng.standard_normal(8).astype("f4")}
        self.source = FeatureSet.from_dict("rows", data, "x", "y")
        self.node = ModelNode("net", adapter(backend).small_model(4, 1, dropout), self.source)
        own = {"lr" if backend.value != "tensorflow" else "learning_rate": 0.05}
        optimizer = Optimizer("adam", opt_kwargs=own, backend=backend) if backend.needs_optimizer else None
        self.graph = ModelGraph([self.node], optimizer)
        loss = Loss(lambda outputs, targets: (outputs - targets) * (outputs - targets))
        self.losses = [AppliedLoss(loss, self.node, ["outputs", "targets"], label="error")]

    def context(self) -> Any:
        from keydnn.experiment.data import BatchView, ExecutionContext

        ctx = ExecutionContext("check", 0, 0)
        batch = BatchView(self.source, {"default": np.arange(8)}).materialize_batch()
        ctx.set_input(node_id=self.node.node_id, upstream=self.node.upstream_ref, batch=batch)
        return ctx

    def step(self, kind: str) -> float:
        ctx = self.context()
        getattr(self.graph, f"{kind}_step")(ctx, self.losses)
        return ctx.losses.to_float()

    def weights(self) -> dict[str, np.ndarray]:
        return self.node.model.get_weights()


def _same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _learner(backend: Any) -> None:
    from keydnn.experiment.backends.accelerator import Accelerator

    bench = _Bench(backend)
    bench.graph.build()
    assert bench.node.output_shape == (1,), f"built for outputs of shape {bench.node.output_shape}, expected (1,)"
    assert bench.step("eval") == bench.step("eval"), "two evaluations of one batch differ: dropout is on, or weights change"
    before = bench.weights()
    bench.step("train")
    assert not _same(before, bench.weights()), "a training step left the weights as they were"
    losses = [bench.step("train") for _ in range(80)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]), f"80 steps did not lower the loss: {losses[0]} to {losses[-1]}"
    assert len(set(losses[-5:])) == 5, "training losses repeat: dropout is off in training mode"
    _frozen(bench)
    _state(_Bench(backend, dropout=0.0))
    bench.graph.eval_step(bench.context(), bench.losses, accelerator=Accelerator.cpu())
    try:
        bench.node.freeze()
        bench.graph.fit_step(bench.context(), bench.losses)  # a model without fit runs forward
    finally:
        bench.node.unfreeze()


def _frozen(bench: _Bench) -> None:
    bench.graph.freeze("net")
    before = bench.weights()
    try:
        bench.step("train")
    except ValueError:
        pass
    else:
        raise AssertionError("a graph whose only node is frozen was trained")
    bench.node.eval_step(bench.context(), bench.losses)
    assert _same(before, bench.weights()), "an evaluation step changed a frozen node"
    bench.graph.unfreeze("net")
    bench.step("train")
    assert not _same(before, bench.weights()), "a node that was frozen and unfrozen does not learn"


def _state(bench: _Bench) -> None:
    """What follows a state depends on it alone: weights and moments come back to the bit."""
    bench.step("train")
    state = bench.graph.get_state()
    weights = bench.weights()
    bench.step("train")
    bench.graph.set_state(state)
    assert _same(weights, bench.weights()), "set_state did not bring the weights back"
    for _ in range(2):
        bench.step("train")
    ahead = bench.weights()
    bench.graph.set_state(state)
    for _ in range(2):
        bench.step("train")
    assert _same(ahead, bench.weights()), "steps after set_state differ: the optimizer's state did not come back"


def _estimator(backend: Any) -> None:
    bench = _Bench(backend)
    bench.graph.build()
    first = bench.step("fit")
    assert bench.node.is_frozen, "a fit step did not freeze the node"
    assert first == bench.step("eval"), "evaluation after a fit step gives another loss"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = bench.graph.get_state()
        bench.node.unfreeze()
        bench.node.train_step(bench.context(), bench.losses)
        bench.graph.set_state(state)
    assert first == bench.step("eval"), "set_state did not bring the estimator back"
