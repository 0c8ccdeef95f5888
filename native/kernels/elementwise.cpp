// Elementwise kernels: plain loops that the compiler vectorises, cut into chunks of kGrain elements.
// Meaning: kernels/reference.py, function of the same name.
#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kGrain = 16384;

template <class T>
int relu(const T* x, T* y, int64_t n) {
  parallel_ranges(n, kGrain, 0.2 * n, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = x[i] <= 0 ? T(0) : x[i];  // NaN is not <= 0: it stays
  });
  return KEYDNN_OK;
}

template <class T>
int relu_grad(const T* y, const T* g, T* dx, int64_t n) {
  parallel_ranges(n, kGrain, 0.3 * n, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) dx[i] = y[i] > 0 ? g[i] : T(0);
  });
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_ELEMENTWISE)
