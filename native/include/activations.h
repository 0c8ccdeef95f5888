// Activations that need more than one step, and their gradients, on registers: gelu, silu, softplus, elu.
// Meaning: kernels/reference/activation.py.
// Each sum is written so that there is one way to fuse a product into it: the same bits wherever a function is inlined.
#pragma once
#include "vmath.h"

namespace keydnn::KEYDNN_NS {
namespace {

// Phi(x), and e^(-x^2 / 2) in *bell.  Float: Phi(-u) = bell * P(1 / (1 + 0.3 u)) for u >= 0, P fitted by iterated least
// squares to 1.5e-7 of its value; so Phi is accurate where it is small, too.  Double: by erf.
KEYDNN_INLINE Vec<float> normal_below(Vec<float> x, Vec<float>* bell) {
  constexpr float c[] = {0.119629233f, 0.120754984f, 0.0999069953f, 0.128583157f, -0.0537241507f, 0.206396922f, -0.157227729f, 0.0356805130f};
  *bell = vexp<float>((x * -0.5f) * x);
  const Vec<float> t = 1.0f / (absolute<float>(x) * 0.3f + 1.0f), tail = t * polynomial<float>(c, t), zero = {};
  return *bell * (x > 0.0f ? -tail : tail) + (x > 0.0f ? splat<float>(1.0f) : zero);
}
KEYDNN_INLINE Vec<double> normal_below(Vec<double> x, Vec<double>* bell) {
  *bell = vexp<double>((x * -0.5) * x);
  return verf<double>(x * 0.70710678118654752) * 0.5 + 0.5;
}

template <class T>
KEYDNN_INLINE Vec<T> vgelu(Vec<T> x) {
  Vec<T> bell;
  return x * normal_below(x, &bell);
}
// g (Phi(x) + x phi(x)) with the density phi = bell / sqrt(2 pi)
template <class T>
KEYDNN_INLINE Vec<T> vgelu_grad(Vec<T> x, Vec<T> g) {
  Vec<T> bell;
  const Vec<T> below = normal_below(x, &bell);
  return g * (x * (bell * T(0.39894228040143268)) + below);
}

template <class T>
KEYDNN_INLINE Vec<T> vsilu(Vec<T> x) {
  return x * vsigmoid<T>(x);
}
template <class T>
KEYDNN_INLINE Vec<T> vsilu_grad(Vec<T> x, Vec<T> g) {
  const Vec<T> s = vsigmoid<T>(x);
  return g * (s * (x * (T(1) - s) + T(1)));
}

// max(x, 0) + ln(1 + e^-|x|); NaN is not <= 0: it stays
template <class T>
KEYDNN_INLINE Vec<T> vsoftplus(Vec<T> x) {
  const Vec<T> zero = {};
  return (x <= zero ? zero : x) + vlog1p<T>(vexp<T>(-absolute<T>(x)));
}
template <class T>
KEYDNN_INLINE Vec<T> vsoftplus_grad(Vec<T> x, Vec<T> g) {
  return g * vsigmoid<T>(x);
}

template <class T>
KEYDNN_INLINE Vec<T> velu(Vec<T> x, T alpha) {
  return x > T(0) ? x : vexpm1<T>(x > T(0) ? Vec<T>{} : x) * alpha;
}
template <class T>
KEYDNN_INLINE Vec<T> velu_grad(Vec<T> x, Vec<T> g, T alpha) {
  return x > T(0) ? g : g * (vexp<T>(x > T(0) ? Vec<T>{} : x) * alpha);
}

// z[i] = f(x[i], y[i]) for i in [begin, end); see map_range.
template <class T, class F>
KEYDNN_INLINE void map_range2(const T* x, const T* y, T* z, int64_t begin, int64_t end, F f, bool past = false) {
  for (int64_t i = begin; i < end; i += kLanes<T>) {
    const int64_t k = end - i;
    const bool whole = k >= kLanes<T>;
    fetch_ahead(x + i, kBusyBytes);
    fetch_ahead(y + i, kBusyBytes);
    const Vec<T> v = f(whole ? load(x + i) : load_part(x + i, k, T(0)), whole ? load(y + i) : load_part(y + i, k, T(0)));
    if (whole) {
      put(z + i, v, past);
    } else {
      store_part(z + i, v, k);
    }
  }
  if (past) ends_past();
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
