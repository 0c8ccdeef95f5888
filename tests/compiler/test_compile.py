"""keydnn.compile: every operation gives the bits of the eager call, and what cannot be replayed runs eagerly."""

import numpy as np
import pytest

import keydnn
from keydnn import ops
from keydnn.compiler import compile
from keydnn.nn import Linear

X = np.random.default_rng(0).uniform(0.1, 2.0, (6, 5))
Y = np.random.default_rng(1).uniform(-2.0, 2.0, (6, 5))
IMAGE = np.random.default_rng(2).standard_normal((2, 3, 7, 6))
KERNEL = np.random.default_rng(3).standard_normal((4, 3, 3, 2))


def planes_of(x):
    return x.reshape(2, 3, 5)


CASES = {
    "arithmetic": (lambda x, y: (x + y) * 2.0 - y / (x + 3.0), X, Y),
    "rows": (lambda x, y: x * y + 1.0, X, Y[0]),
    "columns": (lambda x, y: x - y, X, Y[:, :1]),
    "scalar tensor": (lambda x, y: x / y, X, Y[0, 0]),
    "channels": (lambda x, y: x * y, IMAGE, Y[:3, :1].reshape(3, 1, 1)),
    "middle axis": (lambda x, y: x + y, IMAGE, IMAGE[:, :1]),
    "outer": (lambda x, y: x + y, X[:, :1], Y[0]),
    "reversed numbers": (lambda x, y: 1.0 - x + 2.0 / y, X, Y),
    "comparisons": (lambda x, y: (x > y) + (x <= 0.5) + (y == y), X, Y),
    "unary": (lambda x, y: x.exp() + x.log() + x.sqrt() + y.tanh() + y.sigmoid() + y.erf(), X, Y),
    "unary 2": (lambda x, y: y.abs() + y.sign() + y.square() + x.rsqrt() + x.reciprocal() + y.floor() + y.ceil() + y.round(), X, Y),
    "unary 3": (lambda x, y: x.log1p() + y.expm1() + (-y) + y.relu() + y.leaky_relu(0.2) + y.gelu() + y.silu() + y.elu(), X, Y),
    "clamp": (lambda x, y: y.clamp(min=-0.5, max=0.5) + y.clamp(min=0.0) + y.clamp(max=0.1), X, Y),
    "where": (lambda x, y: ops.where(x > 1.0, y, 0.0) + x.maximum(y) + x.minimum(y), X, Y),
    "softplus": (lambda x, y: y.softplus() * y.elu(0.7), X, Y),
    "matmul": (lambda x, y: x @ y.transpose(), X, Y),
    "batched matmul": (lambda x, y: x @ y, IMAGE, IMAGE.transpose(0, 1, 3, 2)[:1]),
    "sums": (lambda x, y: x.sum() + y.sum(0) + y.mean(0) + x.max(0) + x.min(0), X, Y),
    "sums of images": (lambda x, y: x.sum((0, 2, 3)) + x.mean((0, 2, 3)) + y.sum(1), IMAGE, X[:3]),
    "softmax": (lambda x, y: x.softmax(-1) + y.log_softmax(-1), X, Y),
    "shapes": (lambda x, y: x.reshape(5, 6) + y.transpose() * x.flatten()[3], X, Y),
    "slices": (lambda x, y: x[1:4, ::2] + y[2:5, 1:4], X, Y),
    "joins": (lambda x, y: ops.concat([x, y], 1).sum(0) + ops.stack([x, y, x], 1).sum((0, 1)).sum(), X, Y),
    "pad and flip": (lambda x, y: x.pad(1, 0.5) + y.flip().pad(((1, 1), (2, 0))), X, Y),
    "broadcast": (lambda x, y: x[0].broadcast_to(6, 5) + y[:, :1].expand(6, 5), X, Y),
    "cast": (lambda x, y: x.astype("float64").sum().astype("float32") + y.sum(), X, Y),
    "conv": (lambda x, w: ops.conv2d(x, w, stride=(2, 1), padding=(1, 1)), IMAGE, KERNEL),
    "conv transposed": (lambda x, w: ops.conv2d_transpose(x, w.transpose(1, 0, 2, 3), stride=(2, 2)), IMAGE, KERNEL),
    "pools": (lambda x, w: ops.maxpool2d(x, (2, 2)) + ops.avgpool2d(x, (2, 2)) + ops.global_avgpool2d(x), IMAGE, KERNEL),
    "argmax of a column": (lambda x, y: x.argmax(0).astype("float32") + y.argmin(0).astype("float32"), X, Y),
    "gather": (lambda x, y: ops.gather(x, 0, y.argmax(0).reshape(1, 5)) + ops.gather(x, 1, x.argmin(1).reshape(6, 1)), X, Y),
    "scatter": (lambda x, y: ops.scatter_add(x, 0, y.argmax(0).reshape(1, 5), y[:1]) + y, X, Y),
    "rows of a table": (lambda x, y: ops.embedding(x, y.argmax(0)) + ops.embedding(x, y.argmax(1), 2).sum(), X, Y),
    "triangles": (lambda x, y: ops.tril(x, -1) + ops.triu(y, 1) + ops.tril(x) + ops.triu(planes_of(x)).sum(), X, Y),
    "running sums": (lambda x, y: x.cumsum(0) + y.cumsum(1) + y.cumsum(-1), X, Y),
    "products": (lambda x, y: x.prod(0) + y.prod(0) * x.prod(), X, Y),
    "any and all": (lambda x, y: (x > 1.9).astype(x.dtype).any(0) + (y > -1.9).astype(x.dtype).all(0), X, Y),
    "roll": (lambda x, y: x.roll(2, 0) + y.roll(-1, 1) + x.roll((1, 7), (0, 1)), X, Y),
    "remainders": (lambda x, y: y % x + y // x + y % -0.3 + x // -0.7 + (-y) % 0.5, X, Y),
    "argmax": (lambda x, y: x.argmax(-1).astype("float32") + y.argmin(-1).astype("float32"), X, Y),
}


def tensors(*arrays, dtype):
    return [keydnn.Tensor(data=np.asarray(a, dtype)) for a in arrays]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operation_replays_to_the_bits_of_the_eager_one(case, dtype):
    function, *arrays = CASES[case]
    if dtype is np.float64 and case == "cast":
        pytest.skip("the cast is from float32")
    compiled = compile(function)
    for scale in (1.0, 1.0, 0.7):
        x, y = tensors(arrays[0] * scale, arrays[1], dtype=dtype)
        np.testing.assert_array_equal(compiled(x, y).numpy(), function(x, y).numpy())
    assert compiled.plan_report().startswith("plan of"), compiled.plan_report()


def test_results_are_not_overwritten_by_the_next_call():
    compiled = compile(lambda x: (x * 2.0, x + 1.0))
    a = compiled(keydnn.tensor([1.0, 2.0]))
    b = compiled(keydnn.tensor([3.0, 4.0]))
    c = compiled(keydnn.tensor([5.0, 6.0]))
    assert [t.tolist() for t in (*a, *b, *c)] == [[2, 4], [2, 3], [6, 8], [4, 5], [10, 12], [6, 7]]


def test_tensors_from_outside_are_read_live():
    w = keydnn.tensor([1.0, 2.0])
    compiled = compile(lambda x: x * w)
    x = keydnn.tensor([3.0, 4.0])
    assert [compiled(x).tolist() for _ in range(3)] == [[3, 8]] * 3
    w.copy_from_numpy(np.array([0.0, 1.0]))
    assert compiled(x).tolist() == [0, 4]
    w.to_("cpu", copy=True)  # another array
    w.fill(2.0)
    assert compiled(x).tolist() == [6, 8]


def test_in_place_writes_to_tensors_from_outside():
    total = keydnn.zeros((2,))

    def add(x):
        total.__iadd__(x)
        return total * 1.0

    compiled = compile(add)
    seen = [compiled(keydnn.tensor([1.0, 2.0])).tolist() for _ in range(4)]
    assert seen == [[1, 2], [2, 4], [3, 6], [4, 8]]


def test_random_numbers_are_those_of_the_eager_call():
    def function(x):
        return x * keydnn.Tensor.rand((4,)) + ops.dropout(x, 0.5)

    x = keydnn.ones((4,))
    np.random.seed(0)
    eager = [function(x).tolist() for _ in range(5)]
    compiled = compile(function)
    np.random.seed(0)
    assert [compiled(x).tolist() for _ in range(5)] == eager
    assert compiled.plan_report().startswith("plan of")


def test_a_training_step_of_the_users_own():
    def make():
        np.random.seed(0)
        layer = Linear(3, 1)

        def step(x, y):
            layer.zero_grad()
            loss = ops.mse(layer(x), y)
            loss.backward()
            with keydnn.no_grad():
                for p in layer.parameters():
                    p -= p.grad * 0.1
            return loss

        return layer, step

    (a, eager), (b, plain) = make(), make()
    compiled = compile(plain)
    for i in range(5):
        x, y = tensors(X[:, :3] * (i + 1), Y[:, :1], dtype=np.float32)
        assert eager(x, y).item() == compiled(x, y).item()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())
    assert compiled.plan_report().startswith("plan of")


REFUSED = {
    "item": (lambda x: x * x.sum().item(), "item"),
    "numpy": (lambda x: keydnn.Tensor(data=x.to_numpy() * 2), "to_numpy"),
    "branch": (lambda x: x * 2.0 if x.sum() > 0 else x, "item"),
    "new tensor": (lambda x: x + keydnn.tensor([1.0, 2.0]), "Tensor"),
    "python random": (lambda x: x * __import__("random").random(), "Python's random"),
    "numpy random": (lambda x: x * float(np.random.rand()), "NumPy's random"),
    "no plan kernel": (lambda x: ops.einsum("i,j->ij", x, x), "einsum"),
    "index by tensor": (lambda x: x[x.argmax()], "to_numpy"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_cannot_be_replayed_runs_eagerly(case):
    function, why = REFUSED[case]
    compiled = compile(function)
    for values in ([1.0, 2.0], [-3.0, 1.0], [0.5, -4.0]):
        x = keydnn.tensor(values)
        if "random" not in case:
            assert compiled(x).tolist() == function(x).tolist()
        else:
            compiled(x)
    assert compiled.plan_report().startswith("eager") and why in compiled.plan_report()


def test_a_result_that_somebody_may_differentiate_stays_eager():
    layer = Linear(3, 1)
    compiled = compile(layer)
    x = tensors(X[:, :3], dtype=np.float32)[0]
    for _ in range(3):
        layer.zero_grad()
        compiled(x).sum().backward()
        assert layer.weight.grad is not None
    with keydnn.no_grad():
        np.testing.assert_array_equal(compiled(x).numpy(), layer(x).numpy())
    assert compiled.plan_report().startswith("plan of")


def test_other_arguments_belong_to_the_signature():
    compiled = compile(lambda x, n, scale=1.0: x * n * scale)
    x = keydnn.tensor([1.0])
    found = [compiled(x, n, scale=s).item() for n in (2, 3) for s in (1.0, 2.0) for _ in range(3)]
    assert found == [2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 6.0, 6.0, 6.0]


def test_only_functions_can_be_compiled():
    with pytest.raises(TypeError, match="function"):
        compile(3)


def test_large_results_have_memory_of_their_own():
    function = keydnn.compile(lambda x: ((x * 2.0), (x * 2.0).sum(), x + 1.0, x.reshape(8, -1) * 1.0))
    x = keydnn.Tensor.rand((200, 200))
    for _ in range(3):
        function(x)
    first = function(x)
    kept = [t.numpy() for t in first]
    second = function(x * 3.0)
    for tensor, before, after in zip(first, kept, second, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), before)
        assert not np.shares_memory(tensor._data, after._data)
        assert not np.array_equal(after.numpy(), before)


def test_one_result_given_twice():
    def twice(x):
        y = x * 2.0
        return y, y, y[3:5]

    function = keydnn.compile(twice)
    x = keydnn.Tensor.rand((300, 300))
    for _ in range(4):
        for a, b in zip(twice(x), function(x), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_sines_and_powers():
    x = keydnn.tensor(np.linspace(-30.0, 30.0, 200), dtype=np.float64)

    def function(x):
        return x.sin() + 2.0 * x.cos(), x.abs() ** 2.5 + 2.0**x, (x * x).sin().sum()

    compiled = keydnn.compile(function)
    for _ in range(3):
        for a, b in zip(function(x), compiled(x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-12)
    assert compiled._latest.plan is not None, compiled.plan_report()


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_softmax_along_any_axis(axis):
    x = keydnn.tensor(IMAGE, dtype=np.float32)

    def function(x):
        x = x * 1.0
        x.requires_grad = True
        y = x.softmax(axis) * x + x.log_softmax(axis)
        y.sum().backward()
        return y.detach(), x.grad

    compiled = keydnn.compile(function)
    for _ in range(3):
        for a, b in zip(function(x), compiled(x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    assert compiled._latest.plan is not None, compiled.plan_report()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["gelu", "silu", "softplus", "elu", "leaky_relu", "relu", "tanh", "sigmoid"])
def test_activations_and_their_gradients_keep_their_bits_in_a_chain(name, dtype):
    x = keydnn.tensor(np.random.default_rng(0).standard_normal((7, 301)) * 3, dtype=dtype)

    def function(x):
        x = x * 1.25
        x.requires_grad = True
        y = getattr(x + 0.5, name)() * 2.0
        y.sum().backward()
        return y.detach(), x.grad

    compiled = keydnn.compile(function)
    for _ in range(3):
        for a, b in zip(function(x), compiled(x), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert compiled._latest.plan is not None, compiled.plan_report()


def test_gradients_of_indexed_reads():
    index = keydnn.tensor([[0, 2, 2], [1, 1, 5]], dtype=np.int64)

    def function(w, g):
        w = w * 1.0
        w.requires_grad = True
        y = ops.embedding(w, index, 1) * g + w.cumsum(0)[:2].softmax(0).sum() + ops.gather(w, 0, index).sum() + w.prod()
        y.sum().backward()
        return y.detach(), w.grad

    compiled = keydnn.compile(function)
    w, g = keydnn.Tensor.rand((6, 3)), keydnn.Tensor.rand((2, 3, 3))
    for _ in range(3):
        for a, b in zip(function(w, g), compiled(w, g), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
    assert compiled._latest.plan is not None, compiled.plan_report()


def test_an_index_outside_its_axis_is_an_error_in_a_replay():
    table = keydnn.Tensor.rand((4, 3))
    compiled = keydnn.compile(lambda index: ops.embedding(table, index))
    for _ in range(3):
        compiled(keydnn.tensor([0, 3, -1], dtype=np.int64))
    assert compiled._latest.plan is not None, compiled.plan_report()
    with pytest.raises(IndexError, match="outside"):
        compiled(keydnn.tensor([0, 4, 1], dtype=np.int64))
    np.testing.assert_array_equal(compiled(keydnn.tensor([0, 3, -1], dtype=np.int64)).numpy(), table.numpy()[[0, 3, 3]])


def test_writes_at_an_index():
    def function(x):
        y = x * 2.0
        y[1:3] = 7.0
        y[0] = x[3]
        y[:, 1] = y[:, 0]
        return y

    compiled = keydnn.compile(function)
    x = keydnn.Tensor.rand((5, 4))
    for _ in range(3):
        with keydnn.no_grad():
            np.testing.assert_array_equal(function(x).numpy(), compiled(x).numpy())
    assert compiled._latest.plan is not None, compiled.plan_report()


@pytest.mark.parametrize("m", [1, 2, 3, 8, 64, 500, 512, 513, 1500])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_any_length_are_spread_over_blocks_and_chunks(m, dtype):
    rng = np.random.default_rng(m)
    shapes = ((40000 // m + 1, m), (m,), (40000 // m + 1, 1))
    x, b, c = (keydnn.Tensor(data=rng.standard_normal(shape).astype(dtype), dtype=dtype) for shape in shapes)
    step = compile(lambda x, b, c: (x + b) * c - b)
    expected = (x.numpy() + b.numpy()) * c.numpy() - b.numpy()
    for _ in range(4):
        np.testing.assert_array_equal(step(x, b, c).numpy(), expected)
