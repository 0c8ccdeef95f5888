"""Losses: four forms that agree, limits, strict shapes, names; and the function classes."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import keydnn
from keydnn import Context, Tensor, enable_grad, grad, gradcheck, nn, no_grad, ops
from keydnn.nn import functions
from keydnn.nn.losses import LOSSES
from tests.nn import definitions as d


def uniform(*shape, low=0.1, high=0.9, requires_grad=True):
    return Tensor(data=np.random.uniform(low, high, shape), requires_grad=requires_grad, dtype=np.float64)


FORMS = {
    "sse": (nn.SSE, nn.SSEFn, nn.sse_loss, lambda p, y: ((p - y) ** 2).sum()),
    "mse": (nn.MSE, nn.MSEFn, nn.mse_loss, lambda p, y: ((p - y) ** 2).mean()),
    "bce": (nn.BinaryCrossEntropy, nn.BinaryCrossEntropyFn, nn.bce_loss, d.bce),
    "cce": (nn.CategoricalCrossEntropy, nn.CategoricalCrossEntropyFn, nn.cce_loss, d.cce),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_agree_in_value_and_gradient(name):
    module, fn, factory, definition = FORMS[name]
    p, y = uniform(3, 4), uniform(3, 4, requires_grad=name in ("sse", "mse"))
    want = definition(p.to_numpy(), y.to_numpy())
    grads = []
    for form in (module(), fn.apply, fn.as_loss(), factory(), LOSSES[name]):
        p.zero_grad()
        y.zero_grad()
        loss = form(p, y)
        assert loss.shape == () and loss._get_ctx().parents == (p, y)
        assert_allclose(loss.item(), want, rtol=1e-12)
        (loss * 3.0).backward()
        grads.append((p.grad.numpy(), None if y.grad is None else y.grad.numpy()))
    for dp, dy in grads[1:]:
        assert_allclose(dp, grads[0][0], rtol=1e-14)
        assert (dy is None) == (name in ("bce", "cce"))
        if dy is not None:
            assert_allclose(dy, -dp, rtol=1e-14)


def test_the_promised_gradients():
    p, y = uniform(3, 4), uniform(3, 4, requires_grad=False)
    a, b = p.to_numpy(), y.to_numpy()
    want = {"sse": 2 * (a - b), "mse": 2 * (a - b) / 12, "bce": (a - b) / (a * (1 - a)) / 12, "cce": -(b / a) / 3}
    for name, gradient in want.items():
        p.zero_grad()
        LOSSES[name](p, y).backward()
        assert_allclose(p.grad.to_numpy(), gradient, rtol=1e-12, err_msg=name)


def test_the_function_classes_give_two_gradients():
    for name, (_, fn, _, _) in FORMS.items():
        p, y = uniform(2, 3), uniform(2, 3, requires_grad=True)
        ctx = Context((p, y))
        fn.forward(ctx, p, y)
        dp, dy = fn.backward(ctx, keydnn.ones((), dtype="float64"))
        assert dp.shape == (2, 3) and (dy is None) == (name in ("bce", "cce"))
        p, y = uniform(2, 3), uniform(2, 3, requires_grad=False)
        ctx = Context((p, y))
        fn.forward(ctx, p, y)
        assert fn.backward(ctx, keydnn.ones((), dtype="float64"))[1] is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["bce", "cce"])
def test_probabilities_are_limited_and_the_gradient_is_not_zeroed_outside(name, dtype):
    p = Tensor(data=np.array([[0.0, 1.0, -3.0, 7.0]]), requires_grad=True, dtype=dtype)
    y = Tensor(data=np.array([[1.0, 0.0, 1.0, 0.0]]), dtype=dtype)
    loss = LOSSES[name](p, y)
    loss.backward()
    low, high = dtype(1e-7), dtype(1 - 1e-7)
    limited = np.array([[low, high, low, high]], dtype=np.float64)
    want = d.bce if name == "bce" else d.cce
    assert_allclose(loss.item(), want(limited, y.to_numpy()), rtol=1e-6)
    gradient = (limited - y.to_numpy()) / (limited * (1 - limited)) / 4 if name == "bce" else -(y.to_numpy() / limited)
    assert_allclose(p.grad.to_numpy(), gradient, rtol=1e-5)


def test_logits_losses_are_finite_and_equal_their_probability_forms():
    z = Tensor(data=np.random.normal(size=(4, 3)), requires_grad=True, dtype=np.float64)
    y = Tensor(data=np.eye(3)[[0, 2, 1, 1]], dtype=np.float64)
    labels = keydnn.tensor([0, 2, 1, 1], dtype="int64")
    want = nn.CCE()(ops.softmax(z), y).item()
    assert_allclose(nn.CrossEntropy()(z, labels).item(), want, rtol=1e-9)
    assert_allclose(nn.CrossEntropy()(z, y).item(), want, rtol=1e-9)
    assert_allclose(nn.BCEWithLogits()(z, y).item(), nn.BCE()(ops.sigmoid(z), y).item(), rtol=1e-9)
    (g,) = grad(nn.CrossEntropy()(z, labels), z)
    assert_allclose(g.to_numpy(), (d.softmax(z.to_numpy()) - y.to_numpy()) / 4, rtol=1e-12)
    big = keydnn.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    for loss, target in ((nn.CrossEntropy(), keydnn.tensor([1], dtype="int32")), (nn.BCEWithLogits(), keydnn.tensor([[0.0, 1.0, 0.5]]))):
        big.zero_grad()
        value = loss(big, target)
        value.backward()
        assert np.isfinite(value.item()) and np.isfinite(big.grad.to_numpy()).all() and value.item() > 1e3


BAD = {
    "broadcast": ("mse", (3, 4), (4,), ValueError, r"Shape mismatch: \(3, 4\) vs \(4,\)"),
    "column": ("sse", (3, 1), (3,), ValueError, "Shape mismatch"),
    "bce": ("bce", (3,), (3, 1), ValueError, "Shape mismatch"),
    "cce": ("cce", (3, 4), (3,), ValueError, "Shape mismatch"),
    "cce empty": ("cce", (0, 4), (0, 4), ValueError, "cce"),
    "cross entropy": ("cross_entropy", (3, 4), (4,), ValueError, "Shape mismatch"),
    "cross entropy rank": ("cross_entropy", (4,), (4,), ValueError, r"\(N, C\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_shapes_must_be_equal(case):
    name, pred, target, error, match = BAD[case]
    with pytest.raises(error, match=match):
        LOSSES[name](keydnn.ones(pred), keydnn.ones(target))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_must_be_classes(label):
    with pytest.raises(ValueError, match="labels.*0 to 2"):
        nn.CrossEntropy()(keydnn.ones((2, 3)), keydnn.tensor([0, label], dtype="int64"))


def test_arrays_are_no_targets():
    with pytest.raises(TypeError, match="ndarray"):
        nn.MSE()(keydnn.ones((2,)), np.ones(2))


def test_names():
    spellings = {
        ops.sse: "sse",
        ops.mse: "mse",
        ops.bce: "bce binary_crossentropy binarycrossentropy",
        ops.cce: "cce categorical_crossentropy categoricalcrossentropy",
        ops.bce_logits: "bce_logits",
        ops.cross_entropy: "cross_entropy sparse_cce",
        ops.mae: "mae mean_absolute_error",
        ops.huber: "huber",
        ops.kl: "kl kl_divergence",
        ops.hinge: "hinge",
    }
    assert {name: op for op, names in spellings.items() for name in names.split()} == LOSSES


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: nn.MSE("median"), ValueError, "reduction must be one of mean, sum, none, got 'median'"),
        (lambda: nn.BCE("none")(keydnn.ones((2,)), keydnn.ones((3,))), ValueError, "Shape mismatch"),
        (lambda: nn.CCE("none")(keydnn.ones((0, 2)), keydnn.ones((0, 2))), ValueError, "N >= 1"),
        (lambda: nn.MAE("median"), ValueError, "reduction must be one of mean, sum, none, got 'median'"),
        (lambda: nn.Huber(0.0), ValueError, "delta must be above 0"),
        (lambda: nn.Huber("wide"), TypeError, "delta must be a number"),
        (lambda: nn.CrossEntropy(1.5), ValueError, r"label_smoothing must be in \[0, 1\]"),
        (lambda: nn.CrossEntropy(class_weights=[1.0, -1.0]), ValueError, "class_weights must be at least 0"),
        (lambda: nn.CrossEntropy(class_weights=[0.0, 0.0]), ValueError, "not all 0"),
        (lambda: nn.CrossEntropy(ignore_index=1.5), TypeError, "ignore_index must be an int"),
    ],
)
def test_settings_are_checked(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_settings_meet_the_logits():
    z, labels = keydnn.ones((2, 3)), keydnn.tensor([0, 3], dtype="int64")
    with pytest.raises(ValueError, match=r"3 classes need class_weights \(3,\), got \(2,\)"):
        nn.CrossEntropy(class_weights=[1.0, 2.0])(z, labels)
    with pytest.raises(ValueError, match="labels run from 0 to 3, expected 0 to 2"):
        nn.CrossEntropy(label_smoothing=0.1)(z, labels)
    assert np.isfinite(nn.CrossEntropy(ignore_index=3)(z, labels).item())


def test_a_row_to_ignore_gets_no_gradient():
    z = keydnn.tensor(np.random.randn(4, 3), requires_grad=True, dtype="f8")
    nn.CrossEntropy(ignore_index=1)(z, keydnn.tensor([0, 1, 2, 1], dtype="int64")).backward()
    g = z.grad.to_numpy()
    assert_array_equal(g[[1, 3]], 0)
    assert (np.abs(g[[0, 2]]).sum(axis=1) > 0.01).all()


@pytest.mark.parametrize("loss", ["mae", "huber", "kl", "hinge", nn.CrossEntropy(0.1, [1.0, 2.0]), nn.Huber(0.5, "sum")])
def test_steps_with_them_are_the_same_recorded(loss):
    x = np.random.randn(12, 3).astype("f4")
    y = (np.arange(12) % 2) if isinstance(loss, nn.CrossEntropy) else np.random.uniform(0.1, 0.9, (12, 2)).astype("f4")
    results = []
    for compile in (True, False):
        keydnn.seed(1)
        model = keydnn.Sequential(keydnn.Linear(3, 2), keydnn.Softmax())
        sgd = keydnn.SGD(model.parameters(), lr=0.1)
        logs = [model.train_on_batch(x, y, loss=loss, optimizer=sgd, compile=compile)["loss"] for _ in range(5)]
        results.append((logs, [p.to_numpy().tobytes() for p in model.parameters()]))
    assert results[0] == results[1] and logs[-1] < logs[0]


def test_factories_return_a_frozen_record():
    loss = nn.mse_loss()
    assert loss == nn.LossFromFn(nn.MSEFn) == nn.MSEFn.as_loss() and loss.fn_cls is nn.MSEFn
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.fn_cls = nn.SSEFn


# -- function classes

X = (2, 3, 5, 4)
FUNCTIONS = {
    "ExpFn": (nn.ExpFn, (X,), {}, ["out"], {}),
    "SigmoidFn": (nn.SigmoidFn, (X,), {}, ["out"], {}),
    "TanhFn": (nn.TanhFn, (X,), {}, ["out"], {}),
    "ReLUFn": (nn.ReLUFn, (X,), {}, [X], {}),
    "LeakyReLUFn": (nn.LeakyReLUFn, (X,), {"alpha": 0.3}, [X, X], {"alpha": 0.3}),
    "SoftmaxFn": (nn.SoftmaxFn, (X,), {"axis": 1}, ["out"], {"axis": 1}),
    "FlattenFn": (nn.FlattenFn, (X,), {}, ["x0"], {}),
    "MaxPool2dFn": (
        nn.MaxPool2dFn,
        (X,),
        {"kernel_size": 2, "padding": 1},
        ["x0"],
        {"kernel_size": (2, 2), "stride": (2, 2), "padding": (1, 1)},
    ),
    "AvgPool2dFn": (nn.AvgPool2dFn, (X,), {"kernel_size": (2, 1), "stride": 1}, ["x0"], {"stride": (1, 1)}),
    "GlobalAvgPool2dFn": (nn.GlobalAvgPool2dFn, (X,), {}, ["x0"], {}),
    "Conv2dFn": (
        nn.Conv2dFn,
        (X, (4, 3, 3, 2), (4,)),
        {"stride": 2, "padding": (1, 0)},
        ["x0", "x1", "x2"],
        {"has_bias": True, "stride": (2, 2), "padding": (1, 0)},
    ),
    "Conv2dFn-no-bias": (nn.Conv2dFn, (X, (4, 3, 3, 2), None), {}, ["x0", "x1"], {"has_bias": False, "stride": (1, 1)}),
    "Conv2dTransposeFn": (
        nn.Conv2dTransposeFn,
        (X, (3, 2, 3, 2), (2,)),
        {"stride": 2, "padding": 1, "output_padding": 1},
        ["x0", "x1", "x2"],
        {"has_bias": True, "output_padding": (1, 1)},
    ),
}
SINGLE = {"ExpFn", "SigmoidFn", "TanhFn", "ReLUFn", "LeakyReLUFn"}


def drawn(shapes):
    return [
        None
        if shape is None
        else Tensor(data=np.random.permutation(np.prod(shape)).reshape(shape) / 60.0 - 1.01, requires_grad=True, dtype="f8")
        for shape in shapes
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_wired_by_hand_save_and_return_what_is_promised(name):
    fn, shapes, options, saved, meta = FUNCTIONS[name]
    inputs = drawn(shapes)
    parents = [t for t in inputs if t is not None]
    ctx = Context(parents)
    out = fn.forward(ctx, *inputs, **options)
    assert out.requires_grad and out._get_ctx() is None
    named = {"out": out, **{f"x{i}": t for i, t in enumerate(inputs)}}
    assert len(ctx.saved_tensors) == len(saved)
    for have, want in zip(ctx.saved_tensors, saved, strict=True):
        assert have.shape == want if isinstance(want, tuple) else have is named[want]
    assert {key: ctx.saved_meta[key] for key in meta} == meta
    ctx.backward_fn = lambda g: (lambda grads: (grads,) if name in SINGLE else grads)(fn.backward(ctx, g))
    out._set_ctx(ctx)
    (out * out).sum().backward()
    by_hand = [t.grad.numpy() for t in parents]
    for t in parents:
        t.zero_grad()
    applied = fn.apply(*inputs, **options)
    (applied * applied).sum().backward()
    for t, want in zip(parents, by_hand, strict=True):
        assert_allclose(t.grad.to_numpy(), want, rtol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_differentiable_twice(name):
    fn, shapes, options, _, _ = FUNCTIONS[name]
    inputs = drawn(shapes)
    parents = [t for t in inputs if t is not None]
    gradcheck(lambda *_: fn.apply(*inputs, **options), parents)

    @enable_grad()
    def slope(*_):
        y = fn.apply(*inputs, **options)
        grads = grad((y * y).sum(), parents, create_graph=True)
        return sum((g * g).sum() for g in grads)

    gradcheck(slope, parents, rtol=1e-4, atol=1e-4)


def test_functions_need_no_graph():
    x = Tensor(data=np.ones(X), dtype="f8")
    for fn, options in ((nn.ExpFn, {}), (nn.MaxPool2dFn, {"kernel_size": 2})):
        assert not fn.apply(x, **options).requires_grad and not fn.forward(Context((x,)), x, **options).requires_grad
    assert nn.MaxPool2dFn.backward(_context(nn.MaxPool2dFn, x, kernel_size=1), x) == (None,)
    assert nn.AvgPool2dFn.backward(_context(nn.AvgPool2dFn, x, kernel_size=1), x) == (None,)
    x.requires_grad = True
    with no_grad():
        assert not nn.ExpFn.apply(x).requires_grad and not nn.MaxPool2dFn.apply(x, kernel_size=2).requires_grad


def _context(fn, x, **options):
    ctx = Context((x,))
    fn.forward(ctx, x, **options)
    return ctx


def test_functions_refuse_what_does_not_fit():
    x = keydnn.ones(X)
    with pytest.raises(RuntimeError, match="cuda:0"):
        nn.Conv2dFn.apply(x, Tensor((4, 3, 1, 1), "cuda:0"), None)
    with pytest.raises(ValueError, match="larger than the padded input"):
        nn.MaxPool2dFn.apply(x, kernel_size=9)
    with pytest.raises(ValueError, match="scalar"):
        nn.FlattenFn.apply(keydnn.ones(()))


def test_exp_is_a_free_function():
    x = Tensor(data=np.array([0.0, 1.0]), requires_grad=True, dtype="f8")
    y = nn.exp(x)
    assert y._get_ctx().parents == (x,)
    assert_allclose(y.to_numpy(), np.exp([0.0, 1.0]), rtol=1e-15)
    with pytest.raises(TypeError, match="float"):
        nn.exp(1.0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["conv2d", "conv2d_transpose"])
def test_convolutions_of_tensors(kind, bias):
    shapes = (X, (4, 3, 3, 2), (4,)) if kind == "conv2d" else (X, (3, 4, 3, 2), (4,))
    x, w, b = drawn(shapes)
    b = b if bias else None
    options = {"stride": (2, 1), "padding": (1, 0)} | ({} if kind == "conv2d" else {"output_padding": (1, 0)})
    want = getattr(ops, kind)(x, w, b, **options)
    out = getattr(functions, f"{kind}_forward_cpu_tensor")(x, w, b, out_requires_grad=True, **options)
    assert_array_equal(out.to_numpy(), want.to_numpy())
    assert out.requires_grad and out._get_ctx() is None
    g = Tensor(data=np.random.normal(size=out.shape), dtype="f8")
    want.backward(g)
    grads = getattr(functions, f"{kind}_backward_cpu_tensor")(x, w, b, g, **options)
    for t, have in zip((x, w, b), grads, strict=True):
        assert (have is None) == (t is None)
        if t is not None:
            assert_array_equal(have.to_numpy(), t.grad.to_numpy())


@pytest.mark.parametrize("cls", [nn.MSE, nn.BinaryCrossEntropy, nn.CategoricalCrossEntropy, nn.BCEWithLogits])
def test_terms_have_the_mean_and_the_limits_of_the_loss(cls):
    p, y = Tensor(data=[[0.0, 1.0, 0.3]] * 2, dtype="f8", requires_grad=True), uniform(2, 3, requires_grad=False)
    rows = cls("none")(p, y)
    assert rows.shape == ((2,) if cls is nn.CategoricalCrossEntropy else (2, 3))
    assert_allclose(rows.numpy().mean(), cls()(p, y).item(), rtol=1e-12)
    gradients = []
    for loss in (rows.mean(), cls("mean")(p, y), cls("sum")(p, y) / rows.numel()):
        p.zero_grad()
        loss.backward()
        gradients.append(p.grad.numpy())
    assert_allclose(gradients[0], gradients[1], rtol=1e-12)
    assert_allclose(gradients[2], gradients[1], rtol=1e-12)
    assert cls().get_config() == {} and cls.from_config(cls("sum").get_config()).reduction == "sum"
