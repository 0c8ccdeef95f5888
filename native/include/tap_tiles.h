// The register tiles under the gradient to a convolution's weight, with output channels side by side in a register:
//
//   part[tap][o] += sum_p x[p + offset(tap)] * g[p][o]                          p: positions, o: NR registers of channels
//
// Taps whose offsets follow one another form a run; a tile is R runs of V taps, so that its addresses are R pointers and
// constants.  x comes from planes (planes.h), one element at a time; g is packed with the channels last.
//
// Numerics: a tile sums its positions in order, then adds the sum to part; so bits do not depend on the tile of a tap.
#pragma once
#include "packed.h"
#include "planes.h"

namespace keydnn::KEYDNN_NS {
namespace {

// Rows of positions: `cols` neighbours from each of rows[0..n) on, in the planes of x; g has all of them one after the other.
template <class T>
struct Band {
  const T *x, *g;
  const int64_t* rows;
  int64_t n, cols;
};

template <class T, int V, int R, int NR>
void tap_tile(const Band<T>& band, const int64_t* runs, T* part) {
  Vec<T> acc[R * V][NR] = {};
  const T* g = band.g;
#pragma GCC unroll 32
  for (int k = 0; k < R * V * NR; ++k) __builtin_prefetch(part + k * kLanes<T>, 1);  // added to in the end
  for (int64_t row = 0; row < band.n; ++row) {
    const T* x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r] = band.x + runs[r] + band.rows[row];
    for (int64_t j = 0; j < band.cols; ++j, g += NR * kLanes<T>) {
      Vec<T> gv[NR];
#pragma GCC unroll 2
      for (int i = 0; i < NR; ++i) gv[i] = load(g + i * kLanes<T>);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Vec<T> xv = splat(x[r][j + v]);
#pragma GCC unroll 2
          for (int i = 0; i < NR; ++i) acc[r * V + v][i] += xv * gv[i];
        }
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < R * V; ++k)
#pragma GCC unroll 2
    for (int i = 0; i < NR; ++i) {
      T* const to = part + (k * NR + i) * kLanes<T>;
      store(to, load(to) + acc[k][i]);
    }
}

// A tile of the plan below: `tile[NR - 1]` on runs [run, ...), which are rows [row, ...) of part.
template <class T>
struct TapTile {
  void (*tile[2])(const Band<T>&, const int64_t*, T*);
  int64_t run, row;
};

#if defined(KEYDNN_IS_avx512) || defined(__aarch64__)
constexpr int kTileTapsMost = 12;
#else
constexpr int kTileTapsMost = 6;
#endif
constexpr int kLongestRun = 4;

// All taps of `channels` channels as runs and tiles.  Row s of part is tap `tap[s]`.
template <class T>
struct TapPlan {
  Scratch<int64_t> runs, tap;
  Scratch<TapTile<T>> tiles;
  int64_t n_runs = 0, n_taps = 0, n_tiles = 0;
  explicit TapPlan(int64_t all_taps) : runs(all_taps), tap(all_taps), tiles(all_taps) {}
  explicit operator bool() const { return runs && tap && tiles; }

  // offset: of the taps of the first channel; a channel takes `channel` elements of the planes.
  bool prepare(const int64_t* offset, int64_t taps, int64_t channels, int64_t channel) {
    const Scratch<int64_t> order(taps);
    if (!order) return false;
    sort(offset, taps, order.data);
    runs_of<kLongestRun>(offset, order.data, taps, channels, channel);
    return true;
  }

 private:
  static void sort(const int64_t* offset, int64_t taps, int64_t* order) {
    for (int64_t i = 0; i < taps; ++i) {
      int64_t at = i;
      for (; at > 0 && offset[order[at - 1]] > offset[i]; --at) order[at] = order[at - 1];
      order[at] = i;
    }
  }
  // Runs of V taps and their tiles, then shorter ones.
  template <int V>
  void runs_of(const int64_t* offset, const int64_t* order, int64_t taps, int64_t channels, int64_t channel) {
    const int64_t first_run = n_runs, first_row = n_taps;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0, length; i < taps; i += length) {
        for (length = 1; i + length < taps && length < kLongestRun && offset[order[i + length]] == offset[order[i]] + length;) ++length;
        if (length != V) continue;
        runs.data[n_runs++] = c * channel + offset[order[i]];
        for (int v = 0; v < V; ++v) tap.data[n_taps++] = c * taps + order[i + v];
      }
    constexpr int together = lesser(kTileTapsMost / V, 8);
    for (int64_t run = first_run; run < n_runs; run += together) add<V, together>(run, n_runs - run, first_row + (run - first_run) * V);
    if constexpr (V > 1) runs_of<V - 1>(offset, order, taps, channels, channel);
  }
  template <int V, int R>
  void add(int64_t run, int64_t left, int64_t row) {
    if constexpr (R > 1)
      if (left < R) return add<V, R - 1>(run, left, row);
    tiles.data[n_tiles++] = TapTile<T>{{tap_tile<T, V, R, 1>, tap_tile<T, V, R, 2>}, run, row};
  }
};

}  // namespace
}  // namespace keydnn::KEYDNN_NS
