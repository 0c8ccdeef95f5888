// Running averages and optimizer steps, one pass over the arrays.
// Meaning: kernels/reference/update.py.
// Numerics: the arrays' own precision.  Averages are written old + rate * (new - old), which leaves the compiler no choice
// of what to fuse, so an element's result does not depend on its place.
#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kGrain = 8192;

// g + decay * p; without decay an infinite p does not matter.
template <class T>
KEYDNN_INLINE T decayed(T g, T decay, T p) {
  return decay != 0 ? g + decay * p : g;
}

// What an optimizer keeps is 0 rather than subnormal: arithmetic on subnormal numbers is many times slower.
template <class T>
KEYDNN_INLINE T kept(T x) {
  constexpr T tiny = sizeof(T) == 4 ? T(1.17549435e-38f) : T(2.2250738585072014e-308);
  return size_of(x) < tiny ? T(0) : x;
}

// beta1^t and beta2^t of the latest t: the parameters of a model are mostly at the same step.
struct Powers {
  double steps, beta1, beta2, first, second;
};
thread_local Powers latest = {0, 0, 0, 1, 1};

const Powers& powers(double steps, double beta1, double beta2) {
  Powers& p = latest;
  if (p.steps != steps || p.beta1 != beta1 || p.beta2 != beta2) p = {steps, beta1, beta2, pow(beta1, steps), pow(beta2, steps)};
  return p;
}

template <class T>
int ema(T* running, const T* batch, int64_t n, double momentum) {
  const T rate = static_cast<T>(momentum);
  parallel_ranges(n, kGrain, 0.3 * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    for (int64_t i = begin; i < end; ++i) running[i] += rate * (batch[i] - running[i]);
  });
  return KEYDNN_OK;
}

// velocity may be NULL.
template <class T>
int sgd(T* p, const T* g, T* velocity, int64_t n, double lr, double momentum, int nesterov, double weight_decay) {
  const T rate = static_cast<T>(lr), mu = static_cast<T>(momentum), decay = static_cast<T>(weight_decay);
  parallel_ranges(n, kGrain, 0.4 * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    if (!velocity) {
      for (int64_t i = begin; i < end; ++i) p[i] -= rate * decayed(g[i], decay, p[i]);
    } else if (nesterov) {
#pragma GCC ivdep
      for (int64_t i = begin; i < end; ++i) {
        const T d = decayed(g[i], decay, p[i]), v = kept<T>(mu * velocity[i] + d);
        velocity[i] = v;
        p[i] -= rate * (d + mu * v);
      }
    } else {
#pragma GCC ivdep
      for (int64_t i = begin; i < end; ++i) {
        const T v = kept<T>(mu * velocity[i] + decayed(g[i], decay, p[i]));
        velocity[i] = v;
        p[i] -= rate * v;
      }
    }
  });
  return KEYDNN_OK;
}

// t counts from 1.  p -= lr m' / (sqrt(v') + eps) with m' = m / (1 - beta1^t), v' = v / (1 - beta2^t).
template <class T>
int adam(T* p, const T* g, T* m, T* v, int64_t n, int64_t t, double lr, double beta1, double beta2, double eps, double weight_decay,
         int decoupled) {
  if (t < 1) return KEYDNN_BAD_SHAPE;
  const Powers& power = powers(static_cast<double>(t), beta1, beta2);
  const T rate = static_cast<T>(lr / (1.0 - power.first)), root_scale = static_cast<T>(1.0 / sqrt(1.0 - power.second));
  const T to_m = static_cast<T>(1.0 - beta1), to_v = static_cast<T>(1.0 - beta2), small = static_cast<T>(eps);
  const T l2 = static_cast<T>(decoupled ? 0.0 : weight_decay), shrink = static_cast<T>(decoupled ? lr * weight_decay : 0.0);
  parallel_ranges(n, kGrain, 0.8 * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) {
      const T d = decayed(g[i], l2, p[i]);
      const T first = kept<T>(m[i] + to_m * (d - m[i]));
      const T second = kept<T>(v[i] + to_v * (d * d - v[i]));
      m[i] = first;
      v[i] = second;
      p[i] = decayed(p[i], -shrink, p[i]) - (rate * first) / (root(second) * root_scale + small);
    }
  });
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_UPDATE)
