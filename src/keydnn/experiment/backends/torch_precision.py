"""Lower precision of torch: what is recorded for gradients runs under ``torch.autocast``, and comes out in single precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from keydnn.experiment.optional import need

PRECISION = ("fp32", "bf16")
_LOWER: ContextVar[Any] = ContextVar("keydnn_experiment_torch_lower", default=None)  # dtype of recorded forward passes
_NOTHING = contextlib.nullcontext()


def computing_in(precision: str) -> contextlib.AbstractContextManager[None]:
    """A block in which recorded forward passes have a precision of :data:`PRECISION`."""
    return _NOTHING if precision == PRECISION[0] else _lower()


@contextlib.contextmanager
def _lower() -> Iterator[None]:
    token = _LOWER.set(need("torch", "bfloat16").bfloat16)
    try:
        yield
    finally:
        _LOWER.reset(token)


def casting() -> contextlib.ExitStack | None:
    """Entered, ``torch.autocast`` on every kind of device in use; None for single precision."""
    dtype = _LOWER.get()
    if dtype is None:
        return None
    torch = need("torch", "bfloat16")
    devices = ["cpu", *["cuda"] * torch.cuda.is_initialized(), *["mps"] * torch.backends.mps.is_available()]
    stack = contextlib.ExitStack()
    for device in devices:
        stack.enter_context(torch.autocast(device, dtype=dtype))
    return stack


def single(tensor: Any) -> Any:
    """What a model made, in single precision if lower precision made it."""
    dtype = _LOWER.get()
    return tensor if dtype is None or tensor.dtype is not dtype else tensor.float()
