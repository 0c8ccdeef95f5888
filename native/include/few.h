// A product, and the way of few rows or columns with b transposed: rows of both are multiplied as they lie, lane by lane.
#pragma once
#include "matrix.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr double kMacsPerNs = KEYDNN_VECTOR_BYTES / 4 * 2;  // float multiply-adds, roughly

template <class T>
double cost_ns(double macs) {
  return macs * (sizeof(T) / 4) / kMacsPerNs;
}

template <class T>
struct Product {
  Matrix<T> a, b;
  const T* bias;
  T* c;
  int64_t m, n, k;
  bool relu = false;
  const T* mask = nullptr;  // c where this, of c's shape, is positive; 0 elsewhere
  T* sums = nullptr;        // where the sums of the rows of a go, whose columns are contiguous
};

template <class T>
KEYDNN_INLINE Vec<T> relu(Vec<T> x) {
  return x <= 0 ? Vec<T>{} : x;
}
template <class T>
KEYDNN_INLINE T finished(const Product<T>& p, int64_t at, T y) {
  return (p.relu && y <= 0) || (p.mask && !(p.mask[at] > 0)) ? T(0) : y;
}

constexpr int64_t kFew = 4;
constexpr int64_t kLong = 2048;  // elements of a row from which a single one meets eight columns at a time, not four

// c[i, j .. j + NR) for MR rows: products of whole rows, lane by lane.
template <class T, int MR, int NR>
KEYDNN_INLINE void dot_tile(const Product<T>& p, int64_t i, int64_t j) {
  constexpr int64_t lanes = kLanes<T>;
  Vec<T> acc[MR * NR] = {};
  const T *const a = p.a.at(i, 0), *const b = p.b.at(0, j);
  const int64_t a_row = p.a.row, b_col = p.b.col;
  auto step = [&](int64_t k, int64_t live) {
    Vec<T> x[MR], y[NR];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) x[r] = load_n(a + r * a_row + k, live);
#pragma GCC unroll 8
    for (int s = 0; s < NR; ++s) y[s] = load_n(b + s * b_col + k, live);
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
      for (int s = 0; s < NR; ++s) acc[r * NR + s] += x[r] * y[s];
  };
  int64_t k = 0;
  for (; k + lanes <= p.k; k += lanes) step(k, lanes);
  if (k < p.k) step(k, p.k - k);
  T sums[MR * NR];
  lane_sums<T>(acc, sums);
  for (int r = 0; r < MR; ++r)
    for (int s = 0; s < NR; ++s) {
      const int64_t at = (i + r) * p.n + j + s;
      p.c[at] = finished(p, at, sums[r * NR + s] + (p.bias ? p.bias[j + s] : T(0)));
    }
}

// A register's worth of rows from i on, of a single column: their sums are joined side by side, and finished together.
template <class T>
KEYDNN_NOINLINE void dot_column(const Product<T>& p, int64_t i) {
  constexpr int64_t lanes = kLanes<T>;
  const T *a = p.a.at(i, 0), *b = p.b.data;
  const int64_t a_row = p.a.row;
  Vec<T> acc[lanes];
#pragma GCC unroll 16
  for (int r = 0; r < lanes; ++r) acc[r] = Vec<T>{};
  int64_t k = p.k;
  for (; k >= lanes; k -= lanes, a += lanes, b += lanes) {
    const Vec<T> y = load(b);
    const T* row = a;
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r, row += a_row) acc[r] += load(row) * y;
  }
  if (k > 0) {
    const Vec<T> y = load_part(b, k, T(0));
    const T* row = a;
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r, row += a_row) acc[r] += load_part(row, k, T(0)) * y;
  }
  Vec<T> c = lane_sums<T>(acc) + splat(p.bias ? *p.bias : T(0));
  if (p.relu) c = relu<T>(c);
  if (p.mask) c = load(p.mask + i) > 0 ? c : Vec<T>{};
  store(p.c + i, c);
}

// c[i0 .. i1, j0 .. j1) in tiles of 4 and 1, or of a register's worth of rows where c is a single column.
template <class T>
void dot_block(const Product<T>& p, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  auto columns = [&](auto mr, int64_t i) {
    int64_t j = j0;
    if constexpr (mr.value == 1)
      for (; p.k >= kLong && j + 8 <= j1; j += 8) dot_tile<T, 1, 8>(p, i, j);
    for (; j + 4 <= j1; j += 4) dot_tile<T, mr.value, 4>(p, i, j);
    for (; j < j1; ++j) dot_tile<T, mr.value, 1>(p, i, j);
  };
  int64_t i = i0;
  if (p.n == 1)
    for (; i + kLanes<T> <= i1; i += kLanes<T>) dot_column(p, i);
  for (; i + 4 <= i1; i += 4) columns(Const<4>{}, i);
  for (; i < i1; ++i) columns(Const<1>{}, i);
}

template <class T>
int dots(const Product<T>& p) {
  const int64_t many = greater(p.m, p.n), pairs = p.m * p.n * p.k / 131072 + 1;  // of chunks: two threads take the same halves each time
  const int64_t chunks = p.m * p.n * p.k < 65536 ? 1 : lesser(many, 2 * pairs);
  if (chunks == 1) return dot_block(p, 0, p.m, 0, p.n), KEYDNN_OK;
  const int64_t grain = round_up(ceil_div(many, chunks), int64_t(4));
  parallel_ranges(many, grain, cost_ns<T>(4.0 * p.m * p.n * p.k), [&](int64_t begin, int64_t end) {
    if (p.m <= p.n) {
      dot_block(p, 0, p.m, begin, end);
    } else {
      dot_block(p, begin, end, 0, p.n);
    }
  });
  return KEYDNN_OK;
}

template <class T>
bool is_dot(const Product<T>& p) {
  return lesser(p.m, p.n) <= kFew && p.b.row == 1 && p.a.col == 1 && p.k >= kLanes<T>;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
