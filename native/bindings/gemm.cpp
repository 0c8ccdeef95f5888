// matmul and linear for Python.  None for operands the kernel does not take.
#include <vector>

#include "array.h"

namespace keydnn {
namespace {

constexpr double kMacsPerNs = 16.0;

// Where item i of the broadcast batch starts in an operand whose leading axes are `lead` of `ndim - 2`.
std::vector<int64_t> item_offsets(const Array& x, int batch_axes, const npy_intp* batch_shape, int64_t batch) {
  std::vector<int64_t> offsets(static_cast<size_t>(batch), 0);
  int64_t step = x.dim(x.ndim() - 1) * x.dim(x.ndim() - 2);  // elements between neighbours along the present axis
  int64_t period = 1;                                        // items between neighbours along the present axis
  for (int axis = batch_axes - 1; axis >= 0; --axis) {
    const int own = axis - (batch_axes - (x.ndim() - 2));
    const int64_t length = batch_shape[axis];
    if (own >= 0 && x.dim(own) > 1)
      for (int64_t i = 0; i < batch; ++i) offsets[i] += i / period % length * step;
    if (own >= 0) step *= x.dim(own);
    period *= length;
  }
  return offsets;
}

nb::object matmul(nb::handle ha, nb::handle hb, bool transpose_a, bool transpose_b) {
  const Array a(ha), b(hb);
  if (!a.is_float() || a.type() != b.type() || a.ndim() < 2 || b.ndim() < 2 || a.ndim() > 16 || b.ndim() > 16) return nb::none();
  const int64_t a0 = a.dim(a.ndim() - 2), a1 = a.dim(a.ndim() - 1), b0 = b.dim(b.ndim() - 2), b1 = b.dim(b.ndim() - 1);
  const int64_t m = transpose_a ? a1 : a0, k = transpose_a ? a0 : a1, n = transpose_b ? b0 : b1;
  if ((transpose_b ? b1 : b0) != k) return nb::none();
  const int batch_axes = (a.ndim() > b.ndim() ? a.ndim() : b.ndim()) - 2;
  npy_intp shape[16];
  int64_t batch = 1;
  for (int axis = 0; axis < batch_axes; ++axis) {
    const int ia = axis - (batch_axes - (a.ndim() - 2)), ib = axis - (batch_axes - (b.ndim() - 2));
    const int64_t la = ia < 0 ? 1 : a.dim(ia), lb = ib < 0 ? 1 : b.dim(ib);
    if (la != lb && la != 1 && lb != 1) return nb::none();
    shape[axis] = la == 1 ? lb : la;
    batch *= shape[axis];
  }
  shape[batch_axes] = m;
  shape[batch_axes + 1] = n;
  nb::object c = empty(batch_axes + 2, shape, a.type());
  std::vector<int64_t> a_items, b_items;
  if (batch > 1) {
    a_items = item_offsets(a, batch_axes, shape, batch);
    b_items = item_offsets(b, batch_axes, shape, batch);
  }
  by_type(a.type(), [&](auto zero) {
    using T = decltype(zero);
    run(double(batch) * m * n * k / kMacsPerNs, [&] {
      return api::gemm(static_cast<const T*>(a.data<T>()), transpose_a ? 1 : a1, transpose_a ? a1 : 1,
                       batch > 1 ? a_items.data() : nullptr, static_cast<const T*>(b.data<T>()), transpose_b ? 1 : b1,
                       transpose_b ? b1 : 1, batch > 1 ? b_items.data() : nullptr, static_cast<const T*>(nullptr), data<T>(c), batch,
                       m, n, k);
    });
  });
  return c;
}

nb::object linear(nb::handle hx, nb::handle hw, nb::handle hb) {
  const Array x(hx), w(hw), b(hb);
  const bool biased = !hb.is_none();
  if (!x.is_float() || w.type() != x.type() || x.ndim() != 2 || w.ndim() != 2 || x.dim(1) != w.dim(1)) return nb::none();
  if (biased && (b.type() != x.type() || b.ndim() != 1 || b.dim(0) != w.dim(0))) return nb::none();
  const int64_t m = x.dim(0), n = w.dim(0), k = x.dim(1);
  const npy_intp shape[2] = {m, n};
  nb::object y = empty(2, shape, x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(double(m) * n * k / kMacsPerNs, [&] {
      return api::gemm(static_cast<const T*>(x.data<T>()), k, 1, nullptr, static_cast<const T*>(w.data<T>()), 1, k, nullptr,
                       biased ? static_cast<const T*>(b.data<T>()) : nullptr, data<T>(y), 1, m, n, k);
    });
  });
  return y;
}

}  // namespace

void bind_gemm(nb::module_& m) {
  m.def("matmul", &matmul, nb::arg("a"), nb::arg("b"), nb::arg("transpose_a"), nb::arg("transpose_b"));
  m.def("linear", &linear, nb::arg("x"), nb::arg("w"), nb::arg("b").none());
}

}  // namespace keydnn
