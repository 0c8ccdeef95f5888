// relu and 2x2 maximum pooling in one pass, with one byte per window for the way back.
// Meaning: maxpool2d(relu(x)) and relu_grad(relu(x), maxpool2d_grad(g)) of kernels/reference, bit for bit: relu keeps the
// order of positive cells, and a window without one has no gradient whichever of its cells is called the winner.
#include "kernel.h"

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
    for (int64_t i = 0; i < oh; ++i) {
      const T *top = x + (plane * h + 2 * i) * w, *low = top + w;
      T* const to = y + (plane * oh + i) * ow;
      uint8_t* const mark = code + (plane * oh + i) * ow;
#pragma GCC ivdep
      for (int64_t j = 0; j < ow; ++j) {
        const T a = top[2 * j], b = top[2 * j + 1], c = low[2 * j], d = low[2 * j + 1];
        const T ab = (a >= b) | (a != a) ? a : b, cd = (c >= d) | (c != c) ? c : d;
        const T best = (ab >= cd) | (ab != ab) ? ab : cd;
        to[j] = best <= 0 ? T(0) : best;
        const int won = a == best ? 0 : b == best ? 1 : c == best ? 2 : 3;
        mark[j] = static_cast<uint8_t>(best > 0 ? won : 4);
      }
    }
  });
  return KEYDNN_OK;
}

template <class T>
int relu_maxpool_grad(const T* g, const uint8_t* code, T* dx, int64_t planes, int64_t h, int64_t w) {
  const int64_t oh = h / 2, ow = w / 2;
  planes_of(planes, h * w, [=](int64_t plane) KEYDNN_NOINLINE {
    for (int64_t i = 0; i < oh; ++i) {
      T *top = dx + (plane * h + 2 * i) * w, *low = top + w;
      const T* const from = g + (plane * oh + i) * ow;
      const uint8_t* const mark = code + (plane * oh + i) * ow;
#pragma GCC ivdep
      for (int64_t j = 0; j < ow; ++j) {
        const T value = from[j];
        const int won = mark[j];
        top[2 * j] = won == 0 ? value : T(0);
        top[2 * j + 1] = won == 1 ? value : T(0);
        low[2 * j] = won == 2 ? value : T(0);
        low[2 * j + 1] = won == 3 ? value : T(0);
      }
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
