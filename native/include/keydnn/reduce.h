/* Reductions.  x is (k0, r0, k1, r1), y is (k0, k1): the axes r0 and r1 are reduced; all sizes at least 1. */
#define KEYDNN_REDUCTION(K, T, S, name) \
  K(T, S, name, (const T* x, T* y, int64_t k0, int64_t r0, int64_t k1, int64_t r1), (x, y, k0, r0, k1, r1))
#define KEYDNN_REDUCE(K, T, S) \
  KEYDNN_REDUCTION(K, T, S, sum) \
  KEYDNN_REDUCTION(K, T, S, mean) \
  KEYDNN_REDUCTION(K, T, S, max) \
  KEYDNN_REDUCTION(K, T, S, min)
