// The operations that a fused elementwise program may hold: name, operands, nanoseconds per element (roughly, float).
// Meaning: the rows of the same name in kernels/contract.py; const is the number u.
#pragma once

#define KEYDNN_FUSED_CODES(X)                                                                                          \
  X(constant, 0, 0.02) X(copy, 1, 0.05)                                                                                 \
  X(neg, 1, 0.05) X(abs, 1, 0.05) X(sign, 1, 0.1) X(exp, 1, 0.4) X(expm1, 1, 0.6) X(log, 1, 0.5) X(log1p, 1, 0.8)      \
  X(sqrt, 1, 0.3) X(rsqrt, 1, 0.6) X(reciprocal, 1, 0.3) X(square, 1, 0.05) X(tanh, 1, 0.7) X(sigmoid, 1, 0.6)         \
  X(erf, 1, 0.9) X(relu, 1, 0.05) X(floor, 1, 0.1) X(ceil, 1, 0.1) X(round, 1, 0.1)                                     \
  X(clamp, 1, 0.1) X(clamp_low, 1, 0.1) X(clamp_high, 1, 0.1) X(leaky_relu, 1, 0.1)                                     \
  X(add, 2, 0.1) X(sub, 2, 0.1) X(mul, 2, 0.1) X(div, 2, 0.3) X(maximum, 2, 0.15) X(minimum, 2, 0.15)                   \
  X(gt, 2, 0.1) X(ge, 2, 0.1) X(lt, 2, 0.1) X(le, 2, 0.1) X(eq, 2, 0.1) X(ne, 2, 0.1)                                    \
  X(relu_grad, 2, 0.1) X(leaky_relu_grad, 2, 0.1) X(tanh_grad, 2, 0.1) X(sigmoid_grad, 2, 0.1)                           \
  X(gelu, 1, 1.1) X(silu, 1, 0.7) X(softplus, 1, 1.3) X(elu, 1, 0.8)                                                       \
  X(gelu_grad, 2, 1.6) X(silu_grad, 2, 0.8) X(softplus_grad, 2, 0.7) X(elu_grad, 2, 0.7)                                   \
  X(sin, 1, 5.0) X(cos, 1, 5.0) X(pow, 2, 10.0) X(mod, 2, 5.0) X(floordiv, 2, 6.0)                                         \
  X(where, 3, 0.15)
