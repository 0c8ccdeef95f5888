// relu and 2x2 maximum pooling in one pass, with one byte per window for the way back.
// Meaning: maxpool2d(relu(x)) and relu_grad(relu(x), maxpool2d_grad(g)) of kernels/reference, bit for bit: relu keeps the
// order of positive cells, and a window without one has no gradient whichever of its cells is called the winner.
#include "planes.h"

namespace keydnn::KEYDNN_NS {
namespace {

// body(plane) for all planes, in chunks of about 16,000 elements of x.
template <class Body>
void planes_of(int64_t planes, int64_t size, Body body) {
  const int64_t grain = greater(int64_t(1), 16384 / greater(size, int64_t(1)));
  parallel_ranges(planes, grain, 0.3 * planes * size, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) body(plane);
  });
}

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

// Window j of a row of windows, for L windows at a time.
template <class T, int L>
KEYDNN_INLINE void pool_windows(const T* top, const T* low, T* y, uint8_t* code) {
  if constexpr (L == 1) {
    const T a = top[0], b = top[1], c = low[0], d = low[1];
    const T best = first_largest(first_largest(a, b), first_largest(c, d));
    y[0] = best <= 0 ? T(0) : best;
    code[0] = static_cast<uint8_t>(best > 0 ? (a == best ? 0 : b == best ? 1 : c == best ? 2 : 3) : 4);
  } else {
    using V = typename Run<T, L>::vec;
    using I = typename Run<typename SameSize<T>::type, L>::vec;
    const V a = every_second<T, L>(top), b = every_second<T, L>(top + 1), c = every_second<T, L>(low), d = every_second<T, L>(low + 1);
    const V best = first_largest(first_largest(a, b), first_largest(c, d));
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

template <class T>
int relu_maxpool(const T* x, T* y, uint8_t* code, int64_t planes, int64_t h, int64_t w) {
  const int64_t oh = h / 2, ow = w / 2;
  planes_of(planes, h * w, [=](int64_t plane) KEYDNN_NOINLINE {
    for (int64_t i = 0; i < oh; ++i) {
      const T *top = x + (plane * h + 2 * i) * w, *low = top + w;
      const int64_t row = (plane * oh + i) * ow;
      cover<kLanes<T>>(ow, [&](auto lanes, int64_t j) {
        pool_windows<T, lanes.value>(top + 2 * j, low + 2 * j, y + row + j, code + row + j);
      });
    }
  });
  return KEYDNN_OK;
}

// x[0], y[0], x[1], y[1], ...: 2 L elements.
template <class T, int L>
KEYDNN_INLINE void put_pairs(T* to, typename Run<T, L>::vec x, typename Run<T, L>::vec y) {
  using V = typename Run<T, L>::vec;
  V low, high;
  if constexpr (L == 16) {
    low = pick<V, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(x, y);
    high = pick<V, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(x, y);
  } else if constexpr (L == 8) {
    low = pick<V, 0, 8, 1, 9, 2, 10, 3, 11>(x, y);
    high = pick<V, 4, 12, 5, 13, 6, 14, 7, 15>(x, y);
  } else if constexpr (L == 4) {
    low = pick<V, 0, 4, 1, 5>(x, y);
    high = pick<V, 2, 6, 3, 7>(x, y);
  } else {
    low = pick<V, 0, 2>(x, y);
    high = pick<V, 1, 3>(x, y);
  }
  Run<T, L>::put(to, low);
  Run<T, L>::put(to + L, high);
}

template <class T, int L>
KEYDNN_INLINE void spread_windows(const T* g, const uint8_t* code, T* top, T* low) {
  if constexpr (L == 1) {
    top[0] = code[0] == 0 ? g[0] : T(0);
    top[1] = code[0] == 1 ? g[0] : T(0);
    low[0] = code[0] == 2 ? g[0] : T(0);
    low[1] = code[0] == 3 ? g[0] : T(0);
  } else {
    using V = typename Run<T, L>::vec;
    using I = typename Run<typename SameSize<T>::type, L>::vec;
    typedef uint8_t Bytes __attribute__((vector_size(L)));
    Bytes bytes;
    memcpy(&bytes, code, L);
    const I won = __builtin_convertvector(bytes, I);
    const V value = Run<T, L>::at(g), none = {};
    put_pairs<T, L>(top, won == 0 ? value : none, won == 1 ? value : none);
    put_pairs<T, L>(low, won == 2 ? value : none, won == 3 ? value : none);
  }
}

template <class T>
int relu_maxpool_grad(const T* g, const uint8_t* code, T* dx, int64_t planes, int64_t h, int64_t w) {
  const int64_t oh = h / 2, ow = w / 2;
  planes_of(planes, h * w, [=](int64_t plane) KEYDNN_NOINLINE {
    for (int64_t i = 0; i < oh; ++i) {
      T *top = dx + (plane * h + 2 * i) * w, *low = top + w;
      const int64_t row = (plane * oh + i) * ow;
      cover<kLanes<T>>(ow, [&](auto lanes, int64_t j) {
        spread_windows<T, lanes.value>(g + row + j, code + row + j, top + 2 * j, low + 2 * j);
      });
      if (w % 2) top[w - 1] = low[w - 1] = T(0);
    }
    if (h % 2)
      for (int64_t j = 0; j < w; ++j) dx[(plane * h + h - 1) * w + j] = T(0);
  });
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_RELU_POOL)
