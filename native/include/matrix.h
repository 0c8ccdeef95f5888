// Operands of a matrix product, and their packed forms: panels of columns, strips of rows.
#pragma once
#include "lanes.h"
#include "tile.h"

namespace keydnn::KEYDNN_NS {
namespace {

// Element (i, j) lies at data + i * row + j * col; in strips, rows i of one strip of kTileRows rows are neighbours, and
// `strip` elements lead to the next one.
template <class T>
struct Matrix {
  const T* data;
  int64_t row, col, strip = 0;
  const T* at(int64_t i, int64_t j) const {
    return strip ? data + i / kTileRows * strip + i % kTileRows + j * col : data + i * row + j * col;
  }
};

constexpr int64_t kPackAhead = 16;  // rows that packing fetches ahead: lines far apart come one by one otherwise

// The first n of a vector's lanes; n may exceed them.
template <class T>
KEYDNN_INLINE Vec<T> load_some(const T* p, int64_t n) {
  return n >= kLanes<T> ? load(p) : load_part(p, n, T(0));
}
template <class T>
KEYDNN_INLINE void store_some(T* p, Vec<T> v, int64_t n) {
  n >= kLanes<T> ? store(p, v) : store_part(p, v, n);
}

// Scratch memory; a little of it lies on the stack.
template <class T>
struct Room {
  static constexpr int64_t kOnStack = 8192 / sizeof(T);
  alignas(64) T own[kOnStack];
  Scratch<T> more;
  T* data;
  explicit Room(int64_t count) : more(count > kOnStack ? count : 0), data(count > kOnStack ? more.data : own) {}
  explicit operator bool() const { return data != nullptr; }
};

// ---- transposing one block of lanes x lanes ------------------------------------------------------------------------

// to[i * to_row + j] = from[j * from_row + i], i, j < lanes: log2(lanes) rounds of interleaving halves.
template <class T>
KEYDNN_INLINE void transpose_block(const T* from, int64_t from_row, T* to, int64_t to_row) {
  constexpr int n = kLanes<T>;
  Vec<T> v[n], w[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) v[i] = load(from + i * from_row);
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) interleave<T>(v[i], v[i + n / 2], w[2 * i], w[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) v[i] = w[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store(to + i * to_row, v[i]);
}

// The same for n_i columns of n_j rows, with zeros for the other j.
template <class T>
void transpose_part(const T* from, int64_t from_row, int64_t n_j, int64_t n_i, T* to, int64_t to_row) {
  constexpr int64_t n = kLanes<T>;
  alignas(64) T rows[n * n], turned[n * n];
  for (int64_t j = 0; j < n; ++j) store(rows + j * n, j < n_j ? load_some(from + j * from_row, n_i) : Vec<T>{});
  transpose_block<T>(rows, n, turned, n);
  for (int64_t i = 0; i < n_i; ++i) store(to + i * to_row, load(turned + i * n));
}

// Rows [k0, k1) of the panel `columns` wide (a multiple of lanes) from column `first` of b, to [k][columns]; zeros beyond
// column n.
template <class T>
void pack_panel(const Matrix<T>& b, int64_t n, int64_t k0, int64_t k1, int64_t first, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>;
  to -= k0 * columns;
  if (b.col == 1) {
    const int64_t whole = lesser(columns, n - first) / lanes * lanes;
    for (int64_t i = k0; i < k1; ++i) {
      const T* const from = b.at(i, first);
      for (int64_t j = 0; j < columns; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + kPackAhead * b.row + j);
      for (int64_t j = 0; j < whole; j += lanes) store(to + i * columns + j, load(from + j));
      for (int64_t j = whole; j < columns; j += lanes)
        store(to + i * columns + j, first + j < n ? load_some(from + j, n - first - j) : Vec<T>{});
    }
  } else if (b.row == 1) {
    for (int64_t j = 0; j < columns; j += lanes) {
      const int64_t live = n - first - j;
      int64_t i = k0;
      if (live >= lanes)
        for (; i + lanes <= k1; i += lanes) transpose_block<T>(b.at(i, first + j), b.col, to + i * columns + j, columns);
      for (; i < k1; i += lanes) transpose_part<T>(b.at(i, first + j), b.col, live, lesser(lanes, k1 - i), to + i * columns + j, columns);
    }
  } else {
    for (int64_t i = k0; i < k1; ++i)
      for (int64_t j = 0; j < columns; ++j) to[i * columns + j] = first + j < n ? *b.at(i, first + j) : T(0);
  }
}

// Rows [i0, i1) and columns [k0, k0 + n_k) of a matrix whose columns are contiguous, to strips [strip][k][kTileRows] that
// begin `pitch` elements apart; i0 is a multiple of kTileRows.  Neighbouring strips are filled side by side: they share
// lines of memory.
template <class T>
Matrix<T> pack_strips(const Matrix<T>& a, int64_t i0, int64_t i1, int64_t k0, int64_t n_k, int64_t pitch, T* to) {
  constexpr int64_t rows = kTileRows;
  int64_t i = i0;
  auto fill = [&](auto side) {
    constexpr int64_t together = side.value * rows, line = 64 / sizeof(T);
    for (; i1 - i >= together; i += together) {
      const T* const from = a.at(i, k0);
      T* const here = to + (i - i0) / rows * pitch;
      for (int64_t k = 0; k < n_k; ++k) {
#pragma GCC unroll 8
        for (int64_t r = 0; r < together; r += line) __builtin_prefetch(from + (k + kPackAhead) * a.col + r);
#pragma GCC unroll 8
        for (int64_t s = 0; s < side.value; ++s) memcpy(here + s * pitch + k * rows, from + k * a.col + s * rows, sizeof(T) * rows);
      }
    }
  };
  fill(Const<8>{});
  fill(Const<1>{});
  if (i < i1) {
    const T* const from = a.at(i, k0);
    T* const here = to + (i - i0) / rows * pitch;
    for (int64_t k = 0; k < n_k; ++k)
      for (int64_t r = 0; r < i1 - i; ++r) here[k * rows + r] = from[k * a.col + r];
  }
  return {to - i0 / rows * pitch - k0 * rows, 1, rows, pitch};
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
