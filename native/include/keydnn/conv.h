/* 2-D convolution, NCHW, as cross-correlation.  x (n, c, h, w), weight (o, c/groups, kh, kw), y and g (n, o, oh, ow). */
typedef struct {
  int64_t n, c, h, w;        /* input */
  int64_t o, kh, kw;         /* kernels */
  int64_t sh, sw;            /* stride */
  int64_t ph, pw;            /* zero padding on each side */
  int64_t dh, dw;            /* dilation */
  int64_t groups;
  int64_t oh, ow;            /* output: at most (h + 2 ph - dh (kh - 1) - 1) / sh + 1, likewise ow */
} keydnn_conv_shape;

/* bias (o) may be null.  conv2d_relu_maxpool: relu_maxpool (relu_pool.h) of conv2d; only plans call it */
#define KEYDNN_CONV(K, T, S)                                                                                  \
  K(T, S, conv2d, (const T* x, const T* weight, const T* bias, T* y, const keydnn_conv_shape* shape),         \
    (x, weight, bias, y, shape))                                                                              \
  K(T, S, conv2d_relu_maxpool,                                                                                \
    (const T* x, const T* weight, const T* bias, T* y, uint8_t* code, const keydnn_conv_shape* shape),        \
    (x, weight, bias, y, code, shape))                                                                        \
  K(T, S, conv2d_grad_x, (const T* g, const T* weight, T* dx, const keydnn_conv_shape* shape), (g, weight, dx, shape))

/* wb: the bias's gradient db (o) too, from one pass over g; only plans call it */
#define KEYDNN_CONV_GRAD_W(K, T, S)                                                                                    \
  K(T, S, conv2d_grad_w, (const T* x, const T* g, T* dw, const keydnn_conv_shape* shape), (x, g, dw, shape))           \
  K(T, S, conv2d_grad_wb, (const T* x, const T* g, T* dw, T* db, const keydnn_conv_shape* shape), (x, g, dw, db, shape))
