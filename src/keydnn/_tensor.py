"""The one Tensor: an array on a device, and its place in the graph.

A Tensor holds its array (``_data``), the node that produced it (``_node``, None for leaves) and, once it was written in
place or shares memory with another, a version cell (``_cell``): writes raise the version, so that a backward pass which
needs the old values can refuse (see ``keydnn.autograd.primitive``).  What it can do is mostly defined in ``keydnn.ops``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keydnn import ops
from keydnn.autograd.backward import backward
from keydnn.autograd.context import Context, Differentiable
from keydnn.autograd.modes import RECORDINGS, state
from keydnn.autograd.primitive import Node, Output, bind
from keydnn.domain.device import CPU, Device, as_device
from keydnn.domain.errors import DeviceNotSupportedError, ShapeError
from keydnn.domain.memory import copied, zeroed
from keydnn.ops import elementwise, inplace, random
from keydnn.ops import shape as shaping
from keydnn.ops._primitive import number_of

_new = object.__new__
_NOT_COPIED = {"_node", "_cell", "_is_alias", "_past", "_cleared"}  # a copy is a leaf of its own
FLOAT32 = np.dtype(np.float32)


class _Unallocated:
    """Stands for the storage of a tensor on a device that has none yet."""

    base = None

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self.size = int(np.prod(shape, dtype=np.int64))
        self.nbytes = self.size * dtype.itemsize


def checked_shape(shape: Iterable[int]) -> tuple[int, ...]:
    """``shape`` as a tuple of non-negative ints.

    Raises:
        TypeError: Not an iterable of ints.
        ValueError: A negative size.
    """
    try:
        sizes = tuple(int(n.__index__()) for n in shape)
    except (TypeError, AttributeError):
        raise TypeError(
            f"shape must be an iterable of non-negative ints, got {_short(shape)}; for a tensor of data: keydnn.tensor(data)"
        ) from None
    if any(n < 0 for n in sizes):
        raise ShapeError(f"shape must be an iterable of non-negative ints, got {sizes}")
    return sizes


def _short(value: Any) -> str:
    """``value`` in a few words, however large it is."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value) if not isinstance(value, list | tuple) or len(value) < 9 else f"a {type(value).__name__} of {len(value)} entries"
    return text if len(text) <= 60 else f"{text[:57]}..."


def checked_dtype(dtype: Any) -> np.dtype:
    """``dtype`` as a NumPy dtype of real numbers, integers or booleans."""
    found = np.dtype(dtype)
    if found.kind not in "fiub":
        raise TypeError(f"dtype {found} is not supported; use float32, float64, an integer type or bool")
    return found


def floating(dtype: Any) -> np.dtype:
    """``dtype`` as a floating NumPy dtype."""
    found = np.dtype(dtype)
    if found.kind != "f":
        raise TypeError(f"expected a floating dtype, got {found}")
    return found


def _binary(primitive: Any, with_number: Any) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if type(other) is Tensor or isinstance(other, Tensor):
            return bind(primitive, (self, other))
        c = number_of(other)
        return _unknown(primitive, other) if c is None else bind(with_number, (self,), {"c": c})

    return method


def _reflected(with_number: Any, **options: Any) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        c = number_of(other)
        return _unknown(with_number, other) if c is None else bind(with_number, (self,), {"c": c, **options})

    return method


def _unknown(primitive: Any, other: Any) -> Any:
    """What an operator answers to an operand it does not know: Python then asks that one, but a sequence would try to repeat itself."""
    if isinstance(other, str | bytes | list | tuple | np.ndarray):
        mend = "" if isinstance(other, str | bytes) else "; make a Tensor of it with keydnn.tensor(...)"
        raise TypeError(f"{primitive.label}: expected a Tensor or a number, got {type(other).__name__}{mend}")
    return NotImplemented


def _comparison(primitive: Any) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, Tensor):
            if other.shape != self.shape:
                raise ShapeError(f"{primitive.label}: Shape mismatch: {self.shape} vs {other.shape}")
            return bind(primitive, (self, other))
        c = number_of(other)
        return NotImplemented if c is None else bind(primitive, (self,), {"c": c})

    return method


def _in_place(operator: str, primitive: Any) -> Any:
    def method(self: Tensor, other: Any) -> Any:
        c = None if isinstance(other, Tensor) else number_of(other)
        if c is None and not isinstance(other, Tensor):
            return _unknown(primitive, other)
        if c is None and self.shape != other.shape and not shaping.broadcasts_to(other.shape, self.shape):
            raise ShapeError(f"{primitive.label}: Shape mismatch: {self.shape} vs {other.shape}")
        if self._wants_graph(other):
            alias = self._alias()
            self._take_over(getattr(alias, operator)(other), alias)
        elif c is None:
            bind(primitive, (self, other))
        else:
            bind(primitive, (self,), {"c": c})
        return self

    return method


class Tensor(Differentiable):
    """An n-dimensional array of numbers on a device that can record how it was computed.

    Args:
        shape: Sizes of the axes; ``()`` is a scalar.  May be omitted with ``data``.
        device: Device, device string or None (cpu).
        requires_grad: Whether gradients shall flow to this tensor.
        dtype: float32 (default) or float64; integers and booleans for labels, indices and masks.
        init_zeros: Kept for compatibility; cpu storage is always zero filled.
        ctx: Context to attach, see :class:`Context`.
        data: Initial contents, array-like; floating arrays keep their dtype, others become float32 unless ``dtype`` is given.

    Raises:
        TypeError: The shape is no iterable of ints, the dtype is not supported, or holds no floats and a gradient is wanted.
        ValueError: A negative size, a bad device, or ``data`` of another shape.

    Example:
        >>> x = keydnn.Tensor((2,), requires_grad=True)
        >>> x.fill(3.0)
        >>> (x * x).sum().backward()
        >>> x.grad.tolist()
        [6.0, 6.0]
    """

    requires_grad: bool = False
    grad: Tensor | None = None
    _device: Device = CPU
    _node: Any = None
    _cell: list[int] | None = None
    _is_alias: bool = False
    _past: Tensor | None = None  # what it was before the last in-place operation that the graph describes
    _cleared: set[Any] | None = None  # nodes known not to lead to this tensor, see ``_take_over``
    __array_ufunc__ = None  # so that ndarray * Tensor asks the Tensor

    def __init__(
        self,
        shape: Iterable[int] | None = None,
        device: Device | str | None = None,
        *,
        requires_grad: bool = False,
        dtype: Any = None,
        init_zeros: bool = True,
        ctx: Any = None,
        data: Any = None,
    ) -> None:
        self._device = as_device(device, error=ValueError, owner="Tensor")
        array = None if data is None else _contents(data, dtype)
        if shape is None and array is None:
            raise TypeError("Tensor: give a shape, or the contents as data=")
        sizes = array.shape if shape is None else checked_shape(shape)  # type: ignore[union-attr]
        kind = array.dtype if array is not None else FLOAT32 if dtype is None else checked_dtype(dtype)
        if array is not None and array.shape != sizes:
            raise ShapeError(f"Tensor: data of shape {array.shape} does not fit shape {sizes}")
        if self._device.is_cpu():
            self._data: Any = zeroed(sizes, kind) if array is None else array
            if RECORDINGS and state.recorder is not None:
                if array is None:
                    state.recorder.zeros(self._data)
                else:
                    state.recorder.host_access(self, "Tensor(data=...)")
        elif array is None:
            self._data = _Unallocated(sizes, kind)
        else:
            raise DeviceNotSupportedError("Tensor(data=...)", self._device)
        self._want(requires_grad)
        if ctx is not None:
            self._set_ctx(ctx)

    def _want(self, requires_grad: bool) -> Tensor:
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"a tensor of dtype {self.dtype} cannot require a gradient; use float32 or float64")
        self.requires_grad = bool(requires_grad)
        return self

    # -- how operations make results, and how versions are kept

    def _from_op(self, array: Any, node: Any) -> Tensor:
        """A plain Tensor on this device with ``array`` as storage, produced by ``node``."""
        t = _new(Tensor)
        t._data = array
        if node is not None:
            t._node = node
            t.requires_grad = True
        if self._device is not CPU:
            t._device = self._device
        return t

    def _like_full(self, value: float, shape: tuple[int, ...] | None = None) -> Tensor:
        return random.full(self, self.shape if shape is None else shape, value, self.dtype)

    def _touch(self) -> None:
        """Note a write to the storage."""
        self._version_cell()[0] += 1

    def _version_cell(self) -> list[int]:
        if self._cell is None:
            node = self._node
            self._cell = node.cell(0) if type(node) is Node else node.node.cell(node.index) if type(node) is Output else [0]
        return self._cell

    def _share(self, other: Tensor) -> None:
        """Note that this tensor and ``other`` use the same memory."""
        self._cell = other._version_cell()

    def _alias(self) -> Tensor:
        """Another object for the present value, at the same place in the graph."""
        alias = self._from_op(self._data, self._node)
        alias.requires_grad = self.requires_grad
        alias._is_alias, alias._cell, alias._past = True, self._cell, self._past
        return alias

    def _disown(self) -> None:
        """Note that the value was replaced outside the graph: gradients must not flow to what had computed the old one."""
        node = self._node if state.grad else None
        while node is not None:
            node = node.node if type(node) is Output else node
            if type(node) is Node or (isinstance(node, Context) and node.function is not None):
                node.lose("its result was overwritten in place; work on a clone() or a detach(), or overwrite under keydnn.no_grad()")
            node = node.producers[0] if type(node) is Node and node.primitive.aliases else None

    def _wants_graph(self, other: Any) -> bool:
        """Whether an in-place change by ``other`` has to be noted on the graph."""
        if not state.grad:
            return False
        if self.requires_grad and self._node is None:
            raise RuntimeError(
                "a leaf tensor that requires a gradient cannot be changed in place while gradients are recorded;"
                " wrap the change in keydnn.no_grad()"
            )
        return self.requires_grad or (isinstance(other, Tensor) and other.requires_grad)

    def _take_over(self, result: Tensor, alias: Tensor) -> None:
        """Become ``result``, which was computed from ``alias`` in place of this tensor: its value, its place in the graph.

        Earlier uses keep the old value.  Those that ``result`` stands on get the alias for their input, because a graph
        that leads to a tensor which holds the graph would be a cycle.
        """
        if result.dtype != self.dtype:
            if not np.can_cast(result.dtype, self.dtype, "same_kind"):
                raise TypeError(f"in-place operation: a result of dtype {result.dtype} does not fit a tensor of dtype {self.dtype}")
            result = result.astype(self.dtype)
        if result.shape != self.shape:
            raise ShapeError(f"in-place operation: Shape mismatch: {self.shape} vs {result.shape}")
        if self._cleared is None:
            self._cleared = {None, alias._node}
        stack = [result._node]
        while stack:
            node = stack.pop()
            node = node.node if type(node) is Output else node
            if node in self._cleared:
                continue
            self._cleared.add(node)
            stack.extend(node.producers)
            if any(parent is self for parent in node.parents):
                node.parents = tuple([alias if parent is self else parent for parent in node.parents])
        self._data, self._node, self.requires_grad, self._cell = result._data, result._node, result.requires_grad, result._cell
        self._past = alias

    def _set_ctx(self, ctx: Any) -> None:
        """Attach the Context that produced this tensor, or None."""
        self._node, self._past, self._cleared = ctx, None, None
        if ctx is not None and not isinstance(ctx, Node | Output) and isinstance(ctx, Context):
            ctx.attach(self)

    def _get_ctx(self) -> Any:
        """The Context that produced this tensor, or None."""
        return self._node

    @staticmethod
    def _from_numpy(arr: Any, *, device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
        return Tensor(data=np.array(arr, dtype=np.float32), device=device, requires_grad=requires_grad)

    @staticmethod
    def _result_requires_grad(*tensors: Tensor) -> bool:
        return any(t.requires_grad for t in tensors)

    # -- properties

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the elements."""
        return self._data.dtype

    @property
    def device(self) -> Device:
        """Where the elements live."""
        return self._device

    @property
    def device_type(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._device.type.value

    @property
    def data(self) -> Any:
        """cpu: the live ndarray; cuda: the device pointer as an int (0 when nothing is allocated)."""
        return self._host("data") if self._device is CPU else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._data.nbytes

    @property
    def T(self) -> Tensor:  # noqa: N802 - the field's name
        """Transpose of a 2-D tensor."""
        return ops.transpose(self)

    def numel(self) -> int:
        """Number of elements; 1 for a scalar."""
        return self._data.size

    def zero_grad(self) -> None:
        """Set ``grad`` to None."""
        self.grad = None

    # -- reading

    def _host(self, what: str) -> np.ndarray:
        if type(self._data) is _Unallocated:
            raise DeviceNotSupportedError(what, self._device)
        if RECORDINGS and state.recorder is not None:
            state.recorder.host_access(self, what)
        return self._data

    def to_numpy(self) -> np.ndarray:
        """cpu: the live array, not a copy (writing to it writes the tensor, unseen by autograd)."""
        return self._host("to_numpy")

    def numpy(self) -> np.ndarray:
        """A copy of the elements as an ndarray."""
        return self._host("numpy").copy()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self._host("tolist").tolist()

    def item(self) -> float:
        """The element of a one-element tensor as a float.

        Raises:
            ValueError: Not exactly one element.
        """
        array = self._host("item")
        if array.size != 1:
            raise ValueError(f"item() needs a tensor with one element, this one has shape {array.shape}")
        return float(array.reshape(()))

    def __float__(self) -> float:
        return self.item()

    def __int__(self) -> int:
        self.item()
        return int(self._data.reshape(()))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"the truth of a tensor with {self.size} elements is ambiguous; use .any() or .all()")
        return bool(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise ValueError("len() of a scalar tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._host("__array__")
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"a view as {np.dtype(dtype)} of a {array.dtype} tensor is not possible")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **options: Any) -> Any:
        return self._host("__dlpack__").__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._host("__dlpack_device__").__dlpack_device__()

    def __repr__(self) -> str:
        data = "" if self._device.is_cpu() else f", data=DevPtr({self.data})"
        return f"Tensor(shape={self.shape}, device={self._device}, dtype={self.dtype}{data})"

    def debug_storage_repr(self) -> str:
        """One line about the storage."""
        if self._device.is_cuda():
            return f"CUDA Tensor on device {self._device.index} with shape {self.shape} and dtype {self.dtype}"
        return f"CPU ndarray with dtype {self.dtype} and shape {self.shape}"

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        twin = memo[id(self)] = _new(type(self))
        twin.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _NOT_COPIED}

    # -- factories

    @staticmethod
    def full(
        shape: Iterable[int], fill_value: float, *, device: Device | str | None = None, requires_grad: bool = False, dtype: Any = np.float32
    ) -> Tensor:
        """A tensor of one value."""
        return random.full(_prototype(device), checked_shape(shape), fill_value, checked_dtype(dtype))._want(requires_grad)

    @staticmethod
    def zeros(shape: Iterable[int], *, device: Device | str | None = None, requires_grad: bool = False, dtype: Any = np.float32) -> Tensor:
        """A tensor of zeros."""
        return Tensor.full(shape, 0.0, device=device, requires_grad=requires_grad, dtype=dtype)

    @staticmethod
    def ones(shape: Iterable[int], *, device: Device | str | None = None, requires_grad: bool = False, dtype: Any = np.float32) -> Tensor:
        """A tensor of ones."""
        return Tensor.full(shape, 1.0, device=device, requires_grad=requires_grad, dtype=dtype)

    empty = zeros

    @staticmethod
    def rand(shape: Iterable[int], *, device: Device | str | None = None, requires_grad: bool = False, dtype: Any = np.float32) -> Tensor:
        """Uniform numbers on [0, 1); the key comes from NumPy's global generator."""
        return random.uniform(_prototype(device), checked_shape(shape), floating(dtype))._want(requires_grad)

    @staticmethod
    def randn(shape: Iterable[int], *, device: Device | str | None = None, requires_grad: bool = False, dtype: Any = np.float32) -> Tensor:
        """Standard normal numbers; the key comes from NumPy's global generator."""
        return random.normal(_prototype(device), checked_shape(shape), floating(dtype))._want(requires_grad)

    @staticmethod
    def arange(start: float, stop: float | None = None, step: float = 1, *, device: Any = None, dtype: Any = np.float32) -> Tensor:
        """``start, start + step, ...`` below ``stop``; one argument counts from 0."""
        return Tensor(data=np.arange(start) if stop is None else np.arange(start, stop, step), device=device, dtype=dtype)

    @staticmethod
    def linspace(start: float, stop: float, num: int = 50, *, device: Any = None, dtype: Any = np.float32) -> Tensor:
        """``num`` evenly spaced numbers from ``start`` to ``stop``, both included."""
        return Tensor(data=np.linspace(start, stop, num, dtype=checked_dtype(dtype)), device=device, dtype=dtype)

    @staticmethod
    def eye(n: int, m: int | None = None, *, device: Any = None, dtype: Any = np.float32) -> Tensor:
        """Ones on the diagonal of an (n, m) tensor of zeros."""
        return Tensor(data=np.eye(n, m, dtype=checked_dtype(dtype)), device=device, dtype=dtype)

    @staticmethod
    def zeros_like(x: Tensor, *, requires_grad: bool = False, dtype: Any = None) -> Tensor:
        """Zeros of x's shape and device, and its dtype unless another is given."""
        return Tensor.full_like(x, 0.0, requires_grad=requires_grad, dtype=dtype)

    @staticmethod
    def ones_like(x: Tensor, *, requires_grad: bool = False, dtype: Any = None) -> Tensor:
        """Ones of x's shape and device, and its dtype unless another is given."""
        return Tensor.full_like(x, 1.0, requires_grad=requires_grad, dtype=dtype)

    @staticmethod
    def full_like(x: Tensor, fill_value: float, *, requires_grad: bool = False, dtype: Any = None) -> Tensor:
        """One value in x's shape and device, and its dtype unless another is given."""
        return random.full(x, x.shape, fill_value, x.dtype if dtype is None else checked_dtype(dtype))._want(requires_grad)

    @staticmethod
    def rand_like(x: Tensor, *, requires_grad: bool = False, dtype: Any = None) -> Tensor:
        """Uniform numbers in x's shape and device, and its dtype unless another is given."""
        return random.uniform(x, x.shape, floating(x.dtype if dtype is None else dtype))._want(requires_grad)

    @staticmethod
    def randn_like(x: Tensor, *, requires_grad: bool = False, dtype: Any = None) -> Tensor:
        """Standard normal numbers in x's shape and device, and its dtype unless another is given."""
        return random.normal(x, x.shape, floating(x.dtype if dtype is None else dtype))._want(requires_grad)

    stack = staticmethod(ops.stack)
    concat = staticmethod(ops.concat)

    # -- movement

    def fill(self, value: float) -> None:
        """Set all elements, in place."""
        bind(inplace.fill_, (self,), {"value": value})
        self._disown()

    def copy_from_numpy(self, arr: Any) -> None:
        """Set all elements from an array of equal shape, cast to this dtype, in place.

        Raises:
            ValueError: The shapes differ.
        """
        array = np.asarray(arr)
        if array.shape != self.shape:
            raise ShapeError(f"copy_from_numpy: Shape mismatch: {self.shape} vs {array.shape}")
        np.copyto(self._host("copy_from_numpy"), array, casting="unsafe")
        self._touch()
        self._disown()

    def copy_from(self, other: Tensor, *, allow_cross_device: bool = False) -> None:
        """Set all elements from a tensor of equal shape and dtype, in place.

        Raises:
            TypeError: ``other`` is no Tensor, or its dtype differs.
            ValueError: The shapes differ.
            RuntimeError: The devices differ and ``allow_cross_device`` is false.
        """
        if not isinstance(other, Tensor):
            raise TypeError(f"copy_from: expected a Tensor, got {type(other).__name__}")
        if other.shape != self.shape:
            raise ShapeError(f"copy_from: Shape mismatch: {self.shape} vs {other.shape}")
        if other.dtype != self.dtype:
            raise TypeError(f"copy_from: dtype {other.dtype} differs from {self.dtype}; cast with astype first")
        if other._device is not self._device and (not allow_cross_device or (self._device.is_cuda() and other._device.is_cuda())):
            raise RuntimeError(
                f"copy_from: tensors live on '{other._device}' and '{self._device}'; pass allow_cross_device=True (host and device only)"
            )
        if other._device is not self._device:
            return self.copy_from_numpy(other._host("copy_from"))
        bind(inplace.assign_, (self, other))
        self._disown()

    def clone(self) -> Tensor:
        """A copy with its own storage, outside the graph."""
        if RECORDINGS or self._device is not CPU:
            return bind(shaping.clone_p, (self,))
        return self._from_op(self._data.copy(), None)  # the same, shorter: a backward pass copies many small gradients

    def detach(self) -> Tensor:
        """The same storage outside the graph; a write to one is seen through the other."""
        t = self._from_op(self._data, None)
        t._share(self)
        return t

    def astype(self, dtype: Any) -> Tensor:
        """The values in another dtype; gradients flow between floating dtypes."""
        want = checked_dtype(dtype)
        if want == self.dtype:
            return self
        return bind(shaping.cast_p, (self if want.kind == "f" else self.detach(),), {"dtype": want})

    def contiguous(self) -> Tensor:
        """This tensor if its memory is C-contiguous, else a copy."""
        return self if self._host("contiguous").flags.c_contiguous else bind(shaping.copy_p, (self,))

    def to(self, device: Device | str, *, copy: bool = False) -> Tensor:
        """The tensor on ``device``: itself if it is there already (a clone if ``copy``), else a copy outside the graph."""
        target = as_device(device, error=ValueError, owner="Tensor.to")
        if target is self._device:
            return self.clone() if copy else self
        raise DeviceNotSupportedError("to", target if target.is_cuda() else self._device)

    def to_(self, device: Device | str, *, copy: bool = False) -> Tensor:
        """Move this object, keeping its identity; the graph link is dropped, ``grad`` moves along."""
        target = as_device(device, error=ValueError, owner="Tensor.to_")
        if target is not self._device:
            raise DeviceNotSupportedError("to_", target if target.is_cuda() else self._device)
        if copy:
            self._data, self._node, self._cell = self._host("to_").copy(), None, [self._version_cell()[0] + 1]
        return self

    def _astype_(self, dtype: np.dtype) -> None:
        """Change the dtype of this object, keeping its identity; its graph link and its gradient are dropped."""
        self._data, self._cell = self._host("astype").astype(dtype), [self._version_cell()[0] + 1]
        self._node = self.grad = None

    def free_(self) -> None:
        """Release device storage; nothing to do on the cpu."""

    # -- graph

    def backward(self, grad_out: Tensor | None = None, *, profile: bool = False, profile_topk: int = 20, retain_graph: bool = True) -> None:
        """Add this tensor's gradient to ``.grad`` of every tensor of its graph that requires one.

        Args:
            grad_out: Upstream gradient of this shape; may be omitted for shape ().
            profile: Print time per section and per operation.
            profile_topk: How many operations the profile lists.
            retain_graph: False frees what the graph saved; backward then works once.

        Raises:
            ValueError: Not a scalar and no ``grad_out``; ``grad_out`` of another shape or device.
            TypeError: ``grad_out`` is no Tensor.
            RuntimeError: A value that a gradient needs was changed in place, or the graph was freed.
        """
        backward(self, grad_out, retain_graph=retain_graph, profile=profile, profile_topk=profile_topk)

    def _accumulate_grad_(self, g: Tensor) -> None:
        """Add ``g`` to ``grad``."""
        if self.grad is None:
            self.grad = g.clone()
        else:
            bind(inplace.add_, (self.grad, g))

    # -- operators

    __add__ = _binary(elementwise.add, elementwise.add_scalar)
    __radd__ = _reflected(elementwise.add_scalar)
    __sub__ = _binary(elementwise.sub, elementwise.sub_scalar)
    __rsub__ = _reflected(elementwise.rsub_scalar)
    __mul__ = _binary(elementwise.mul, elementwise.mul_scalar)
    __rmul__ = _reflected(elementwise.mul_scalar)
    __truediv__ = __div__ = _binary(elementwise.div, elementwise.div_scalar)
    __rtruediv__ = __rdiv__ = _reflected(elementwise.rdiv_scalar)
    __pow__ = pow = _binary(elementwise.pow, elementwise.pow_scalar)
    __rpow__ = _reflected(elementwise.rpow_scalar)
    __floordiv__ = _binary(elementwise.floordiv, elementwise.floordiv_scalar)
    __rfloordiv__ = _reflected(elementwise.floordiv_scalar, swap=True)
    __mod__ = _binary(elementwise.mod, elementwise.mod_scalar)
    __rmod__ = _reflected(elementwise.mod_scalar, swap=True)
    __iadd__ = _in_place("__add__", inplace.add_)
    __isub__ = _in_place("__sub__", inplace.sub_)
    __imul__ = _in_place("__mul__", inplace.mul_)
    __itruediv__ = __idiv__ = _in_place("__truediv__", inplace.div_)
    __neg__ = neg = elementwise.neg
    __abs__ = abs = elementwise.abs
    __matmul__ = matmul = ops.matmul
    __gt__ = _comparison(elementwise.gt)
    __ge__ = _comparison(elementwise.ge)
    __lt__ = _comparison(elementwise.lt)
    __le__ = _comparison(elementwise.le)
    __eq__ = _comparison(elementwise.eq)
    __ne__ = _comparison(elementwise.ne)
    __getitem__ = shaping.getitem

    def __setitem__(self, key: Any, value: Any) -> None:
        key = shaping.key_of(key)
        number = None if isinstance(value, Tensor) else number_of(value)
        if number is None and not isinstance(value, Tensor):
            raise TypeError(f"a tensor element can be set to a Tensor or a number, got {type(value).__name__}")
        if number is None and value.ndim and value.size == 1:
            value = value.reshape(())  # fits everywhere, also a single element, where NumPy takes no axes
        if self._wants_graph(value):
            alias = self._alias()
            filled = value if number is None else self._like_full(float(number), ())
            self._take_over(bind(inplace.put_p, (alias, filled), {"key": key}), alias)
        elif number is None:
            bind(inplace.put_, (self, value), {"key": key})
        else:
            bind(inplace.put_, (self,), {"key": key, "c": number})

    def clamp(self, *, min: float | None = None, max: float | None = None) -> Tensor:
        """Values limited to [min, max]; with neither bound the tensor itself."""
        if min is None and max is None:
            return self
        low, high = number_of(min), number_of(max)
        if (low is None) != (min is None) or (high is None) != (max is None):
            raise TypeError(f"clamp: bounds must be numbers or None, got {type(min).__name__} and {type(max).__name__}")
        return elementwise.limit(self, low=low, high=high)

    def where(self, mask: Tensor, other: Tensor | float) -> Tensor:
        """This tensor where ``mask`` is not 0, else ``other``."""
        return ops.where(mask, self, other)

    def split(self, sizes: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
        """Parts along ``axis``, see :func:`keydnn.ops.split`."""
        return ops.split(self, sizes, axis)

    exp, expm1, log, log1p, sqrt, rsqrt = ops.exp, ops.expm1, ops.log, ops.log1p, ops.sqrt, ops.rsqrt
    reciprocal, square, sin, cos, erf, sign = ops.reciprocal, ops.square, ops.sin, ops.cos, ops.erf, ops.sign
    floor, ceil, round, maximum, minimum = ops.floor, ops.ceil, ops.round, ops.maximum, ops.minimum
    tanh, sigmoid, relu, leaky_relu, softplus = ops.tanh, ops.sigmoid, ops.relu, ops.leaky_relu, ops.softplus
    gelu, silu, elu, softmax, log_softmax = ops.gelu, ops.silu, ops.elu, ops.softmax, ops.log_softmax
    sum, mean, max, min, prod, var, std = ops.sum, ops.mean, ops.max, ops.min, ops.prod, ops.var, ops.std
    argmax, argmin, any, all, norm = ops.argmax, ops.argmin, ops.any, ops.all, ops.norm
    logsumexp, cumsum, sum_to_shape = ops.logsumexp, ops.cumsum, ops.sum_to_shape
    broadcast_to, expand, reshape, flatten = ops.broadcast_to, ops.expand, ops.reshape, ops.flatten
    squeeze, unsqueeze, transpose, permute, swapaxes = ops.squeeze, ops.unsqueeze, ops.transpose, ops.permute, ops.swapaxes
    chunk, pad, flip, roll, tril, triu = ops.chunk, ops.pad, ops.flip, ops.roll, ops.tril, ops.triu
    repeat, tile, take, gather, scatter_add = ops.repeat, ops.tile, ops.take, ops.gather, ops.scatter_add
    dot, outer = ops.dot, ops.outer


def _contents(data: Any, dtype: Any) -> np.ndarray:
    array = data.numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"Tensor: cannot hold data of dtype {array.dtype}")
    if dtype is None:
        dtype = (
            array.dtype if array.dtype in (np.float32, np.float64) and isinstance(data, np.ndarray | Tensor | np.generic) else np.float32
        )
    return copied(array, checked_dtype(dtype))


def _prototype(device: Device | str | None) -> Tensor:
    found = as_device(device, error=ValueError, owner="Tensor")
    return _CPU_PROTOTYPE if found is CPU else Tensor((), found)


_CPU_PROTOTYPE = Tensor(())


def tensor(data: Any, *, device: Device | str | None = None, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """A Tensor with the contents of ``data`` (copied).

    Args:
        data: Number, nested lists, ndarray or Tensor.
        device: Device, device string or None (cpu).
        requires_grad: Whether gradients shall flow to it.
        dtype: None keeps float32 and float64 arrays, everything else becomes float32.

    Example:
        >>> keydnn.tensor([[1.0, 2.0], [3.0, 4.0]]).sum().item()
        10.0
    """
    return Tensor(data=data, device=device, requires_grad=requires_grad, dtype=dtype)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor over the memory of any DLPack exporter (such as a torch tensor) on the cpu; copied only if read-only."""
    if isinstance(source, Tensor):
        return source.detach()
    array = np.from_dlpack(source)
    checked_dtype(array.dtype)
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    t = Tensor(())
    t._data = array
    return t
