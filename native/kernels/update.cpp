// Running averages and optimizer steps, one pass over the arrays.
// Meaning: kernels/reference/update.py.
// Numerics: the arrays' own precision.  Averages are written old + rate * (new - old), which leaves the compiler no choice
// of what to fuse, so an element's result does not depend on its place.
#include "keydnn/adam_many.h"
#include "lanes.h"

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

// A register of what is kept, in one instruction less where there is one for it.
template <class T>
KEYDNN_INLINE Vec<T> kept(Vec<T> x) {
#if defined(KEYDNN_IS_avx512)
  constexpr int small = 0x26;  // subnormal, 0, -0
  if constexpr (sizeof(T) == 4) return _mm512_mask_mov_ps(x, _mm512_fpclass_ps_mask(x, small), _mm512_setzero_ps());
  else return _mm512_mask_mov_pd(x, _mm512_fpclass_pd_mask(x, small), _mm512_setzero_pd());
#else
  constexpr T tiny = sizeof(T) == 4 ? T(1.17549435e-38f) : T(2.2250738585072014e-308);
  return (x < tiny) & (x > -tiny) ? Vec<T>{} : x;
#endif
}

// Square roots of numbers that are not subnormal.  The divider takes as long for one as for a division: beside divisions, roots of
// float come from an estimate of 14 bits and a step of Newton (y = x r, y + y (1 - y r) / 2; less than a unit in the last place off).
template <class T>
KEYDNN_INLINE Vec<T> roots(Vec<T> x) {
#if defined(KEYDNN_IS_avx512)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> r = _mm512_rsqrt14_ps(x), y = x * r;
    const Vec<T> better = y + y * (T(0.5) - y * (T(0.5) * r));
    return _mm512_mask_mov_ps(better, _mm512_fpclass_ps_mask(x, 0x9f), x);  // 0, infinite, NaN
  } else {
    return _mm512_sqrt_pd(x);
  }
#else
  Vec<T> y;
  for (int i = 0; i < kLanes<T>; ++i) y[i] = root(x[i]);
  return y;
#endif
}

// What a step of Adam computes once: the parameters of a model are mostly at the same step.
struct Rates {
  double steps, lr, beta1, beta2, rate, root_scale;
  bool serves(double at, double lr_, double beta1_, double beta2_) const {
    return steps == at && lr == lr_ && beta1 == beta1_ && beta2 == beta2_;
  }
};
thread_local Rates latest = {0, 0, 0, 0, 0, 0}, coming = {0, 0, 0, 0, 0, 0};

Rates rates_of(double steps, double lr, double beta1, double beta2) {
  return {steps, lr, beta1, beta2, lr / (1.0 - pow(beta1, steps)), 1.0 / sqrt(1.0 - pow(beta2, steps))};
}

const Rates& rates(double steps, double lr, double beta1, double beta2) {
  Rates& r = latest;
  if (!r.serves(steps, lr, beta1, beta2)) r = coming.serves(steps, lr, beta1, beta2) ? coming : rates_of(steps, lr, beta1, beta2);
  return r;
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

// What a step of Adam is the same for, in the arrays' type.
template <class T>
struct Adam {
  T rate, root_scale, to_m, to_v, small, l2, shrink;
  Adam(int64_t t, double lr, double beta1, double beta2, double eps, double weight_decay, int decoupled)
      : to_m(static_cast<T>(1.0 - beta1)),
        to_v(static_cast<T>(1.0 - beta2)),
        small(static_cast<T>(eps)),
        l2(static_cast<T>(decoupled ? 0.0 : weight_decay)),
        shrink(static_cast<T>(decoupled ? lr * weight_decay : 0.0)) {
    const Rates& now = rates(static_cast<double>(t), lr, beta1, beta2);
    rate = static_cast<T>(now.rate);
    root_scale = static_cast<T>(now.root_scale);
  }
  bool decays() const { return l2 != 0 || shrink != 0; }
};

// p -= lr m' / (sqrt(v') + eps) with m' = m / (1 - beta1^t), v' = v / (1 - beta2^t), for n elements.
template <class T, bool DECAYS>
KEYDNN_INLINE void adam_range(const Adam<T> a, T* p, const T* g, T* m, T* v, int64_t n) {
  auto some = [=](T* p_at, const T* g_at, T* m_at, T* v_at, int64_t live) __attribute__((always_inline)) {
    auto read = [=](const T* from) { return live == kLanes<T> ? load(from) : load_part(from, live, T(0)); };
    auto write = [=](T* to, Vec<T> x) { live == kLanes<T> ? store(to, x) : store_part(to, x, live); };
    Vec<T> w = read(p_at), d = read(g_at);
    if (DECAYS && a.l2 != 0) d += a.l2 * w;
    const Vec<T> m0 = read(m_at), v0 = read(v_at);
    const Vec<T> first = kept<T>(m0 + a.to_m * (d - m0)), second = kept<T>(v0 + a.to_v * (d * d - v0));
    write(m_at, first);
    write(v_at, second);
    if (DECAYS && a.shrink != 0) w -= a.shrink * w;
    write(p_at, w - (a.rate * first) / (roots<T>(second) * a.root_scale + a.small));
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) some(p + i, g + i, m + i, v + i, kLanes<T>);
  if (i < n) some(p + i, g + i, m + i, v + i, n - i);
}

// t counts from 1.
template <class T>
int adam(T* p, const T* g, T* m, T* v, int64_t n, int64_t t, double lr, double beta1, double beta2, double eps, double weight_decay,
         int decoupled) {
  if (t < 1) return KEYDNN_BAD_SHAPE;
  const Adam<T> a(t, lr, beta1, beta2, eps, weight_decay, decoupled);
  parallel_ranges(n, kGrain, 0.8 * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    if (a.decays()) {
      adam_range<T, true>(a, p + begin, g + begin, m + begin, v + begin, end - begin);
    } else {
      adam_range<T, false>(a, p + begin, g + begin, m + begin, v + begin, end - begin);
    }
  });
  return KEYDNN_OK;
}

template <class T, bool DECAYS>
KEYDNN_NOINLINE void adam_arrays(const Adam<T>& given, T* const* arrays, const int64_t* n, int64_t count) {
  const Adam<T> a = given;
  for (int64_t i = 0; i < count; ++i, arrays += 4) adam_range<T, DECAYS>(a, arrays[0], arrays[1], arrays[2], arrays[3], n[i]);
}

template <class T>
int adam_many(T* const* arrays, const int64_t* n, int64_t count, int64_t t, double lr, double beta1, double beta2, double eps,
              double weight_decay, int decoupled) {
  if (t < 1) return KEYDNN_BAD_SHAPE;
  const Adam<T> a(t, lr, beta1, beta2, eps, weight_decay, decoupled);
  if (a.decays()) {
    adam_arrays<T, true>(a, arrays, n, count);
  } else {
    adam_arrays<T, false>(a, arrays, n, count);
  }
  coming = rates_of(static_cast<double>(t + 1), lr, beta1, beta2);  // nothing waits for it here; the next step would
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_UPDATE)
KEYDNN_EXPORT(KEYDNN_ADAM_MANY)
