// Pooling for Python.
#include <nanobind/stl/pair.h>

#include "operand.h"

namespace keydnn {
namespace {

using Pair = std::pair<int64_t, int64_t>;

bool is_image(const Operand& x) { return x && x.ndim() == 4; }

int64_t window_count(int64_t size, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t room = size + 2 * padding - kernel;
  return room < 0 || stride < 1 ? 0 : room / stride + 1;
}

keydnn_pool_shape make_shape(int64_t planes, Pair size, Pair kernel, Pair stride, Pair padding) {
  return {planes, size.first, size.second, window_count(size.first, kernel.first, stride.first, padding.first),
          window_count(size.second, kernel.second, stride.second, padding.second), kernel.first, kernel.second,
          stride.first, stride.second, padding.first, padding.second};
}

double cost_ns(const keydnn_pool_shape& s) { return 0.3 * s.planes * s.h * s.w; }

// Whether there is a window at least: of others the reference tells what is wrong.
bool has_windows(const Operand& x, Pair kernel, Pair stride, Pair padding) {
  auto fits = [](int64_t size, int64_t kernel, int64_t stride, int64_t padding) {
    return kernel >= 1 && stride >= 1 && padding >= 0 && size + 2 * padding >= kernel;
  };
  return is_image(x) && fits(x.dim(2), kernel.first, stride.first, padding.first) && fits(x.dim(3), kernel.second, stride.second, padding.second);
}

// What `pool_kernel` makes of the windows of x: y, and argmax beside it if asked for.
template <bool kHasArgmax, class Kernel>
nb::object pool(nb::handle hx, Pair kernel, Pair stride, Pair padding, Kernel pool_kernel) {
  const Operand x(hx);
  if (!has_windows(x, kernel, stride, padding)) return nb::object();
  const keydnn_pool_shape s = make_shape(x.dim(0) * x.dim(1), {x.dim(2), x.dim(3)}, kernel, stride, padding);
  const npy_intp shape[4] = {x.dim(0), x.dim(1), s.oh, s.ow};
  nb::object y = empty(4, shape, x.type()), argmax = kHasArgmax ? empty(4, shape, NPY_INT64) : nb::object();
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    int64_t* const at = kHasArgmax ? data<int64_t>(argmax) : nullptr;
    run(cost_ns(s), [&] { return pool_kernel(x.data<T>(), data<T>(y), at, &s); });
  });
  return kHasArgmax ? nb::object(nb::make_tuple(y, argmax)) : y;
}

constexpr auto largest = [](const auto* x, auto* y, int64_t* argmax, const keydnn_pool_shape* s) { return api::maxpool2d(x, y, argmax, s); };
constexpr auto average = [](const auto* x, auto* y, int64_t*, const keydnn_pool_shape* s) { return api::avgpool2d(x, y, s); };

nb::object maxpool2d_grad(nb::handle hg, nb::handle hargmax, Pair size, Pair padding) {
  const Operand g(hg);
  const Array argmax(hargmax);
  if (!is_image(g) || argmax.type() != NPY_INT64 || argmax.ndim() != 4 || !PyArray_CompareLists(argmax.shape(), g.shape(), 4)) {
    return nb::object();
  }
  keydnn_pool_shape s = make_shape(g.dim(0) * g.dim(1), size, {1, 1}, {1, 1}, padding);
  s.oh = g.dim(2);
  s.ow = g.dim(3);
  const npy_intp shape[4] = {g.dim(0), g.dim(1), s.h, s.w};
  nb::object dx = empty(4, shape, g.type());
  by_type(g.type(), [&](auto zero) {
    using T = decltype(zero);
    run(cost_ns(s), [&] { return api::maxpool2d_grad(g.data<T>(), argmax.data<int64_t>(), data<T>(dx), &s); });
  });
  return dx;
}

nb::object avgpool2d_grad(nb::handle hg, Pair size, Pair kernel, Pair stride, Pair padding) {
  const Operand g(hg);
  if (!is_image(g)) return nb::object();
  keydnn_pool_shape s = make_shape(g.dim(0) * g.dim(1), size, kernel, stride, padding);
  if (g.dim(2) > s.oh || g.dim(3) > s.ow) return nb::object();
  s.oh = g.dim(2);
  s.ow = g.dim(3);
  const npy_intp shape[4] = {g.dim(0), g.dim(1), s.h, s.w};
  nb::object dx = empty(4, shape, g.type());
  by_type(g.type(), [&](auto zero) {
    using T = decltype(zero);
    run(cost_ns(s), [&] { return api::avgpool2d_grad(g.data<T>(), data<T>(dx), &s); });
  });
  return dx;
}

nb::object global_avgpool2d(nb::handle hx) {
  const Operand x(hx);
  if (!is_image(x)) return nb::object();
  const int64_t planes = x.dim(0) * x.dim(1), size = x.dim(2) * x.dim(3);
  const npy_intp shape[4] = {x.dim(0), x.dim(1), 1, 1};
  nb::object y = empty(4, shape, x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.15 * planes * size, [&] { return api::plane_mean(x.data<T>(), data<T>(y), planes, size); });
  });
  return y;
}

nb::dict kernels(nb::handle reference) {
  using nb::handle;
  Kernels k(reference);
  const nb::arg x("x"), g("g"), argmax("argmax"), size("size"), kernel("kernel"), stride("stride"), padding("padding");
  k.add("maxpool2d", [](handle x, Pair k, Pair s, Pair p) { return pool<true>(x, k, s, p, largest); }, x, kernel, stride, padding);
  k.add("maxpool2d_values", [](handle x, Pair k, Pair s, Pair p) { return pool<false>(x, k, s, p, largest); }, x, kernel, stride, padding);
  k.add("maxpool2d_grad", [](handle g, handle at, Pair n, Pair p) { return maxpool2d_grad(g, at, n, p); }, g, argmax, size, padding);
  k.add("avgpool2d", [](handle x, Pair k, Pair s, Pair p) { return pool<false>(x, k, s, p, average); }, x, kernel, stride, padding);
  k.add("avgpool2d_grad", [](handle g, Pair n, Pair k, Pair s, Pair p) { return avgpool2d_grad(g, n, k, s, p); }, g, size, kernel, stride,
        padding);
  k.add("global_avgpool2d", [](handle x) { return global_avgpool2d(x); }, x);
  return k.table();
}

}  // namespace

void bind_pool(nb::module_& m) { m.def("pool_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
