// Random kernels for Python.
#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

// A key: an int64 array of shape () or size 1, or an integer.
bool read_key(handle h, uint64_t* key) {
  PyObject* number = PyNumber_Index(h.ptr());
  if (!number) {
    PyErr_Clear();
    return false;
  }
  *key = PyLong_AsUnsignedLongLongMask(number);
  Py_DECREF(number);
  return true;
}

// A fresh array of a shape given as a tuple of ints and a dtype that is float32 or float64; invalid for others.
object result(handle hshape, handle hdtype) {
  constexpr int kMaxAxes = 32;
  PyArray_Descr* descr = nullptr;
  if (!PyArray_DescrConverter(hdtype.ptr(), &descr)) throw nb::python_error();
  const int type = descr->type_num;
  Py_DECREF(descr);
  if ((type != NPY_FLOAT && type != NPY_DOUBLE) || !PyTuple_CheckExact(hshape.ptr())) return object();
  const Py_ssize_t ndim = PyTuple_Size(hshape.ptr());
  if (ndim > kMaxAxes) return object();
  npy_intp shape[kMaxAxes];
  for (Py_ssize_t i = 0; i < ndim; ++i) {
    shape[i] = PyLong_AsLongLong(PyTuple_GetItem(hshape.ptr(), i));
    if (shape[i] == -1 && PyErr_Occurred()) PyErr_Clear();
    if (shape[i] < 0) return object();
  }
  return empty(static_cast<int>(ndim), shape, type);
}

object uniform(handle hkey, handle hshape, handle hdtype) {
  uint64_t key;
  if (!read_key(hkey, &key)) return object();
  object u = result(hshape, hdtype);
  if (!u.is_valid()) return u;
  const Array array(u);
  by_type(array.type(), [&](auto zero) {
    using T = decltype(zero);
    run(1.5 * static_cast<double>(array.size()), [&] { return api::uniform(key, array.data<T>(), array.size()); });
  });
  return u;
}

object dropout_mask(handle hkey, handle hshape, handle hp, handle hdtype) {
  uint64_t key;
  double p;
  if (!read_key(hkey, &key) || !is_real(hp, &p) || !(p >= 0 && p < 1)) return object();
  object m = result(hshape, hdtype);
  if (!m.is_valid()) return m;
  const Array array(m);
  by_type(array.type(), [&](auto zero) {
    using T = decltype(zero);
    run(1.5 * static_cast<double>(array.size()), [&] { return api::dropout_mask(key, array.data<T>(), array.size(), p); });
  });
  return m;
}

nb::dict kernels(handle reference) {
  Kernels k(reference);
  const nb::arg key("key"), shape("shape"), p("p"), dtype("dtype");
  k.add("uniform", [](handle key, handle shape, handle dtype) { return uniform(key, shape, dtype); }, key, shape, dtype);
  k.add("dropout_mask", [](handle key, handle shape, handle p, handle dtype) { return dropout_mask(key, shape, p, dtype); }, key, shape, p,
        dtype);
  return k.table();
}

}  // namespace

void bind_random(nb::module_& m) { m.def("random_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
