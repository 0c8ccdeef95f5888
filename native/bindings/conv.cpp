// Convolution for Python.  None for operands the kernel does not take.
#include <nanobind/stl/pair.h>

#include "array.h"

namespace keydnn {
namespace {

using Pair = std::pair<int64_t, int64_t>;

constexpr double kMacsPerNs = 16.0;

bool is_image(const Array& x) { return x.is_float() && x.ndim() == 4; }

int64_t window_count(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 || stride < 1 ? 0 : room / stride + 1;
}

double cost_ns(const keydnn_conv_shape& s) {
  return double(s.n) * s.o * s.oh * s.ow * (s.c / s.groups) * s.kh * s.kw / kMacsPerNs;
}

// n, c, h, w, o, kh, kw and the parameters; oh and ow follow.
keydnn_conv_shape make_shape(int64_t n, int64_t c, Pair size, int64_t o, Pair kernel, Pair stride, Pair padding, Pair dilation,
                             int64_t groups) {
  return {n, c, size.first, size.second, o, kernel.first, kernel.second, stride.first, stride.second, padding.first,
          padding.second, dilation.first, dilation.second, groups,
          window_count(size.first, kernel.first, stride.first, padding.first, dilation.first),
          window_count(size.second, kernel.second, stride.second, padding.second, dilation.second)};
}

nb::object conv2d(nb::handle hx, nb::handle hw, nb::handle hb, Pair stride, Pair padding, Pair dilation, int64_t groups) {
  const Array x(hx), w(hw), b(hb);
  const bool biased = !hb.is_none();
  if (!is_image(x) || !is_image(w) || w.type() != x.type() || groups < 1 || w.dim(1) * groups != x.dim(1)) return nb::none();
  if (biased && (b.type() != x.type() || b.ndim() != 1 || b.dim(0) != w.dim(0))) return nb::none();
  const keydnn_conv_shape s = make_shape(x.dim(0), x.dim(1), {x.dim(2), x.dim(3)}, w.dim(0), {w.dim(2), w.dim(3)}, stride, padding,
                                         dilation, groups);
  const npy_intp shape[4] = {s.n, s.o, s.oh, s.ow};
  nb::object y = empty(4, shape, x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(cost_ns(s), [&] { return api::conv2d(x.data<T>(), w.data<T>(), biased ? b.data<T>() : nullptr, data<T>(y), &s); });
  });
  return y;
}

nb::object conv2d_grad_x(nb::handle hg, nb::handle hw, Pair size, Pair stride, Pair padding, Pair dilation, int64_t groups) {
  const Array g(hg), w(hw);
  if (!is_image(g) || !is_image(w) || w.type() != g.type() || groups < 1 || w.dim(0) != g.dim(1)) return nb::none();
  keydnn_conv_shape s = make_shape(g.dim(0), w.dim(1) * groups, size, w.dim(0), {w.dim(2), w.dim(3)}, stride, padding, dilation, groups);
  if (g.dim(2) > s.oh || g.dim(3) > s.ow) return nb::none();
  s.oh = g.dim(2);
  s.ow = g.dim(3);
  const npy_intp shape[4] = {s.n, s.c, s.h, s.w};
  nb::object dx = empty(4, shape, g.type());
  by_type(g.type(), [&](auto zero) {
    using T = decltype(zero);
    run(cost_ns(s), [&] { return api::conv2d_grad_x(g.data<T>(), w.data<T>(), data<T>(dx), &s); });
  });
  return dx;
}

nb::object conv2d_grad_w(nb::handle hx, nb::handle hg, Pair kernel, Pair stride, Pair padding, Pair dilation, int64_t groups) {
  const Array x(hx), g(hg);
  if (!is_image(x) || !is_image(g) || g.type() != x.type() || groups < 1 || g.dim(0) != x.dim(0)) return nb::none();
  if (x.dim(1) % groups || g.dim(1) % groups) return nb::none();
  keydnn_conv_shape s = make_shape(x.dim(0), x.dim(1), {x.dim(2), x.dim(3)}, g.dim(1), kernel, stride, padding, dilation, groups);
  if (g.dim(2) > s.oh || g.dim(3) > s.ow) return nb::none();
  s.oh = g.dim(2);
  s.ow = g.dim(3);
  const npy_intp shape[4] = {s.o, s.c / groups, s.kh, s.kw};
  nb::object dw = empty(4, shape, x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(cost_ns(s), [&] { return api::conv2d_grad_w(x.data<T>(), g.data<T>(), data<T>(dw), &s); });
  });
  return dw;
}

}  // namespace

void bind_conv(nb::module_& m) {
  using namespace nb::literals;
  m.def("conv2d", &conv2d, "x"_a, "w"_a, "b"_a.none(), "stride"_a, "padding"_a, "dilation"_a, "groups"_a);
  m.def("conv2d_grad_x", &conv2d_grad_x, "g"_a, "w"_a, "size"_a, "stride"_a, "padding"_a, "dilation"_a, "groups"_a);
  m.def("conv2d_grad_w", &conv2d_grad_w, "x"_a, "g"_a, "kernel"_a, "stride"_a, "padding"_a, "dilation"_a, "groups"_a);
}

}  // namespace keydnn
