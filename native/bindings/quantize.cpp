// Quantisers for Python.
#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

// The place of a text in a list of names, or -1.
template <size_t n>
int64_t place(handle text, const char* const (&names)[n]) {
  if (!PyUnicode_Check(text.ptr())) return -1;
  for (size_t i = 0; i < n; ++i)
    if (PyUnicode_CompareWithASCIIString(text.ptr(), names[i]) == 0) return static_cast<int64_t>(i);
  return -1;
}
// In the order of keydnn_rounding and keydnn_overflow.
constexpr const char* kRounding[] = {"AP_TRN", "AP_TRN_ZERO", "AP_RND", "AP_RND_ZERO", "AP_RND_MIN_INF", "AP_RND_INF", "AP_RND_CONV"};
constexpr const char* kOverflow[] = {"AP_WRAP", "AP_SAT", "AP_SAT_ZERO", "AP_SAT_SYM", "AP_WRAP_SM"};

bool read_int(handle h, int64_t* value) {
  *value = PyLong_AsLongLong(h.ptr());
  if (*value != -1 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

bool is_known(const keydnn_fixed& a) {
  const int64_t f = a.wl - a.iwl;
  return a.rounding >= 0 && a.rounding < 7 && a.overflow >= 0 && a.overflow < 5 && a.wl >= 1 && a.wl <= KEYDNN_QUANTIZE_MOST_BITS &&
         f >= -KEYDNN_QUANTIZE_MOST_FRACTION && f <= KEYDNN_QUANTIZE_MOST_FRACTION && a.sat_bits >= 0 && a.sat_bits < a.wl;
}

object quantized(handle hx, const keydnn_fixed& a) {
  const Operand x(hx);
  if (!x || !is_known(a)) return object();
  object y = empty(x.ndim(), x.shape(), x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.5 * x.size(), [&] { return api::quantize_fixed(x.data<T>(), data<T>(y), x.size(), &a); });
  });
  return y;
}

object quantize_by(handle hx, handle hformat) {
  const Array format(hformat);
  if (format.type() != NPY_INT64 || format.size() != 6) return object();
  keydnn_fixed a;
  memcpy(&a, format.data<int64_t>(), sizeof a);
  return quantized(hx, a);
}

object quantize_fixed(handle hx, handle wl, handle iwl, handle is_signed, handle qmode, handle omode, handle sat_bits) {
  keydnn_fixed a;
  a.rounding = place(qmode, kRounding);
  a.overflow = place(omode, kOverflow);
  if (!read_int(wl, &a.wl) || !read_int(iwl, &a.iwl) || !read_int(is_signed, &a.is_signed) || !read_int(sat_bits, &a.sat_bits)) return object();
  return quantized(hx, a);
}

nb::dict kernels(handle reference) {
  Kernels k(reference);
  k.add(
      "quantize_fixed",
      [](handle x, handle wl, handle iwl, handle is_signed, handle qmode, handle omode, handle sat_bits) {
        return quantize_fixed(x, wl, iwl, is_signed, qmode, omode, sat_bits);
      },
      nb::arg("x"), nb::arg("wl"), nb::arg("iwl"), nb::arg("signed"), nb::arg("qmode"), nb::arg("omode"), nb::arg("sat_bits"));
  k.add("quantize_by", [](handle x, handle format) { return quantize_by(x, format); }, nb::arg("x"), nb::arg("format"));
  return k.table();
}

}  // namespace

void bind_quantize(nb::module_& m) { m.def("quantize_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
