"""Training without layers: a tensor, a formula, and its gradient.

A line y = a x + b is fitted to noisy points.  ``backward`` fills ``.grad`` of a and b; the update is written out.
"""

import numpy as np

import keydnn

rng = np.random.default_rng(0)
x = keydnn.tensor(rng.uniform(-1, 1, 200))
y = 3 * x + 0.5 + keydnn.tensor(rng.normal(0, 0.05, 200))

a = keydnn.tensor(0.0, requires_grad=True)
b = keydnn.tensor(0.0, requires_grad=True)

for step in range(101):
    loss = ((a * x + b - y) ** 2).mean()
    a.zero_grad()
    b.zero_grad()
    loss.backward()
    with keydnn.no_grad():
        a -= 0.3 * a.grad
        b -= 0.3 * b.grad
    if step % 25 == 0:
        print(f"step {step:3d}  loss {loss.item():.5f}  a {a.item():+.3f}  b {b.item():+.3f}")

# The same loss has second derivatives: how steep is it along a?  2 mean(x^2), which is about 2/3 here.
loss = ((a * x + b - y) ** 2).mean()
(slope,) = keydnn.grad(loss, [a], create_graph=True)
(curvature,) = keydnn.grad(slope, [a])
print(f"d2 loss / d a2 = {curvature.item():.4f}, 2 mean(x^2) = {2 * (x * x).mean().item():.4f}")
assert abs(a.item() - 3) < 0.02 and abs(b.item() - 0.5) < 0.02
