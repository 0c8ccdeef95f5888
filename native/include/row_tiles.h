// The register tiles under convolution of few images, with neighbouring columns of whole rows side by side in a register:
//
//   to[o][i] = from[o][i] + sum_k w[o][k] * planes[at[i] + offset[k]]           o: MR outputs, i: NR registers of columns
//
// Weights are read as they lie and results are planes, so nothing is packed.  Rows must fill registers; rows half as long do
// when planes are folded (planes.h).  Of others, planes are seen as one long vector: what lies between two rows is computed too,
// and not met again.  An element's sum runs over k in order, so its bits do not depend on the tile.
#pragma once
#include "planes.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int kRowOuts = 6;
#if defined(KEYDNN_IS_avx512) || defined(__aarch64__)
constexpr int kRowVecs = 4;
#else
constexpr int kRowVecs = 2;
#endif

constexpr int64_t kWasteOf = 5;  // a row may be followed by a fifth of a row of other results

// How many rows of the result lie side by side in a register: 1 or 2; 0 if rows do not fill registers.
template <class T>
int64_t rows_per_register(const InputPlanes& planes) {
  if (planes.s.ow % kLanes<T> == 0) return 1;
  if (kLanes<T> > 2 && 2 * planes.s.ow == kLanes<T> && planes.s.oh % 2 == 0 && planes.pitch <= kMostFolded) return 2;
  return kWasteOf * (planes.pitch - planes.s.ow) <= planes.s.ow && planes.s.oh * planes.pitch >= kRowVecs * kLanes<T> ? 1 : 0;
}

template <class T>
struct RowTile {
  const T* planes;
  const int64_t* at;      // of each register in planes
  const int64_t* offset;  // of each tap
  int64_t n_k;
  const T* w;
  int64_t w_row;          // from one output to the next
  const T* from;          // null: from `bias`, one number per output
  int64_t from_row;
  const T* bias;          // null: from 0
  T* to;
  int64_t to_row;
};

template <class T, int MR, int NR>
void row_tile(const RowTile<T>& t) {
  constexpr int64_t L = kLanes<T>;
  Vec<T> acc[MR][NR];
#pragma GCC unroll 8
  for (int o = 0; o < MR; ++o)
#pragma GCC unroll 8
    for (int i = 0; i < NR; ++i) acc[o][i] = t.from ? load(t.from + o * t.from_row + i * L) : splat(t.bias ? t.bias[o] : T(0));
  const T *x[NR], *w[MR];
#pragma GCC unroll 8
  for (int i = 0; i < NR; ++i) x[i] = t.planes + t.at[i];
#pragma GCC unroll 8
  for (int o = 0; o < MR; ++o) w[o] = t.w + o * t.w_row;
  for (int64_t k = 0; k < t.n_k; ++k) {
    const int64_t shift = t.offset[k];
    Vec<T> v[NR];
#pragma GCC unroll 8
    for (int i = 0; i < NR; ++i) v[i] = load(x[i] + shift);
#pragma GCC unroll 8
    for (int o = 0; o < MR; ++o) {
      const Vec<T> s = splat(w[o][k]);
#pragma GCC unroll 8
      for (int i = 0; i < NR; ++i) acc[o][i] += s * v[i];
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < MR; ++o)
#pragma GCC unroll 8
    for (int i = 0; i < NR; ++i) store(t.to + o * t.to_row + i * L, acc[o][i]);
}

// The tile of `outs` outputs and `vecs` registers, 1 <= outs <= MR, 1 <= vecs <= NR.
template <class T, int MR = kRowOuts, int NR = kRowVecs>
void run_row_tile(int64_t outs, int64_t vecs, const RowTile<T>& t) {
  if constexpr (MR > 1)
    if (outs < MR) return run_row_tile<T, MR - 1, NR>(outs, vecs, t);
  if constexpr (NR > 1)
    if (vecs < NR) return run_row_tile<T, MR, NR - 1>(outs, vecs, t);
  row_tile<T, MR, NR>(t);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
