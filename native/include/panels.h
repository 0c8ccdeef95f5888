// Packed panels times rows: the tiles of a product, and the orders in which they are computed.
#pragma once
#include "few.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kAhead = 8;  // rows of b that are fetched ahead

// Packed memory that is needed soon, fetched to the caches along with the rows of tiles: `step` bytes with each row of b.  All of
// its lines at once would hold up the tile.
struct Soon {
  const char* data = nullptr;
  int64_t bytes = 0, step = 0;
  void fetch() {
    __builtin_prefetch(data);
    data += step;
  }
  template <class T>
  static Soon of(const T* data, int64_t count) {
    return {reinterpret_cast<const char*>(data), count * int64_t(sizeof(T))};
  }
};

// tile() with rows of b that are b_row apart; fetch(row) fetches what comes later.  Four rows of a are found from one address.
template <class T, int MR, int NR, class Fetch>
KEYDNN_INLINE void panel_tile(int64_t n_k, const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row, Vec<T> (&acc)[MR][NR],
                              Fetch fetch) {
  const int64_t three = 3 * a_row;
  const T* a4 = a + 4 * a_row;
  for (int64_t k = n_k; k > 0; --k) {
    fetch(b);
    Vec<T> v[NR];
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) v[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const T* const base = i < 4 ? a : a4;
      const Vec<T> s = splat(*(i % 4 == 3 ? base + three : base + i % 4 * a_row));
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) acc[i][j] += s * v[j];
    }
    a += a_col;
    a4 += a_col;
    b += b_row;
  }
}

#define KEYDNN_ANEW(x) asm("" : "+r"(x))  // what follows from x is computed here, not earlier and kept

// One tile of c: rows [i, i + MR) x NR vectors from column j; adds to c unless it is the first block of k.
//
// What lies between the loops of two tiles counts: addresses are stepped from row to row, and found anew where they are needed.  Else
// the compiler finds those of all rows at the beginning, and keeps them in memory.
template <class T, int MR, int NR, class... Ahead>
KEYDNN_INLINE void c_tile(const Product<T>& p, int64_t i, int64_t j, int64_t k0, int64_t n_k, const T* b, int64_t b_row, Ahead... soon) {
  constexpr int64_t lanes = kLanes<T>;
  if constexpr (sizeof...(soon) > 0) b_row = NR * lanes;  // packed: a register less
  const int64_t last = p.n - j - (NR - 1) * lanes;        // live lanes of the last vector; the others are whole
  Vec<T> acc[MR][NR];
  auto each = [&](auto* at, int64_t step, auto&& body) {  // body(vector, where it begins in memory, its live lanes), row by row
    KEYDNN_ANEW(at);
    KEYDNN_ANEW(step);
    auto rows = [&](auto partial) {
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r, at += step)
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) body(acc[r][v], at + v * lanes, partial.value && v == NR - 1 ? last : lanes);
    };
    if (last >= lanes) {
      rows(Const<0>{});
    } else {
      rows(Const<1>{});
    }
  };
  auto get = [](Vec<T>& y, const T* from, int64_t live) { y = load_some(from, live); };
  if (k0 > 0) {
    each(p.c + i * p.n + j, p.n, get);
  } else if (p.bias) {
    each(p.bias + j, 0, get);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < NR; ++v) acc[r][v] = Vec<T>{};
  }
  panel_tile<T, MR, NR>(n_k, p.a.at(i, k0), p.a.row, p.a.col, b, b_row, acc, [&](const T* here) {
#pragma GCC unroll 8
    for (int v = 0; v < NR; ++v) __builtin_prefetch(here + kAhead * b_row + v * lanes);
    (soon.fetch(), ...);
  });
  if (p.relu && k0 + n_k >= p.k) {
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < NR; ++v) acc[r][v] = relu<T>(acc[r][v]);
  }
  if (p.mask && k0 + n_k >= p.k)
    each(p.mask + i * p.n + j, p.n, [](Vec<T>& y, const T* mask, int64_t live) { y = load_some(mask, live) > 0 ? y : Vec<T>{}; });
  each(p.c + i * p.n + j, p.n, [](const Vec<T>& y, T* to, int64_t live) { store_some(to, y, live); });
}

// Memory that will be packed next: fetched to the second-level cache piece by piece, while tiles are computed.
template <class T>
struct Next {
  const T* data;
  int64_t run, runs, step;  // `runs` runs of `run` elements, `step` apart
  int64_t at = 0;
  void fetch(int64_t n) {
    for (const int64_t end = lesser(at + n, runs); at < end; ++at)
      for (int64_t i = 0; i < run; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(data + at * step + i, 0, 2);
  }
};

// Fetches the lines that a tile begins or ends with.
template <class T, int MR, int NR>
KEYDNN_INLINE void fetch_ends(const Product<T>& p, int64_t i, int64_t j) {
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NR; ++v) {
      const int64_t at = (i + r) * p.n + j + v * kLanes<T>;
      __builtin_prefetch(p.c + at);
      if (p.mask) __builtin_prefetch(p.mask + at);
    }
}

// Rows [i0, i1) times one panel; b's row k starts at b + k * b_row.
template <class T>
void rows_by_panel(const Product<T>& p, int64_t i0, int64_t i1, int64_t j, int64_t width, int64_t k0, int64_t n_k, const T* b,
                   int64_t b_row, Next<T> next, Soon soon = {}) {
  const int64_t tiles = greater((i1 - i0) / kTileRows, int64_t(1)), share = ceil_div(next.runs, tiles);
  soon.step = ceil_div(soon.bytes, tiles * greater(n_k, int64_t(1)));
  with_tile_vecs(width, [&](auto nr) {
    for_tile_rows(i1 - i0, [&](auto mr, int64_t i) {
      if constexpr (mr.value == kTileRows)
        if (k0 > 0 && i + 2 * kTileRows <= i1 - i0) fetch_ends<T, mr.value, nr.value>(p, i0 + i + kTileRows, j);  // of the next tile
      next.fetch(share);
      if constexpr (mr.value == 8 && nr.value == kTileVecs) {  // smaller tiles have no time for it
        if (soon.bytes) {
          c_tile<T, mr.value, nr.value>(p, i0 + i, j, k0, n_k, b, b_row, soon);
          soon.data += n_k * soon.step;
          return;
        }
      }
      c_tile<T, mr.value, nr.value>(p, i0 + i, j, k0, n_k, b, b_row);
    });
  });
}

// Rows [i0, i1) times `count` whole panels of a short b from column j on, through room for them: rows of c are written along.
template <class T>
void rows_by_group(const Product<T>& p, int64_t i0, int64_t i1, int64_t j, int64_t count, T* room) {
  constexpr int64_t columns = kTileVecs * kLanes<T>;
  for (int64_t g = 0; g < count; ++g) pack_panel(p.b, p.n, 0, p.k, j + g * columns, columns, room + g * columns * p.k);
  for_tile_rows(i1 - i0, [&](auto mr, int64_t i) {
    for (int64_t g = 0; g < count; ++g)
      c_tile<T, mr.value, kTileVecs>(p, i0 + i, j + g * columns, 0, p.k, room + g * columns * p.k, columns);
  });
}

// Rows [i0, i1) times panels [p0, p1) of a short b, all packed one after the other: rows of c are written along.
template <class T>
void rows_by_panels(const Product<T>& p, const Panels& panels, int64_t i0, int64_t i1, int64_t p0, int64_t p1, const T* packed) {
  constexpr int64_t lanes = kLanes<T>;
  for_tile_rows(i1 - i0, [&](auto mr, int64_t i) {
    for (int64_t panel = p0; panel < p1; ++panel) {
      const int64_t j = panels.first(panel) * lanes, width = panels.width(panel);
      with_tile_vecs(width, [&](auto nr) {
        fetch_ends<T, mr.value, nr.value>(p, i0 + i, j);
        c_tile<T, mr.value, nr.value>(p, i0 + i, j, 0, p.k, packed + j * p.k, width * lanes);
      });
    }
  });
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
