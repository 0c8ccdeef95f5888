// Operands of the bindings that are kernels themselves: a function made by `kernel(...)` has a contract row's operands
// and parameters, runs compiled code where it can, and calls the reference function it was made with where it cannot
// (other dtypes, rare shapes), so that no Python stands between an op and the loop.
#pragma once
#include <utility>

#include "array.h"

namespace keydnn {

// A float32 or float64 array to read: strided ones are copied, NumPy scalars become arrays of shape ().
class Operand {
 public:
  explicit Operand(nb::handle h) {
    PyObject* object = h.ptr();
    if (!PyArray_CheckExact(object)) {
      if (!PyArray_IsScalar(object, Float) && !PyArray_IsScalar(object, Double)) return;
      keep_ = nb::steal(PyArray_FromScalar(object, nullptr));
      if (!keep_.is_valid()) throw nb::python_error();
      object = keep_.ptr();
    }
    auto* array = reinterpret_cast<PyArrayObject*>(object);
    const int type = PyArray_TYPE(array);
    if (type != NPY_FLOAT && type != NPY_DOUBLE) return;
    constexpr int wanted = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
    if ((PyArray_FLAGS(array) & wanted) != wanted || !PyArray_ISNOTSWAPPED(array)) {
      keep_ = nb::steal(PyArray_FromArray(array, PyArray_DescrFromType(type), NPY_ARRAY_CARRAY | NPY_ARRAY_ENSURECOPY));
      if (!keep_.is_valid()) throw nb::python_error();
      array = reinterpret_cast<PyArrayObject*>(keep_.ptr());
    }
    array_ = array;
    type_ = type;
  }
  explicit operator bool() const { return array_ != nullptr; }
  int type() const { return type_; }
  int ndim() const { return PyArray_NDIM(array_); }
  const npy_intp* shape() const { return PyArray_DIMS(array_); }
  int64_t dim(int i) const { return PyArray_DIM(array_, i); }
  int64_t size() const { return PyArray_SIZE(array_); }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(PyArray_DATA(array_));
  }
  bool same_shape(const Operand& other) const {
    return ndim() == other.ndim() && PyArray_CompareLists(shape(), other.shape(), ndim());
  }
  bool fits(const Operand& other) const { return array_ && other.array_ && type_ == other.type_ && same_shape(other); }

 private:
  PyArrayObject* array_ = nullptr;
  int type_ = -1;
  nb::object keep_;
};

// An operand that may be None.
class Optional {
 public:
  explicit Optional(nb::handle h) : missing_(h.is_none()), value_(missing_ ? nb::handle(Py_None) : h) {}
  // Whether it is missing, or an array of this dtype with `size` elements.
  bool suits(int type, int64_t size) const { return missing_ || (value_ && value_.type() == type && value_.size() == size); }
  template <class T>
  const T* data() const {
    return missing_ ? nullptr : value_.data<T>();
  }

 private:
  bool missing_;
  Operand value_;
};

inline bool suits(const Operand& x, int type, int64_t size) { return x && x.type() == type && x.size() == size; }

// A float32 or float64 array to write in place: exactly as it is, or not at all.
class Target {
 public:
  explicit Target(nb::handle h) {
    if (!PyArray_CheckExact(h.ptr())) return;
    auto* array = reinterpret_cast<PyArrayObject*>(h.ptr());
    const int type = PyArray_TYPE(array);
    if ((type == NPY_FLOAT || type == NPY_DOUBLE) && PyArray_ISCARRAY(array)) {
      array_ = array;
      type_ = type;
    }
  }
  explicit operator bool() const { return array_ != nullptr; }
  int type() const { return type_; }
  int ndim() const { return PyArray_NDIM(array_); }
  const npy_intp* shape() const { return PyArray_DIMS(array_); }
  int64_t dim(int i) const { return PyArray_DIM(array_, i); }
  int64_t size() const { return PyArray_SIZE(array_); }
  template <class T>
  T* data() const {
    return static_cast<T*>(PyArray_DATA(array_));
  }
  template <class Other>
  bool fits(const Other& other) const {
    return array_ && other && type_ == other.type() && ndim() == other.ndim() && PyArray_CompareLists(shape(), other.shape(), ndim());
  }
  // Whether the other's memory is apart from ours, or exactly ours.
  template <class Other>
  bool is_apart_from(const Other& other) const {
    const char *mine = data<char>(), *theirs = other.template data<char>();
    const int64_t width = type_ == NPY_FLOAT ? 4 : 8;
    return mine + size() * width <= theirs || theirs + other.size() * width <= mine || (mine == theirs && size() == other.size());
  }

 private:
  PyArrayObject* array_ = nullptr;
  int type_ = -1;
};

// A Python int or float (no bool, no NumPy scalar).
inline bool is_number(nb::handle h, double* value) {
  if (PyFloat_CheckExact(h.ptr())) {
    *value = PyFloat_AsDouble(h.ptr());
    return true;
  }
  if (!PyLong_CheckExact(h.ptr())) return false;
  *value = PyLong_AsDouble(h.ptr());
  if (*value != -1.0 || !PyErr_Occurred()) return true;
  PyErr_Clear();  // too large for a double: the reference knows what to say
  return false;
}
// A parameter: any Python or NumPy number.
inline bool is_real(nb::handle h, double* value) {
  *value = PyFloat_AsDouble(h.ptr());
  if (*value != -1.0 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

// table[name]: calls compiled(args...) and, where that answers with an invalid object, reference.name(args...).
class Kernels {
 public:
  explicit Kernels(nb::handle reference) : reference_(nb::borrow(reference)) {}
  template <class F, class... Extra>
  void add(const char* name, F compiled, Extra... extra) {
    add_signature(name, compiled, &F::operator(), extra...);
  }
  nb::dict table() const { return table_; }

 private:
  template <class F, class... Args, class... Extra>
  void add_signature(const char* name, F compiled, nb::object (F::*)(Args...) const, Extra... extra) {
    nb::object reference = reference_.attr(name);
    table_[name] = nb::cpp_function(
        [compiled, reference](Args... args) -> nb::object {
          nb::object out = compiled(args...);
          return out.is_valid() ? out : reference(args...);
        },
        nb::name(name), extra...);
  }
  nb::object reference_;
  nb::dict table_;
};

}  // namespace keydnn
