"""An operation of one's own: a forward pass, a gradient, and a check that they belong together.

``Huber`` is quadratic near zero and linear outside.  ``Sign`` has no useful gradient, so one is made up for it (the
straight-through estimator of https://arxiv.org/abs/1308.3432): backward pretends that forward was the identity.
"""

import keydnn


class Huber(keydnn.Function):
    """``x^2 / 2`` where ``|x| <= 1``, else ``|x| - 1/2``; its derivative is x, limited to [-1, 1]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return keydnn.where(x.abs() <= 1.0, 0.5 * x * x, x.abs() - 0.5)

    @staticmethod
    def backward(ctx, grad_out):
        (x,) = ctx.saved_tensors
        return grad_out * x.clamp(min=-1.0, max=1.0)


class Sign(keydnn.Function):
    """+1 or -1; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        return keydnn.where(x >= 0.0, keydnn.ones_like(x), -keydnn.ones_like(x))

    @staticmethod
    def backward(ctx, grad_out):
        return grad_out


x = keydnn.tensor([-3.0, -0.5, 0.25, 2.0], requires_grad=True)
Huber.apply(x).sum().backward()
print("Huber   gradient", x.grad.tolist())

# gradcheck compares with central differences, in float64
x64 = keydnn.tensor(x.to_numpy(), dtype="float64", requires_grad=True)
print("Huber is right:", keydnn.gradcheck(Huber.apply, [x64]))

x.zero_grad()
(Sign.apply(x) * keydnn.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
print("Sign    gradient", x.grad.tolist())
assert x.grad.tolist() == [1.0, 2.0, 3.0, 4.0]
