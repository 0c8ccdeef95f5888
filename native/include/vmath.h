// exp, expm1, log, log1p, tanh, sigmoid and erf on registers, float and double.  Largest errors seen over the whole range,
// against extended precision, in units of the last place (tests/kernels/test_native_math.py):
//
//             exp   expm1  log   log1p  tanh  sigmoid  erf
//   float     1.1   1.8    0.9   1.5    2.6   2.5      2.8
//   double    1.0   2.0    0.8   1.5    2.5   2.4      1.5
//
// The polynomials are interpolations at Chebyshev nodes, computed in 60-digit arithmetic; each stays below a tenth of a
// unit in the last place.  Infinities, NaN, signed zeros and subnormals come out as IEEE 754 wants them.
#pragma once
#include "ahead.h"
#include "lanes.h"

namespace keydnn::KEYDNN_NS {
namespace {

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
  typedef int32_t type __attribute__((vector_size(KEYDNN_VECTOR_BYTES)));
  typedef uint32_t natural __attribute__((vector_size(KEYDNN_VECTOR_BYTES)));
};
template <>
struct BitsOf<double> {
  typedef int64_t type __attribute__((vector_size(KEYDNN_VECTOR_BYTES)));
  typedef uint64_t natural __attribute__((vector_size(KEYDNN_VECTOR_BYTES)));
};
// The bits of a Vec<T> as integers; comparisons of Vec<T> have this type too, -1 for true.
template <class T>
using Bits = typename BitsOf<T>::type;

// c[0] + c[1] x + ... by Horner's rule.
template <class T, int N>
KEYDNN_INLINE Vec<T> polynomial(const T (&c)[N], Vec<T> x) {
  Vec<T> p = splat<T>(c[N - 1]);
#pragma GCC unroll 32
  for (int i = N - 2; i >= 0; --i) p = p * x + c[i];
  return p;
}

template <class T>
struct Math;
template <>
struct Math<float> {
  using Int = int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: x + kMagic has round(x) in its low bits
  static constexpr float kPow = 8388608.0f;     // 2^23
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kExpLow = -104.0f, kExpHigh = 89.0f, kExpm1Low = -18.0f, kTanhHigh = 20.0f;
  static constexpr float kTiny = 1.17549435e-38f, kSmall = 1.4901161e-8f;
  static constexpr Int kSqrtHalf = 0x3f3504f3;
  static constexpr float kExp[] = {0.5f, 0.166665767f, 0.0416665542f, 0.00836323288f, 0.00139262508f};
  static constexpr float kLog[] = {0.666666666f, 0.400001222f, 0.285507786f, 0.233316145f};
  static constexpr float kErfNear[] = {1.12837917f,     -0.376126385f,   0.112837825f,   -0.0268654307f,
                                       0.00522103181f, -0.000848408041f, 0.00011265959f, -9.66704457e-6f};
};
template <>
struct Math<double> {
  using Int = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kPow = 4503599627370496.0;    // 2^52
  static constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kExpLow = -746.0, kExpHigh = 710.0, kExpm1Low = -38.0, kTanhHigh = 44.0;
  static constexpr double kTiny = 2.2250738585072014e-308, kSmall = 2.7e-17;
  static constexpr Int kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr double kExp[] = {0.5,
                                    0.16666666666666671,
                                    0.0416666666666666698,
                                    0.00833333333332608312,
                                    0.00138888888888837112,
                                    0.000198412698750022788,
                                    0.0000248015873256774619,
                                    2.75572551700008874e-6,
                                    2.75572734787185805e-7,
                                    2.51053127296221018e-8,
                                    2.09147553258932022e-9};
  static constexpr double kLog[] = {0.666666666666666665, 0.400000000000008832, 0.28571428570799785,  0.222222223925810451,
                                    0.181817955475211362, 0.153862447376216666, 0.132686383692668239, 0.130880348509275538};
  static constexpr double kErfNear[] = {1.12837916709551257,     -0.376126389031837481,     0.112837916709548787,
                                        -0.0268661706450767932,  0.00522397762481801447,    -0.000854832698083378991,
                                        0.000120553311116427109, -0.0000149255952668311816, 1.6461000484121368e-6,
                                        -1.6350312701054695e-7,  1.46597752740474358e-8,    -1.13728488567916737e-9,
                                        5.9571761477489114e-11};
};

template <class T>
KEYDNN_INLINE Bits<T> bits_of(Vec<T> x) {
  return (Bits<T>)x;
}
template <class T>
KEYDNN_INLINE Vec<T> absolute(Vec<T> x) {
  return (Vec<T>)(bits_of<T>(x) & ~(bits_of<T>(splat<T>(-0.0))));
}
template <class T>
KEYDNN_INLINE Vec<T> with_sign_of(Vec<T> size, Vec<T> x) {
  return (Vec<T>)(bits_of<T>(size) | (bits_of<T>(x) & bits_of<T>(splat<T>(-0.0))));
}
// x limited to [low, high]; NaN stays, because these instructions give their second operand where one is NaN.
template <class T>
KEYDNN_INLINE Vec<T> limited(Vec<T> x, T low, T high) {
  const Vec<T> lo = splat<T>(low), hi = splat<T>(high);
#if defined(KEYDNN_IS_avx512)
  if constexpr (sizeof(T) == 4) {
    return _mm512_min_ps(hi, _mm512_max_ps(lo, x));
  } else {
    return _mm512_min_pd(hi, _mm512_max_pd(lo, x));
  }
#elif defined(KEYDNN_IS_avx2)
  if constexpr (sizeof(T) == 4) {
    return _mm256_min_ps(hi, _mm256_max_ps(lo, x));
  } else {
    return _mm256_min_pd(hi, _mm256_max_pd(lo, x));
  }
#else
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
#endif
}

// x = n ln2 + r with whole n and |r| <= ln2 / 2; returns e^r - 1, and n + kMagic in *shifted.
template <class T>
KEYDNN_INLINE Vec<T> reduced_expm1(Vec<T> x, Vec<T>* shifted) {
  using M = Math<T>;
  *shifted = x * T(1.4426950408889634) + M::kMagic;
  const Vec<T> n = *shifted - M::kMagic;
  const Vec<T> r = (x - n * M::kLn2High) - n * M::kLn2Low;
  return (r * r) * polynomial<T>(M::kExp, r) + r;
}

// p * 2^n with whole n in *shifted - kMagic; rounds once, also to subnormal numbers.
template <class T>
KEYDNN_INLINE Vec<T> scaled(Vec<T> p, Vec<T> shifted) {
  using M = Math<T>;
#if defined(KEYDNN_IS_avx512)
  if constexpr (sizeof(T) == 4) {
    return _mm512_scalef_ps(p, shifted - M::kMagic);
  } else {
    return _mm512_scalef_pd(p, shifted - M::kMagic);
  }
#else
  // In two steps: half and both - half are the biased exponents of 2^floor(n/2) and 2^ceil(n/2).
  using Natural = typename BitsOf<T>::natural;
  const Natural both = (Natural)(bits_of<T>(shifted) - bits_of<T>(splat<T>(M::kMagic)) + typename M::Int(2 * M::kBias));
  const Natural half = both >> 1;
  return p * (Vec<T>)(half << M::kMantissa) * (Vec<T>)((both - half) << M::kMantissa);
#endif
}

template <class T>
KEYDNN_INLINE Vec<T> vexp(Vec<T> x) {
  using M = Math<T>;
  Vec<T> shifted;
  const auto is_zero = x < M::kExpLow;  // of e^x; masked scores are -inf, and to underflow takes the processor 150 cycles
  const Vec<T> p = reduced_expm1<T>(limited<T>(is_zero ? splat<T>(T(0)) : x, M::kExpLow, M::kExpHigh), &shifted) + T(1);
  return is_zero ? splat<T>(T(0)) : scaled<T>(p, shifted);
}

// e^x - 1 for x that are neither tiny nor above the logarithm of half the largest number.
template <class T>
KEYDNN_INLINE Vec<T> middle_expm1(Vec<T> x) {
  using M = Math<T>;
  Vec<T> shifted;
  const Vec<T> e = reduced_expm1<T>(x, &shifted);
  const Vec<T> scale = (Vec<T>)((bits_of<T>(shifted) << M::kMantissa) + (typename M::Int(M::kBias) << M::kMantissa));  // 2^n
  return e * scale + (scale - T(1));
}

template <class T>
KEYDNN_INLINE Vec<T> vexpm1(Vec<T> x) {
  using M = Math<T>;
  const Vec<T> large = vexp<T>(x) - T(1);
  const Vec<T> y = x > T(30) ? large : middle_expm1<T>(limited<T>(x, M::kExpm1Low, T(30)));
  return absolute<T>(x) < M::kSmall ? x : y;
}

// ln x for 0 < x < inf that is no subnormal: x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt 2,
// ln(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))), s = f / (2 + f).
template <class T>
KEYDNN_INLINE Vec<T> normal_log(Vec<T> x, Vec<T> k) {
  using M = Math<T>;
  using Int = typename M::Int;
  using Natural = typename BitsOf<T>::natural;  // a NaN's bits plus the bias pass the largest signed integer
  const Bits<T> u = (Bits<T>)((Natural)bits_of<T>(x) + (Natural)((Int(M::kBias) << M::kMantissa) - M::kSqrtHalf - Bits<T>{}));
  const Bits<T> one = bits_of<T>(splat<T>(M::kPow));
  const Bits<T> exponent = (Bits<T>)((typename BitsOf<T>::natural)u >> M::kMantissa);
  k += (Vec<T>)(exponent | one) - (M::kPow + T(M::kBias));
  const Vec<T> f = (Vec<T>)((u & ((Int(1) << M::kMantissa) - 1)) + M::kSqrtHalf) - T(1);
  const Vec<T> s = f / (f + T(2)), z = s * s, square = (f * T(0.5)) * f;
  const Vec<T> low = s * (z * polynomial<T>(M::kLog, z) + square);
  return k * M::kLn2High - ((square - (k * M::kLn2Low + low)) - f);
}

template <class T>
KEYDNN_INLINE Vec<T> vlog(Vec<T> x) {
  using M = Math<T>;
  const auto subnormal = x < M::kTiny;
  const Vec<T> scaled = subnormal ? x * M::kPow : x;
  Vec<T> y = normal_log<T>(scaled, subnormal ? splat<T>(-T(M::kMantissa)) : splat<T>(T(0)));
  const T inf = T(__builtin_inf());
  y = x == T(0) ? splat<T>(-inf) : y;
  y = x < T(0) ? splat<T>(T(__builtin_nan(""))) : y;
  return (x < inf) | (x == -inf) ? y : x;  // inf and NaN
}

// With u = 1 + x rounded, ln(1 + x) = ln u - ((u - 1) - x) / u.
template <class T>
KEYDNN_INLINE Vec<T> vlog1p(Vec<T> x) {
  const Vec<T> u = x + T(1), plain = vlog<T>(u);
  const Vec<T> y = plain - ((u - T(1)) - x) / u;
  return absolute<T>(x) < Math<T>::kSmall ? x : ((u > T(0)) & (u < T(__builtin_inf())) ? y : plain);
}

// tanh |x| = t / (t + 2), t = e^(2|x|) - 1.
template <class T>
KEYDNN_INLINE Vec<T> vtanh(Vec<T> x) {
  const Vec<T> t = middle_expm1<T>(limited<T>(absolute<T>(x) * T(2), T(0), Math<T>::kTanhHigh));
  return with_sign_of<T>(t / (t + T(2)), x);
}

template <class T>
KEYDNN_INLINE Vec<T> vsigmoid(Vec<T> x) {
  return T(1) / (vexp<T>(-x) + T(1));  // where e^-x is inf the quotient is 0, the right limit
}

// 1 - erf(x) for x >= 1: float by a polynomial for its logarithm, double by e^(-x^2) times one in (x - 1) / (x + 3).
KEYDNN_INLINE Vec<float> far_erfc(Vec<float> x) {
  constexpr float c[] = {-0.00032013805f, 1.13023343f,     0.631826052f,   0.110080083f,   -0.026421136f,
                         0.00475959629f,  -0.000596805626f, 4.60580427e-5f, -1.63715141e-6f};
  x = x > 4.0f ? splat<float>(4.0f) : x;
  return vexp<float>(-polynomial<float>(c, x));
}
KEYDNN_INLINE Vec<double> far_erfc(Vec<double> x) {
  constexpr double c[] = {0.207983291333428867,     -0.15436117429436918,     0.0496984454033941365,    -0.0127131476956919182,
                          0.00247931469708625314,   -0.000331602960579283852, 0.0000195635831977817407, 2.42555748504292284e-6,
                          -5.54127309801663994e-7,  -4.52673181334613388e-9,  1.13393357311470593e-8,   -2.6377560229741262e-10,
                          -2.5700407551346904e-10,  6.02173256030323971e-12,  6.04379214778881282e-12,  6.69764556479081509e-15};
  x = x > 6.0 ? splat<double>(6.0) : x;
  const Vec<double> s = (x * 2.6 - 6.6) / (x + 3.0);
  return vexp<double>(-x * x) * polynomial<double>(c, s);
}

template <class T>
KEYDNN_INLINE Vec<T> verf(Vec<T> x) {
  const Vec<T> size = absolute<T>(x), low = size < T(1) ? size : splat<T>(T(1));
  const Vec<T> near = low * polynomial<T>(Math<T>::kErfNear, low * low);
  const Vec<T> far = T(1) - far_erfc(size < T(1) ? splat<T>(T(1)) : size);
  return with_sign_of<T>(size < T(1) ? near : far, x);
}

// ---- whole arrays ------------------------------------------------------------------------------------------------

// y[i] = f(x[i]) for i in [begin, end).  One copy of f serves whole and partial registers, so that an element's result
// does not depend on where it stands.
template <class T, class F>
KEYDNN_INLINE void map_range(const T* x, T* y, int64_t begin, int64_t end, F f, bool past = false) {
  for (int64_t i = begin; i < end; i += kLanes<T>) {
    const int64_t k = end - i;
    fetch_ahead(x + i, kBusyBytes);
    const Vec<T> v = f(k >= kLanes<T> ? load(x + i) : load_part(x + i, k, T(0)));
    if (k >= kLanes<T>) {
      put(y + i, v, past);
    } else {
      store_part(y + i, v, k);
    }
  }
  if (past) ends_past();
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
