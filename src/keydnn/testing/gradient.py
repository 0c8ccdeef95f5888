"""What every differentiable function promises about its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keydnn._tensor import Tensor
from keydnn.autograd import grad, gradcheck
from keydnn.ops import concat


def check_gradient(
    fn: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    *,
    order: int = 1,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Hold the gradients of ``fn`` to their promises.

    Each gradient has the shape, dtype and device of its input and equals central differences; with ``order=2`` so do
    the gradients of these gradients (to the inputs and to the upstream gradient), and so on.

    Args:
        fn: Maps Tensors to one Tensor of any shape; must be deterministic.
        inputs: Its Tensors; those with ``requires_grad`` are checked.  float64 is advised.
        order: How many times ``fn`` is differentiated.
        eps: Step of the differences, see :func:`keydnn.gradcheck`.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        AssertionError: A gradient has another shape, dtype or device than its input.
        RuntimeError: A gradient differs from central differences.

    Example:
        >>> from keydnn.testing.gradient import check_gradient
        >>> x = keydnn.Tensor((2, 3), dtype=np.float64, requires_grad=True)
        >>> check_gradient(lambda x: (x * 2.0).tanh(), x, order=3)
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, t in enumerate(inputs) if t.requires_grad]
    out = fn(*inputs)
    upstream = Tensor.full(out.shape, 0.75, dtype=out.dtype, requires_grad=True)
    if out.requires_grad:
        for i, g in zip(checked, grad(out, [inputs[i] for i in checked], upstream, allow_unused=True), strict=True):
            t = inputs[i]
            assert g is None or (g.shape, g.dtype, g.device) == (t.shape, t.dtype, t.device), (
                f"gradient of input {i} is {g}, expected shape {t.shape}, dtype {t.dtype}, device {t.device}"
            )
    gradcheck(fn, inputs, eps=eps, rtol=rtol, atol=atol)
    if order > 1:
        check_gradient(_pullback(fn, checked), [*inputs, upstream], order=order - 1, eps=eps, rtol=rtol, atol=atol)


def _pullback(fn: Callable[..., Tensor], checked: list[int]) -> Callable[..., Tensor]:
    """The gradients of ``fn``, joined, as a function of its inputs and the upstream gradient."""

    def pull(*args: Tensor) -> Tensor:
        *inputs, upstream = args
        grads = grad(fn(*inputs), [inputs[i] for i in checked], upstream, create_graph=True, allow_unused=True)
        return concat([g.reshape(-1) for g in grads if g is not None])

    return pull
