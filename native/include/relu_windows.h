// relu and 2x2 maximum pooling of a plane: see kernels/relu_pool.cpp.
#pragma once
#include "planes.h"

namespace keydnn::KEYDNN_NS {
namespace {

template <class T>
struct SameSize;
template <>
struct SameSize<float> {
  using type = int32_t;
};
template <>
struct SameSize<double> {
  using type = int64_t;
};

// The larger; the first NaN wins, and the first of equals.  Of numbers or of vectors.
template <class V>
KEYDNN_INLINE V first_largest(V a, V b) {
  return (a >= b) | (a != a) ? a : b;
}

// A change that changes nothing.
struct AsItIs {
  template <class V>
  KEYDNN_INLINE V operator()(V v) const {
    return v;
  }
};

// The windows a b / c d, L of them, to y and code.
template <class T, int L, class V>
KEYDNN_INLINE void pool_four(V a, V b, V c, V d, T* y, uint8_t* code) {
  const V best = first_largest(first_largest(a, b), first_largest(c, d));
  if constexpr (L == 1) {
    y[0] = best <= 0 ? T(0) : best;
    code[0] = static_cast<uint8_t>(best > 0 ? (a == best ? 0 : b == best ? 1 : c == best ? 2 : 3) : 4);
  } else {
    using I = typename Run<typename SameSize<T>::type, L>::vec;
    Run<T, L>::put(y, best <= 0 ? V{} : best);
    const I zero = {};
    I won = c == best ? zero + 2 : zero + 3;
    won = b == best ? zero + 1 : won;
    won = a == best ? zero : won;
    won = best > 0 ? won : zero + 4;
    typedef uint8_t Bytes __attribute__((vector_size(L)));
    const Bytes bytes = __builtin_convertvector(won, Bytes);
    memcpy(code, &bytes, L);
  }
}

// Window j of a row of windows, for L windows at a time, of what `change` makes of the numbers.
template <class T, int L, class Change>
KEYDNN_INLINE void pool_windows(const T* top, const T* low, T* y, uint8_t* code, Change change) {
  if constexpr (L == 1) {
    pool_four<T, 1>(change(top[0]), change(top[1]), change(low[0]), change(low[1]), y, code);
  } else {
    pool_four<T, L>(change(every_second<T, L>(top)), change(every_second<T, L>(top + 1)), change(every_second<T, L>(low)),
                    change(every_second<T, L>(low + 1)), y, code);
  }
}

// Rows of fewer windows than a register holds, and more than half of it: a whole register of each row, whose surplus the next row
// overwrites.  False if there are not so many.
template <class T, int L = kLanes<T>, class Change>
KEYDNN_INLINE bool pool_with_surplus(const T* x, T* y, uint8_t* code, int64_t oh, int64_t ow, int64_t row, Change change) {
  if constexpr (L < 4) {
    return false;
  } else {
    if (2 * ow <= L) return pool_with_surplus<T, L / 2>(x, y, code, oh, ow, row, change);
    if (ow >= L) return false;
    for (int64_t i = 0; i + 1 < oh; ++i) pool_windows<T, L>(x + 2 * i * row, x + (2 * i + 1) * row, y + i * ow, code + i * ow, change);
    T last[L];
    uint8_t last_code[L];
    if (oh > 0) pool_windows<T, L>(x + 2 * (oh - 1) * row, x + (2 * oh - 1) * row, last, last_code, change);
    for (int64_t j = 0; oh > 0 && j < ow; ++j) y[(oh - 1) * ow + j] = last[j], code[(oh - 1) * ow + j] = last_code[j];
    return true;
  }
}

// y and code of `change` of a plane of h rows and w columns, rows `row` apart; windows at (2i, 2j), an odd last row or column has none.
// Where rows are further apart than w, two registers of numbers may be read from where the last row starts.
template <class T, class Change = AsItIs>
KEYDNN_INLINE void relu_maxpool_plane(const T* x, T* y, uint8_t* code, int64_t h, int64_t w, int64_t row, Change change = {}) {
  const int64_t oh = h / 2, ow = w / 2;
  if (row > w && pool_with_surplus(x, y, code, oh, ow, row, change)) return;
  for (int64_t i = 0; i < oh; ++i) {
    const T *const top = x + 2 * i * row, *const low = top + row;
    cover<kLanes<T>>(ow, [&](auto lanes, int64_t j) {
      pool_windows<T, lanes.value>(top + 2 * j, low + 2 * j, y + i * ow + j, code + i * ow + j, change);
    });
  }
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
