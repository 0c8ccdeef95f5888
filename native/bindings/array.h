// ndarrays for the bindings: looked at through NumPy's C interface (a few ns each), outputs made from cached memory.
//
// A binding takes nb::handle operands and asks `takes<...>` whether the native kernel can serve them: exact dtype
// (float32 or float64), C-contiguous, aligned, native byte order.  If not, it returns None and the Python wrapper falls
// back.  Sizes and ranks have been checked by the op that calls; a binding still refuses (None) what would be read out
// of bounds.
#pragma once
#include <Python.h>
#define PY_ARRAY_UNIQUE_SYMBOL keydnn_numpy_api
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#ifndef KEYDNN_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include "keydnn.h"
#include "memory.h"

namespace nb = nanobind;

namespace keydnn {

constexpr int64_t kSmallBytes = 32 * 1024;   // outputs up to here are plain NumPy arrays
constexpr double kKeepGil = 5000.0;          // ns of work below which releasing the GIL is not worth it

// An ndarray that a kernel can read: `type` is NPY_FLOAT, NPY_DOUBLE, ... or -1 when it must not touch the array.
class Array {
 public:
  explicit Array(nb::handle h) {
    if (!PyArray_Check(h.ptr())) return;
    array_ = reinterpret_cast<PyArrayObject*>(h.ptr());
    constexpr int wanted = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
    if ((PyArray_FLAGS(array_) & wanted) == wanted && PyArray_ISNOTSWAPPED(array_)) type_ = PyArray_TYPE(array_);
  }
  int type() const { return type_; }
  bool is_float() const { return type_ == NPY_FLOAT || type_ == NPY_DOUBLE; }
  bool is_writeable() const { return (PyArray_FLAGS(array_) & NPY_ARRAY_WRITEABLE) != 0; }
  int ndim() const { return PyArray_NDIM(array_); }
  const npy_intp* shape() const { return PyArray_DIMS(array_); }
  int64_t dim(int i) const { return PyArray_DIM(array_, i); }
  int64_t size() const { return PyArray_SIZE(array_); }
  template <class T>
  T* data() const {
    return static_cast<T*>(PyArray_DATA(array_));
  }
  bool same_shape(const Array& other) const {
    return ndim() == other.ndim() && PyArray_CompareLists(shape(), other.shape(), ndim());
  }

 private:
  PyArrayObject* array_ = nullptr;
  int type_ = -1;
};

// A fresh C-contiguous ndarray, not cleared.  Large ones live in cached memory, which the base capsule gives back.
nb::object empty(int ndim, const npy_intp* shape, int type);

template <class T>
T* data(const nb::object& array) {
  return static_cast<T*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.ptr())));
}

// Runs a kernel, without the GIL when it is worth it, and turns a status into an exception.
void check(int status);
template <class F>
void run(double cost_ns, F&& kernel) {
  if (cost_ns < kKeepGil) {
    check(kernel());
    return;
  }
  int status;
  {
    nb::gil_scoped_release released;
    status = kernel();
  }
  check(status);
}

// f(float{}) or f(double{}), by dtype.
template <class F>
void by_type(int type, F&& f) {
  if (type == NPY_FLOAT) {
    f(float{});
  } else {
    f(double{});
  }
}

}  // namespace keydnn
