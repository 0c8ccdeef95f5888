/* Matrix products.
 *
 * gemm: c (batch, m, n) = a (m, k) b (k, n) per item; item i of a starts at a + a_items[i], of b at b + b_items[i]
 *       (elements; so any broadcasting).  Element (r, s) of an item of a is at r*a_row + s*a_col; likewise b.
 *       bias (n) or null is added to each row.
 * gemm_relu_grad: c where y (m, n) > 0, 0 elsewhere, of one item without bias; the bits of gemm, then relu_grad.
 * gemm_sums: c = a^T b of one item, a (k, m) with rows a_col apart, and sums (m) of a's columns; the bits of gemm, and of sum
 *       where a is contiguous and m >= 16.
 * linear_relu: y (m, n) = relu(x (m, k) w (n, k)^T + bias), all contiguous; the bits of gemm, then relu.
 */
#define KEYDNN_GEMM(K, T, S)                                                                                            \
  K(T, S, gemm, (const T* a, int64_t a_row, int64_t a_col, const int64_t* a_items, const T* b, int64_t b_row,            \
                 int64_t b_col, const int64_t* b_items, const T* bias, T* c, int64_t batch, int64_t m, int64_t n,        \
                 int64_t k),                                                                                            \
    (a, a_row, a_col, a_items, b, b_row, b_col, b_items, bias, c, batch, m, n, k))                                     \
  K(T, S, gemm_relu_grad, (const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row, int64_t b_col, const T* y,  \
                           T* c, int64_t m, int64_t n, int64_t k),                                                       \
    (a, a_row, a_col, b, b_row, b_col, y, c, m, n, k))                                                                   \
  K(T, S, gemm_sums, (const T* a, int64_t a_col, const T* b, int64_t b_row, int64_t b_col, T* c, T* sums, int64_t m, int64_t n,  \
                      int64_t k),                                                                                       \
    (a, a_col, b, b_row, b_col, c, sums, m, n, k))                                                                       \
  K(T, S, linear_relu, (const T* x, const T* w, const T* bias, T* y, int64_t m, int64_t n, int64_t k), (x, w, bias, y, m, n, k))
