/* relu followed by 2x2 maximum pooling with stride 2, as one pass; only plans call these.
 * x is (planes, h, w); y and code are (planes, h/2, w/2).  code: which cell of the window won, row * 2 + column, or 4 where
 * y is not above 0 and so passes no gradient. */
#define KEYDNN_RELU_POOL(K, T, S) \
  K(T, S, relu_maxpool, (const T* x, T* y, uint8_t* code, int64_t planes, int64_t h, int64_t w), (x, y, code, planes, h, w)) \
  K(T, S, relu_maxpool_grad, (const T* g, const uint8_t* code, T* dx, int64_t planes, int64_t h, int64_t w), \
    (g, code, dx, planes, h, w))
