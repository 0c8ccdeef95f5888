/* 2-D pooling; planes = images times channels, each plane (h, w) in and (oh, ow) out. */
typedef struct {
  int64_t planes, h, w;
  int64_t oh, ow;  /* at most (h + 2 ph - kh) / sh + 1, likewise ow */
  int64_t kh, kw;  /* window */
  int64_t sh, sw;  /* stride */
  int64_t ph, pw;  /* padding on each side: -inf for the maximum, 0 for the average */
} keydnn_pool_shape;

/* argmax: row * (w + 2 pw) + column in the padded plane; maxpool2d may be given null, then it is not told */
#define KEYDNN_POOL(K, T, S)                                                                                          \
  K(T, S, maxpool2d, (const T* x, T* y, int64_t* argmax, const keydnn_pool_shape* shape), (x, y, argmax, shape))       \
  K(T, S, maxpool2d_grad, (const T* g, const int64_t* argmax, T* dx, const keydnn_pool_shape* shape),                  \
    (g, argmax, dx, shape))                                                                                            \
  K(T, S, avgpool2d, (const T* x, T* y, const keydnn_pool_shape* shape), (x, y, shape))                                \
  K(T, S, avgpool2d_grad, (const T* g, T* dx, const keydnn_pool_shape* shape), (g, dx, shape))                         \
  K(T, S, plane_mean, (const T* x, T* y, int64_t planes, int64_t size), (x, y, planes, size))
