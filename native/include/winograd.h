// Convolution with 3x3 taps by tiles: 16 products for 4 outputs instead of 36 (Winograd 1980; Lavin & Gray 2016, F(2x2, 3x3)).
//
//   y = A' [(G w G') * (B' x B)] A        x: 4x4 inputs, w: 3x3 taps, y: the 2x2 outputs that read only them;  *: number by number
//
// so, summed over channels, 16 matrix products.  The gradient to w is  G' [(A g A') * (B' x B)] G, g: 2x2; that to x is a
// convolution again.
//
// Numerics: sums and differences of up to four inputs are multiplied.  An output's error is a few roundings of what the largest
// input of its tile contributes to it, where a sum of products tap by tap has those of what each contributes.  Infinities and NaN spoil
// a whole tile, and so do sums that overflow: whoever finds them computes tap by tap.
#pragma once
#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int kNotFinite = -1;  // instead of a status: sums are not, and have to be computed in another way

// Numbers or vectors of them, each of its own tile.
namespace winograd {

// B' x of a column, or x B of a row.
template <class V>
KEYDNN_INLINE void four(V x0, V x1, V x2, V x3, V& t0, V& t1, V& t2, V& t3) {
  t0 = x0 - x2, t1 = x1 + x2, t2 = x2 - x1, t3 = x1 - x3;
}

// B' x B, in place.
template <class V>
KEYDNN_INLINE void inputs(V (&x)[4][4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) four(x[i][0], x[i][1], x[i][2], x[i][3], x[i][0], x[i][1], x[i][2], x[i][3]);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) four(x[0][j], x[1][j], x[2][j], x[3][j], x[0][j], x[1][j], x[2][j], x[3][j]);
}

// A' m A.
template <class V>
KEYDNN_INLINE void outputs(const V (&m)[4][4], V (&y)[2][2]) {
  V rows[2][4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    rows[0][j] = (m[0][j] + m[1][j]) + m[2][j];
    rows[1][j] = (m[1][j] - m[2][j]) - m[3][j];
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    y[i][0] = (rows[i][0] + rows[i][1]) + rows[i][2];
    y[i][1] = (rows[i][1] - rows[i][2]) - rows[i][3];
  }
}

// A g A'.
template <class V>
KEYDNN_INLINE void gradients(const V (&g)[2][2], V (&to)[4][4]) {
  V rows[4][2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    rows[0][j] = g[0][j], rows[1][j] = g[0][j] + g[1][j];
    rows[2][j] = g[0][j] - g[1][j], rows[3][j] = -g[1][j];
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    to[i][0] = rows[i][0], to[i][1] = rows[i][0] + rows[i][1];
    to[i][2] = rows[i][0] - rows[i][1], to[i][3] = -rows[i][1];
  }
}

// G w G'.
template <class V>
KEYDNN_INLINE void weights(const V (&w)[3][3], V (&to)[4][4]) {
  V rows[4][3];
#pragma GCC unroll 4
  for (int j = 0; j < 3; ++j) {
    rows[0][j] = w[0][j], rows[3][j] = w[2][j];
    rows[1][j] = ((w[0][j] + w[2][j]) + w[1][j]) / 2, rows[2][j] = ((w[0][j] + w[2][j]) - w[1][j]) / 2;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    to[i][0] = rows[i][0], to[i][3] = rows[i][2];
    to[i][1] = ((rows[i][0] + rows[i][2]) + rows[i][1]) / 2, to[i][2] = ((rows[i][0] + rows[i][2]) - rows[i][1]) / 2;
  }
}

// G' s G.
template <class V>
KEYDNN_INLINE void weight_gradients(const V (&s)[4][4], V (&to)[3][3]) {
  V rows[3][4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const V sum = s[1][j] + s[2][j], difference = s[1][j] - s[2][j];
    rows[0][j] = s[0][j] + sum / 2, rows[1][j] = difference / 2, rows[2][j] = sum / 2 + s[3][j];
  }
#pragma GCC unroll 4
  for (int i = 0; i < 3; ++i) {
    const V sum = rows[i][1] + rows[i][2], difference = rows[i][1] - rows[i][2];
    to[i][0] = rows[i][0] + sum / 2, to[i][1] = difference / 2, to[i][2] = sum / 2 + rows[i][3];
  }
}

// Whether a convolution has such taps.
KEYDNN_INLINE bool fits(const keydnn_conv_shape& s) {
  return s.kh == 3 && s.kw == 3 && s.sh == 1 && s.sw == 1 && s.dh == 1 && s.dw == 1 && s.groups == 1;
}

}  // namespace winograd
}  // namespace
}  // namespace keydnn::KEYDNN_NS
