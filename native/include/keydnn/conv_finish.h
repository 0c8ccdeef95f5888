/* Convolution and what follows it; only plans call it, so keydnn.h does without. */
#ifndef KEYDNN_CONV_FINISH_H
#define KEYDNN_CONV_FINISH_H

#include "../keydnn.h"

/* y = conv2d; where mean is not null (y - mean) * scale, both per output, then + beta unless that is null; then relu if asked
 * for.  Where code is not null, y and code are relu_maxpool (relu_pool.h) of that. */
#define KEYDNN_CONV_FINISH(K, T, S)                                                                           \
  K(T, S, conv2d_finish,                                                                                      \
    (const T* x, const T* weight, const T* bias, const T* mean, const T* scale, const T* beta, T* y,          \
     uint8_t* code, const keydnn_conv_shape* shape, int relu),                                                \
    (x, weight, bias, mean, scale, beta, y, code, shape, relu))

#ifdef __cplusplus
extern "C" {
#endif
KEYDNN_DECLARE_FAMILY(KEYDNN_CONV_FINISH)
#ifdef __cplusplus
}
KEYDNN_OVERLOAD_FAMILY(KEYDNN_CONV_FINISH)
#endif

#endif
