// Rounding to fixed-point numbers, cut into chunks of kGrain elements.
// Meaning: kernels/reference/quantize.py::quantize_fixed.
// Numerics: exact, the same bits as the reference.  t = x * 2^f and t - rint(t) have no rounding error; integers of up to 24 bits
// are computed in float, of up to 53 in double.
#include "vmath.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kGrain = 16384;

inline float nearest(float v) { return __builtin_rintf(v); }
inline double nearest(double v) { return __builtin_rint(v); }
inline float below(float v) { return __builtin_floorf(v); }
inline double below(double v) { return __builtin_floor(v); }
inline float towards_zero(float v) { return __builtin_truncf(v); }
inline double towards_zero(double v) { return __builtin_trunc(v); }

// The integer beside t; the modes from KEYDNN_RND on differ in nothing but exact ties.
template <int rounding, class C>
KEYDNN_INLINE C rounded(C t) {
  if constexpr (rounding == KEYDNN_TRN) return below(t);
  if constexpr (rounding == KEYDNN_TRN_ZERO) return towards_zero(t);
  const C v = nearest(t), d = t - v, half = C(0.5);
  if constexpr (rounding == KEYDNN_RND) return v + (d == half ? C(1) : C(0));
  if constexpr (rounding == KEYDNN_RND_MIN_INF) return v - (d == -half ? C(1) : C(0));
  if constexpr (rounding == KEYDNN_RND_ZERO) {
    const C step = t < 0 ? half : -half;  // the tie that has to move one step towards zero
    return v + (d == step ? step + step : C(0));
  }
  if constexpr (rounding == KEYDNN_RND_INF) {
    const C step = t > 0 ? half : -half;
    return v + (d == step ? step + step : C(0));
  }
  return v;
}

struct Format {
  double scale, quantum, low, high, modulus;
  int64_t wl, n, is_signed;
};

// AP_WRAP with saturated bits and AP_WRAP_SM on the low wl bits; `deleted` is bit wl of floor(t).
inline double wrapped(int64_t bits, int64_t deleted, int64_t sign, const Format& a, bool is_sm) {
  const int64_t ones = (int64_t(1) << a.wl) - 1, top = int64_t(1) << (a.wl - 1);
  int64_t chosen = a.is_signed ? sign : 1;
  if (is_sm) {
    int64_t differs;
    if (a.n == 0) {
      chosen = deleted;
      differs = chosen ^ (bits >> (a.wl - 1));
    } else {
      differs = a.n == 1 ? sign ^ (bits >> (a.wl - 1)) : ~(sign ^ (bits >> (a.wl - a.n)));
    }
    if (differs & 1) bits ^= ones;
  }
  if (!a.is_signed) return static_cast<double>(bits | (((int64_t(1) << a.n) - 1) << (a.wl - a.n)));
  bits = chosen & 1 ? bits | top : bits & ~top;
  if (a.n > 1) {
    const int64_t next = ((int64_t(1) << (a.n - 1)) - 1) << (a.wl - a.n);
    bits = sign ? bits & ~next : bits | next;
  }
  return static_cast<double>(bits - ((bits >> (a.wl - 1)) << a.wl));
}

// The low wl bits of an integer; v has any size.
template <class C>
KEYDNN_INLINE C low_bits(C v, const Format& a) {
  const C modulus = static_cast<C>(a.modulus);
  return v - modulus * below(v * (C(1) / modulus));
}

// x in quanta.  Quanta above 1 could make a small x vanish, which would hide its sign; unscaled it rounds alike.
template <bool is_coarse, class C>
KEYDNN_INLINE C scaled(C x, C scale) {
  const C t = x * scale;
  if constexpr (is_coarse) return t == C(0) ? x : t;
  return t;
}

// kind: SAT (also SYM, with its own lower rail), SAT_ZERO, WRAP
template <int rounding, int kind, class C, bool is_coarse, class T>
KEYDNN_INLINE void run_range(const T* x, T* y, int64_t begin, int64_t end, const Format& a) {
  const C scale = static_cast<C>(a.scale), quantum = static_cast<C>(a.quantum), low = static_cast<C>(a.low), high = static_cast<C>(a.high);
  const C modulus = static_cast<C>(a.modulus);
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    const C t = scaled<is_coarse>(static_cast<C>(x[i]), scale);
    C v = rounded<rounding>(t);
    if constexpr (kind == KEYDNN_SAT) {
      v = v < low ? low : v;  // NaN stays
      v = v > high ? high : v;
    } else if constexpr (kind == KEYDNN_SAT_ZERO) {
      v = v > high ? C(0) : v;
      v = v < low ? C(0) : v;
    } else {
      const C huge = C(1e35);  // a multiple of the modulus from here on: wl and f leave that room
      const C bits = low_bits(v, a);
      v = bits > high ? bits - modulus : bits;
      v = t > huge || t < -huge ? static_cast<C>(x[i]) * C(0) : v;  // infinities: NaN
    }
    y[i] = static_cast<T>(v * quantum + C(0));  // + 0: a zero is +0
  }
}

template <int rounding, class T>
void run_rare(const T* x, T* y, int64_t begin, int64_t end, const Format& a, bool is_sm) {
  for (int64_t i = begin; i < end; ++i) {
    const double value = static_cast<double>(x[i]), t = scaled<true>(value, a.scale);
    if (!(t <= 1e35 && t >= -1e35)) {  // all low bits are zero; NaN and infinities become NaN
      const bool is_number = value - value == 0;
      const double v = is_number ? wrapped(0, 0, value < 0, a, is_sm) * a.quantum + 0.0 : __builtin_nan("");
      y[i] = static_cast<T>(v);
      continue;
    }
    double v = rounded<rounding>(t);
    if (v > a.high || v < a.low) {
      const double above = below(below(t) / a.modulus);
      v = wrapped(static_cast<int64_t>(low_bits(v, a)), static_cast<int64_t>(above - 2 * below(above / 2)), value < 0, a, is_sm);
    }
    y[i] = static_cast<T>(v * a.quantum + 0.0);
  }
}

template <int rounding, class C, bool is_coarse, class T>
void run_common(const T* x, T* y, int64_t begin, int64_t end, const Format& a, int64_t overflow) {
  if (overflow == KEYDNN_WRAP) run_range<rounding, KEYDNN_WRAP, double, is_coarse>(x, y, begin, end, a);
  else if (overflow == KEYDNN_SAT_ZERO) run_range<rounding, KEYDNN_SAT_ZERO, C, is_coarse>(x, y, begin, end, a);
  else run_range<rounding, KEYDNN_SAT, C, is_coarse>(x, y, begin, end, a);
}

template <int rounding, class T>
void run(const T* x, T* y, int64_t n, const Format& a, int64_t overflow) {
  const bool is_rare = overflow == KEYDNN_WRAP_SM || (overflow == KEYDNN_WRAP && a.n > 0);
  const bool is_coarse = a.scale < 1, is_narrow = sizeof(T) == 4 && a.wl <= 24 && !is_coarse;
  parallel_ranges(n, kGrain, (is_rare ? 8.0 : 0.5) * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    if (is_rare) run_rare<rounding>(x, y, begin, end, a, overflow == KEYDNN_WRAP_SM);
    else if (is_coarse) run_common<rounding, double, true>(x, y, begin, end, a, overflow);
    else if (is_narrow) run_common<rounding, T, false>(x, y, begin, end, a, overflow);
    else run_common<rounding, double, false>(x, y, begin, end, a, overflow);
  });
}

template <class T>
int quantize_fixed(const T* x, T* y, int64_t n, const keydnn_fixed* format) {
  const int64_t wl = format->wl, f = wl - format->iwl;
  if (wl < 1 || wl > KEYDNN_QUANTIZE_MOST_BITS || f < -KEYDNN_QUANTIZE_MOST_FRACTION || f > KEYDNN_QUANTIZE_MOST_FRACTION) return KEYDNN_BAD_SHAPE;
  Format a;
  const double power = static_cast<double>(int64_t(1) << (f < 0 ? -f : f));
  a.scale = f < 0 ? 1.0 / power : power;
  a.quantum = f < 0 ? power : 1.0 / power;
  a.modulus = static_cast<double>(int64_t(1) << wl);
  a.high = static_cast<double>((int64_t(1) << (format->is_signed ? wl - 1 : wl)) - 1);
  a.low = format->is_signed ? -static_cast<double>(int64_t(1) << (wl - 1)) : 0.0;
  if (format->overflow == KEYDNN_SAT_SYM && format->is_signed && wl > 1) a.low += 1;
  a.wl = wl;
  a.n = format->sat_bits;
  a.is_signed = format->is_signed;
  switch (format->rounding) {
#define KEYDNN_MODE(mode) \
  case mode: run<mode>(x, y, n, a, format->overflow); return KEYDNN_OK;
    KEYDNN_MODE(KEYDNN_TRN)
    KEYDNN_MODE(KEYDNN_TRN_ZERO)
    KEYDNN_MODE(KEYDNN_RND)
    KEYDNN_MODE(KEYDNN_RND_ZERO)
    KEYDNN_MODE(KEYDNN_RND_MIN_INF)
    KEYDNN_MODE(KEYDNN_RND_INF)
    KEYDNN_MODE(KEYDNN_RND_CONV)
#undef KEYDNN_MODE
  }
  return KEYDNN_BAD_SHAPE;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_QUANTIZE)
