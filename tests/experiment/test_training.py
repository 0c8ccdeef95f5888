"""Losses, optimizers and records as values."""

import numpy as np
import pytest

import keydnn
from keydnn.experiment.data import Batch, ExecutionContext, SampleData
from keydnn.experiment.errors import (
    BackendMismatchError,
    BackendNotSupportedError,
    LossError,
    OptimizerError,
    OptimizerNotSetError,
    ResolutionError,
)
from keydnn.experiment.graph import ModelNode
from keydnn.experiment.references import FeatureSetColumnReference, ModelOutputReference
from keydnn.experiment.training import AppliedLoss, Loss, LossCollection, LossRecord, Optimizer
from keydnn.experiment.utils import Accelerator

TORCH = pytest.param("torch", marks=pytest.mark.torch)


def tensor(backend, values, wanted=False):
    array = np.asarray(values, "f4")
    if backend == "keydnn":
        return keydnn.tensor(array, requires_grad=wanted)
    torch = __import__("torch")
    return torch.nn.Parameter(torch.from_numpy(array)) if wanted else torch.from_numpy(array)


def numbers(value):
    return value.detach().numpy()


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
class TestOptimizer:
    def stepped(self, backend, n=3, **options):
        p = tensor(backend, [1.0, -2.0, 3.0], wanted=True)
        optimizer = Optimizer("sgd", opt_kwargs={"lr": 0.1}, backend=backend, **options)
        optimizer.build(parameters=[p])
        for _ in range(n):
            optimizer.zero_grad()
            (p * p).sum().backward()
            optimizer.step()
        return numbers(p), optimizer

    def test_sgd(self, backend):
        got, optimizer = self.stepped(backend)
        assert np.allclose(got, np.array([1, -2, 3]) * 0.8**3) and optimizer.is_built and optimizer.name == "sgd"
        assert repr(optimizer) == "Optimizer('sgd', lr=0.1)" and optimizer.cls.__name__ == "SGD"

    def test_clipping_by_norm(self, backend):
        got, _ = self.stepped(backend, 1, clip_norm=1.0)
        g = np.array([2.0, -4.0, 6.0])
        assert np.allclose(got, np.array([1, -2, 3]) - 0.1 * g / (np.linalg.norm(g) + 1e-6), rtol=1e-6)

    def test_clipping_by_value(self, backend):
        got, _ = self.stepped(backend, 1, clip_value=3.0)
        assert np.allclose(got, np.array([1, -2, 3]) - 0.1 * np.array([2.0, -3.0, 3.0]))

    def test_a_schedule_multiplies_the_rate(self, backend):
        got, _ = self.stepped(backend, 2, schedule=lambda step: 1.0 / (step + 1))
        assert np.allclose(got, np.array([1, -2, 3]) * 0.8 * 0.9)

    def test_what_it_learned_comes_back(self, backend):
        p, q = tensor(backend, [1.0, 2.0], wanted=True), tensor(backend, [1.0, 2.0], wanted=True)
        first, second = (Optimizer("Adam", opt_kwargs={"lr": 0.1}, backend=backend) for _ in range(2))
        first.build(parameters=[p])

        def step(optimizer, parameter):
            optimizer.zero_grad()
            (parameter * parameter).sum().backward()
            optimizer.step()

        step(first, p)
        step(first, p)
        second.set_state(first.get_state())  # waits for the parameters
        second.build(parameters=[q])
        assert second == first
        before = numbers(p).copy()
        if backend == "keydnn":
            q.copy_from_numpy(before)
        else:
            q.data.copy_(p.data)
        step(first, p)
        step(second, q)
        assert np.array_equal(numbers(p), numbers(q)) and np.any(numbers(p) != before)

    def test_state_of_parameters_that_stay(self, backend):
        p, q, r = (tensor(backend, [float(i)], wanted=True) for i in (1, 2, 3))
        optimizer = Optimizer("adam", opt_kwargs={"lr": 0.1}, backend=backend)
        optimizer.build(parameters=[p, q])
        for _ in range(2):
            optimizer.zero_grad()
            (p * p + q * q).sum().backward()
            optimizer.step()
        instance = optimizer.instance
        optimizer.rebuild([p, q])
        assert optimizer.instance is instance
        optimizer.rebuild([q, r])
        expected = Optimizer("adam", opt_kwargs={"lr": 0.1}, backend=backend)
        lone = tensor(backend, [2.0], wanted=True)
        expected.build(parameters=[lone])
        for _ in range(2):
            expected.zero_grad()
            (lone * lone).sum().backward()
            expected.step()
        for one, parameters in ((optimizer, (q, r)), (expected, (lone,))):
            one.zero_grad()
            sum((x * x).sum() for x in parameters).backward()
            one.step()
        assert np.array_equal(numbers(q), numbers(lone)) and numbers(r) != 3.0

    def test_misuse(self, backend):
        with pytest.raises(OptimizerError, match="known: "):
            Optimizer("adamant", backend=backend)
        optimizer = Optimizer("sgd", opt_kwargs={"lr": 0.1}, backend=backend)
        with pytest.raises(OptimizerNotSetError, match="not built"):
            optimizer.step()
        with pytest.raises(ValueError, match="needs parameters"):
            optimizer.build()
        with pytest.raises(ValueError, match="cannot be built for"):
            optimizer.build(parameters=[1], backend="tensorflow")
        optimizer.build(parameters=[tensor(backend, [1.0], wanted=True)])
        with pytest.raises(OptimizerNotSetError, match="force_rebuild"):
            optimizer.build(parameters=[tensor(backend, [1.0], wanted=True)])
        with pytest.raises(ValueError, match="is built for"):
            optimizer.backend = "tensorflow"

    def test_a_factory(self, backend):
        cls = Optimizer("sgd", backend=backend).cls
        optimizer = Optimizer.from_factory(lambda parameters: cls(parameters, lr=0.5), backend=backend)
        assert repr(optimizer) == "Optimizer('<custom>')"
        p = tensor(backend, [1.0], wanted=True)
        optimizer.build(parameters=[p])
        (p * p).sum().backward()
        optimizer.step()
        assert numbers(p) == 0.0


def test_optimizer_arguments():
    for options in ({}, {"opt": "sgd", "factory": list}):
        with pytest.raises(ValueError, match="either opt or factory"):
            Optimizer(**options)
    with pytest.raises(TypeError, match="name or a class"):
        Optimizer(3)
    with pytest.raises(ValueError, match="clip_norm must be above 0"):
        Optimizer("sgd", clip_norm=0)
    with pytest.raises(BackendNotSupportedError):
        Optimizer("sgd").build(backend="scikit")
    with pytest.raises(OptimizerError, match="no backend"):
        Optimizer("sgd").build()
    adam = Optimizer(keydnn.optimizers.Adam, opt_kwargs={"lr": 0.1})
    assert adam.backend.value == "keydnn" and Optimizer.from_config(adam.get_config()) == adam


@pytest.mark.parametrize("backend", ["keydnn", TORCH])
class TestLoss:
    def test_names_give_a_value_per_element(self, backend):
        got = Loss("mse", backend=backend).build()(tensor(backend, [[1.0], [3.0]]), tensor(backend, [[0.0], [1.0]]))
        assert numbers(got).tolist() == [[1.0], [4.0]]

    @pytest.mark.parametrize(("reduction", "value"), [("mean", 2.5), ("sum", 5.0)])
    def test_reductions(self, backend, reduction, value):
        loss = Loss("MSE", backend=backend, reduction=reduction).build()
        assert float(loss(tensor(backend, [[1.0], [3.0]]), tensor(backend, [[0.0], [1.0]]))) == value

    def test_functions_and_factories(self, backend):
        def scaled(outputs, targets, scale=1.0):
            return (outputs - targets) * scale

        loss = Loss(scaled, loss_kwargs={"scale": 3.0}).build(backend=backend)
        assert numbers(loss(tensor(backend, [2.0]), targets=tensor(backend, [1.0]))) == [3.0]
        assert loss.name == "scaled" and loss.allowed_keywords[:2] == ["outputs", "targets"]
        made = Loss(factory=lambda: scaled, backend=backend).build()
        assert numbers(made(tensor(backend, [2.0]), tensor(backend, [1.0]))) == [1.0]

    def test_a_failure_shows_the_shapes(self, backend):
        loss = Loss("mse", backend=backend).build()
        with pytest.raises(LossError, match=r"\(2, 1\), \(3, 4\)") as caught:
            loss(tensor(backend, np.ones((2, 1))), tensor(backend, np.ones((3, 4)))[:, :3] @ tensor(backend, np.ones((3, 4))))
        assert caught.value.__cause__ is not None

    def test_misuse(self, backend):
        with pytest.raises(LossError, match="known: "):
            Loss("mess", backend=backend)
        loss = Loss("mse", backend=backend)
        with pytest.raises(RuntimeError, match="not built"):
            loss.allowed_keywords  # noqa: B018
        loss.build()
        with pytest.raises(LossError, match="force_rebuild"):
            loss.build()
        assert Loss.from_config(loss.get_config()) == loss


def test_loss_arguments():
    with pytest.raises(ValueError, match="got both"):
        Loss("mse", factory=list, backend="keydnn")
    with pytest.raises(LossError, match="got neither"):
        Loss()
    with pytest.raises(LossError, match="no backend"):
        Loss("mse")
    with pytest.raises(TypeError, match="name, a class or a function"):
        Loss(3)


P = np.array([[0.2, 0.8], [1.0, 0.0]], "f4")
Y = np.array([[0.0, 1.0], [0.0, 1.0]], "f4")
EPS = 1e-7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mae", np.abs(P - Y)),
        ("sse", (P - Y) ** 2),
        ("bce", -(Y * np.log(np.clip(P, EPS, 1 - EPS)) + (1 - Y) * np.log(1 - np.clip(P, EPS, 1 - EPS)))),
        ("cce", -(Y * np.log(np.clip(P, EPS, 1 - EPS))).sum(1)),
        ("bcewithlogits", np.logaddexp(0, P) - Y * P),
    ],
)
def test_losses_of_the_engine(name, expected):
    got = Loss(name, backend="keydnn").build()(keydnn.tensor(P), keydnn.tensor(Y)).numpy()
    assert got.shape == expected.shape and np.allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_class_numbers_as_targets_of_probabilities():
    loss = Loss("cce", backend="keydnn").build()
    whole = loss(keydnn.tensor(P), keydnn.tensor(np.array([1, 1]), dtype=np.int64))
    assert np.allclose(whole.numpy(), loss(keydnn.tensor(P), keydnn.tensor(Y)).numpy()) and loss.wants_classes


# -- applied losses


@pytest.fixture
def node(ten):
    return ModelNode("net", keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(2, 1)), ten)


def step_of(node, features, targets=None, weights=None, masks=None, role="default"):
    size = len(features)
    sample = SampleData(features=keydnn.tensor(np.asarray(features, "f4")), targets=targets, kind="output")
    ones = {role: np.ones(size)}
    ctx = ExecutionContext("p", 0, 0)
    ctx.set_output(
        node_id=node.node_id,
        batch=Batch(size, {role: sample}, None, weights or ones, masks or {role: np.ones(size, np.int8)}),
    )
    return ctx


def test_the_worked_value(node):
    """Per-sample losses 1, 4, 7, weights 1, 0.5, 1, mask 1, 1, 0, weight 2: 2 (1 + 2 + 0) / 3."""
    ctx = step_of(
        node, [[1.0], [4.0], [7.0]], weights={"default": np.array([1.0, 0.5, 1.0])}, masks={"default": np.array([1, 1, 0], np.int8)}
    )
    assert AppliedLoss(Loss(lambda outputs: outputs), node, ["outputs"], weight=2).compute(ctx).item() == pytest.approx(2.0)


def test_several_outputs_count_by_their_mean(node):
    ctx = step_of(node, [[1.0, 3.0], [5.0, 7.0]])
    assert AppliedLoss(Loss(lambda outputs: outputs), node, ["outputs"]).compute(ctx).item() == pytest.approx(4.0)


def test_a_loss_that_comes_as_one_number(node):
    applied = AppliedLoss(Loss(lambda outputs: outputs.mean()), node, ["outputs"], weight=3.0)
    assert applied.compute(step_of(node, [[1.0], [3.0]])).item() == pytest.approx(6.0)
    weighted = step_of(node, [[1.0], [3.0]], weights={"default": np.array([1.0, 0.5])})
    with pytest.warns(UserWarning, match="do not apply"):
        assert applied.compute(weighted).item() == pytest.approx(6.0)
    assert applied.compute(weighted).item() == pytest.approx(6.0)  # told once
    nothing = step_of(node, [[1.0], [3.0]], masks={"default": np.zeros(2, np.int8)})
    assert applied.compute(nothing).item() == 0.0


def test_ranks_are_aligned(node):
    ctx = step_of(node, [[1.0], [3.0]], targets=np.array([[[0.0]], [[1.0]]], "f4"))
    assert AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs", "targets"]).compute(ctx).item() == pytest.approx(2.5)


def test_class_targets_of_any_shape_and_dtype(node):
    logits = np.array([[2.0, 0.0], [0.0, 3.0]])
    expected = np.mean([np.log1p(np.exp(-2.0)), np.log1p(np.exp(-3.0))])
    for targets in (np.array([[0.0], [1.0]], "f4"), np.array([0, 1]), np.array([[[0]], [[1]]])):
        ctx = step_of(node, logits, targets=targets)
        loss = AppliedLoss(Loss("crossentropy", backend="keydnn"), node, ["outputs", "targets"])
        assert loss.compute(ctx).item() == pytest.approx(expected, rel=1e-6)


def test_forms_of_references(node, ten):
    from keydnn.experiment.data import BatchView

    ctx = step_of(node, [[1.0], [3.0]], targets=np.array([[0.0], [2.0]], "f4"))
    ctx.set_input_view(node_id=node.node_id, upstream=node.upstream_ref, batch_view=BatchView(ten, {"default": np.array([1, 2])}))
    mse = Loss("mse", backend="keydnn")
    column = FeatureSetColumnReference("targets", "y", "raw", "ten", ten.node_id)
    for second, value in (
        ("targets", 1.0),
        ("targets.default", 1.0),
        ("net.targets", 1.0),
        (ModelOutputReference("net", node.node_id, None, "targets"), 1.0),
        ("y", 1.0),  # rows 1 and 2 of y = 2 row: 2 and 4
        ("targets.y.raw", 1.0),
        (column, 1.0),
        ("features.b.raw", 0.5),  # 1 and 2
    ):
        got = AppliedLoss(mse, node, {"outputs": "outputs", "targets": second}).compute(ctx)
        assert got.item() == pytest.approx(value), second


def test_references_that_cannot_be_found(node):
    mse, ctx = Loss("mse", backend="keydnn"), step_of(node, [[1.0]])
    for one, match in (
        ("targets", "no targets"),
        ("outputs.anchor", "exactly one feature set"),
        (ModelOutputReference("x", "y"), "no output"),
        (3, "no reference"),
    ):
        with pytest.raises(ResolutionError, match=match):
            AppliedLoss(mse, node, ["outputs", one]).compute(ctx)
    with pytest.raises(ResolutionError, match="has no output"):
        AppliedLoss(mse, node, ["outputs", "targets"]).compute(ExecutionContext("p", 0, 0))


def test_a_loss_must_suit_its_node(node):
    with pytest.raises(TypeError, match="must be a Loss"):
        AppliedLoss("mse", node, ["outputs"])
    with pytest.raises(TypeError, match="on must be"):
        AppliedLoss(Loss(abs), 3, ["outputs"])
    with pytest.raises(TypeError, match="list or a dict"):
        AppliedLoss(Loss(abs), node, "outputs")
    with pytest.raises(KeyError):
        AppliedLoss(Loss(abs), "gone", ["outputs"])
    with pytest.raises(BackendMismatchError):
        AppliedLoss(Loss(abs, backend="torch"), node, ["outputs"])


# -- records


def test_records_add_up():
    a, b = LossRecord("mse", "n", trainable=1.0), LossRecord("mse", "n", trainable=3.0, auxiliary=1.0)
    assert sum([a, b]).to_float() == 5.0 and a.merge_with(b).as_dict()["trainable"] == 4.0
    assert LossRecord.mean(a, b).to_float() == 2.5
    with pytest.raises(ValueError, match="do not add up"):
        a + LossRecord("mae", "n", trainable=1.0)
    with pytest.raises(TypeError):
        LossRecord.merge(a, 3.0)
    with pytest.raises(TypeError):
        a + 3.0


def test_records_stay_where_they_were_computed_without_history():
    x = keydnn.tensor([2.0], requires_grad=True)
    record = LossRecord("mse", "n", trainable=(x * x).sum())
    assert not record.trainable.requires_grad and record.to_float() == 4.0


def test_collections(node):
    records = [
        LossRecord("mse", node.node_id, trainable=1.0),
        LossRecord("mse", node.node_id, trainable=2.0),
        LossRecord("l1", "other", auxiliary=4.0),
    ]
    losses = LossCollection(records)
    assert losses.axes == ("node", "label") and len(losses) == 2 and losses.to_float() == 7.0
    assert losses.trainable == 3.0 and losses.auxiliary == 4.0 and losses.loss_labels == ["l1", "mse"]
    for name in (node, "net", node.node_id, [node]):
        assert losses.where(node=name).to_float() == 3.0
    assert losses.at(node="net", label="mse").to_float() == 3.0 and isinstance(losses.where(label="mse"), LossCollection)
    assert losses.merge(losses).to_float() == 14.0 and losses.collapse("node", "sum").to_float() == 7.0
    assert LossCollection([]).auxiliary == 0.0
    with pytest.raises(TypeError):
        LossCollection([3.0])


# -- devices


def test_accelerators():
    assert Accelerator(" CUDA:1 ").torch_device_str() == "cuda:1" and Accelerator.gpu(2).torch_device_str() == "cuda:2"
    assert Accelerator("gpu").keydnn_device() == "cuda:0" and Accelerator.cpu().is_available()
    assert repr(Accelerator.cuda(0, pin_memory=True)) == "Accelerator(device='cuda:0', pin_memory=True)"
    assert Accelerator.from_config(Accelerator("mps").get_config()) == Accelerator.mps() and len({Accelerator(), Accelerator("CPU")}) == 1
    with pytest.warns(UserWarning, match="no device 'mps'"):
        assert Accelerator.mps().tf_device_str() == "/CPU:0"
    assert Accelerator.gpu(1).tf_device_str() == "/GPU:1"
    for device in ("tpu", "cuda:x", 3):
        with pytest.raises(ValueError, match="unknown device"):
            Accelerator(device)
    with pytest.raises(TypeError):
        Accelerator.from_value(3)
