// The register tiles under convolution, with output channels side by side in a register:
//
//   stage[p][o] = from[p][o] + sum_k planes[p + offset[k]] * w[k][o]            p: neighbouring pixels, o: NR registers
//
// Pixels are read one element at a time from planes (planes.h); weights are packed with the outputs last.  An element's sum
// runs over k in order, so its bits do not depend on the tile.
#pragma once
#include "packed.h"

namespace keydnn::KEYDNN_NS {
namespace {

#if defined(KEYDNN_IS_avx512) || defined(__aarch64__)
constexpr int kMostPixels = 14;
#else
constexpr int kMostPixels = 6;
#endif

constexpr int64_t kTapsAhead = 8;  // whose weights are fetched ahead: a piece of them may exceed the first cache

// One tile of M pixels.  from_row is the distance of `from`'s rows: 0 where all pixels start with the same bias.
template <class T, int M, int NR>
void pixel_tile(const T* planes, const int64_t* offset, int64_t n_k, const T* w, const T* from, int64_t from_row, T* stage) {
  constexpr int64_t L = kLanes<T>;
  Vec<T> acc[M][NR];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NR; ++v) acc[i][v] = load(from + i * from_row + v * L);
  for (int64_t k = 0; k < n_k; ++k, w += NR * L) {
    const T* const x = planes + offset[k];
    Vec<T> wv[NR];
#pragma GCC unroll 2
    for (int v = 0; v < NR; ++v) {
      wv[v] = load(w + v * L);
      __builtin_prefetch(w + (kTapsAhead * NR + v) * L);
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vec<T> xv = splat(x[i]);
#pragma GCC unroll 2
      for (int v = 0; v < NR; ++v) acc[i][v] += xv * wv[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NR; ++v) store(stage + (i * NR + v) * L, acc[i][v]);
}

template <class T>
using PixelTile = void (*)(const T*, const int64_t*, int64_t, const T*, const T*, int64_t, T*);

// The tile of m pixels, 1 <= m <= M.
template <class T, int NR, int M = kMostPixels>
PixelTile<T> pixel_tile_of(int64_t m) {
  if constexpr (M > 1)
    if (m < M) return pixel_tile_of<T, NR, M - 1>(m);
  return pixel_tile<T, M, NR>;
}

// Memory that will be written: `runs` runs of `run` elements that begin `step` apart.  Fetched piece by piece while tiles are
// computed, so that writing it does not wait for each line.
template <class T>
struct Fetch {
  const T* data;
  int64_t run, step, runs;
  int64_t at = 0;  // within the run
  void lines(int64_t n) {
    constexpr int64_t line = 64 / sizeof(T);
    for (; n > 0 && runs > 0; --n) {
      __builtin_prefetch(data + lesser(at, run - 1), 1);
      at += line;
      if (at < run + line - 1) continue;  // one more: runs begin anywhere in a line
      at = 0;
      data += step;
      --runs;
    }
  }
  int64_t count() const { return runs * ceil_div(run + 64 / int64_t(sizeof(T)) - 1, 64 / int64_t(sizeof(T))); }
};

// A row of pixels cut into tiles of nearly equal width.
template <class T, int NR>
struct PixelRow {
  int64_t count, width, wider;  // of the tiles: their width, and how many are wider by one
  PixelTile<T> tile[2];
  explicit PixelRow(int64_t cols) : count(ceil_div(cols, kMostPixels)), width(cols / count), wider(cols % count) {
    tile[0] = pixel_tile_of<T, NR>(width);
    tile[1] = pixel_tile_of<T, NR>(lesser(width + 1, int64_t(kMostPixels)));
  }
  void run(const T* planes, const int64_t* offset, int64_t n_k, const T* w, const T* from, int64_t from_row, T* stage,
           Fetch<T>& fetch, int64_t lines) const {
    for (int64_t t = 0; t < count; ++t) {
      fetch.lines(lines);
      const int64_t m = width + (t < wider);
      tile[t < wider](planes, offset, n_k, w, from, from_row, stage);
      planes += m;
      from += m * from_row;
      stage += m * NR * kLanes<T>;
    }
  }
};

}  // namespace
}  // namespace keydnn::KEYDNN_NS
