// Sums over contiguous memory, in double, and what softmax needs besides.
//
// A sum over n elements runs in blocks of kBlock: lanes add up a block, then the lanes in order, then the blocks.  So the
// error grows like that of a pairwise sum, and the order depends on n alone.
#pragma once
#include "lanes.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kBlock = 1024;

// Elements of T as doubles, as many as one register of doubles holds.
template <class T>
struct PartOf;
template <>
struct PartOf<float> {
  typedef float type __attribute__((vector_size(KEYDNN_VECTOR_BYTES / 2)));
  typedef float loose __attribute__((vector_size(KEYDNN_VECTOR_BYTES / 2), aligned(4), may_alias));
};
template <>
struct PartOf<double> {
  typedef double type __attribute__((vector_size(KEYDNN_VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(KEYDNN_VECTOR_BYTES), aligned(8), may_alias));
};
constexpr int64_t kWide = kLanes<double>;

template <class T>
KEYDNN_INLINE Vec<double> load_wide(const T* p) {
#if defined(KEYDNN_IS_avx512)
  if constexpr (sizeof(T) == 4) return _mm512_cvtps_pd(_mm256_loadu_ps(p));  // GCC makes four instructions of the general form
#endif
  const typename PartOf<T>::type v = *reinterpret_cast<const typename PartOf<T>::loose*>(p);
  return __builtin_convertvector(v, Vec<double>);
}

KEYDNN_INLINE double add_lanes(Vec<double> v) {
  return fold_lanes<kWide, double>(v, [](auto a, auto b) { return a + b; });
}

// N sums at once over `count` runs of n elements that start `stride` apart.  body(i, s) adds kWide elements from offset i
// on to the registers s[0..N), rest(i, s) adds one element to the doubles s[0..N).
template <int N, class Body, class Rest>
KEYDNN_INLINE void sum_runs(int64_t n, int64_t count, int64_t stride, double* sums, Body body, Rest rest) {
  constexpr int kChains = N == 1 ? 4 : 2;  // independent additions, to hide their latency
  Vec<double> chain[kChains][N] = {};
  double tail[N] = {};
  int64_t pending = 0;
  const auto flush = [&] {
    for (int k = 0; k < N; ++k) {
      Vec<double> v = chain[0][k];
      for (int c = 1; c < kChains; ++c) v += chain[c][k];
      sums[k] += add_lanes(v) + tail[k];
      for (int c = 0; c < kChains; ++c) chain[c][k] = Vec<double>{};
      tail[k] = 0;
    }
    pending = 0;
  };
  for (int k = 0; k < N; ++k) sums[k] = 0;
  for (int64_t run = 0; run < count; ++run) {
    int64_t i = run * stride;
    for (const int64_t run_end = i + n; i < run_end;) {
      const int64_t end = lesser(i + kBlock, run_end);
      pending += end - i;
      for (; i + kChains * kWide <= end; i += kChains * kWide)
        for (int c = 0; c < kChains; ++c) body(i + c * kWide, chain[c]);
      for (; i + kWide <= end; i += kWide) body(i, chain[0]);
      for (; i < end; ++i) rest(i, tail);
      if (pending >= kBlock) flush();
    }
  }
  flush();
}

template <class T>
KEYDNN_INLINE double sum_of(const T* x, int64_t n, int64_t count = 1, int64_t stride = 0) {
  double sum;
  sum_runs<1>(
      n, count, stride, &sum, [=](int64_t i, Vec<double>* s) { s[0] += load_wide(x + i); },
      [=](int64_t i, double* s) { s[0] += static_cast<double>(x[i]); });
  return sum;
}

// The larger (Up) or smaller of two; NaN wins.
template <bool Up, class V>
KEYDNN_INLINE V extreme(V a, V b) {
  return (Up ? b > a : b < a) | (b != b) ? b : a;
}
// The same over `count` runs of n elements that start `stride` apart.
template <bool Up, class T>
KEYDNN_INLINE T extreme_of(const T* x, int64_t n, int64_t count = 1, int64_t stride = 0) {
  constexpr int64_t L = kLanes<T>;
  const T best = x[0];
  Vec<T> even = splat<T>(best), odd = even;
  for (int64_t run = 0; run < count; ++run, x += stride) {
    int64_t i = 0;
    for (; i + 2 * L <= n; i += 2 * L) {
      even = extreme<Up>(even, load(x + i));
      odd = extreme<Up>(odd, load(x + i + L));
    }
    for (; i + L <= n; i += L) even = extreme<Up>(even, load(x + i));
    if (i < n) odd = extreme<Up>(odd, load_part(x + i, n - i, best));
  }
  return fold_lanes<L, T>(extreme<Up>(even, odd), [](auto a, auto b) { return extreme<Up>(a, b); });
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
