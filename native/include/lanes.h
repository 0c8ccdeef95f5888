// Parts of registers: the first lanes of one, and all lanes joined to one number.
#pragma once
#include "kernel.h"

#if defined(KEYDNN_X86)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns inside its own header
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace keydnn::KEYDNN_NS {
namespace {

// The first k lanes from p, `fill` in the others; and back.
template <class T>
KEYDNN_INLINE Vec<T> load_part(const T* p, int64_t k, T fill) {
#if defined(KEYDNN_IS_avx512)
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_loadu_ps(splat<T>(fill), static_cast<__mmask16>((1u << k) - 1), p);
  } else {
    return _mm512_mask_loadu_pd(splat<T>(fill), static_cast<__mmask8>((1u << k) - 1), p);
  }
#else
  Vec<T> v = splat<T>(fill);
  memcpy(&v, p, sizeof(T) * static_cast<size_t>(k));
  return v;
#endif
}
template <class T>
KEYDNN_INLINE void store_part(T* p, Vec<T> v, int64_t k) {
#if defined(KEYDNN_IS_avx512)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << k) - 1), v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << k) - 1), v);
  }
#else
  memcpy(p, &v, sizeof(T) * static_cast<size_t>(k));
#endif
}
// Loads lanes [first, last) of a register, 0 in the others, whose memory is not touched; bounds may lie outside of the register.
template <class T>
struct Between {
#if defined(KEYDNN_IS_avx512)
  uint16_t lanes = 0;
  Between() = default;
  Between(int64_t first, int64_t last) : lanes(static_cast<uint16_t>(below(last) & ~below(first))) {}
  KEYDNN_INLINE Vec<T> load(const T* p) const {
    if constexpr (sizeof(T) == 4) {
      return _mm512_maskz_loadu_ps(lanes, p);
    } else {
      return _mm512_maskz_loadu_pd(static_cast<__mmask8>(lanes), p);
    }
  }

 private:
  static uint32_t below(int64_t n) { return (1u << lesser(greater(n, int64_t(0)), kLanes<T>)) - 1; }
#elif defined(KEYDNN_IS_avx2)
  decltype(Vec<T>() < Vec<T>()) lanes = {};
  Between() = default;
  Between(int64_t first, int64_t last) {
    for (int i = 0; i < int(kLanes<T>); ++i) lanes[i] = i >= first && i < last ? -1 : 0;
  }
  KEYDNN_INLINE Vec<T> load(const T* p) const {
    if constexpr (sizeof(T) == 4) {
      return _mm256_maskload_ps(p, reinterpret_cast<__m256i>(lanes));
    } else {
      return _mm256_maskload_pd(p, reinterpret_cast<__m256i>(lanes));
    }
  }
#else
  int64_t first = 0, last = 0;
  Between() = default;
  Between(int64_t first_, int64_t last_) : first(greater(first_, int64_t(0))), last(lesser(last_, kLanes<T>)) {}
  KEYDNN_INLINE Vec<T> load(const T* p) const {
    if (last - first == kLanes<T>) return KEYDNN_NS::load(p);
    Vec<T> v = {};
    for (int64_t i = first; i < last; ++i) v[i] = p[i];
    return v;
  }
#endif
};

// The lanes of v, halved and joined until one is left.
template <class T, int N>
struct Lanes {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <int N, class T, class V, class Join>
KEYDNN_INLINE T fold_lanes(V v, Join join) {
  if constexpr (N == 2) {
    return join(T(v[0]), T(v[1]));
  } else {
    typename Lanes<T, N / 2>::type low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return fold_lanes<N / 2, T>(join(low, high), join);
  }
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
