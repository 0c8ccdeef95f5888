// The Python module keydnn._native.  One bind_<family> per kernel family; here stand threads, memory and the build facts.
#define KEYDNN_IMPORTS_NUMPY
#include "array.h"

#include <nanobind/stl/string.h>

namespace keydnn {

void bind_conv(nb::module_& m);
void bind_elementwise(nb::module_& m);
void bind_gemm(nb::module_& m);
void bind_norm(nb::module_& m);
void bind_permutation(nb::module_& m);
void bind_plan(nb::module_& m);
void bind_pool(nb::module_& m);
void bind_quantize(nb::module_& m);
void bind_random(nb::module_& m);
void bind_recurrent(nb::module_& m);
void bind_reduce(nb::module_& m);
void bind_softmax(nb::module_& m);
void bind_update(nb::module_& m);
void bind_watch(nb::module_& m);

namespace {

void free_block(PyObject* capsule) { release(PyCapsule_GetPointer(capsule, "keydnn.block")); }

nb::object empty_from_python(nb::tuple shape, nb::handle dtype) {
  npy_intp dims[NPY_MAXDIMS];
  const size_t ndim = shape.size();
  if (ndim > NPY_MAXDIMS) throw nb::value_error("empty: too many axes");
  for (size_t i = 0; i < ndim; ++i) dims[i] = nb::cast<npy_intp>(shape[i]);
  PyArray_Descr* descr = nullptr;
  if (!PyArray_DescrConverter(dtype.ptr(), &descr)) throw nb::python_error();
  const int type = descr->type_num;
  Py_DECREF(descr);
  return empty(static_cast<int>(ndim), dims, type);
}

}  // namespace

nb::object empty(int ndim, const npy_intp* shape, int type) {
  int64_t bytes = type == NPY_FLOAT ? 4 : 8;
  for (int i = 0; i < ndim; ++i) bytes *= shape[i];
  npy_intp* dims = const_cast<npy_intp*>(shape);
  if (bytes <= kSmallBytes || (type != NPY_FLOAT && type != NPY_DOUBLE && type != NPY_INT64)) {
    PyObject* array = PyArray_SimpleNew(ndim, dims, type);
    if (!array) throw nb::python_error();
    return nb::steal(array);
  }
  void* block = allocate(static_cast<size_t>(bytes));
  if (!block) throw std::bad_alloc();
  PyObject* capsule = PyCapsule_New(block, "keydnn.block", free_block);
  if (!capsule) {
    release(block);
    throw nb::python_error();
  }
  PyObject* array = PyArray_New(&PyArray_Type, ndim, dims, type, nullptr, block, 0, NPY_ARRAY_CARRAY, nullptr);
  if (!array) {
    Py_DECREF(capsule);
    throw nb::python_error();
  }
  PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array), capsule);  // takes the capsule over
  return nb::steal(array);
}

void check(int status) {
  if (status == KEYDNN_NO_MEMORY) throw std::bad_alloc();
  if (status != KEYDNN_OK) throw nb::value_error("keydnn native kernel: sizes contradict each other");
}

}  // namespace keydnn

static int import_numpy() {
  import_array1(-1);
  return 0;
}

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // kernel tables and plans live until the interpreter ends, which is when nanobind looks
  using namespace keydnn;
  if (import_numpy() < 0) throw nb::python_error();
  m.doc() = "KeyDNN's compiled kernels; use them through keydnn.kernels.";
  m.def("set_threads", [](int n) { check(keydnn_set_threads(n)); }, nb::arg("n"));
  m.def("get_threads", [] { return keydnn_get_threads(); });
  m.def("parallel_backend", [] { return keydnn_parallel_backend(); });
  m.def("isa", [] { return keydnn_isa(); });
  m.def("isa_available", [](const std::string& name) { return keydnn_isa_available(name.c_str()) != 0; }, nb::arg("name"));
  m.def("empty", &empty_from_python, nb::arg("shape"), nb::arg("dtype"), "A fresh array; large ones come from cached memory.");
  m.def("trim_memory", &trim_memory, "Gives cached blocks back to the system.");
  m.def("memory_stats", [] {
    const MemoryStats stats = memory_stats();
    nb::dict d;
    d["cached_bytes"] = stats.cached_bytes;
    d["live_bytes"] = stats.live_bytes;
    d["system_calls"] = stats.system_calls;
    return d;
  });
  bind_conv(m);
  bind_elementwise(m);
  bind_gemm(m);
  bind_norm(m);
  bind_permutation(m);
  bind_plan(m);
  bind_pool(m);
  bind_quantize(m);
  bind_random(m);
  bind_recurrent(m);
  bind_reduce(m);
  bind_softmax(m);
  bind_update(m);
  bind_watch(m);
}
