// Elementwise kernels for Python: same shape in, same shape out; None for operands the kernel does not take.
#include "array.h"

namespace keydnn {
namespace {

// y = f(x), f called as f(x, y, n).
template <class F>
nb::object unary(nb::handle hx, double ns_per_element, F&& f) {
  const Array x(hx);
  if (!x.is_float()) return nb::none();
  nb::object y = empty(x.ndim(), x.shape(), x.type());
  const int64_t n = x.size();
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(ns_per_element * n, [&] { return f(static_cast<const T*>(x.data<T>()), data<T>(y), n); });
  });
  return y;
}

// z = f(x, y), equal shapes and dtypes.
template <class F>
nb::object binary(nb::handle hx, nb::handle hy, double ns_per_element, F&& f) {
  const Array x(hx), y(hy);
  if (!x.is_float() || y.type() != x.type() || !x.same_shape(y)) return nb::none();
  nb::object z = empty(x.ndim(), x.shape(), x.type());
  const int64_t n = x.size();
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(ns_per_element * n,
        [&] { return f(static_cast<const T*>(x.data<T>()), static_cast<const T*>(y.data<T>()), data<T>(z), n); });
  });
  return z;
}

}  // namespace

void bind_elementwise(nb::module_& m) {
  m.def("relu", [](nb::handle x) { return unary(x, 0.2, [](auto... a) { return api::relu(a...); }); });
  m.def("relu_grad", [](nb::handle y, nb::handle g) {
    return binary(y, g, 0.3, [](auto... a) { return api::relu_grad(a...); });
  });
}

}  // namespace keydnn
