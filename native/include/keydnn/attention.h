/* Attention of several heads without masks: q (n, steps, heads * d), k and v (n, keys, heads * d), p (n, heads, steps, keys).
 * Per head p = softmax(scale * q k^T), y = p v.  All sizes at least 1. */
#define KEYDNN_ATTENTION(K, T, S) \
  K(T, S, attention, \
    (const T* q, const T* k, const T* v, T* y, T* p, int64_t n, int64_t steps, int64_t keys, int64_t heads, int64_t d, double scale), \
    (q, k, v, y, p, n, steps, keys, heads, d, scale)) \
  K(T, S, attention_grad, \
    (const T* g, const T* p, const T* q, const T* k, const T* v, T* dq, T* dk, T* dv, int64_t n, int64_t steps, int64_t keys, \
     int64_t heads, int64_t d, double scale), \
    (g, p, q, k, v, dq, dk, dv, n, steps, keys, heads, d, scale))
