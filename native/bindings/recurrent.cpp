// Recurrent sequences, attention and lookups for Python.
#include <initializer_list>

#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

bool is_true(handle h) { return PyObject_IsTrue(h.ptr()) == 1; }

// Sizes that all operands of a recurrent kernel must agree with.
struct Sequence {
  int64_t steps, rows, n;
  int type;
  bool is_good;
  // From an array (steps, rows, ...) and the weights (n, gates * n).
  Sequence(const Operand& x, const Operand& w, int gates)
      : steps(0), rows(0), n(0), type(-1), is_good(x && w && x.ndim() == 3 && w.ndim() == 2 && w.type() == x.type() && x.size() > 0) {
    if (!is_good) return;
    steps = x.dim(0), rows = x.dim(1), n = w.dim(0), type = x.type();
    is_good = n > 0 && w.dim(1) == gates * n;
  }
  bool has(const Operand& x, int64_t width) const { return suits(x, type, steps * rows * width); }
  bool has(const Optional& x, int64_t width) const { return x.suits(type, steps * rows * width); }
  bool has_state(const Operand& x) const { return suits(x, type, rows * n); }
  bool has_state(const Optional& x) const { return x.suits(type, rows * n); }
  bool has_mask(const Optional& x) const { return x.suits(type, steps * rows); }
  object all(int64_t width) const { return made({steps, rows, width}); }
  object state() const { return made({rows, n}); }
  object matrix(int64_t width) const { return made({n, width}); }
  object vector(int64_t width) const { return made({width}); }
  double cost(int64_t gates) const { return static_cast<double>(steps * rows) * static_cast<double>(gates * n * (n + 16)) / 16; }

 private:
  object made(std::initializer_list<int64_t> sizes) const {
    npy_intp shape[3];
    int ndim = 0;
    for (int64_t size : sizes) shape[ndim++] = size;
    return empty(ndim, shape, type);
  }
};

object rnn(handle hp, handle hw, handle hb, handle hh0, handle hmask, handle hreverse) {
  const Operand p(hp), w(hw), h0(hh0);
  const Optional b(hb), mask(hmask);
  const Sequence s(p, w, 1);
  if (!s.is_good || !s.has(p, s.n) || !b.suits(s.type, s.n) || !s.has_state(h0) || !s.has_mask(mask)) return object();
  object h = s.all(s.n), last = s.state();
  const int64_t reverse = is_true(hreverse);
  by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(1), [&] {
      return api::rnn(p.data<T>(), w.data<T>(), b.data<T>(), h0.data<T>(), mask.data<T>(), data<T>(h), data<T>(last), s.steps, s.rows, s.n,
                      reverse);
    });
  });
  return nb::make_tuple(h, last);
}

object rnn_grad(handle hg, handle hlast, handle hh, handle hw, handle hh0, handle hmask, handle hreverse) {
  const Optional g(hg), g_last(hlast), mask(hmask);
  const Operand h(hh), w(hw), h0(hh0);
  const Sequence s(h, w, 1);
  if (!s.is_good || !s.has(h, s.n) || !s.has(g, s.n) || !s.has_state(g_last) || !s.has_state(h0) || !s.has_mask(mask)) return object();
  object dp = s.all(s.n), dw = s.matrix(s.n), db = s.vector(s.n), dh0 = s.state();
  const int64_t reverse = is_true(hreverse);
  by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(2), [&] {
      return api::rnn_grad(g.data<T>(), g_last.data<T>(), h.data<T>(), w.data<T>(), h0.data<T>(), mask.data<T>(), data<T>(dp), data<T>(dw),
                           data<T>(db), data<T>(dh0), s.steps, s.rows, s.n, reverse);
    });
  });
  return nb::make_tuple(dp, dw, db, dh0);
}

object lstm(handle hp, handle hw, handle hb, handle hh0, handle hc0, handle hmask, handle hreverse) {
  const Operand p(hp), w(hw), h0(hh0), c0(hc0);
  const Optional b(hb), mask(hmask);
  const Sequence s(p, w, 4);
  if (!s.is_good || !s.has(p, 4 * s.n) || !b.suits(s.type, 4 * s.n) || !s.has_state(h0) || !s.has_state(c0) || !s.has_mask(mask))
    return object();
  object h = s.all(s.n), last = s.state(), c_last = s.state(), c = s.all(s.n), gates = s.all(4 * s.n);
  const int64_t reverse = is_true(hreverse);
  by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(4), [&] {
      return api::lstm(p.data<T>(), w.data<T>(), b.data<T>(), h0.data<T>(), c0.data<T>(), mask.data<T>(), data<T>(h), data<T>(last),
                       data<T>(c_last), data<T>(c), data<T>(gates), s.steps, s.rows, s.n, reverse);
    });
  });
  return nb::make_tuple(h, last, c_last, c, gates);
}

object lstm_grad(handle hg, handle hgh, handle hgc, handle hgates, handle hc, handle hh, handle hw, handle hh0, handle hc0, handle hmask,
                 handle hreverse) {
  const Optional g(hg), g_h(hgh), g_c(hgc), mask(hmask);
  const Operand gates(hgates), c(hc), h(hh), w(hw), h0(hh0), c0(hc0);
  const Sequence s(h, w, 4);
  if (!s.is_good || !s.has(h, s.n) || !s.has(c, s.n) || !s.has(gates, 4 * s.n) || !s.has(g, s.n) || !s.has_state(g_h) ||
      !s.has_state(g_c) || !s.has_state(h0) || !s.has_state(c0) || !s.has_mask(mask))
    return object();
  object dp = s.all(4 * s.n), dw = s.matrix(4 * s.n), db = s.vector(4 * s.n), dh0 = s.state(), dc0 = s.state();
  const int64_t reverse = is_true(hreverse);
  by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(8), [&] {
      return api::lstm_grad(g.data<T>(), g_h.data<T>(), g_c.data<T>(), gates.data<T>(), c.data<T>(), h.data<T>(), w.data<T>(), h0.data<T>(),
                            c0.data<T>(), mask.data<T>(), data<T>(dp), data<T>(dw), data<T>(db), data<T>(dh0), data<T>(dc0), s.steps,
                            s.rows, s.n, reverse);
    });
  });
  return nb::make_tuple(dp, dw, db, dh0, dc0);
}

object gru(handle hp, handle hw, handle hb, handle hb2, handle hh0, handle hmask, handle hreverse, handle hafter) {
  const Operand p(hp), w(hw), h0(hh0);
  const Optional b(hb), b2(hb2), mask(hmask);
  const Sequence s(p, w, 3);
  if (!s.is_good || !s.has(p, 3 * s.n) || !b.suits(s.type, 3 * s.n) || !b2.suits(s.type, 3 * s.n) || !s.has_state(h0) || !s.has_mask(mask))
    return object();
  const int64_t reverse = is_true(hreverse), after = is_true(hafter);
  object h = s.all(s.n), last = s.state(), gates = s.all((after ? 4 : 3) * s.n);
  by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(3), [&] {
      return api::gru(p.data<T>(), w.data<T>(), b.data<T>(), b2.data<T>(), h0.data<T>(), mask.data<T>(), data<T>(h), data<T>(last),
                      data<T>(gates), s.steps, s.rows, s.n, reverse, after);
    });
  });
  return nb::make_tuple(h, last, gates);
}

object gru_grad(handle hg, handle hlast, handle hgates, handle hh, handle hw, handle hh0, handle hmask, handle hreverse, handle hafter) {
  const Optional g(hg), g_last(hlast), mask(hmask);
  const Operand gates(hgates), h(hh), w(hw), h0(hh0);
  const Sequence s(h, w, 3);
  const int64_t reverse = is_true(hreverse), after = is_true(hafter);
  if (!s.is_good || !s.has(h, s.n) || !s.has(gates, (after ? 4 : 3) * s.n) || !s.has(g, s.n) || !s.has_state(g_last) ||
      !s.has_state(h0) || !s.has_mask(mask))
    return object();
  object dp = s.all(3 * s.n), dw = s.matrix(3 * s.n), db = s.vector(3 * s.n), db2 = s.vector(3 * s.n), dh0 = s.state();
  by_type(s.type, [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(6), [&] {
      return api::gru_grad(g.data<T>(), g_last.data<T>(), gates.data<T>(), h.data<T>(), w.data<T>(), h0.data<T>(), mask.data<T>(),
                           data<T>(dp), data<T>(dw), data<T>(db), data<T>(db2), data<T>(dh0), s.steps, s.rows, s.n, reverse, after);
    });
  });
  return nb::make_tuple(dp, dw, db, db2, dh0);
}

// A row number, -1 for None; false for what is neither.
bool is_padding(handle h, int64_t* value) {
  *value = -1;
  if (h.is_none()) return true;
  if (!PyLong_CheckExact(h.ptr())) return false;
  *value = PyLong_AsLongLong(h.ptr());
  return *value >= 0;
}

// A lookup by `index`: y of the index's shape and the last axis of x, or (size, that axis).
object lookup(handle hx, handle hindex, int64_t size, int64_t padding, bool is_gradient) {
  const Operand x(hx);
  const Array index(hindex);
  if (!x || index.type() != NPY_INT64 || x.ndim() < 1 || x.ndim() > 15 || index.ndim() > 14) return object();
  const int64_t n = x.dim(x.ndim() - 1), count = index.size();
  if (n < 1 || count < 1 || size < 1 || (is_gradient ? x.size() != count * n : x.ndim() != 2)) return object();
  npy_intp shape[16];
  int ndim = 0;
  if (is_gradient) {
    shape[ndim++] = size;
  } else {
    for (; ndim < index.ndim(); ++ndim) shape[ndim] = index.dim(ndim);
  }
  shape[ndim++] = n;
  object y = empty(ndim, shape, x.type());
  int status = KEYDNN_OK;
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t* const at = index.data<const int64_t>();
    status = is_gradient ? api::embedding_grad(x.data<T>(), at, data<T>(y), size, n, count, padding)
                         : api::embedding(x.data<T>(), at, data<T>(y), size, n, count, padding);
  });
  if (status == KEYDNN_BAD_INDEX) return object();  // the reference says which
  check(status);
  return y;
}

object embedding(handle w, handle index, handle hpadding) {
  int64_t padding;
  const Operand table(w);
  if (!table || table.ndim() != 2 || !is_padding(hpadding, &padding)) return object();
  return lookup(w, index, table.dim(0), padding, false);
}

object embedding_grad(handle g, handle index, handle hn, handle hpadding) {
  int64_t padding;
  if (!PyLong_CheckExact(hn.ptr()) || !is_padding(hpadding, &padding)) return object();
  return lookup(g, index, PyLong_AsLongLong(hn.ptr()), padding, true);
}

// Sizes of attention; q (n, steps, wide), k (n, keys, wide).
struct Heads {
  int64_t n, steps, keys, heads, d;
  double scale;
  bool is_good;
  Heads(const Operand& q, const Operand& k, handle hheads, handle hscale) : n(0), steps(0), keys(0), heads(0), d(0), scale(0), is_good(false) {
    if (!q || !k || q.ndim() != 3 || k.ndim() != 3 || q.type() != k.type() || !PyLong_CheckExact(hheads.ptr()) || !is_real(hscale, &scale))
      return;
    heads = PyLong_AsLongLong(hheads.ptr());
    n = q.dim(0), steps = q.dim(1), keys = k.dim(1);
    is_good = heads > 0 && q.size() > 0 && k.size() > 0 && k.dim(0) == n && k.dim(2) == q.dim(2) && q.dim(2) % heads == 0;
    d = is_good ? q.dim(2) / heads : 0;
  }
  int64_t weights() const { return n * heads * steps * keys; }
  double cost(double products) const { return static_cast<double>(weights() * d) * products / 16; }
};

object attention(handle hq, handle hk, handle hv, handle hheads, handle hscale) {
  const Operand q(hq), k(hk), v(hv);
  const Heads s(q, k, hheads, hscale);
  if (!s.is_good || !v.fits(k)) return object();
  const npy_intp plane[4] = {s.n, s.heads, s.steps, s.keys};
  object y = empty(3, q.shape(), q.type()), p = empty(4, plane, q.type());
  by_type(q.type(), [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(2), [&] {
      return api::attention(q.data<T>(), k.data<T>(), v.data<T>(), data<T>(y), data<T>(p), s.n, s.steps, s.keys, s.heads, s.d, s.scale);
    });
  });
  return nb::make_tuple(y, p);
}

object attention_grad(handle hg, handle hp, handle hq, handle hk, handle hv, handle hheads, handle hscale) {
  const Operand g(hg), p(hp), q(hq), k(hk), v(hv);
  const Heads s(q, k, hheads, hscale);
  if (!s.is_good || !v.fits(k) || !g.fits(q) || !suits(p, q.type(), s.weights())) return object();
  object dq = empty(3, q.shape(), q.type()), dk = empty(3, k.shape(), k.type()), dv = empty(3, k.shape(), k.type());
  by_type(q.type(), [&](auto zero) {
    using T = decltype(zero);
    run(s.cost(4), [&] {
      return api::attention_grad(g.data<T>(), p.data<T>(), q.data<T>(), k.data<T>(), v.data<T>(), data<T>(dq), data<T>(dk), data<T>(dv),
                                 s.n, s.steps, s.keys, s.heads, s.d, s.scale);
    });
  });
  return nb::make_tuple(dq, dk, dv);
}

nb::dict kernels(handle reference) {
  Kernels k(reference);
  const nb::arg p("p"), w("w"), h("h"), c("c"), h0("h0"), c0("c0"), gates("gates"), reverse("reverse"), after("reset_after");
  const auto b = nb::arg("b").none(), mask = nb::arg("mask").none(), g = nb::arg("g").none(), g_last = nb::arg("g_last").none();
  k.add("rnn", [](handle p, handle w, handle b, handle h0, handle m, handle r) { return rnn(p, w, b, h0, m, r); }, p, w, b, h0, mask, reverse);
  k.add("rnn_grad",
        [](handle g, handle l, handle h, handle w, handle h0, handle m, handle r) { return rnn_grad(g, l, h, w, h0, m, r); }, g, g_last, h,
        w, h0, mask, reverse);
  k.add("lstm",
        [](handle p, handle w, handle b, handle h0, handle c0, handle m, handle r) { return lstm(p, w, b, h0, c0, m, r); }, p, w, b, h0,
        c0, mask, reverse);
  k.add("lstm_grad",
        [](handle g, handle l, handle e, handle a, handle c, handle h, handle w, handle h0, handle c0, handle m, handle r) {
          return lstm_grad(g, l, e, a, c, h, w, h0, c0, m, r);
        },
        g, nb::arg("g_h").none(), nb::arg("g_c").none(), gates, c, h, w, h0, c0, mask, reverse);
  k.add("gru",
        [](handle p, handle w, handle b, handle d, handle h0, handle m, handle r, handle a) { return gru(p, w, b, d, h0, m, r, a); }, p, w,
        nb::arg("b_ih").none(), nb::arg("b_hh").none(), h0, mask, reverse, after);
  k.add("gru_grad",
        [](handle g, handle l, handle e, handle h, handle w, handle h0, handle m, handle r, handle a) {
          return gru_grad(g, l, e, h, w, h0, m, r, a);
        },
        g, g_last, gates, h, w, h0, mask, reverse, after);
  k.add("attention", [](handle q, handle k, handle v, handle h, handle s) { return attention(q, k, v, h, s); }, nb::arg("q"),
        nb::arg("k"), nb::arg("v"), nb::arg("heads"), nb::arg("scale"));
  k.add("attention_grad",
        [](handle g, handle p, handle q, handle k, handle v, handle h, handle s) { return attention_grad(g, p, q, k, v, h, s); }, nb::arg("g"),
        p, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("heads"), nb::arg("scale"));
  k.add("embedding", [](handle w, handle i, handle e) { return embedding(w, i, e); }, w, nb::arg("index"), nb::arg("padding").none());
  k.add("embedding_grad", [](handle g, handle i, handle n, handle e) { return embedding_grad(g, i, n, e); }, nb::arg("g"), nb::arg("index"),
        nb::arg("n"), nb::arg("padding").none());
  return k.table();
}

}  // namespace

void bind_recurrent(nb::module_& m) { m.def("recurrent_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
