// relu and 2x2 maximum pooling in one pass, with one byte per window for the way back.
// Meaning: maxpool2d(relu(x)) and relu_grad(relu(x), maxpool2d_grad(g)) of kernels/reference, bit for bit: relu keeps the
// order of positive cells, and a window without one has no gradient whichever of its cells is called the winner.
#include "relu_windows.h"

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
int relu_maxpool(const T* x, T* y, uint8_t* code, int64_t planes, int64_t h, int64_t w) {
  const int64_t oh = h / 2, ow = w / 2;
  planes_of(planes, h * w, [=](int64_t plane) KEYDNN_NOINLINE {
    relu_maxpool_plane(x + plane * h * w, y + plane * oh * ow, code + plane * oh * ow, h, w, w);
  });
  return KEYDNN_OK;
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
