// What a recorded step asks before each replay, at a few ns per question: are these still the very same objects?
#include "array.h"

namespace keydnn {
namespace {

// getattr(objects[i], names[i]) is values[i] for all i.
bool same_attributes(nb::tuple objects, nb::tuple names, nb::tuple values) {
  const size_t n = objects.size();
  if (names.size() != n || values.size() != n) throw nb::value_error("same_attributes: tuples of one length are needed");
  for (size_t i = 0; i < n; ++i) {
    const Py_ssize_t at = static_cast<Py_ssize_t>(i);
    PyObject* const found = PyObject_GetAttr(PyTuple_GetItem(objects.ptr(), at), PyTuple_GetItem(names.ptr(), at));
    if (!found) throw nb::python_error();
    Py_DECREF(found);  // whatever values holds stays alive
    if (found != PyTuple_GetItem(values.ptr(), at)) return false;
  }
  return true;
}

// a[i] is b[i] for all i.
bool same_items(nb::tuple a, nb::tuple b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const Py_ssize_t at = static_cast<Py_ssize_t>(i);
    if (PyTuple_GetItem(a.ptr(), at) != PyTuple_GetItem(b.ptr(), at)) return false;
  }
  return true;
}

// Whether both are arrays of one shape and dtype, and a is contiguous.
bool alike(nb::handle a, nb::handle b) {
  if (!PyArray_Check(a.ptr()) || !PyArray_Check(b.ptr())) return false;
  PyArrayObject *const x = reinterpret_cast<PyArrayObject*>(a.ptr()), *const y = reinterpret_cast<PyArrayObject*>(b.ptr());
  return PyArray_IS_C_CONTIGUOUS(x) && PyArray_NDIM(x) == PyArray_NDIM(y) && PyArray_CompareLists(PyArray_DIMS(x), PyArray_DIMS(y), PyArray_NDIM(x)) &&
         (PyArray_DESCR(x) == PyArray_DESCR(y) || PyArray_EquivTypes(PyArray_DESCR(x), PyArray_DESCR(y)));
}

// tensors[i].grad is gradients[i], which is exactly of class `kind` and known to nobody but its tensor and the list.
bool only_ours(nb::list tensors, nb::list gradients, nb::handle kind) {
  static PyObject* const name = PyUnicode_InternFromString("grad");
  const size_t n = tensors.size();
  if (gradients.size() != n) throw nb::value_error("only_ours: lists of one length are needed");
  for (size_t i = 0; i < n; ++i) {
    const Py_ssize_t at = static_cast<Py_ssize_t>(i);
    PyObject* const gradient = PyList_GetItem(gradients.ptr(), at);
    if (reinterpret_cast<PyObject*>(Py_TYPE(gradient)) != kind.ptr() || Py_REFCNT(gradient) != 2) return false;
    PyObject* const found = PyObject_GetAttr(PyList_GetItem(tensors.ptr(), at), name);
    if (!found) throw nb::python_error();
    Py_DECREF(found);
    if (found != gradient) return false;
  }
  return true;
}

}  // namespace

void bind_watch(nb::module_& m) {
  using namespace nb::literals;
  m.def("same_attributes", &same_attributes, "objects"_a, "names"_a, "values"_a);
  m.def("same_items", &same_items, "a"_a, "b"_a);
  m.def("alike", &alike, "a"_a, "b"_a);
  m.def("only_ours", &only_ours, "tensors"_a, "gradients"_a, "kind"_a);
}

}  // namespace keydnn
