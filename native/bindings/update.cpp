// Running averages and optimizer steps for Python.
#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

bool is_true(handle h) {
  const int value = PyObject_IsTrue(h.ptr());
  if (value < 0) throw nb::python_error();
  return value != 0;
}

// Whether an array to write is apart from one that is read or written too.
template <class Other>
bool disjoint(const Target& a, const Other& b) {
  return a.is_apart_from(b) && static_cast<const void*>(a.data<char>()) != static_cast<const void*>(b.template data<char>());
}

object ema(handle hrunning, handle hbatch, handle hmomentum) {
  const Target running(hrunning);
  const Operand batch(hbatch);
  double momentum;
  if (!running.fits(batch) || !running.is_apart_from(batch) || !is_real(hmomentum, &momentum)) return object();
  by_type(running.type(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = running.size();
    run(0.3 * n, [&] { return api::ema(running.data<T>(), batch.data<T>(), n, momentum); });
  });
  return nb::none();
}

object sgd(handle hp, handle hg, handle hvelocity, handle hlr, handle hmomentum, handle nesterov, handle hdecay) {
  const Target p(hp), velocity(hvelocity);
  const Operand g(hg);
  double lr, momentum, decay;
  if (!p.fits(g) || !is_real(hlr, &lr) || !is_real(hmomentum, &momentum) || !is_real(hdecay, &decay)) return object();
  const bool moving = !hvelocity.is_none();
  if (moving && (!p.fits(velocity) || !disjoint(velocity, g) || !disjoint(velocity, p))) return object();
  if (!disjoint(p, g)) return object();
  const int look_ahead = is_true(nesterov) ? 1 : 0;
  by_type(p.type(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = p.size();
    run(0.4 * n, [&] {
      return api::sgd(p.data<T>(), g.data<T>(), moving ? velocity.data<T>() : nullptr, n, lr, momentum, look_ahead, decay);
    });
  });
  return nb::none();
}

// A counter: an int64 array of shape () that we may write; null for anything else.
int64_t* read_counter(handle h) {
  const Array t(h);
  return t.type() == NPY_INT64 && t.ndim() == 0 && t.is_writeable() ? t.data<int64_t>() : nullptr;
}

object adam(handle hp, handle hg, handle hm, handle hv, handle ht, handle hlr, handle hbeta1, handle hbeta2, handle heps, handle hdecay,
            handle decoupled) {
  const Target p(hp), m(hm), v(hv);
  const Operand g(hg);
  double lr, beta1, beta2, eps, decay;
  if (!p.fits(g) || !p.fits(m) || !p.fits(v)) return object();
  if (!disjoint(p, g) || !disjoint(m, g) || !disjoint(v, g) || !disjoint(p, m) || !disjoint(p, v) || !disjoint(m, v)) return object();
  int64_t* const t = read_counter(ht);
  const bool real = is_real(hlr, &lr) && is_real(hbeta1, &beta1) && is_real(hbeta2, &beta2) && is_real(heps, &eps) && is_real(hdecay, &decay);
  if (!t || *t < 0 || !real) return object();
  const int apart = is_true(decoupled) ? 1 : 0;
  const int64_t step = ++*t;
  by_type(p.type(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = p.size();
    run(0.8 * n, [&] {
      return api::adam(p.data<T>(), g.data<T>(), m.data<T>(), v.data<T>(), n, step, lr, beta1, beta2, eps, decay, apart);
    });
  });
  return nb::none();
}

nb::dict kernels(handle reference) {
  Kernels k(reference);
  const nb::arg p("p"), g("g"), lr("lr"), momentum("momentum"), nesterov("nesterov"), weight_decay("weight_decay");
  k.add("ema_", [](handle r, handle b, handle m) { return ema(r, b, m); }, nb::arg("running"), nb::arg("batch"), momentum);
  k.add("sgd_", [](handle p, handle g, handle v, handle lr, handle mu, handle n, handle wd) { return sgd(p, g, v, lr, mu, n, wd); }, p, g,
        nb::arg("velocity").none(), lr, momentum, nesterov, weight_decay);
  k.add(
      "adam_",
      [](handle p, handle g, handle m, handle v, handle t, handle lr, handle b1, handle b2, handle eps, handle wd, handle decoupled) {
        return adam(p, g, m, v, t, lr, b1, b2, eps, wd, decoupled);
      },
      p, g, nb::arg("m"), nb::arg("v"), nb::arg("t"), lr, nb::arg("beta1"), nb::arg("beta2"), nb::arg("eps"), weight_decay,
      nb::arg("decoupled"));
  return k.table();
}

}  // namespace

void bind_update(nb::module_& m) { m.def("update_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
