// Softmax and cross-entropy for Python: along the last axis; labels int64 within range.
#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

// Whether `axis` is x's last one, and a row is not empty.
bool is_last(const Operand& x, handle axis) {
  const long a = PyLong_AsLong(axis.ptr());
  if (a == -1 && PyErr_Occurred()) PyErr_Clear();
  return x.ndim() > 0 && (a == x.ndim() - 1 || a == -1) && x.dim(x.ndim() - 1) > 0;
}

template <class T>
using Rows = int(const T*, T*, int64_t, int64_t);
template <class T>
using RowPairs = int(const T*, const T*, T*, int64_t, int64_t);

object rows(handle hx, handle axis, Rows<float>* f32, Rows<double>* f64) {
  const Operand x(hx);
  if (!x || !is_last(x, axis)) return object();
  object y = empty(x.ndim(), x.shape(), x.type());
  const int64_t n = x.dim(x.ndim() - 1), count = x.size() / n;
  run(static_cast<double>(x.size()), [&] {
    return x.type() == NPY_FLOAT ? f32(x.data<float>(), data<float>(y), count, n) : f64(x.data<double>(), data<double>(y), count, n);
  });
  return y;
}

object row_pairs(handle hy, handle hg, handle axis, RowPairs<float>* f32, RowPairs<double>* f64) {
  const Operand y(hy), g(hg);
  if (!y.fits(g) || !is_last(y, axis)) return object();
  object dx = empty(y.ndim(), y.shape(), y.type());
  const int64_t n = y.dim(y.ndim() - 1), count = y.size() / n;
  run(static_cast<double>(y.size()), [&] {
    return y.type() == NPY_FLOAT ? f32(y.data<float>(), g.data<float>(), data<float>(dx), count, n)
                                 : f64(y.data<double>(), g.data<double>(), data<double>(dx), count, n);
  });
  return dx;
}

// The labels, if they are int64, one per row, and all in [0, n); else null.
const int64_t* read_labels(const Array& labels, int64_t rows, int64_t n) {
  if (labels.type() != NPY_INT64 || labels.ndim() != 1 || labels.dim(0) != rows) return nullptr;
  const int64_t* values = labels.data<int64_t>();
  for (int64_t i = 0; i < rows; ++i)
    if (values[i] < 0 || values[i] >= n) return nullptr;
  return values;
}

object cross_entropy(handle hlogits, handle hlabels) {
  const Operand logits(hlogits);
  const Array labels(hlabels);
  if (!logits || logits.ndim() != 2 || logits.dim(1) < 1 || labels.type() < 0) return object();
  const int64_t count = logits.dim(0), n = logits.dim(1);
  const int64_t* const values = read_labels(labels, count, n);
  if (!values) return object();
  object loss = empty(1, logits.shape(), logits.type()), p = empty(2, logits.shape(), logits.type());
  by_type(logits.type(), [&](auto zero) {
    using T = decltype(zero);
    run(static_cast<double>(count * n), [&] { return api::cross_entropy(logits.data<T>(), values, data<T>(loss), data<T>(p), count, n); });
  });
  return nb::make_tuple(loss, p);
}

object cross_entropy_grad(handle hp, handle hlabels, handle hg) {
  const Operand p(hp), g(hg);
  const Array labels(hlabels);
  if (!p || !g || p.ndim() != 2 || p.dim(1) < 1 || g.type() != p.type() || g.ndim() != 1 || g.dim(0) != p.dim(0)) return object();
  if (labels.type() < 0) return object();
  const int64_t count = p.dim(0), n = p.dim(1);
  const int64_t* const values = read_labels(labels, count, n);
  if (!values) return object();
  object d = empty(2, p.shape(), p.type());
  by_type(p.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.3 * static_cast<double>(count * n),
        [&] { return api::cross_entropy_grad(p.data<T>(), values, g.data<T>(), data<T>(d), count, n); });
  });
  return d;
}

nb::dict kernels(handle reference) {
  Kernels k(reference);
  const nb::arg x("x"), y("y"), g("g"), axis("axis");
  struct {
    const char* name;
    Rows<float>* f32;
    Rows<double>* f64;
  } forward[] = {
      {"softmax", &keydnn_softmax_f32, &keydnn_softmax_f64},
      {"log_softmax", &keydnn_log_softmax_f32, &keydnn_log_softmax_f64},
  };
  for (const auto& f : forward)
    k.add(f.name, [f32 = f.f32, f64 = f.f64](handle x, handle axis) { return rows(x, axis, f32, f64); }, x, axis);
  struct {
    const char* name;
    RowPairs<float>* f32;
    RowPairs<double>* f64;
  } backward[] = {
      {"softmax_grad", &keydnn_softmax_grad_f32, &keydnn_softmax_grad_f64},
      {"log_softmax_grad", &keydnn_log_softmax_grad_f32, &keydnn_log_softmax_grad_f64},
  };
  for (const auto& f : backward)
    k.add(f.name, [f32 = f.f32, f64 = f.f64](handle y, handle g, handle axis) { return row_pairs(y, g, axis, f32, f64); }, y, g, axis);
  k.add("cross_entropy", [](handle logits, handle labels) { return cross_entropy(logits, labels); });
  k.add("cross_entropy_grad", [](handle p, handle labels, handle g) { return cross_entropy_grad(p, labels, g); });
  return k.table();
}

}  // namespace

void bind_softmax(nb::module_& m) { m.def("softmax_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
