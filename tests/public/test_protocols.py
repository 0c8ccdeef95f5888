"""Classes satisfy their protocols, and the protocols stay in step with the classes."""

import pytest

import keydnn
from keydnn.domain import protocols
from keydnn.domain.protocols import DeviceLike, IParameter, ITensor, NDArrayLike

NOT_EVERY_TENSOR = {"T"}  # 2-D only
NAMED_HOOKS = {"_set_ctx", "_get_ctx", "_accumulate_grad_"}


def members(cls):
    """Public names and operators of a class, those that every object has excepted."""
    names = {name for base in cls.__mro__ for name in [*vars(base), *getattr(base, "__annotations__", {})]}
    return {name for name in names if not hasattr(object, name) and (not name.startswith("_") or name.endswith("__"))}


BOOKKEEPING = members(type("Empty", (protocols.Protocol,), {})) | {
    "__annotations__", "__dict__", "__weakref__", "__slots__", "__deepcopy__", "__array_ufunc__", "__protocol_attrs__",
    "__non_callable_proto_members__", "__static_attributes__", "__firstlineno__", "__annotate_func__", "__annotations_cache__",
}  # fmt: skip


def test_itensor_is_the_public_surface_of_tensor():
    assert members(keydnn.Tensor) - BOOKKEEPING - NOT_EVERY_TENSOR == members(ITensor) - BOOKKEEPING
    assert all(name in vars(protocols._Graph) for name in NAMED_HOOKS)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0, 2), (1, 2, 3, 4)])
def test_every_tensor_is_an_itensor(shape):
    t = keydnn.ones(shape)
    assert isinstance(t, ITensor)
    assert isinstance(t, NDArrayLike)
    assert isinstance(t.to_numpy(), NDArrayLike)
    assert isinstance(t.device, DeviceLike)


def test_other_things_are_not():
    for thing in (3.0, "x", [1.0], keydnn.ones((2,)).to_numpy(), object()):
        assert not isinstance(thing, ITensor)
        assert not isinstance(thing, IParameter)
    assert not isinstance([1.0], NDArrayLike)
    assert not isinstance("cpu", DeviceLike)


def test_a_tensor_that_misses_one_name_is_no_itensor():
    names = sorted(members(ITensor) - BOOKKEEPING)
    assert len(names) > 120
    for missing in ("backward", "conj_that_nobody_has"):
        stub = type("Stub", (), {name: 1 for name in names if name != missing} | dict.fromkeys(NAMED_HOOKS, 1))()
        assert isinstance(stub, ITensor) == (missing not in names)


def test_parameters():
    assert isinstance(keydnn.Parameter((2,)), IParameter)
    assert isinstance(keydnn.Parameter((2,)), ITensor)


def test_modules():
    for module in (keydnn.Module(), keydnn.Linear(1, 1), keydnn.Sequential(), keydnn.losses.MSE()):
        assert isinstance(module, protocols.IModule)
    assert isinstance(keydnn.Flatten(), protocols.IFlatten)
    assert isinstance(keydnn.GlobalAvgPool2d(), protocols.IGlobalPooling2D)
    for pool in (keydnn.MaxPool2d(2), keydnn.AvgPool2d((2, 3), stride=1)):
        assert isinstance(pool, protocols.IPooling2D)
        with pytest.raises(AttributeError):
            pool.kernel_size = (5, 5)
    assert not isinstance(keydnn.Flatten(), protocols.IPooling2D)
    assert isinstance(keydnn.Sequential(), protocols.IContainer)
    assert not isinstance(keydnn.Linear(1, 1), protocols.IContainer)


@pytest.mark.parametrize("kind", [keydnn.SGD, keydnn.Adam, keydnn.AdamW])
def test_optimizers(kind):
    assert isinstance(kind([keydnn.Parameter((2,))]), protocols.IOptimizer)
    assert not isinstance(keydnn.Linear(1, 1), protocols.IOptimizer)
