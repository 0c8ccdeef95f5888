// Matrix products with at most kThin columns: too narrow for the registers of the panels.
//
// thin_rows: many rows of a, a short k: 8 rows at a time, a register holds one row of c.
// thin_sums: few rows too and a long k (the gradient of a small layer): 4 registers per row of c take turns along k.
// Numerics: the sums of thin_sums are those of k = 0, 4, 8..., of 1, 5, 9... and so on, joined in pairs.
#pragma once
#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kThin = 8;      // columns
constexpr int64_t kThinDepth = 16;  // k of thin_rows

template <class T, int W>
struct Thin {
  typedef T type __attribute__((vector_size(W * sizeof(T))));
};

// The n <= W elements from p; the other lanes are 0.
template <class T, int W>
KEYDNN_INLINE typename Thin<T, W>::type thin_load(const T* p, int64_t n) {
  alignas(64) T lanes[W] = {};
  for (int64_t j = 0; j < n; ++j) lanes[j] = p[j];
  typename Thin<T, W>::type v;
  memcpy(&v, lanes, sizeof v);
  return v;
}
template <class T, int W>
KEYDNN_INLINE void thin_store(T* p, typename Thin<T, W>::type v, int64_t n) {
  for (int64_t j = 0; j < n; ++j) p[j] = v[j];
}

// c (m, n) = a b + bias; a at i * a_row + k * a_col, b at k * b_row + j * b_col; N = n, W >= N lanes.
template <class T, int N, int W>
void thin_rows(const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row, int64_t b_col, const T* bias, T* c, int64_t m,
               int64_t depth) {
  using V = typename Thin<T, W>::type;
  V columns[kThinDepth];
  for (int64_t k = 0; k < depth; ++k) {
    alignas(64) T lanes[W] = {};
    for (int j = 0; j < N; ++j) lanes[j] = b[k * b_row + j * b_col];
    memcpy(&columns[k], lanes, sizeof(V));
  }
  const V start = bias ? thin_load<T, W>(bias, N) : V{};
  auto rows = [&](auto count, int64_t i) {
    V sums[count.value];
#pragma GCC unroll 8
    for (int r = 0; r < count.value; ++r) sums[r] = start;
    for (int64_t k = 0; k < depth; ++k)
#pragma GCC unroll 8
      for (int r = 0; r < count.value; ++r) sums[r] += a[(i + r) * a_row + k * a_col] * columns[k];
#pragma GCC unroll 8
    for (int r = 0; r < count.value; ++r) memcpy(c + (i + r) * N, &sums[r], N * sizeof(T));
  };
  int64_t i = 0;
  for (; i + 8 <= m; i += 8) rows(Const<8>{}, i);
  for (; i < m; ++i) rows(Const<1>{}, i);
}

// R rows of c; b at k * b_row + j.
template <class T, int R, int W>
KEYDNN_INLINE void thin_sums(const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row, const T* bias, T* c, int64_t n,
                             int64_t depth) {
  using V = typename Thin<T, W>::type;
  V sums[4][R] = {};
  auto add = [&](V* to, V x, const T* from) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) to[r] += from[r * a_row] * x;
  };
  const int64_t safe = depth - ceil_div(int64_t(W), b_row > 0 ? b_row : 1);  // rows of b from which W elements can be read
  int64_t k = 0;
  for (; k + 4 <= safe; k += 4)
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) {
      V x;
      memcpy(&x, b + (k + s) * b_row, sizeof x);
      add(sums[s], x, a + (k + s) * a_col);
    }
  for (; k < depth; ++k) add(sums[k % 4], thin_load<T, W>(b + k * b_row, n), a + k * a_col);
  const V start = bias ? thin_load<T, W>(bias, n) : V{};
  for (int r = 0; r < R; ++r) thin_store<T, W>(c + r * n, (sums[0][r] + sums[1][r]) + (sums[2][r] + sums[3][r]) + start, n);
}

template <class T, int W>
void thin_sums_all(const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row, const T* bias, T* c, int64_t m, int64_t n,
                   int64_t depth) {
  int64_t i = 0;
  for (; i + 4 <= m; i += 4) thin_sums<T, 4, W>(a + i * a_row, a_row, a_col, b, b_row, bias, c + i * n, n, depth);
  for (; i + 2 <= m; i += 2) thin_sums<T, 2, W>(a + i * a_row, a_row, a_col, b, b_row, bias, c + i * n, n, depth);
  for (; i < m; ++i) thin_sums<T, 1, W>(a + i * a_row, a_row, a_col, b, b_row, bias, c + i * n, n, depth);
}

// Computes c if the product is thin, with room for few threads' worth of work; false leaves it alone.
template <class T>
bool thin(const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row, int64_t b_col, const T* bias, T* c, int64_t m, int64_t n,
          int64_t k) {
  if (n > kThin || double(m) * n * k > 1e6) return false;
  if (k <= kThinDepth && m >= 16) {
    switch (n) {
#define KEYDNN_THIN(N, W) \
  case N: thin_rows<T, N, W>(a, a_row, a_col, b, b_row, b_col, bias, c, m, k); return true;
      KEYDNN_THIN(1, 2)
      KEYDNN_THIN(2, 2)
      KEYDNN_THIN(3, 4)
      KEYDNN_THIN(4, 4)
      KEYDNN_THIN(5, 8)
      KEYDNN_THIN(6, 8)
      KEYDNN_THIN(7, 8)
      KEYDNN_THIN(8, 8)
#undef KEYDNN_THIN
    }
  }
  if (m <= kThin && k >= 64 && b_col == 1 && b_row >= n && a_row == 1) {
    if (n <= 4) thin_sums_all<T, 4>(a, a_row, a_col, b, b_row, bias, c, m, n, k);
    else thin_sums_all<T, 8>(a, a_row, a_col, b, b_row, bias, c, m, n, k);
    return true;
  }
  return false;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
