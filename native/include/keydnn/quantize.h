/* Rounding to fixed point: y = overflow(round(x / q)) * q, see kernels/reference/quantize.py.  n counts elements; y may be x. */
#define KEYDNN_QUANTIZE_MOST_BITS 53     /* wl: wider integers are no double */
#define KEYDNN_QUANTIZE_MOST_FRACTION 60 /* wl - iwl, from minus this */
typedef enum keydnn_rounding {
  KEYDNN_TRN,
  KEYDNN_TRN_ZERO,
  KEYDNN_RND,
  KEYDNN_RND_ZERO,
  KEYDNN_RND_MIN_INF,
  KEYDNN_RND_INF,
  KEYDNN_RND_CONV
} keydnn_rounding;
typedef enum keydnn_overflow { KEYDNN_WRAP, KEYDNN_SAT, KEYDNN_SAT_ZERO, KEYDNN_SAT_SYM, KEYDNN_WRAP_SM } keydnn_overflow;
typedef struct keydnn_fixed {
  int64_t wl, iwl, is_signed, rounding, overflow, sat_bits;
} keydnn_fixed;
#define KEYDNN_QUANTIZE(K, T, S) \
  K(T, S, quantize_fixed, (const T* x, T* y, int64_t n, const keydnn_fixed* format), (x, y, n, format))
