/* Elementwise kernels.  n counts elements. */
#define KEYDNN_ELEMENTWISE(K, T, S) \
  K(T, S, relu, (const T* x, T* y, int64_t n), (x, y, n)) \
  K(T, S, relu_grad, (const T* y, const T* g, T* dx, int64_t n), (y, g, dx, n))
