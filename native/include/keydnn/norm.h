/* Normalisation with the operand's own statistics.  gamma and beta may be NULL.
 * batch: x is (n, c, s), statistics per c.  layer: x is (rows, n), statistics per row; all sizes at least 1.
 * batch_norm_relu: y = relu of batch_norm's; line is (2, c), what an element was made with: (x - mean) * line[0] + line[1], by which
 * batch_norm_relu_grad knows where relu passed it.  Only plans call these two. */
#define KEYDNN_NORM(K, T, S) \
  K(T, S, batch_norm, \
    (const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* var, T* inv, int64_t n, int64_t c, int64_t s), \
    (x, gamma, beta, eps, y, mean, var, inv, n, c, s)) \
  K(T, S, batch_norm_grad, \
    (const T* g, const T* x, const T* gamma, const T* mean, const T* inv, T* dx, T* dgamma, T* dbeta, int64_t n, int64_t c, int64_t s), \
    (g, x, gamma, mean, inv, dx, dgamma, dbeta, n, c, s)) \
  K(T, S, batch_norm_relu, \
    (const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* var, T* inv, T* line, int64_t n, int64_t c, int64_t s), \
    (x, gamma, beta, eps, y, mean, var, inv, line, n, c, s)) \
  K(T, S, batch_norm_relu_grad, \
    (const T* g, const T* x, const T* gamma, const T* mean, const T* inv, const T* line, T* dx, T* dgamma, T* dbeta, int64_t n, int64_t c, int64_t s), \
    (g, x, gamma, mean, inv, line, dx, dgamma, dbeta, n, c, s)) \
  K(T, S, layer_norm, (const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* inv, int64_t rows, int64_t n), \
    (x, gamma, beta, eps, y, mean, inv, rows, n)) \
  K(T, S, layer_norm_grad, \
    (const T* g, const T* x, const T* gamma, const T* mean, const T* inv, T* dx, T* dgamma, T* dbeta, int64_t rows, int64_t n), \
    (g, x, gamma, mean, inv, dx, dgamma, dbeta, rows, n))
