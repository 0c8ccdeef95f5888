// Sums over contiguous memory, in double, and what softmax and the normalisations need besides.
//
// A sum over n elements runs in blocks of kBlock: lanes add up a block, then the lanes in order, then the blocks.  So the
// error grows like that of a pairwise sum, and the order depends on n alone.
#pragma once
#include "kernel.h"

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
  const typename PartOf<T>::type v = *reinterpret_cast<const typename PartOf<T>::loose*>(p);
  return __builtin_convertvector(v, Vec<double>);
}

template <class T>
KEYDNN_INLINE T add_lanes(Vec<T> v) {
  alignas(64) T lanes[kLanes<T>];
  store(lanes, v);
  for (int64_t width = kLanes<T> / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

// N sums at once over i in [0, n): body(i, sums) adds kWide elements from i on to sums[0..N); rest(i, sums) adds one element to doubles.
template <int N, class Body, class Rest>
KEYDNN_INLINE void sum_blocks(int64_t n, double* sums, Body body, Rest rest) {
  for (int k = 0; k < N; ++k) sums[k] = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = lesser(begin + kBlock, n);
    Vec<double> even[N] = {}, odd[N] = {};
    int64_t i = begin;
    for (; i + 2 * kWide <= end; i += 2 * kWide) {
      body(i, even);
      body(i + kWide, odd);
    }
    double tail[N] = {};
    for (; i < end; ++i) rest(i, tail);
    for (int k = 0; k < N; ++k) sums[k] += add_lanes<double>(even[k] + odd[k]) + tail[k];
  }
}

// Sum of `count` runs of n elements that start `stride` apart.
template <class T>
KEYDNN_INLINE double sum_of(const T* x, int64_t n, int64_t count = 1, int64_t stride = 0) {
  double total = 0, tail = 0;
  Vec<double> a = {}, b = {}, c = {}, d = {};
  int64_t pending = 0;
  for (int64_t run = 0; run < count; ++run, x += stride) {
    for (int64_t i = 0; i < n;) {
      const int64_t end = lesser(i + kBlock, n);
      pending += end - i;
      for (; i + 4 * kWide <= end; i += 4 * kWide) {
        a += load_wide(x + i);
        b += load_wide(x + i + kWide);
        c += load_wide(x + i + 2 * kWide);
        d += load_wide(x + i + 3 * kWide);
      }
      for (; i + kWide <= end; i += kWide) a += load_wide(x + i);
      for (; i < end; ++i) tail += static_cast<double>(x[i]);
      if (pending >= kBlock) {
        total += add_lanes<double>((a + b) + (c + d)) + tail;
        a = b = c = d = Vec<double>{};
        tail = 0;
        pending = 0;
      }
    }
  }
  return total + (add_lanes<double>((a + b) + (c + d)) + tail);
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
  T best = x[0];
  Vec<T> even = splat<T>(best), odd = even;
  for (int64_t run = 0; run < count; ++run, x += stride) {
    int64_t i = 0;
    for (; i + 2 * L <= n; i += 2 * L) {
      even = extreme<Up>(even, load(x + i));
      odd = extreme<Up>(odd, load(x + i + L));
    }
    for (; i + L <= n; i += L) even = extreme<Up>(even, load(x + i));
    for (; i < n; ++i) best = extreme<Up>(best, x[i]);
  }
  if (n < L) return best;
  alignas(64) T lanes[L];
  store(lanes, extreme<Up>(even, odd));
  for (int64_t j = 0; j < L; ++j) best = extreme<Up>(best, lanes[j]);
  return best;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
