"""The kernel contract: every function from arrays to arrays that the engine may call.

A *kernel table* is an object with one attribute per row below.  ``reference`` fills it with NumPy (the
definition), ``native`` with compiled code where that is faster, ``cuda`` with device kernels.  A computation
that is not a call through a table does not exist for the recorder, so nothing else may touch array contents.

Conventions, for every row:

* Arrays come first and positionally, parameters after them, positionally or by name, in the order given here.
* ``x|None`` marks an array that may be missing.  ``x|c`` marks an operand that may be a Python number; numbers never
  promote the dtype (NumPy 2 rules).  Binary kernels broadcast.
* Floating arrays are float32 or float64; results have the promoted dtype of the array operands.  Comparisons return
  0.0/1.0 in the dtype of the left operand.  Sums of float32 are at least as accurate as NumPy's pairwise sum.
* A kernel returns freshly allocated C-contiguous arrays and never keeps or returns an operand.  A result of shape () may be
  a NumPy scalar of the promised dtype (that is what ufuncs give); the caller makes it an array where it needs one, and
  kernels take such scalars as operands.  A name that ends in ``_`` writes its first operands (listed in ``writes``)
  instead and returns None.
* IEEE arithmetic, silently: no kernel warns of overflow, division by zero or invalid operands.
* The same operands give the same bits for any number of threads.  Inputs may be read-only and strided.
* Operands are already checked by the op that calls; a kernel may assume ranks and sizes agree.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """One row: operand names, parameter names, what it returns, which operands it writes, what it means."""

    name: str
    arrays: tuple[str, ...]
    params: tuple[str, ...]
    returns: str
    meaning: str
    writes: tuple[int, ...] = ()


def _row(signature: str, returns: str, meaning: str, writes: tuple[int, ...] = ()) -> Kernel:
    """Read ``"name(x, y; p, q)"`` into a Kernel."""
    name, _, rest = signature.partition("(")
    arrays, _, params = rest.rstrip(")").partition(";")
    split = lambda text: tuple(part.strip() for part in text.split(",") if part.strip())  # noqa: E731
    return Kernel(name, split(arrays), split(params), returns, meaning, writes)


_UNARY = {
    "neg": "-x",
    "abs": "|x|",
    "sign": "-1, 0 or 1; NaN stays NaN",
    "exp": "e^x",
    "expm1": "e^x - 1",
    "log": "ln x; log(0) = -inf, log(negative) = nan, silently",
    "log1p": "ln(1 + x)",
    "sqrt": "square root",
    "rsqrt": "1 / sqrt(x)",
    "reciprocal": "1 / x",
    "square": "x * x",
    "sin": "sine",
    "cos": "cosine",
    "tanh": "hyperbolic tangent, saturating",
    "sigmoid": "1 / (1 + e^-x), saturating, no overflow warning",
    "erf": "Gauss error function, within 1e-6 (f4) and 1e-13 (f8) absolute",
    "relu": "max(x, 0); NaN stays NaN",
    "floor": "largest integer not above",
    "ceil": "smallest integer not below",
    "round": "nearest, ties to even",
}
_BINARY = {
    "add": "x + y",
    "sub": "x - y",
    "mul": "x * y",
    "div": "x / y (IEEE, silent)",
    "pow": "x ** y",
    "maximum": "larger; NaN wins",
    "minimum": "smaller; NaN wins",
    "floordiv": "x // y as in Python: the floor of the exact quotient",
    "mod": "x % y as in Python: x minus that quotient times y, with the sign of y",
    "gt": "x > y as 0/1",
    "ge": "x >= y as 0/1",
    "lt": "x < y as 0/1",
    "le": "x <= y as 0/1",
    "eq": "x == y as 0/1",
    "ne": "x != y as 0/1",
}

_ROWS = [
    *(_row(f"{name}(x)", "y", meaning) for name, meaning in _UNARY.items()),
    *(_row(f"{name}(x|c, y|c)", "z", meaning) for name, meaning in _BINARY.items()),
    # elementwise with parameters or more operands
    _row("where(mask, x|c, y|c)", "z", "x where mask != 0, else y; broadcasts"),
    _row("clamp(x; low, high)", "y", "limited to [low, high]; either may be None; NaN stays NaN"),
    _row("leaky_relu(x; alpha)", "y", "x where x > 0, else alpha * x"),
    _row("relu_grad(y, g)", "dx", "g where y > 0, else 0"),
    _row("leaky_relu_grad(x, g; alpha)", "dx", "g where x > 0, else alpha * g"),
    _row("tanh_grad(y, g)", "dx", "g * (1 - y*y)"),
    _row("sigmoid_grad(y, g)", "dx", "g * y * (1 - y)"),
    _row("gelu(x)", "y", "x * Phi(x) with the normal distribution function Phi, by erf"),
    _row("gelu_grad(x, g)", "dx", "g * (Phi(x) + x * phi(x)) with the normal density phi"),
    _row("silu(x)", "y", "x * sigmoid(x)"),
    _row("silu_grad(x, g)", "dx", "g * s * (1 + x * (1 - s)), s = sigmoid(x)"),
    _row("softplus(x)", "y", "ln(1 + e^x), no overflow"),
    _row("softplus_grad(x, g)", "dx", "g * sigmoid(x)"),
    _row("elu(x; alpha)", "y", "x where x > 0, else alpha * (e^x - 1)"),
    _row("elu_grad(x, g; alpha)", "dx", "g where x > 0, else g * alpha * e^x"),
    _row("cast(x; dtype)", "y", "values in another dtype"),
    _row("copy(x)", "y", "contiguous copy"),
    _row("full(; shape, value, dtype)", "y", "a constant array"),
    # in place
    _row("assign_(dst, src)", "None", "dst[...] = src, broadcast and cast to dst", (0,)),
    _row("fill_(dst; value)", "None", "dst[...] = value", (0,)),
    _row("add_(dst, y|c)", "None", "dst += y, y broadcast to dst", (0,)),
    _row("sub_(dst, y|c)", "None", "dst -= y", (0,)),
    _row("mul_(dst, y|c)", "None", "dst *= y", (0,)),
    _row("div_(dst, y|c)", "None", "dst /= y", (0,)),
    _row("put_(dst, value|c; key)", "None", "dst[key] = value (NumPy indexing)", (0,)),
    _row("ema_(running, batch; momentum)", "None", "running = (1 - momentum) * running + momentum * batch", (0,)),
    # reductions: axis is None (everything) or a tuple of non-negative ints
    _row("sum(x; axis, keepdims)", "y", "sum"),
    _row("mean(x; axis, keepdims)", "y", "arithmetic mean"),
    _row("prod(x; axis, keepdims)", "y", "product"),
    _row("max(x; axis, keepdims)", "y", "largest; NaN wins"),
    _row("min(x; axis, keepdims)", "y", "smallest; NaN wins"),
    _row("argmax(x; axis)", "i", "int64 index of the first largest; axis None (flat) or one int"),
    _row("argmin(x; axis)", "i", "int64 index of the first smallest"),
    _row("any(x; axis, keepdims)", "y", "1 where any element is non-zero, in x's dtype"),
    _row("all(x; axis, keepdims)", "y", "1 where all elements are non-zero, in x's dtype"),
    _row("cumsum(x; axis)", "y", "running sum along one axis"),
    # movement
    _row("broadcast_to(x; shape)", "y", "materialised broadcast"),
    _row("transpose(x; axes)", "y", "materialised permutation of the axes"),
    _row("concat(*xs; axis)", "y", "joined along an existing axis"),
    _row("stack(*xs; axis)", "y", "joined along a new axis"),
    _row("pad(x; widths, value)", "y", "constant padding; widths ((before, after), ...) per axis"),
    _row("take(x; key)", "y", "x[key], copied (any NumPy key)"),
    _row("take_grad(g; key, shape)", "dx", "zeros(shape) with g added at key; repeats accumulate"),
    _row("gather(x, index; axis)", "y", "take_along_axis"),
    _row("scatter_add(x, index, src; axis)", "y", "copy of x with src added at index along axis; repeats accumulate"),
    _row("flip(x; axis)", "y", "reversed along the tuple of axes"),
    _row("roll(x; shift, axis)", "y", "np.roll with tuples"),
    _row("tril(x; k)", "y", "lower triangle of the last two axes"),
    _row("triu(x; k)", "y", "upper triangle of the last two axes"),
    _row("one_hot(index; n, dtype)", "y", "index.shape + (n,), 1 at the index"),
    # linear algebra
    _row(
        "matmul(a, b; transpose_a, transpose_b)",
        "c",
        "NumPy matmul of operands with 2 or more axes, last two axes of each swapped on request",
    ),
    _row("linear(x, w, b|None)", "y", "x (N, D), w (O, D), b (O,): x @ w.T + b"),
    _row("einsum(*xs; subscripts)", "y", "np.einsum"),
    # convolution and pooling, NCHW; stride, padding, dilation, kernel are pairs
    _row("conv2d(x, w, b|None; stride, padding, dilation, groups)", "y", "cross-correlation; w (O, C/groups, kh, kw)"),
    _row(
        "conv2d_grad_x(g, w; size, stride, padding, dilation, groups)",
        "dx",
        "gradient to x of spatial size (H, W); also the transposed convolution",
    ),
    _row("conv2d_grad_w(x, g; kernel, stride, padding, dilation, groups)", "dw", "gradient to w with kernel (kh, kw)"),
    _row(
        "maxpool2d(x; kernel, stride, padding)",
        "y, argmax",
        "padding is -inf and never wins; ties: first in row-major order; argmax int64 = row*(W+2pw)+col in the padded plane",
    ),
    _row("maxpool2d_values(x; kernel, stride, padding)", "y", "maxpool2d without argmax"),
    _row("maxpool2d_grad(g, argmax; size, padding)", "dx", "g added at argmax; size (H, W) of x"),
    _row("maxpool2d_take(x, argmax; padding)", "y", "x read at argmax"),
    _row("avgpool2d(x; kernel, stride, padding)", "y", "window sum / (kh*kw), padding counts as 0"),
    _row("avgpool2d_grad(g; size, kernel, stride, padding)", "dx", "its transpose"),
    _row("global_avgpool2d(x)", "y", "(N, C, H, W) -> (N, C, 1, 1) mean"),
    # softmax family
    _row("softmax(x; axis)", "y", "exp(x - max) / sum, one axis"),
    _row("softmax_grad(y, g; axis)", "dx", "y * (g - sum(g*y))"),
    _row("log_softmax(x; axis)", "y", "x - max - log(sum(exp(x - max)))"),
    _row("log_softmax_grad(y, g; axis)", "dx", "g - exp(y) * sum(g)"),
    _row(
        "cross_entropy(logits, labels)",
        "loss, p",
        "rows of -log_softmax(logits)[label], and p = softmax; logits (N, C), labels integer (N,)",
    ),
    _row("cross_entropy_grad(p, labels, g)", "dlogits", "(p - onehot(labels)) * g[:, None]"),
    # normalisation
    _row(
        "batch_norm(x, gamma|None, beta|None; eps)",
        "y, mean, var, inv",
        "statistics over all axes but 1, biased variance; mean, var and inv = 1/sqrt(var+eps) are (C,)",
    ),
    _row("batch_norm_grad(g, x, gamma|None, mean, inv)", "dx, dgamma, dbeta", "through the batch statistics"),
    _row("layer_norm(x, gamma|None, beta|None; n_axes, eps)", "y, mean, inv", "over the last n_axes; mean and inv keep the leading shape"),
    _row("layer_norm_grad(g, x, gamma|None, mean, inv; n_axes)", "dx, dgamma, dbeta", "dgamma and dbeta have the normalised shape"),
    # recurrent sequences: p (T, N, gates*H) is the input's part of the sums, w (H, gates*H), mask (T, N): a step with 0 keeps the state
    _row("rnn(p, w, b|None, h0, mask|None; reverse)", "h, h_last", "h = tanh(p + h_prev @ w + b); h (T, N, H)"),
    _row("rnn_grad(g|None, g_last|None, h, w, h0, mask|None; reverse)", "dp, dw, db, dh0", "through all steps"),
    _row(
        "lstm(p, w, b|None, h0, c0, mask|None; reverse)",
        "h, h_last, c_last, c, gates",
        "i, f, g, o = p + h_prev @ w + b; c = sigmoid(f)*c_prev + sigmoid(i)*tanh(g); h = sigmoid(o)*tanh(c); gates (T, N, 4H) activated",
    ),
    _row("lstm_grad(g|None, g_h|None, g_c|None, gates, c, h, w, h0, c0, mask|None; reverse)", "dp, dw, db, dh0, dc0", "through all steps"),
    _row(
        "gru(p, w, b_ih|None, b_hh|None, h0, mask|None; reverse, reset_after)",
        "h, h_last, gates",
        "z, r, n as in kernels/reference/recurrent.py; h = (1-z)*n + z*h_prev; gates (T, N, 3H), with reset_after (T, N, 4H)",
    ),
    _row(
        "gru_grad(g|None, g_last|None, gates, h, w, h0, mask|None; reverse, reset_after)", "dp, dw, db_ih, db_hh, dh0", "through all steps"
    ),
    _row("sequence_mask(lengths; steps, dtype)", "m", "m[t, n] = 1 where t < lengths[n], else 0; lengths int64 (N,)"),
    _row(
        "attention(q, k, v; heads, scale)",
        "y, p",
        "per head softmax(scale * q @ k.T) @ v; q (N, L, heads*d), k and v (N, S, heads*d), weights p (N, heads, L, S)",
    ),
    _row("attention_grad(g, p, q, k, v; heads, scale)", "dq, dk, dv", "its gradient, g that of y"),
    # lookup
    _row("embedding(w, index; padding)", "y", "rows of w (V, D) at the int64 index, of any shape; zeros where it is padding, if not None"),
    _row(
        "embedding_grad(g, index; n, padding)",
        "dw",
        "zeros (n, D) with the rows of g added at the index, in order, but for padding",
    ),
    # random: Philox4x32-10.  draw_key takes np.random.randint(0, 2**63, dtype=int64), or a number of a stream, into an int64 array of
    # shape ().
    _row("draw_key()", "key", "a fresh key, see keydnn.kernels.keys"),
    _row(
        "uniform(key; shape, dtype)",
        "u",
        "element i: f4 (r>>8)*2^-24 of word i%4 of block i//4; f8 from words 2*(i%2), +1 of block i//2: ((a>>5)*2^26+(b>>6))*2^-53",
    ),
    _row(
        "normal(key; shape, dtype)",
        "z",
        "Box-Muller in double: elements 2j, 2j+1 = sqrt(-2 ln(1-u)) * (cos, sin)(2 pi v), u, v = f8 uniforms 2j, 2j+1 of key",
    ),
    _row("dropout_mask(key; shape, p, dtype)", "m", "1/(1-p) where the f4 uniform, as a real number, is < 1-p (a double), else 0"),
    # number formats: wl bits, iwl before the point; modes are the names of the ap_fixed types
    _row(
        "quantize_fixed(x; wl, iwl, signed, qmode, omode, sat_bits)",
        "y",
        "overflow(round(x / q)) * q with q = 2^(iwl - wl), exact; a zero is +0; see reference/quantize.py for the modes",
    ),
    _row(
        "quantize_stochastic(x, key; wl, iwl, signed, omode, sat_bits, sr_bits)",
        "y",
        "the same with floor(t) + (f8 uniform of key < t - floor(t)), the remainder first cut to sr_bits bits unless None",
    ),
    _row(
        "quantize_by(x, format)",
        "y",
        "quantize_fixed by an int64 array (wl, iwl, signed, place of qmode in ROUNDING, of omode in OVERFLOW, sat_bits)",
    ),
    _row("quantize_with(x, key; format)", "y", "format.rounded(x, key): any other number format"),
    # optimizer updates: lr is a float64 array of shape (), t an int64 array of shape () that the kernel increments;
    # velocity, m and v that are subnormal after the update are 0
    _row(
        "sgd_(p, g, velocity|None, lr; momentum, nesterov, weight_decay)",
        "None",
        "d = g + wd*p; v = mu*v + d; p -= lr * (d + mu*v if nesterov else v); without velocity p -= lr*d",
        (0, 2),
    ),
    _row(
        "adam_(p, g, m, v, t, lr; beta1, beta2, eps, weight_decay, decoupled)",
        "None",
        "Kingma & Ba 2015; decoupled: p -= lr*wd*p first (AdamW), else g += wd*p",
        (0, 2, 3, 4),
    ),
]

KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _ROWS}
