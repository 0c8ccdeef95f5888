"""What every optimizer promises, checked against its definition in float64.

An optimizer's row is an :class:`OptimizerCase`; :func:`check_optimizer` holds it to the promises::

    check_optimizer(OptimizerCase("sgd", lambda params: SGD(params, lr=0.1), lambda p, g, memory, lr: p - lr * g))
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from keydnn._tensor import Tensor
from keydnn.optim import Optimizer

SHAPES = ((), (1,), (3, 5), (2, 3, 2, 2), (65, 33))
STEPS = 6


@dataclass(frozen=True)
class OptimizerCase:
    """One row: how to make the optimizer, and one step of its definition.

    Attributes:
        name: Shown in test ids.
        make: From a list of parameters to the optimizer.
        step: ``step(p, g, memory, lr)`` gives the next p, all in float64; memory is a dict that starts empty and is kept
            from step to step, one per parameter.
    """

    name: str
    make: Callable[[list[Any]], Optimizer]
    step: Callable[[np.ndarray, np.ndarray, dict[str, Any], float], np.ndarray]

    def __str__(self) -> str:
        return self.name


def check_optimizer(case: OptimizerCase) -> None:
    """Hold an optimizer to its promises.

    The update equals the definition (float32 and float64, a gradient that is sometimes missing, a rate changed on the way);
    it happens in place; a parameter listed twice is stepped once; config and state make a twin whose next steps are
    bit-identical; a gradient of a wrong shape changes nothing; ``zero_grad`` clears.

    Raises:
        AssertionError: A promise is broken.
    """
    for dtype, rtol, atol in ((np.float32, 2e-5, 2e-6), (np.float64, 1e-11, 1e-13)):
        _follows_its_definition(case, dtype, rtol, atol)
    _steps_duplicates_once(case)
    _continues_bit_identically(case)
    _refuses_a_wrong_gradient(case)
    _clears_gradients(case)


def _params(rng: np.random.Generator, dtype: Any = np.float32) -> list[Tensor]:
    return [Tensor(data=rng.normal(size=shape).astype(dtype), requires_grad=True, dtype=dtype) for shape in SHAPES]


def _give_grads(params: list[Tensor], rng: np.random.Generator, skip: int = -1) -> None:
    for i, p in enumerate(params):
        p.grad = None if i == skip else Tensor(data=np.asarray(rng.normal(size=p.shape)).astype(p.dtype), dtype=p.dtype)


def _follows_its_definition(case: OptimizerCase, dtype: Any, rtol: float, atol: float) -> None:
    rng = np.random.default_rng(1)
    params = _params(rng, dtype)
    arrays = [p.to_numpy() for p in params]
    want = [array.astype(np.float64) for array in arrays]
    memories: list[dict[str, Any]] = [{} for _ in params]
    optimizer = case.make(params)
    for step in range(STEPS):
        if step == STEPS // 2:
            optimizer.lr = optimizer.lr * 0.5
        _give_grads(params, rng, skip=step)  # a parameter that misses a step is not touched in it, and does not count it
        for i, p in enumerate(params):
            if p.grad is not None:
                want[i] = case.step(want[i], p.grad.numpy().astype(np.float64), memories[i], optimizer.lr)
        optimizer.step()
    for p, array, definition in zip(params, arrays, want, strict=True):
        assert p.to_numpy() is array and p.dtype == dtype, f"{case}: the update must happen in place"
        assert_allclose(array, definition, rtol=rtol, atol=atol, err_msg=f"{case}: {np.dtype(dtype)} parameter of shape {p.shape}")


def _steps_duplicates_once(case: OptimizerCase) -> None:
    once, twice = _params(np.random.default_rng(2)), _params(np.random.default_rng(2))
    optimizers = case.make(once), case.make([*twice, *twice])
    assert len(optimizers[1].params) == len(twice), f"{case}: a parameter listed twice stands in params twice"
    for params, optimizer in zip((once, twice), optimizers, strict=True):
        _give_grads(params, np.random.default_rng(3))
        optimizer.step()
    for p, q in zip(once, twice, strict=True):
        assert_array_equal(p.to_numpy(), q.to_numpy(), err_msg=f"{case}: a parameter listed twice was stepped twice")


def _continues_bit_identically(case: OptimizerCase) -> None:
    params, others = _params(np.random.default_rng(4)), _params(np.random.default_rng(5))
    optimizer, rng = case.make(params), np.random.default_rng(6)
    for skip in (0, -1):
        _give_grads(params, rng, skip)
        optimizer.step()
    optimizer.lr = optimizer.lr * 0.3
    twin = type(optimizer).from_config(json.loads(json.dumps(optimizer.get_config())), others)
    assert twin.get_config() == optimizer.get_config(), f"{case}: the config changed on its way through JSON"
    twin.set_state(optimizer.get_state())
    for p, q in zip(params, others, strict=True):
        q.copy_from(p)
    for _ in range(2):
        _give_grads(params, rng)
        for p, q in zip(params, others, strict=True):
            q.grad = p.grad.clone()  # type: ignore[union-attr]
        optimizer.step()
        twin.step()
    for p, q in zip(params, others, strict=True):
        assert_array_equal(p.to_numpy(), q.to_numpy(), err_msg=f"{case}: after set_state(get_state()) the next steps differ")
    for name, array in optimizer.get_state().items():
        assert_array_equal(twin.get_state()[name], array, err_msg=f"{case}: state {name!r} differs")


def _refuses_a_wrong_gradient(case: OptimizerCase) -> None:
    params = _params(np.random.default_rng(7))
    optimizer = case.make(params)
    _give_grads(params, np.random.default_rng(8))
    params[-1].grad = Tensor((2, 2))
    before, state = [p.numpy() for p in params], optimizer.get_state()
    try:
        optimizer.step()
    except ValueError as error:
        assert "(2, 2)" in str(error) and str(params[-1].shape) in str(error), f"{case}: the error must name both shapes, got: {error}"
    else:
        raise AssertionError(f"{case}: a gradient of a wrong shape was accepted")
    for p, array in zip(params, before, strict=True):
        assert_array_equal(p.to_numpy(), array, err_msg=f"{case}: a refused step changed a parameter")
    for name, array in optimizer.get_state().items():
        assert_array_equal(array, state[name], err_msg=f"{case}: a refused step changed state {name!r}")


def _clears_gradients(case: OptimizerCase) -> None:
    params = _params(np.random.default_rng(9))
    optimizer = case.make(params)
    _give_grads(params, np.random.default_rng(10))
    optimizer.zero_grad()
    assert all(p.grad is None for p in params), f"{case}: zero_grad() must set every gradient to None"
