// Reductions for Python: any axes that leave at most two kept and two reduced groups, alternating.
#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

// Which axes: None is all; a tuple of ints in [0, ndim).
bool read_axes(handle axis, int ndim, bool* reduced) {
  for (int i = 0; i < ndim; ++i) reduced[i] = axis.is_none();
  if (axis.is_none()) return true;
  if (!PyTuple_CheckExact(axis.ptr())) return false;
  const Py_ssize_t count = PyTuple_Size(axis.ptr());
  for (Py_ssize_t i = 0; i < count; ++i) {
    const long a = PyLong_AsLong(PyTuple_GetItem(axis.ptr(), i));
    if (a == -1 && PyErr_Occurred()) PyErr_Clear();
    if (a < 0 || a >= ndim || reduced[a]) return false;
    reduced[a] = true;
  }
  return true;
}

// The shape as (k0, r0, k1, r1); false if it needs more groups.
bool group(const Operand& x, const bool* reduced, int64_t* sizes) {
  int64_t g[4] = {1, 1, 1, 1};
  int at = -1;  // the last group that was begun
  for (int i = 0; i < x.ndim(); ++i) {
    if (x.dim(i) == 1) continue;
    const int kind = reduced[i] ? 1 : 0;
    if (at < 0) {
      at = kind;
    } else if (at % 2 != kind) {
      ++at;
    }
    if (at > 3) return false;
    g[at] *= x.dim(i);
  }
  const bool last_two_empty = g[2] == 1 && g[3] == 1;
  sizes[0] = last_two_empty ? 1 : g[0];
  sizes[1] = last_two_empty ? 1 : g[1];
  sizes[2] = last_two_empty ? g[0] : g[2];
  sizes[3] = last_two_empty ? g[1] : g[3];
  return true;
}

template <class T>
using Reduction = int(const T*, T*, int64_t, int64_t, int64_t, int64_t);

object reduce(handle hx, handle axis, handle hkeep, Reduction<float>* f32, Reduction<double>* f64) {
  const Operand x(hx);
  constexpr int kMaxAxes = 32;
  bool reduced[kMaxAxes];
  int64_t s[4];
  if (!x || x.size() == 0 || x.ndim() > kMaxAxes || !read_axes(axis, x.ndim(), reduced) || !group(x, reduced, s)) return object();
  const int keep = PyObject_IsTrue(hkeep.ptr());
  if (keep < 0) throw nb::python_error();
  npy_intp shape[kMaxAxes];
  int ndim = 0;
  for (int i = 0; i < x.ndim(); ++i)
    if (!reduced[i]) {
      shape[ndim++] = x.dim(i);
    } else if (keep) {
      shape[ndim++] = 1;
    }
  object y = empty(ndim, shape, x.type());
  run(0.2 * static_cast<double>(x.size()), [&] {
    return x.type() == NPY_FLOAT ? f32(x.data<float>(), data<float>(y), s[0], s[1], s[2], s[3])
                                 : f64(x.data<double>(), data<double>(y), s[0], s[1], s[2], s[3]);
  });
  return y;
}

nb::dict kernels(handle reference) {
  Kernels k(reference);
  struct {
    const char* name;
    Reduction<float>* f32;
    Reduction<double>* f64;
  } rows[] = {
      {"sum", &keydnn_sum_f32, &keydnn_sum_f64},
      {"mean", &keydnn_mean_f32, &keydnn_mean_f64},
      {"max", &keydnn_max_f32, &keydnn_max_f64},
      {"min", &keydnn_min_f32, &keydnn_min_f64},
  };
  for (const auto& r : rows)
    k.add(
        r.name, [f32 = r.f32, f64 = r.f64](handle x, handle axis, handle keepdims) { return reduce(x, axis, keepdims, f32, f64); },
        nb::arg("x"), nb::arg("axis").none(), nb::arg("keepdims"));
  return k.table();
}

}  // namespace

void bind_reduce(nb::module_& m) { m.def("reduce_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
