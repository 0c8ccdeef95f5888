/* Elementwise kernels.  n counts elements; y may be x. */
#define KEYDNN_UNARY(K, T, S, name) K(T, S, name, (const T* x, T* y, int64_t n), (x, y, n))
#define KEYDNN_ACTIVATION_GRAD(K, T, S, name) K(T, S, name, (const T* x, const T* g, T* dx, int64_t n), (x, g, dx, n))
#define KEYDNN_ELEMENTWISE(K, T, S) \
  KEYDNN_UNARY(K, T, S, neg) \
  KEYDNN_UNARY(K, T, S, abs) \
  KEYDNN_UNARY(K, T, S, sign) \
  KEYDNN_UNARY(K, T, S, exp) \
  KEYDNN_UNARY(K, T, S, expm1) \
  KEYDNN_UNARY(K, T, S, log) \
  KEYDNN_UNARY(K, T, S, log1p) \
  KEYDNN_UNARY(K, T, S, sqrt) \
  KEYDNN_UNARY(K, T, S, rsqrt) \
  KEYDNN_UNARY(K, T, S, reciprocal) \
  KEYDNN_UNARY(K, T, S, square) \
  KEYDNN_UNARY(K, T, S, tanh) \
  KEYDNN_UNARY(K, T, S, sigmoid) \
  KEYDNN_UNARY(K, T, S, erf) \
  KEYDNN_UNARY(K, T, S, relu) \
  KEYDNN_UNARY(K, T, S, gelu) \
  KEYDNN_UNARY(K, T, S, silu) \
  KEYDNN_UNARY(K, T, S, softplus) \
  KEYDNN_UNARY(K, T, S, copy) \
  K(T, S, leaky_relu, (const T* x, T* y, int64_t n, double alpha), (x, y, n, alpha)) \
  K(T, S, clamp, (const T* x, T* y, int64_t n, double low, double high), (x, y, n, low, high)) \
  K(T, S, elu, (const T* x, T* y, int64_t n, double alpha), (x, y, n, alpha)) \
  KEYDNN_ACTIVATION_GRAD(K, T, S, relu_grad) \
  KEYDNN_ACTIVATION_GRAD(K, T, S, tanh_grad) \
  KEYDNN_ACTIVATION_GRAD(K, T, S, sigmoid_grad) \
  KEYDNN_ACTIVATION_GRAD(K, T, S, gelu_grad) \
  KEYDNN_ACTIVATION_GRAD(K, T, S, silu_grad) \
  KEYDNN_ACTIVATION_GRAD(K, T, S, softplus_grad) \
  K(T, S, leaky_relu_grad, (const T* x, const T* g, T* dx, int64_t n, double alpha), (x, g, dx, n, alpha)) \
  K(T, S, elu_grad, (const T* x, const T* g, T* dx, int64_t n, double alpha), (x, g, dx, n, alpha))

/* Two operands that broadcast.  z is contiguous with `ndim` axes; x and y have its shape and strides, in elements, that
 * are 0 where they broadcast.  z may be x, or y, if that operand does not broadcast. */
#define KEYDNN_MAX_AXES 8
typedef struct keydnn_pair {
  int64_t ndim;
  int64_t shape[KEYDNN_MAX_AXES];
  int64_t x_strides[KEYDNN_MAX_AXES];
  int64_t y_strides[KEYDNN_MAX_AXES];
} keydnn_pair;
#define KEYDNN_PAIRWISE(K, T, S, name) K(T, S, name, (const T* x, const T* y, T* z, const keydnn_pair* axes), (x, y, z, axes))
#define KEYDNN_BINARY(K, T, S) \
  KEYDNN_PAIRWISE(K, T, S, add) \
  KEYDNN_PAIRWISE(K, T, S, sub) \
  KEYDNN_PAIRWISE(K, T, S, mul) \
  KEYDNN_PAIRWISE(K, T, S, div) \
  KEYDNN_PAIRWISE(K, T, S, maximum) \
  KEYDNN_PAIRWISE(K, T, S, minimum) \
  KEYDNN_PAIRWISE(K, T, S, gt) \
  KEYDNN_PAIRWISE(K, T, S, ge) \
  KEYDNN_PAIRWISE(K, T, S, lt) \
  KEYDNN_PAIRWISE(K, T, S, le) \
  KEYDNN_PAIRWISE(K, T, S, eq) \
  KEYDNN_PAIRWISE(K, T, S, ne) \
  K(T, S, where, (const T* mask, const T* x, const T* y, T* z, int64_t n, int64_t x_stride, int64_t y_stride), \
    (mask, x, y, z, n, x_stride, y_stride))
