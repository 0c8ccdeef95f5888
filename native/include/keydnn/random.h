/* Random numbers: functions of (key, element index) alone, Philox4x32-10; see kernels/reference/random.py. */
#define KEYDNN_RANDOM(K, T, S) \
  K(T, S, uniform, (uint64_t key, T* u, int64_t n), (key, u, n)) \
  K(T, S, dropout_mask, (uint64_t key, T* m, int64_t n, double p), (key, m, n, p))
