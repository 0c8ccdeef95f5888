"""Constructors and factories of Tensor."""

import numpy as np
import pytest

import keydnn
from keydnn import Context, Device, Tensor


def test_zeros_whatever_init_zeros_says():
    for init in (True, False):
        t = Tensor((2, 3), init_zeros=init)
        assert t.shape == (2, 3) and t.dtype == np.float32 and t.device == Device("cpu")
        assert t.to_numpy().flags.c_contiguous and not t.to_numpy().any()
        assert not t.requires_grad and t.grad is None and t._get_ctx() is None


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), [2, 3], (n for n in (2, 1)), np.array([2, 2]), (np.int64(3),)])
def test_shape_is_any_iterable_of_ints(shape):
    t = Tensor(shape)
    assert all(type(n) is int for n in t.shape) and t.size == int(np.prod(t.shape))


def test_shape_of_a_range_and_one_given_by_name():
    assert Tensor(range(3)).shape == (0, 1, 2)
    assert Tensor(shape=(2,), device="cpu", dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("shape", [(-1,), (2, -3)])
def test_negative_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="non-negative"):
        Tensor(shape)


@pytest.mark.parametrize("shape", [3, (2.0,), "ab", (None,), ([2],)])
def test_shapes_of_other_types_are_refused(shape):
    with pytest.raises((TypeError, ValueError)):
        Tensor(shape)


def test_neither_shape_nor_data():
    with pytest.raises(TypeError, match="shape"):
        Tensor()


@pytest.mark.parametrize("device", [3, object(), 1.5, ["cpu"]])
def test_what_is_no_device(device):
    with pytest.raises(ValueError, match="expected a Device"):
        Tensor((1,), device)


@pytest.mark.parametrize("text", ["cuda", "CPU", "", "cuda:-1", "cuda:01", "cpu:0", "cuda:x", " cpu"])
def test_bad_device_strings(text):
    with pytest.raises(ValueError, match="Invalid device '.*'. Expected 'cpu' or 'cuda:<index>'"):
        Tensor((1,), text)


def test_devices_are_strings_or_objects():
    assert Tensor((1,), "cpu").device is Tensor((1,), Device("cpu")).device
    assert Tensor((1,), None).device_type == "cpu"


@pytest.mark.parametrize("dtype", [complex, "U3", object, "M8[s]"])
def test_dtypes_that_hold_no_real_numbers(dtype):
    with pytest.raises(TypeError):
        Tensor((1,), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.uint8])
def test_only_floats_can_require_a_gradient(dtype):
    assert not Tensor((2,), dtype=dtype).requires_grad
    for make in (lambda: Tensor((2,), dtype=dtype, requires_grad=True), lambda: Tensor.ones((2,), dtype=dtype, requires_grad=True)):
        with pytest.raises(TypeError, match="cannot require a gradient"):
            make()


def test_any_context_is_stored_as_it_is():
    marker = object()
    assert Tensor((1,), ctx=marker)._get_ctx() is marker
    ctx = Context(parents=(), backward_fn=lambda g: ())
    assert Tensor((1,), ctx=ctx)._get_ctx() is ctx


class TestData:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_floating_arrays_keep_their_dtype(self, dtype):
        a = np.arange(6, dtype=dtype).reshape(2, 3)
        t = Tensor(data=a)
        assert t.dtype == dtype and t.shape == (2, 3)
        a[0, 0] = 9
        assert t.to_numpy()[0, 0] == 0, "the contents are copied"

    @pytest.mark.parametrize("data", [[1, 2], [True, False], [1.5, 2.5], np.arange(2), np.array([True, False]), np.zeros(2, np.float16)])
    def test_everything_else_becomes_float32(self, data):
        assert Tensor(data=data).dtype == np.float32

    def test_dtype_is_obeyed(self):
        assert Tensor(data=[1, 2], dtype=np.int64).dtype == np.int64
        assert Tensor(data=np.zeros(2), dtype="float32").dtype == np.float32

    def test_shape_may_be_given_and_must_fit(self):
        assert Tensor((2,), data=[1, 2]).tolist() == [1.0, 2.0]
        with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
            Tensor((3,), data=[1, 2])

    def test_strided_arrays_become_contiguous(self):
        assert Tensor(data=np.arange(12.0).reshape(3, 4).T).to_numpy().flags.c_contiguous

    def test_a_tensor_is_copied_without_its_graph(self):
        x = Tensor(data=[1.0], requires_grad=True)
        t = Tensor(data=x * 2)
        assert t.tolist() == [2.0] and not t.requires_grad and t._get_ctx() is None

    @pytest.mark.parametrize("data", [["a"], [1j], [None], [[1], [2, 3]]])
    def test_what_holds_no_numbers(self, data):
        with pytest.raises((TypeError, ValueError)):
            Tensor(data=data)


def test_tensor_function():
    t = keydnn.tensor([[1, 2], [3, 4]], requires_grad=True)
    assert t.requires_grad and t.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert keydnn.tensor(2.5).shape == () and keydnn.tensor(np.float64(2.5)).dtype == np.float64


class TestFactories:
    @pytest.mark.parametrize("name, value", [("zeros", 0.0), ("ones", 1.0), ("empty", None)])
    def test_constants(self, name, value):
        f = getattr(Tensor, name)
        for t in (f(shape=(2, 3), device=Device("cpu")), f((2, 3), dtype=np.float64, requires_grad=True), getattr(keydnn, name)((2, 3))):
            assert t.shape == (2, 3) and (value is None or (t.numpy() == value).all())
        assert f((1,), dtype=np.float64, requires_grad=True).requires_grad
        assert f((1,), dtype=np.float64).dtype == np.float64 and f((1,)).dtype == np.float32

    def test_full(self):
        assert Tensor.full((), 2.5, device=Device("cpu")).item() == 2.5
        assert Tensor.full((2,), 3, requires_grad=True).requires_grad
        assert Tensor.full((2,), 7, dtype=np.int64).tolist() == [7, 7]

    @pytest.mark.parametrize("name, low, high", [("rand", 0.0, 1.0), ("randn", -6.0, 6.0)])
    def test_random_numbers_follow_numpys_seed(self, name, low, high):
        f = getattr(Tensor, name)
        np.random.seed(1)
        a, b = f((1000,), device="cpu"), f((1000,), dtype=np.float64)
        np.random.seed(1)
        again = f((1000,))
        assert a.numpy().tobytes() == again.numpy().tobytes()
        assert (a.dtype, b.dtype) == (np.float32, np.float64)
        for t in (a, b):
            assert low <= t.numpy().min() and t.numpy().max() < high and abs(t.numpy().mean() - (low + high) / 2) < 0.1
        assert f((2,), requires_grad=True).requires_grad
        with pytest.raises(TypeError, match="floating"):
            f((2,), dtype=np.int64)

    def test_ranges(self):
        assert keydnn.arange(4).tolist() == [0, 1, 2, 3] and keydnn.arange(4).dtype == np.float32
        assert keydnn.arange(1, 2, 0.25, dtype=np.float64).tolist() == [1, 1.25, 1.5, 1.75]
        assert keydnn.arange(3, dtype=np.int64).dtype == np.int64
        np.testing.assert_array_equal(keydnn.arange(0, 1, 0.001).numpy(), np.arange(0, 1, 0.001).astype(np.float32))
        np.testing.assert_array_equal(keydnn.linspace(0, 1, 7).numpy(), np.linspace(0, 1, 7).astype(np.float32))
        np.testing.assert_array_equal(keydnn.eye(2, 3).numpy(), np.eye(2, 3, dtype=np.float32))

    def test_likes(self):
        x = Tensor((2, 3), dtype=np.float64, requires_grad=True)
        made = [keydnn.zeros_like(x), keydnn.ones_like(x), keydnn.full_like(x, 2.0), keydnn.rand_like(x), keydnn.randn_like(x)]
        for t in made:
            assert (t.shape, t.dtype, t.requires_grad) == (x.shape, x.dtype, False)
        assert [made[i].numpy()[0, 0] for i in range(3)] == [0, 1, 2]
        assert keydnn.ones_like(x, dtype=np.float32, requires_grad=True).requires_grad
        assert keydnn.randn_like(x, dtype=np.float32).dtype == np.float32

    def test_extension_factory(self):
        t = Tensor._from_numpy(np.arange(3.0), device=Device("cpu"), requires_grad=True)
        assert t.dtype == np.float32 and t.requires_grad
        assert Tensor._result_requires_grad(t, Tensor((1,))) and not Tensor._result_requires_grad(Tensor((1,)))


@pytest.mark.parametrize("data", [np.zeros((100, 100)), [[0.5] * 100] * 100, [1.5, 2.5]], ids=["array", "long", "short"])
def test_data_in_place_of_a_shape_gets_a_short_answer_with_the_mend(data):
    with pytest.raises(TypeError, match=r"keydnn\.tensor\(data\)") as caught:
        keydnn.Tensor(data)
    assert len(str(caught.value)) < 200


def test_a_list_of_layers_gets_the_mend():
    with pytest.raises(TypeError, match=r"unpack it: Sequential\(\*layers\)"):
        keydnn.Sequential([keydnn.ReLU()])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_zeros_begin_at_a_cache_line(dtype):
    for _ in range(4):
        array = keydnn.Tensor((33, 65), dtype=dtype)._data
        assert array.__array_interface__["data"][0] % 64 == 0
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
        assert array.shape == (33, 65) and array.dtype == dtype and not array.any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("n", [0, 3, 100, 5000])
def test_contents_are_copied_whatever_their_size_and_layout(n, dtype):
    source = np.arange(6 * n).reshape(3, 2 * n)[:, ::2].T % 251
    t = Tensor(data=source, dtype=dtype)
    assert t.to_numpy().tolist() == source.astype(dtype).tolist()
    assert t.dtype == np.dtype(dtype) and t.numpy().flags.c_contiguous and t.numpy().flags.writeable
    t.fill(1)
    assert source.size == 0 or source.max() > 1
