// What the recurrent kernels share: weights packed once for all steps, products of a few rows with them, the cut of the
// batch into chunks of rows, and the gradient to the weights.
//
// The steps of one row depend on each other, the rows do not: each chunk of rows runs through all steps by itself, and no
// thread waits for another.  Sums over k run in order, so the bits of an element do not depend on its chunk.
#pragma once
#include "tile.h"
#include "vmath.h"

namespace keydnn::KEYDNN_NS {
namespace {

// Columns [0, live) of b, with element (i, j) at b + i * row + j * col, to to[i][width], i < k; zeros beyond column live.
template <class T>
void pack_columns(const T* b, int64_t row, int64_t col, int64_t k, int64_t live, int64_t width, T* to) {
  constexpr int64_t lanes = kLanes<T>;
  if (col == 1) {
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < width; j += lanes) store(to + i * width + j, load_n(b + i * row + j, greater<int64_t>(0, live - j)));
    return;
  }
  if (row != 1) {
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < width; ++j) to[i * width + j] = j < live ? b[i * row + j * col] : T(0);
    return;
  }
  for (int64_t j = 0; j < width; j += lanes)
    for (int64_t i = 0; i < k; i += lanes) {
      Vec<T> v[lanes];
      const int64_t n = lesser(lanes, k - i);
      for (int64_t l = 0; l < lanes; ++l) v[l] = j + l < live ? load_n(b + (j + l) * col + i, n) : Vec<T>{};
      transpose<T>(v);
      for (int64_t l = 0; l < n; ++l) store(to + (i + l) * width + j, v[l]);
    }
}

// Element (k, j) of b, at data[k * row + j * col], to panels [panel][k][columns]; zeros beyond column n.
template <class T>
struct Packed {
  int64_t k, n;
  Panels panels;
  Scratch<T> memory;
  Packed(const T* b, int64_t row, int64_t col, int64_t k, int64_t n)
      : k(k), n(n), panels(ceil_div(n, kLanes<T>)), memory(panels.vecs * kLanes<T> * k) {
    if (!memory) return;
    T* const data = memory.data;
    const Panels all = panels;
    parallel_for(panels.count(), 0.6 * static_cast<double>(n * k), [=](int64_t panel) KEYDNN_NOINLINE {
      const int64_t first = all.first(panel) * kLanes<T>, width = all.width(panel) * kLanes<T>, live = lesser(width, n - first);
      pack_columns<T>(b + first * col, row, col, k, live, width, data + first * k);
    });
  }
  explicit operator bool() const { return static_cast<bool>(memory); }
};

// Where a product starts from: rows of `from` (or 0) plus `bias` (or 0).
template <class T>
struct Start {
  const T* from;
  int64_t row;
  const T* bias;
};

// c[i, :] = start + a[i, :] b for i < m; c may be start.from.  Element (i, k) of a is at i * a_row + k * a_col.
template <class T>
void rows_product(const Packed<T>& b, const T* a, int64_t a_row, int64_t m, Start<T> start, T* c, int64_t c_row, int64_t a_col = 1) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t panel = 0; panel < b.panels.count(); ++panel) {
    const int64_t j = b.panels.first(panel) * lanes, width = b.panels.width(panel);
    const T* const data = b.memory.data + j * b.k;
    auto row = [=](int64_t k) { return data + k * width * lanes; };
    with_tile_vecs(width, [&](auto nr) {
      constexpr int NR = nr.value;
      const int64_t tail = b.n - j - (NR - 1) * lanes;
      for_tile_rows(m, [&](auto mr, int64_t i) {
        constexpr int MR = mr.value;
        Vec<T> acc[MR][NR] = {};
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) {
          const int64_t at = j + v * lanes, live = v + 1 < NR ? lanes : tail;
          const Vec<T> bias = start.bias ? load_n(start.bias + at, live) : Vec<T>{};
#pragma GCC unroll 8
          for (int r = 0; r < MR; ++r) acc[r][v] = start.from ? load_n(start.from + (i + r) * start.row + at, live) + bias : bias;
        }
        tile<T, MR, NR>(b.k, a + i * a_row, a_row, a_col, row, acc);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
          for (int v = 0; v < NR; ++v) store_n(c + (i + r) * c_row + j + v * lanes, acc[r][v], v + 1 < NR ? lanes : tail);
      });
    });
  }
}

// body(load_j, store_j, j) over [0, n) in registers: load_j(p) reads p[j ..], store_j(p, v) writes, partly at the end.
template <class T, class Body>
KEYDNN_INLINE void each_lane(int64_t n, Body body) {
  for (int64_t j = 0; j < n; j += kLanes<T>) {
    const int64_t live = n - j;
    if (live >= kLanes<T>) {
      body([=](const T* p) { return load(p + j); }, [=](T* p, Vec<T> v) { store(p + j, v); });
    } else {
      body([=](const T* p) { return load_part(p + j, live, T(0)); }, [=](T* p, Vec<T> v) { store_part(p + j, v, live); });
    }
  }
}

// 1 / x for x in [1, 2^125], within a unit in the last place: an estimate and one Newton step, where dividing is slow.
template <class T>
KEYDNN_INLINE Vec<T> reciprocal(Vec<T> x) {
#if defined(KEYDNN_IS_avx512)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> y = _mm512_rcp14_ps(x);
    return y * (T(2) - x * y);
  }
#endif
  return T(1) / x;
}

// The gates' functions, a few units in the last place.
template <class T>
KEYDNN_INLINE Vec<T> gate_sigmoid(Vec<T> x) {
  if constexpr (sizeof(T) == 4) return reciprocal<T>(vexp<T>(-limited<T>(x, T(-86), T(86))) + T(1));
  return vsigmoid<T>(x);
}
template <class T>
KEYDNN_INLINE Vec<T> gate_tanh(Vec<T> x) {
  const Vec<T> t = middle_expm1<T>(limited<T>(absolute<T>(x) * T(2), T(0), Math<T>::kTanhHigh));
  return with_sign_of<T>(t * reciprocal<T>(t + T(2)), x);
}

struct Shape {
  int64_t steps, rows, n;
  bool reverse;
  int64_t chunk() const { return lesser<int64_t>(32, greater<int64_t>(8, round_up(ceil_div(rows, 8), 8))); }
  int64_t chunks() const { return ceil_div(rows, chunk()); }
  int64_t step(int64_t i) const { return reverse ? steps - 1 - i : i; }        // the i-th step on the way forward
  int64_t before(int64_t t) const { return reverse ? t + 1 : t - 1; }          // whose state it starts from
  bool is_first(int64_t t) const { return t == (reverse ? steps - 1 : 0); }
  int64_t end() const { return reverse ? 0 : steps - 1; }
  bool is_bad() const { return steps < 1 || rows < 1 || n < 1; }
};

// The state of the rows from r on that step t starts from.
template <class T>
KEYDNN_INLINE const T* state_before(const Shape& s, const T* all, const T* first, int64_t t, int64_t r) {
  return s.is_first(t) ? first + r * s.n : all + (s.before(t) * s.rows + r) * s.n;
}

// body(chunk, first row, number of rows) for all chunks.
template <class T, class Body>
void each_chunk(const Shape& s, int64_t gates, Body body) {
  const double macs = static_cast<double>(s.steps * s.rows) * static_cast<double>(gates * s.n * (s.n + 16));
  const int64_t rows = s.rows, chunk = s.chunk();
  parallel_for(s.chunks(), macs * (sizeof(T) / 4) / (KEYDNN_VECTOR_BYTES / 2), [=](int64_t at) KEYDNN_NOINLINE {
    body(at, at * chunk, lesser(chunk, rows - at * chunk));
  });
}

// Column sums of the gradients of each step, per chunk in double: sums (columns), steps of `m` rows are added one by one.
template <class T>
KEYDNN_INLINE void add_columns(const T* da, int64_t row, int64_t m, int64_t columns, double* sums, T* step) {
  for (int64_t j = 0; j < columns; ++j) step[j] = da[j];
  for (int64_t i = 1; i < m; ++i)
    for (int64_t j = 0; j < columns; ++j) step[j] += da[i * row + j];
  for (int64_t j = 0; j < columns; ++j) sums[j] += static_cast<double>(step[j]);
}

// Room for those sums: chunk by chunk, combined by chunk index.
template <class T>
struct ColumnSums {
  int64_t columns, chunks;
  Scratch<double> sums;
  Scratch<T> steps;
  ColumnSums(int64_t chunks, int64_t columns) : columns(columns), chunks(chunks), sums(chunks * columns), steps(chunks * columns) {
    for (int64_t i = 0; sums && i < chunks * columns; ++i) sums.data[i] = 0;
  }
  explicit operator bool() const { return sums && steps; }
  void add(int64_t chunk, const T* da, int64_t row, int64_t m) const {
    add_columns(da, row, m, columns, sums.data + chunk * columns, steps.data + chunk * columns);
  }
  void write(T* to) const {
    for (int64_t j = 0; j < columns; ++j) {
      double total = 0;
      for (int64_t i = 0; i < chunks; ++i) total += sums.data[i * columns + j];
      to[j] = static_cast<T>(total);
    }
  }
};

// dw (n, columns) = sum over steps of h_before^T da; row (t, r) of da is at da + (t * rows + r) * da_row.
template <class T>
int weight_grad(const Shape& s, const T* h, const T* h0, const T* da, int64_t da_row, int64_t columns, T* dw) {
  const int64_t inner = (s.steps - 1) * s.rows;
  const T* const from = s.reverse ? h + s.rows * s.n : h;
  const T* const edge = da + (s.reverse ? inner : 0) * da_row;
  const T* const rest = da + (s.reverse ? 0 : s.rows) * da_row;
  auto product = [&](const T* a, const T* b, int64_t k, T* to) {
    return api::gemm(a, int64_t(1), s.n, nullptr, b, da_row, int64_t(1), nullptr, static_cast<const T*>(nullptr), to, int64_t(1), s.n, columns, k);
  };
  const int status = product(h0, edge, s.rows, dw);
  if (status != KEYDNN_OK || inner == 0) return status;
  const Scratch<T> other(s.n * columns);
  if (!other) return KEYDNN_NO_MEMORY;
  const int got = product(from, rest, inner, other.data);
  for (int64_t i = 0; i < s.n * columns; ++i) dw[i] += other.data[i];
  return got;
}

template <class T>
void copy_rows(const T* from, T* to, int64_t count) {
  memcpy(to, from, sizeof(T) * static_cast<size_t>(count));
}
template <class T>
void copy_or_clear(const T* from, T* to, int64_t count) {
  if (from) return copy_rows(from, to, count);
  memset(to, 0, sizeof(T) * static_cast<size_t>(count));
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
