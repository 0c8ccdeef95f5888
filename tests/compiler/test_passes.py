"""Each pass does what it says, and keeps every bit."""

import numpy as np
import pytest

import keydnn
from keydnn import ops
from keydnn.compiler import compile
from keydnn.nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from keydnn.optim import SGD, Adam
from keydnn.training import Sequential
from tests.compiler.steps import assert_same, only_step, train
from tests.native.common import same_bits_for_threads


def images(n, size, shape, classes=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [
        (
            keydnn.Tensor(data=rng.standard_normal((size, *shape)).astype(dtype)),
            keydnn.Tensor(data=rng.integers(0, classes, size), dtype=np.int64),
        )
        for _ in range(n)
    ]


def entries(plan):
    return [row.entry.split(":")[0] for row in plan.rows]


def compiled(function, *tensors):
    """A compiled function after a call, checked against the eager result; and the entries of its plan."""
    made = compile(function)
    for _ in range(3):
        want, got = function(*tensors), made(*tensors)
        for a, b in zip(want if isinstance(want, tuple) else (want,), got if isinstance(got, tuple) else (got,), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert made._latest.plan is not None, made.plan_report()
    return entries(made._latest.plan)


def test_dead_code_is_dropped():
    def function(x):
        x.exp()  # nobody uses it
        return x * 2.0

    assert compiled(function, keydnn.ones((3,))) == ["fused"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes", [(1, 3, 5), (9, 40, 7), (64, 784, 256), (40, 50, 3), (300, 20, 70), (2, 64, 300), (30, 9, 6), (300, 40, 210)]
)
def test_relu_comes_with_the_product(sizes, dtype):
    m, k, n = sizes
    x, w, b = (keydnn.Tensor.rand(shape, dtype=dtype) - 0.5 for shape in ((m, k), (n, k), (n,)))
    assert compiled(lambda x, w, b: ops.relu(ops.linear(x, w, b)), x, w, b) == ["linear_relu"]
    assert compiled(lambda x, w: ops.relu(ops.linear(x, w, None)), x, w) == ["linear_relu"]


def test_relu_of_a_product_keeps_nan_and_zeros():
    x = keydnn.tensor([[1.0, -1.0], [np.nan, 1.0], [0.0, 0.0], [np.inf, 1.0]])
    w = keydnn.tensor([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert compiled(lambda x, w: 1.0 / ops.relu(ops.linear(x, w, None)), x, w) == ["linear_relu", "fused"]


def test_a_product_that_others_read_is_kept():
    x, w = keydnn.Tensor.rand((4, 3)), keydnn.Tensor.rand((2, 3))

    def function(x, w):
        y = ops.linear(x, w, None)
        return ops.relu(y), y + 1.0

    assert "linear_relu" not in compiled(function, x, w)


def test_relu_with_the_product_has_the_same_bits_for_any_number_of_threads():
    x, w, b = (keydnn.Tensor.rand(shape) - 0.5 for shape in ((64, 784), (256, 784), (256,)))
    made = compile(lambda x, w, b: ops.relu(ops.linear(x, w, b)))
    for _ in range(3):
        made(x, w, b)
    same_bits_for_threads(lambda: made(x, w, b).numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "sizes", [(4, 3, 2), (40, 5, 1), (40, 12, 1), (64, 100, 10), (3, 70, 9), (300, 131, 128), (70, 256, 600), (333, 205, 130)]
)
def test_the_gradient_of_relu_comes_with_the_product(sizes, dtype):
    rows, hidden, classes = sizes

    def make():
        return Sequential(Linear(6, hidden, dtype=dtype), ReLU(), Linear(hidden, classes, dtype=dtype))

    batches = images(3, rows, (6,), classes, dtype)
    model = assert_same(make, lambda p: SGD(p, lr=0.1), batches, loss="cross_entropy")
    assert entries(only_step(model).plan).count("gemm_relu_grad") == 1


class TwoUses(keydnn.Model):
    """relu's result goes to two layers: its gradient is a sum of two products."""

    def __init__(self):
        super().__init__()
        self.inner, self.left, self.right = Linear(6, 5), Linear(5, 3), Linear(5, 3)

    def forward(self, x):
        y = ops.relu(self.inner(x))
        return self.left(y) + self.right(y)


def test_a_gradient_of_relu_that_sums_products_is_kept():
    model = assert_same(TwoUses, lambda p: SGD(p, lr=0.1), images(3, 8, (6,)), loss="cross_entropy")
    assert "gemm_relu_grad" not in entries(only_step(model).plan)


def test_the_gradient_of_relu_with_the_product_has_the_same_bits_for_any_number_of_threads():
    batches = images(3, 300, (40,), 128)

    def trained():
        model, *_ = train(
            lambda: Sequential(Linear(40, 130), ReLU(), Linear(130, 128)),
            lambda p: SGD(p, lr=0.1),
            batches,
            compile=True,
            loss="cross_entropy",
        )
        assert "gemm_relu_grad" in entries(only_step(model).plan)
        return tuple(p.numpy().copy() for p in model.parameters())

    same_bits_for_threads(trained)


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1), lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p)])
def test_all_updates_are_one_op(make):
    model = assert_same(lambda: Sequential(Linear(6, 5), ReLU(), Linear(5, 3)), make, images(4, 8, (6,)), loss="cross_entropy")
    found = [name for name in entries(only_step(model).plan) if "sgd" in name or "adam" in name]
    assert len(found) == 1 and found[0].endswith("_many")


def test_updates_at_different_steps_keep_their_own():
    def between(i, model, optimizer):
        first = model[0].weight
        first.requires_grad = i not in (1, 2)  # its step count falls behind
        if i == 3:
            steps = optimizer.get_state()
            assert steps["0.t"] < steps["1.t"]

    assert_same(lambda: Sequential(Linear(20, 17), Linear(17, 3)), Adam, images(8, 8, (20,)), loss="cross_entropy", between=between)


def test_updates_of_many_arrays_are_one_op():
    model = assert_same(lambda: Sequential(*[Linear(3, 3) for _ in range(34)]), Adam, images(3, 4, (3,)), loss="cross_entropy")
    assert "adam_many" in entries(only_step(model).plan)


def test_updates_of_groups_with_other_settings_stay_apart():
    def make(params):
        return Adam([{"params": params[:2], "lr": 0.1}, {"params": params[2:]}], lr=0.01)

    model = assert_same(lambda: Sequential(Linear(6, 5), Linear(5, 3)), make, images(4, 8, (6,)), loss="cross_entropy")
    assert sum("adam" in name for name in entries(only_step(model).plan)) == 2


def test_a_chain_is_one_pass():
    x, y = keydnn.Tensor.rand((100, 37)), keydnn.Tensor.rand((37,))
    assert compiled(lambda x, y: ((x * 2.0 + y).relu() - y).tanh() * x, x, y) == ["fused"]


def test_a_chain_hands_out_what_others_read():
    x = keydnn.Tensor.rand((2000,))
    assert compiled(lambda x: (x.exp() + 1.0, x.exp().sum()), x).count("fused") <= 2


def test_a_chain_with_writes_in_place():
    def function(x):
        y = x * 2.0
        z = y + 1.0
        y += z
        z *= y
        return y, z

    assert compiled(function, keydnn.Tensor.rand((5000,))) == ["fused"]


def test_a_chain_stops_where_a_part_of_what_it_wrote_is_read():
    x = keydnn.Tensor.rand((8, 8))
    compiled(lambda x: x * 2.0 + (x * 2.0)[0] * 3.0 - (x * 2.0).reshape(8, 8), x)


def test_long_chains_are_cut():
    def function(x):
        for i in range(40):
            x = x * 0.9 + 0.1 * i
        return x

    names = compiled(function, keydnn.Tensor.rand((3000,)))
    assert set(names) == {"fused"} and 4 <= len(names) < 40


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_and_pooling_are_one_pass(side, dtype):
    def make():
        return Sequential(
            Conv2d(2, 3, 3, padding=1, dtype=dtype), ReLU(), MaxPool2d(2), Flatten(), Linear(3 * (side // 2) ** 2, 3, dtype=dtype)
        )

    # the bias gradient is summed with that of the weights, in another order on some instruction sets
    model = assert_same(make, lambda p: Adam(p), images(5, 4, (2, side, side), dtype=dtype), loss="cross_entropy", rtol=1e-6)
    found = entries(only_step(model).plan)
    assert "conv2d_relu_maxpool" in found and "relu_maxpool_grad" in found and "maxpool2d" not in found


def test_relu_and_pooling_of_ties_zeros_and_nan():
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (2, 3, 7, 40)).astype("f4")
    x[0, 0, :2, :6] = np.nan, 1.0, 0.0, -0.0, np.inf, -np.inf

    def function(x, g):
        x = x * 1.0
        x.requires_grad = True
        y = ops.maxpool2d(ops.relu(x), (2, 2))
        y.backward(g)
        return y.detach(), x.grad

    g = keydnn.Tensor(data=rng.standard_normal((2, 3, 3, 20)).astype("f4"))
    names = compiled(function, keydnn.Tensor(data=x), g)
    assert "relu_maxpool" in names and "relu_maxpool_grad" in names


def test_relu_that_others_read_is_kept():
    def function(x):
        r = ops.relu(x * 1.0)
        return ops.maxpool2d(r, (2, 2)), r

    assert "maxpool2d" in compiled(function, keydnn.Tensor.rand((1, 1, 4, 4)))


def test_what_is_computed_from_constants_is_a_constant():
    def function(x):
        ones = keydnn.ones((4, 3))
        scale = (ones * 2.0 + 1.0) / 7.0
        return x * scale, ones

    assert compiled(function, keydnn.Tensor.rand((4, 3))) == ["fill", "fused"]


def test_a_constant_that_was_written_is_none():
    def function(x):
        c = keydnn.ones((5,))
        before = c * 2.0
        c += x
        return c * 3.0, before

    compiled(function, keydnn.Tensor.rand((5,)))


def test_negative_zero_stays_what_it_is():
    def function(x):
        zero = keydnn.ones((5,)) * -0.0
        return x / zero

    compiled(function, keydnn.Tensor.rand((5,)) + 1.0)


def test_the_gradient_of_a_mean_starts_with_one_constant():
    model = assert_same(lambda: Sequential(Linear(6, 5), ReLU(), Linear(5, 3)), lambda p: Adam(p), images(4, 8, (6,)), loss="cross_entropy")
    names = entries(only_step(model).plan)
    assert names.count("fill") == 1 and "copy_strided" not in names


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_too_large_for_the_caches(dtype):
    x = keydnn.tensor(np.random.default_rng(0).standard_normal((8 << 20) // np.dtype(dtype).itemsize + 5), dtype=dtype)

    def function(x):
        y = (x * 1.5 + 0.5).relu()
        z = y * 2.0
        y += x
        return z, y

    assert compiled(function, x) == ["fused"]


@pytest.mark.parametrize(("channels", "images", "inputs"), [(3, 4, 2), (24, 4, 2), (24, 9, 2), (24, 9, 16)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bias_gradients_come_with_the_weights(channels, images, inputs, dtype):
    rng = np.random.default_rng(0)
    x, w, b, g = (
        keydnn.Tensor(data=rng.standard_normal(shape).astype(dtype))
        for shape in ((images, inputs, 9, 7), (channels, inputs, 3, 3), (channels,), (images, channels, 9, 7))
    )

    def function(x, w, b, g):
        w, b = w * 1.0, b * 1.0
        w.requires_grad = b.requires_grad = True
        ops.conv2d(x, w, b, padding=(1, 1)).backward(g * 1.0)
        return w.grad, b.grad

    made = compile(function)
    for _ in range(3):
        dw, db = made(x, w, b, g)
    found = entries(made._latest.plan)
    assert ("conv2d_grad_wb" in found, "sum" in found) == ((True, False) if dtype == np.float32 else (False, True))
    wide = g.numpy().astype(np.float64)
    np.testing.assert_allclose(db.numpy(), wide.sum((0, 2, 3)), rtol=2 * np.finfo(dtype).eps, atol=1e-12)
    np.testing.assert_array_equal(dw.numpy(), function(x, w, b, g)[0].numpy())


def test_bias_gradients_have_the_same_bits_for_any_number_of_threads():
    def step():
        model, *_ = train(
            lambda: Sequential(Conv2d(3, 24, 3, padding=1), ReLU(), MaxPool2d(2), Flatten(), Linear(24 * 36, 3)),
            lambda p: SGD(p, lr=0.1),
            images(3, 10, (3, 12, 12)),
            compile=True,
            loss="cross_entropy",
        )
        assert "conv2d_grad_wb" in entries(only_step(model).plan)
        return tuple(p.numpy() for p in model.parameters())

    same_bits_for_threads(step)


@pytest.mark.parametrize("n", [3, 11])  # from eight images on, each is a chunk of its own
@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (24, 1), (6, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_convolutions_are_pooled_in_the_cache(n, channels, groups, dtype):
    rng = np.random.default_rng(0)
    x, w, b = (
        keydnn.Tensor(data=rng.standard_normal(shape).astype(dtype))
        for shape in ((n, 4, 11, 14), (channels, 4 // groups, 3, 2), (channels,))
    )

    def function(x, w, b):
        y = ops.conv2d(x, w, b, stride=(1, 1), padding=(1, 2), groups=groups)
        return ops.maxpool2d(ops.relu(y), (2, 2))

    def bits():
        assert compiled(function, x, w, b) == ["conv2d_relu_maxpool"]
        return function(x, w, b).numpy()

    same_bits_for_threads(bits)


@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize(
    ("channels", "groups", "size"),
    [(3, 1, (13, 9)), (24, 1, (16, 32)), (6, 2, (6, 8)), (6, 1, (6, 4)), (80, 1, (13, 9)), (24, 1, (13, 14))],
)
@pytest.mark.parametrize("after", ["norm", "relu", "norm, relu", "plain norm, relu", "norm, relu, pool"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_follows_a_convolution_is_done_in_the_cache(n, channels, groups, size, after, dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((n, 4, *size), (channels, 4 // groups, 3, 3), (channels,)))
    mean, var, gamma, beta = (rng.uniform(0.5, 1.5, channels).astype(dtype) for _ in range(4))
    x[0, 0, 0, 0], x[-1, 1, 5, 3] = np.nan, np.inf

    def function(x, w, b, mean, var, gamma, beta):
        y = ops.conv2d(x, w, b, padding=(1, 1), groups=groups)
        if "norm" in after:
            y = ops.normalize_by(y, mean, var, *(() if "plain" in after else (gamma, beta)))
        y = ops.relu(y) if "relu" in after else y
        return ops.maxpool2d(y, (2, 2)) if "pool" in after else y

    tensors = [keydnn.Tensor(data=a) for a in (x, w, b, mean, var, gamma, beta)]

    def bits():
        assert [entry for entry in compiled(function, *tensors) if entry != "fused"] == ["conv2d_finish"]
        return function(*tensors).numpy()

    same_bits_for_threads(bits)


@pytest.mark.parametrize("size", [(9, 9), (16, 16), (8, 7), (6, 36)])
@pytest.mark.parametrize("after", ["norm", "norm, relu", "relu, pool", "norm, relu, pool"])
@pytest.mark.parametrize("wrong", [1.0, np.nan])  # then all is computed tap by tap
def test_what_follows_a_convolution_by_tiles(size, after, wrong):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((12, 24, *size), (25, 24, 3, 3), (25,)))
    mean, var, gamma, beta = (rng.uniform(0.5, 1.5, 25).astype(np.float32) for _ in range(4))
    x[3, 1, 5, 3] = wrong

    def function(x, w, b, mean, var, gamma, beta):
        y = ops.conv2d(x, w, b, padding=(1, 1))
        y = ops.normalize_by(y, mean, var, gamma, beta) if "norm" in after else y
        y = ops.relu(y) if "relu" in after else y
        return ops.maxpool2d(y, (2, 2)) if "pool" in after else y

    tensors = [keydnn.Tensor(data=a) for a in (x, w, b, mean, var, gamma, beta)]

    def bits():
        found = [entry for entry in compiled(function, *tensors) if entry != "fused"]
        assert found == (["conv2d_finish"] if "norm" in after else ["conv2d_relu_maxpool"])
        return function(*tensors).numpy()

    same_bits_for_threads(bits)


def test_normalisation_that_others_read_ends_what_follows_a_convolution():
    def function(x, w, mean, var):
        y = ops.normalize_by(ops.conv2d(x, w), mean, var)
        return ops.relu(y) + y

    x, w, mean, var = (keydnn.Tensor.rand(shape) for shape in ((2, 1, 8, 8), (3, 1, 3, 3), (3,), (3,)))
    assert compiled(function, x, w, mean, var) == ["fused", "conv2d_finish", "fused"]


def test_values_that_differ_along_rows_do_not_follow_a_convolution():
    def function(x, w, row):
        return ops.relu((ops.conv2d(x, w) - row) * row)

    x, w, row = keydnn.Tensor.rand((2, 1, 5, 5)), keydnn.Tensor.rand((3, 1, 3, 3)), keydnn.Tensor.rand((3,))
    assert "conv2d" in compiled(function, x, w, row)


def test_a_convolution_that_others_read_is_kept():
    def function(x, w):
        y = ops.conv2d(x, w)
        return ops.maxpool2d(ops.relu(y), (2, 2)), y

    assert compiled(function, keydnn.Tensor.rand((2, 1, 8, 8)), keydnn.Tensor.rand((3, 1, 3, 3)))[0] == "conv2d"


def test_a_convolution_whose_weight_is_written_before_the_pooling_is_kept():
    def function(x, w):
        w = w * 1.0
        y = ops.conv2d(x, w)
        w += 1.0
        return ops.maxpool2d(ops.relu(y), (2, 2)), w

    assert "conv2d" in compiled(function, keydnn.Tensor.rand((2, 1, 8, 8)), keydnn.Tensor.rand((3, 1, 3, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (3, 2, 40, 33), (2, 5, 1, 2), (6, 70)])
@pytest.mark.parametrize("affine", [True, False])
def test_relu_comes_with_the_batch_normalisation(shape, affine, dtype):
    rng = np.random.default_rng(0)
    x, g = (keydnn.Tensor(data=rng.standard_normal(shape).astype(dtype)) for _ in range(2))
    lines = [keydnn.Tensor(data=rng.standard_normal(shape[1]).astype(dtype)) for _ in range(2 * affine)]

    def forward(x, *lines):
        y, mean, var = ops.batch_norm(x, *lines)
        return y.relu(), mean, var

    def both(x, g, *lines):
        x = x.detach()
        x.requires_grad = True
        lines = [line.detach() for line in lines]
        for line in lines:
            line.requires_grad = True
        y = forward(x, *lines)[0]
        return y.detach(), *keydnn.grad(y, [x, *lines], g)

    assert compiled(forward, x, *lines) == ["batch_norm_relu"]
    assert compiled(both, x, g, *lines) == ["batch_norm_relu", "batch_norm_relu_grad"]
    same_bits_for_threads(lambda: tuple(t.numpy() for t in compile(both)(x, g, *lines)))


def test_relu_of_a_batch_normalisation_keeps_nan_and_zeros():
    x = keydnn.tensor(np.array([[[[0.0, 0.0, 0.0]], [[1.0, np.nan, 2.0]], [[-1.0, 1.0, 3.0]]]], np.float32))
    g = keydnn.ones(x.shape)

    def both(x, g):
        x = x.detach()
        x.requires_grad = True
        y = ops.batch_norm(x)[0].relu()
        return 1.0 / y.detach(), *keydnn.grad(y, [x], g)

    found = compiled(both, x, g)
    assert "batch_norm_relu" in found and "batch_norm_relu_grad" in found


def test_a_batch_normalisation_that_others_read_is_kept():
    x = keydnn.Tensor.rand((4, 3, 5, 5))

    def function(x):
        y = ops.batch_norm(x)[0]
        return y.relu(), y + 1.0

    assert "batch_norm" in compiled(function, x)


def test_a_gradient_between_relu_and_batch_normalisation_that_others_read_is_kept():
    x, g = keydnn.Tensor.rand((4, 3, 5, 5)) - 0.5, keydnn.Tensor.rand((4, 3, 5, 5))

    def function(x, g):
        x = x.detach()
        x.requires_grad = True
        y = ops.batch_norm(x)[0]
        return keydnn.grad(y.relu(), [x, y], g)

    found = compiled(function, x, g)
    assert "batch_norm_relu" in found and "batch_norm_grad" in found and "batch_norm_relu_grad" not in found
