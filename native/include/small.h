// Small products: what takes part fits the nearest cache, so that starting must cost less than computing.
//
// Rows of a lie in order or are turned; b is read as it lies if its rows are whole registers, else copied to the stack with whole
// registers per row (turned there, if its columns are contiguous).  Tiles are rows by two or three registers.
// Numerics: sums over k run in order from the bias on, as in the tiles of panels.h, so both give the same bits.
#pragma once
#include "few.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kSmallDepth = 64;        // k
constexpr int64_t kSmallBytes = 16 << 10;  // of b with whole registers per row
constexpr double kSmallWork = 3e5;         // multiply-adds: more are cut for threads

template <class T>
bool is_small(const Product<T>& p) {
  const bool lies = (p.a.col == 1 || p.a.row == 1) && (p.b.col == 1 || p.b.row == 1) && !p.a.strip && !p.sums;
  return lies && p.k >= 1 && p.k <= kSmallDepth && p.n <= kSmallBytes && double(p.m) * p.n * p.k < kSmallWork &&
         round_up(p.n, kLanes<T>) * round_up(p.k, kLanes<T>) * int64_t(sizeof(T)) <= kSmallBytes;
}

// to[c * columns + r] = from[r * row + c] for four c and a register's worth of r: rows are read four to a register, which does half of
// what transpose() does with shuffles.
template <class T>
constexpr bool kTurnsFour = KEYDNN_VECTOR_BYTES == 64 && sizeof(T) == 4;
template <class T>
KEYDNN_INLINE void turn_four([[maybe_unused]] const T* from, [[maybe_unused]] int64_t row, [[maybe_unused]] T* to,
                             [[maybe_unused]] int64_t columns) {
#if defined(KEYDNN_IS_avx512)
  if constexpr (kTurnsFour<T>) {
    __m512 part[4];  // lanes 4 l .. 4 l + 3 of part[q]: row q + 4 l
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q, from += row) {  // halves first: Zen 4 inserts to half a register in half the time
      const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + 4 * row), 1);
      const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + 8 * row)), _mm_loadu_ps(from + 12 * row), 1);
      part[q] = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    }
    const __m512d low0 = _mm512_castps_pd(_mm512_unpacklo_ps(part[0], part[1])), low1 = _mm512_castps_pd(_mm512_unpacklo_ps(part[2], part[3]));
    const __m512d high0 = _mm512_castps_pd(_mm512_unpackhi_ps(part[0], part[1])), high1 = _mm512_castps_pd(_mm512_unpackhi_ps(part[2], part[3]));
    store(to, Vec<T>(_mm512_castpd_ps(_mm512_unpacklo_pd(low0, low1))));
    store(to + columns, Vec<T>(_mm512_castpd_ps(_mm512_unpackhi_pd(low0, low1))));
    store(to + 2 * columns, Vec<T>(_mm512_castpd_ps(_mm512_unpacklo_pd(high0, high1))));
    store(to + 3 * columns, Vec<T>(_mm512_castpd_ps(_mm512_unpackhi_pd(high0, high1))));
  }
#endif
}

// b with `columns` elements per row, zeros beyond column n; rows beyond k up to a whole register of them may be written.
template <class T>
KEYDNN_INLINE void copy_small(const Matrix<T>& b, int64_t n, int64_t k, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>;
  if (b.col == 1) {
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < columns; j += lanes) store(to + i * columns + j, load_some(b.data + i * b.row + j, n - j));
    return;
  }
  for (int64_t j = 0; j < columns; j += lanes) {
    const int64_t live = lesser(n - j, lanes);
    if (kTurnsFour<T> && live == lanes && k % 4 == 0) {
      for (int64_t i = 0; i < k; i += 4) turn_four(b.data + j * b.col + i, b.col, to + i * columns + j, columns);
      continue;
    }
    for (int64_t i = 0; i < k; i += lanes) {
      const T* const from = b.data + j * b.col + i;
      Vec<T> v[lanes];
      if (live == lanes && k - i >= lanes) {
#pragma GCC unroll 16
        for (int64_t r = 0; r < lanes; ++r) v[r] = load(from + r * b.col);
      } else {
        const int64_t part = lesser(k - i, lanes);
#pragma GCC unroll 16
        for (int64_t r = 0; r < lanes; ++r) v[r] = r < live ? load_some(from + r * b.col, part) : Vec<T>{};
      }
      transpose<T>(v);
#pragma GCC unroll 16
      for (int64_t r = 0; r < lanes; ++r) store(to + (i + r) * columns + j, v[r]);
    }
  }
}

// What is the same for all tiles of a product, in numbers of their own: stores to c do not change them.
template <class T>
struct Small {
  const T *a, *b, *mask;
  T* c;
  int64_t a_step, b_row, n, k;  // a_step: from one row of a to the next, or, turned, from one column to the next
  bool relu;
};

// MR rows from row i on, NR registers from column j on; `last` lanes of the last register exist.
template <class T, int MR, int NR, bool TURNED>
KEYDNN_INLINE void small_tile(const Small<T>& p, int64_t i, int64_t j, int64_t last, const Vec<T> (&start)[NR]) {
  constexpr int64_t lanes = kLanes<T>;
  Vec<T> acc[MR][NR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < NR; ++v) acc[r][v] = start[v];
  const int64_t step = p.a_step, three = 3 * step;
  const T* a = p.a + (TURNED ? i : i * step);
  const T* a4 = a + 4 * step;
  const T* b = p.b + j;
  for (const T* const end = b + p.k * p.b_row; b != end; b += p.b_row) {
    Vec<T> x[NR];
#pragma GCC unroll 3
    for (int v = 0; v < NR; ++v) x[v] = load(b + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const T* const base = r < 4 ? a : a4;
      const Vec<T> s = splat(TURNED ? a[r] : *(r % 4 == 3 ? base + three : base + r % 4 * step));
#pragma GCC unroll 3
      for (int v = 0; v < NR; ++v) acc[r][v] += s * x[v];
    }
    a += TURNED ? step : 1;
    a4 += 1;
  }
  const int64_t n = p.n, at = i * n + j;
  if (p.relu) {
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < NR; ++v) acc[r][v] = relu<T>(acc[r][v]);
  }
  auto finish = [&](auto partial) {
    auto lanes_of = [&](int v) { return partial.value && v == NR - 1 ? last : lanes; };
    T* c = p.c + at;
    if (p.mask) {
      const T* mask = p.mask + at;
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r, mask += n)
#pragma GCC unroll 3
        for (int v = 0; v < NR; ++v) acc[r][v] = load_some(mask + v * lanes, lanes_of(v)) > 0 ? acc[r][v] : Vec<T>{};
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r, c += n)
#pragma GCC unroll 3
      for (int v = 0; v < NR; ++v) store_some(c + v * lanes, acc[r][v], lanes_of(v));
  };
  if (last == lanes) {
    finish(Const<0>{});
  } else {
    finish(Const<1>{});
  }
}

template <class T, int NR, bool TURNED>
KEYDNN_INLINE void small_columns(const Small<T>& p, const T* bias, int64_t m, int64_t j) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t last = lesser(p.n - j - (NR - 1) * lanes, lanes);
  Vec<T> start[NR] = {};
  for (int v = 0; bias && v < NR; ++v) start[v] = load_some(bias + j + v * lanes, v + 1 < NR ? lanes : last);
  for_tile_rows(m, [&](auto mr, int64_t i) { small_tile<T, mr.value, NR, TURNED>(p, i, j, last, start); });
}

template <class T, bool TURNED>
KEYDNN_NOINLINE void small_panels(const T* a, int64_t a_step, const T* b, int64_t b_row, const T* bias, const T* mask, bool relu, T* c, int64_t m,
                                  int64_t n, int64_t k) {
  constexpr int64_t lanes = kLanes<T>;
  const Small<T> p = {a, b, mask, c, a_step, b_row, n, k, relu};
  for (int64_t j = 0, vecs = ceil_div(n, lanes); vecs > 0;) {  // 3 registers at a time, but no single one is left over
    const int64_t taken = vecs == 2 || vecs == 4 ? 2 : lesser(vecs, int64_t(kTileVecs));
    with_tile_vecs(taken, [&](auto nr) { small_columns<T, nr.value, TURNED>(p, bias, m, j); });
    j += taken * lanes;
    vecs -= taken;
  }
}

template <class T>
KEYDNN_INLINE void small_product(const Product<T>& p, const T* b, int64_t b_row) {
  if (p.a.col == 1) {
    small_panels<T, false>(p.a.data, p.a.row, b, b_row, p.bias, p.mask, p.relu, p.c, p.m, p.n, p.k);
  } else {
    small_panels<T, true>(p.a.data, p.a.col, b, b_row, p.bias, p.mask, p.relu, p.c, p.m, p.n, p.k);
  }
}

template <class T>
KEYDNN_NOINLINE void small_with_copy(const Product<T>& p) {
  alignas(64) T room[kSmallBytes / sizeof(T)];
  const int64_t columns = round_up(p.n, kLanes<T>);
  copy_small(p.b, p.n, p.k, columns, room);
  small_product(p, room, columns);
}

// Few columns, and both operands lie with k outside: c^T = b^T a^T fills registers with what are rows of c, which are turned at last.
constexpr int kSmallTurned = 8;

template <class T>
bool is_small_turned(const Product<T>& p) {
  return p.n <= kSmallTurned && p.m >= kLanes<T> && p.a.row == 1 && p.b.col == 1 && !p.bias && !p.relu && !p.mask &&
         greater(p.k, int64_t(kSmallTurned)) * round_up(p.m, kLanes<T>) * int64_t(sizeof(T)) <= kSmallBytes;
}

template <class T>
KEYDNN_NOINLINE void small_turned(const Product<T>& p) {
  constexpr int64_t lanes = kLanes<T>;
  alignas(64) T room[kSmallBytes / sizeof(T)], turned[kSmallBytes / sizeof(T)];
  const int64_t columns = round_up(p.m, lanes);
  const bool copied = columns != p.m;
  if (copied) copy_small(Matrix<T>{p.a.data, p.a.col, 1}, p.m, p.k, columns, room);
  small_panels<T, true>(p.b.data, p.b.row, copied ? room : p.a.data, copied ? columns : p.a.col, nullptr, nullptr, false, turned, p.n, columns,
                        p.k);
  for (int64_t i = 0; i < p.m; i += lanes) {
    Vec<T> v[kSmallTurned];
#pragma GCC unroll 8
    for (int r = 0; r < kSmallTurned; ++r) v[r] = r < p.n ? load(turned + r * columns + i) : Vec<T>{};
#pragma GCC unroll 3
    for (int round = 1; round < kSmallTurned; round *= 2) {  // each moves the highest bit of (r, lane) behind the lowest
      Vec<T> next[kSmallTurned];
#pragma GCC unroll 4
      for (int r = 0; r < kSmallTurned / 2; ++r) interleave<T>(v[r], v[r + kSmallTurned / 2], next[2 * r], next[2 * r + 1]);
#pragma GCC unroll 8
      for (int r = 0; r < kSmallTurned; ++r) v[r] = next[r];
    }
    const bool whole = p.n == kSmallTurned && p.m - i >= lanes;
    T* const to = whole ? p.c + i * kSmallTurned : room;
#pragma GCC unroll 8
    for (int r = 0; r < kSmallTurned; ++r) store(to + r * lanes, v[r]);
    for (int64_t r = 0; !whole && r < lesser(lanes, p.m - i); ++r)
      for (int64_t j = 0; j < p.n; ++j) p.c[(i + r) * p.n + j] = room[r * kSmallTurned + j];
  }
}

template <class T>
KEYDNN_INLINE void small_product(const Product<T>& p) {
  if (is_small_turned(p)) {
    small_turned(p);
  } else if (p.b.col == 1 && p.n % kLanes<T> == 0) {
    small_product(p, p.b.data, p.b.row);
  } else {
    small_with_copy(p);
  }
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
