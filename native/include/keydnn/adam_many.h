/* Adam over a few small arrays; only plans call it, so keydnn.h does without. */
#ifndef KEYDNN_ADAM_MANY_H
#define KEYDNN_ADAM_MANY_H

#include "../keydnn.h"

/* adam of n[i] elements at arrays[4 i] = p, g, m and v, for i < count, all at step t, on the calling thread. */
#define KEYDNN_ADAM_MANY(K, T, S)                                                                                             \
  K(T, S, adam_many,                                                                                                          \
    (T* const* arrays, const int64_t* n, int64_t count, int64_t t, double lr, double beta1, double beta2, double eps,         \
     double weight_decay, int decoupled),                                                                                     \
    (arrays, n, count, t, lr, beta1, beta2, eps, weight_decay, decoupled))

#ifdef __cplusplus
extern "C" {
#endif
KEYDNN_DECLARE_FAMILY(KEYDNN_ADAM_MANY)
#ifdef __cplusplus
}
KEYDNN_OVERLOAD_FAMILY(KEYDNN_ADAM_MANY)
#endif

#endif
