/* Softmax and its kin over contiguous rows of n >= 1 elements; outputs must not overlap operands.
 * labels must lie in [0, n). */
#define KEYDNN_ROWS1(K, T, S, name) K(T, S, name, (const T* x, T* y, int64_t rows, int64_t n), (x, y, rows, n))
#define KEYDNN_ROWS2(K, T, S, name) K(T, S, name, (const T* y, const T* g, T* dx, int64_t rows, int64_t n), (y, g, dx, rows, n))
#define KEYDNN_SOFTMAX(K, T, S) \
  KEYDNN_ROWS1(K, T, S, softmax) \
  KEYDNN_ROWS1(K, T, S, log_softmax) \
  KEYDNN_ROWS2(K, T, S, softmax_grad) \
  KEYDNN_ROWS2(K, T, S, log_softmax_grad) \
  K(T, S, cross_entropy, (const T* logits, const int64_t* labels, T* loss, T* p, int64_t rows, int64_t n), \
    (logits, labels, loss, p, rows, n)) \
  K(T, S, cross_entropy_grad, (const T* p, const int64_t* labels, const T* g, T* d, int64_t rows, int64_t n), \
    (p, labels, g, d, rows, n))
