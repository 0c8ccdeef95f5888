/* In-place updates of n elements; arrays must not overlap.  Rates are those of one step, computed by the caller. */
#define KEYDNN_UPDATE(K, T, S) \
  K(T, S, ema, (T* running, const T* batch, int64_t n, double momentum), (running, batch, n, momentum)) \
  K(T, S, sgd, (T* p, const T* g, T* velocity, int64_t n, double lr, double momentum, int nesterov, double weight_decay), \
    (p, g, velocity, n, lr, momentum, nesterov, weight_decay)) \
  K(T, S, adam, (T* p, const T* g, T* m, T* v, int64_t n, int64_t t, double lr, double beta1, double beta2, double eps, \
                 double weight_decay, int decoupled), \
    (p, g, m, v, n, t, lr, beta1, beta2, eps, weight_decay, decoupled))
