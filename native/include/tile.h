// The register tile under every GEMM-shaped kernel:  acc[i][j] += sum_k a[i, k] * b[k, j],  i < MR rows, j < NR vectors.
//
// b's rows are found by a function k -> pointer, so the same tile serves packed panels, rows of a matrix, and the shifted
// planes of a convolution.  The largest tile fits the registers: 8 x 3 of 32, or 4 x 3 of 16.  Sums over k run in order,
// so the bits of an element do not depend on the tile that it was computed in.
#pragma once
#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

#if defined(KEYDNN_IS_avx512) || defined(__aarch64__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVecs = 3;

template <class T, int MR, int NR, class Row>
KEYDNN_INLINE void tile(int64_t n_k, const T* a, int64_t a_row, int64_t a_col, Row row, Vec<T> (&acc)[MR][NR]) {
  for (int64_t k = 0; k < n_k; ++k) {
    const T* b = row(k);
    Vec<T> v[NR];
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) v[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const Vec<T> s = splat(a[i * a_row + k * a_col]);
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) acc[i][j] += s * v[j];
    }
  }
}

// Calls f(rows, first) with rows a Const of 8, 4, 2 or 1: cuts [0, n) into the tallest tiles that fit.
template <class F>
KEYDNN_INLINE void for_tile_rows(int64_t n, F&& f) {
  int64_t i = 0;
  if constexpr (kTileRows == 8)
    for (; i + 8 <= n; i += 8) f(Const<8>{}, i);
  for (; i + 4 <= n; i += 4) f(Const<4>{}, i);
  if (i + 2 <= n) {
    f(Const<2>{}, i);
    i += 2;
  }
  if (i < n) f(Const<1>{}, i);
}
template <class F>
KEYDNN_INLINE void with_tile_vecs(int64_t n, F&& f) {
  if (n == 3) return f(Const<3>{});
  if (n == 2) return f(Const<2>{});
  f(Const<1>{});
}

// n_vecs vectors cut into panels of 3; a single one left over makes two panels of 2 with its neighbour.
struct Panels {
  int64_t vecs;
  explicit Panels(int64_t n_vecs) : vecs(n_vecs) {}
  int64_t count() const { return ceil_div(vecs, kTileVecs); }
  int64_t first(int64_t p) const { return p > 0 && p == count() - 1 && vecs % kTileVecs == 1 ? vecs - 2 : p * kTileVecs; }
  int64_t width(int64_t p) const { return (p + 1 == count() ? vecs : first(p + 1)) - first(p); }
};

// The first n of a vector's lanes, from and to memory that holds no more; the other lanes read as 0.
template <class T>
KEYDNN_INLINE Vec<T> load_n(const T* p, int64_t n) {
  if (n >= kLanes<T>) return load(p);
  T lanes[kLanes<T>] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
template <class T>
KEYDNN_INLINE void store_n(T* p, Vec<T> v, int64_t n) {
  if (n >= kLanes<T>) return store(p, v);
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

// low and high half of x[0], y[0], x[1], y[1], ...
template <class T, int... I>
KEYDNN_INLINE void interleave(Vec<T> x, Vec<T> y, Vec<T>& low, Vec<T>& high, Const<I>...) {
  constexpr int n = sizeof...(I);
  low = __builtin_shufflevector(x, y, (I / 2 + I % 2 * n)...);
  high = __builtin_shufflevector(x, y, (n / 2 + I / 2 + I % 2 * n)...);
}
template <class T>
KEYDNN_INLINE void interleave(Vec<T> x, Vec<T> y, Vec<T>& low, Vec<T>& high) {
  using C0 = Const<0>;
  if constexpr (kLanes<T> == 2) {
    interleave<T>(x, y, low, high, C0{}, Const<1>{});
  } else if constexpr (kLanes<T> == 4) {
    interleave<T>(x, y, low, high, C0{}, Const<1>{}, Const<2>{}, Const<3>{});
  } else if constexpr (kLanes<T> == 8) {
    interleave<T>(x, y, low, high, C0{}, Const<1>{}, Const<2>{}, Const<3>{}, Const<4>{}, Const<5>{}, Const<6>{}, Const<7>{});
  } else {
    interleave<T>(x, y, low, high, C0{}, Const<1>{}, Const<2>{}, Const<3>{}, Const<4>{}, Const<5>{}, Const<6>{}, Const<7>{},
                  Const<8>{}, Const<9>{}, Const<10>{}, Const<11>{}, Const<12>{}, Const<13>{}, Const<14>{}, Const<15>{});
  }
}

// v as a matrix: lane j of v[i] changes places with lane i of v[j].
template <class T>
KEYDNN_INLINE void transpose(Vec<T> (&v)[kLanes<T>]) {
  constexpr int lanes = kLanes<T>;
#pragma GCC unroll 4
  for (int step = 1; step < lanes; step *= 2) {
    Vec<T> next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) interleave<T>(v[i], v[i + lanes / 2], next[2 * i], next[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) v[i] = next[i];
  }
}

// Lane i of the result is the sum of v[i]'s lanes: lanes half a register apart are added, again and again.  v is used up.
template <class T>
KEYDNN_INLINE Vec<T> lane_sums(Vec<T> (&v)[kLanes<T>]) {
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      Vec<T> low, high;
      interleave<T>(v[i], v[i + half], low, high);
      v[i] = low + high;
    }
  return v[0];
}

// Sums of n vectors' lanes, to to[0 .. n).  A call of its own: inside a kernel its constants would crowd out accumulators.
template <class T, int N>
__attribute__((noinline)) void lane_sums(const Vec<T> (&v)[N], T* to) {
  constexpr int lanes = kLanes<T>;
  T sums[(N + lanes - 1) / lanes * lanes];
#pragma GCC unroll 16
  for (int first = 0; first < N; first += lanes) {
    Vec<T> part[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) part[i] = first + i < N ? v[first + i] : Vec<T>{};
    store(sums + first, lane_sums<T>(part));
  }
  for (int i = 0; i < N; ++i) to[i] = sums[i];
}
template <class T>
KEYDNN_INLINE T lane_sum(Vec<T> v) {
  const Vec<T> one[1] = {v};
  T sum;
  lane_sums<T, 1>(one, &sum);
  return sum;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
