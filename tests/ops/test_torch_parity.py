"""Rows of the op table that PyTorch has too: values and gradients agree with it."""

import numpy as np
import pytest

from tests.ops.op_cases import cases
from tests.ops.test_op_cases import arrays_of, gradients, tensors_of

TWINS = [case for case in cases() if case.torch is not None]


@pytest.mark.torch
@pytest.mark.parametrize("case", TWINS, ids=str)
def test_value_and_gradients_are_pytorchs(case):
    import torch

    for dtype, rtol in ((np.float32, 2e-4), (np.float64, 1e-10)):
        arrays = arrays_of(case, dtype, seed=3)
        tensors = tensors_of(case, arrays)
        out, grads = gradients(case, tensors)
        twins = [torch.tensor(a, requires_grad=t.requires_grad) for a, t in zip(arrays, tensors, strict=True)]
        want = case.torch(torch, *twins)
        assert tuple(want.shape) == out.shape
        np.testing.assert_allclose(out.numpy(), want.detach().numpy(), rtol=rtol, atol=rtol / 10)
        if not out.requires_grad:
            continue
        want.backward(torch.full_like(want, 0.75))
        for g, twin in zip(grads, twins, strict=True):
            if g is not None:
                np.testing.assert_allclose(
                    g.numpy(), np.zeros(g.shape) if twin.grad is None else twin.grad.numpy(), rtol=rtol, atol=rtol / 10
                )
