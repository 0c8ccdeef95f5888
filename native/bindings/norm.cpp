// Batch and layer normalisation for Python.
#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

object batch_norm(handle hx, handle hgamma, handle hbeta, handle heps) {
  const Operand x(hx);
  const Optional gamma(hgamma), beta(hbeta);
  double eps;
  if (!x || x.ndim() < 2 || x.size() == 0 || !is_real(heps, &eps)) return object();
  const npy_intp c = x.dim(1);
  if (!gamma.suits(x.type(), c) || !beta.suits(x.type(), c)) return object();
  const int64_t n = x.dim(0), s = x.size() / (n * c);
  object y = empty(x.ndim(), x.shape(), x.type());
  object mean = empty(1, &c, x.type()), var = empty(1, &c, x.type()), inv = empty(1, &c, x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.6 * static_cast<double>(x.size()), [&] {
      return api::batch_norm(x.data<T>(), gamma.data<T>(), beta.data<T>(), eps, data<T>(y), data<T>(mean), data<T>(var), data<T>(inv), n,
                             c, s);
    });
  });
  return nb::make_tuple(y, mean, var, inv);
}

object batch_norm_grad(handle hg, handle hx, handle hgamma, handle hmean, handle hinv) {
  const Operand g(hg), x(hx), mean(hmean), inv(hinv);
  const Optional gamma(hgamma);
  if (!g.fits(x) || x.ndim() < 2 || x.size() == 0) return object();
  const npy_intp c = x.dim(1);
  if (!gamma.suits(x.type(), c) || !suits(mean, x.type(), c) || !suits(inv, x.type(), c)) return object();
  const int64_t n = x.dim(0), s = x.size() / (n * c);
  object dx = empty(x.ndim(), x.shape(), x.type()), dgamma = empty(1, &c, x.type()), dbeta = empty(1, &c, x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.9 * static_cast<double>(x.size()), [&] {
      return api::batch_norm_grad(g.data<T>(), x.data<T>(), gamma.data<T>(), mean.data<T>(), inv.data<T>(), data<T>(dx), data<T>(dgamma),
                                  data<T>(dbeta), n, c, s);
    });
  });
  return nb::make_tuple(dx, dgamma, dbeta);
}

// Number of elements of the last n_axes; 0 if there are none to normalise.
int64_t row_length(const Operand& x, handle hn, int* split) {
  const long n_axes = PyLong_AsLong(hn.ptr());
  if (n_axes == -1 && PyErr_Occurred()) PyErr_Clear();
  if (n_axes < 1 || n_axes > x.ndim() || x.size() == 0) return 0;
  *split = x.ndim() - static_cast<int>(n_axes);
  int64_t n = 1;
  for (int i = *split; i < x.ndim(); ++i) n *= x.dim(i);
  return n;
}

object layer_norm(handle hx, handle hgamma, handle hbeta, handle hn, handle heps) {
  const Operand x(hx);
  const Optional gamma(hgamma), beta(hbeta);
  double eps;
  int split;
  if (!x || !is_real(heps, &eps)) return object();
  const int64_t n = row_length(x, hn, &split);
  if (n == 0 || !gamma.suits(x.type(), n) || !beta.suits(x.type(), n)) return object();
  object y = empty(x.ndim(), x.shape(), x.type()), mean = empty(split, x.shape(), x.type()), inv = empty(split, x.shape(), x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.6 * static_cast<double>(x.size()), [&] {
      return api::layer_norm(x.data<T>(), gamma.data<T>(), beta.data<T>(), eps, data<T>(y), data<T>(mean), data<T>(inv), x.size() / n, n);
    });
  });
  return nb::make_tuple(y, mean, inv);
}

object layer_norm_grad(handle hg, handle hx, handle hgamma, handle hmean, handle hinv, handle hn) {
  const Operand g(hg), x(hx), mean(hmean), inv(hinv);
  const Optional gamma(hgamma);
  int split;
  if (!g.fits(x)) return object();
  const int64_t n = row_length(x, hn, &split);
  if (n == 0 || !gamma.suits(x.type(), n) || !suits(mean, x.type(), x.size() / n) || !suits(inv, x.type(), x.size() / n)) return object();
  object dx = empty(x.ndim(), x.shape(), x.type());
  object dgamma = empty(x.ndim() - split, x.shape() + split, x.type()), dbeta = empty(x.ndim() - split, x.shape() + split, x.type());
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(1.2 * static_cast<double>(x.size()), [&] {
      return api::layer_norm_grad(g.data<T>(), x.data<T>(), gamma.data<T>(), mean.data<T>(), inv.data<T>(), data<T>(dx), data<T>(dgamma),
                                  data<T>(dbeta), x.size() / n, n);
    });
  });
  return nb::make_tuple(dx, dgamma, dbeta);
}

nb::dict kernels(handle reference) {
  Kernels k(reference);
  const nb::arg x("x"), g("g"), mean("mean"), inv("inv"), n_axes("n_axes"), eps("eps");
  const auto gamma = nb::arg("gamma").none(), beta = nb::arg("beta").none();
  k.add("batch_norm", [](handle x, handle w, handle b, handle e) { return batch_norm(x, w, b, e); }, x, gamma, beta, eps);
  k.add("batch_norm_grad", [](handle g, handle x, handle w, handle m, handle r) { return batch_norm_grad(g, x, w, m, r); }, g, x, gamma,
        mean, inv);
  k.add("layer_norm", [](handle x, handle w, handle b, handle n, handle e) { return layer_norm(x, w, b, n, e); }, x, gamma, beta, n_axes,
        eps);
  k.add("layer_norm_grad", [](handle g, handle x, handle w, handle m, handle r, handle n) { return layer_norm_grad(g, x, w, m, r, n); }, g,
        x, gamma, mean, inv, n_axes);
  return k.table();
}

}  // namespace

void bind_norm(nb::module_& m) { m.def("norm_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
