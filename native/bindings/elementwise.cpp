// Elementwise kernels for Python, in place too.
#include <math.h>

#include "operand.h"

namespace keydnn {
namespace {

using nb::handle;
using nb::object;

// One kernel for both dtypes: of(T()) is the function for T.
template <template <class> class Signature>
struct Kernel {
  Signature<float>* f32;
  Signature<double>* f64;
  Signature<float>* of(float) const { return f32; }
  Signature<double>* of(double) const { return f64; }
};

template <class T>
using Unary = int(const T*, T*, int64_t);
template <class T>
using Twin = int(const T*, const T*, T*, int64_t);
template <class T>
using Pairwise = int(const T*, const T*, T*, const keydnn_pair*);

// y = f(x, y, n)
template <class F>
object unary_with(handle hx, double ns, F f) {
  const Operand x(hx);
  if (!x) return object();
  object y = empty(x.ndim(), x.shape(), x.type());
  const int64_t n = x.size();
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(ns * n, [&] { return f(x.data<T>(), data<T>(y), n); });
  });
  return y;
}
object unary(handle hx, double ns, Kernel<Unary> kernel) {
  return unary_with(hx, ns, [&](auto* x, auto* y, int64_t n) { return kernel.of(std::remove_reference_t<decltype(*y)>{})(x, y, n); });
}

// z = f(x, y, z, n) for equal shapes and dtypes.
template <class F>
object twin_with(handle hx, handle hy, F f) {
  const Operand x(hx), y(hy);
  if (!x.fits(y)) return object();
  object z = empty(x.ndim(), x.shape(), x.type());
  const int64_t n = x.size();
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.3 * n, [&] { return f(x.data<T>(), y.data<T>(), data<T>(z), n); });
  });
  return z;
}
object twin(handle hx, handle hy, Kernel<Twin> kernel) {
  return twin_with(hx, hy, [&](auto* x, auto* y, auto* z, int64_t n) {
    return kernel.of(std::remove_reference_t<decltype(*z)>{})(x, y, z, n);
  });
}

// Neighbouring axes along which both operands walk evenly become one; axes of length 1 vanish.
void merge_axes(keydnn_pair* a) {
  int64_t kept = 0;
  for (int64_t i = 0; i < a->ndim; ++i) {
    if (a->shape[i] == 1) continue;
    const bool joins = kept > 0 && a->x_strides[kept - 1] == a->x_strides[i] * a->shape[i] &&
                       a->y_strides[kept - 1] == a->y_strides[i] * a->shape[i];
    if (joins) {
      a->shape[kept - 1] *= a->shape[i];
    } else {
      a->shape[kept++] = a->shape[i];
    }
    a->x_strides[kept - 1] = a->x_strides[i];
    a->y_strides[kept - 1] = a->y_strides[i];
  }
  if (kept == 0) {
    a->shape[0] = 1;
    a->x_strides[0] = a->y_strides[0] = 0;
    kept = 1;
  }
  a->ndim = kept;
}

// The broadcast of two shapes, right-aligned; false if they do not fit or have too many axes.
bool broadcast(int nx, const npy_intp* x, int ny, const npy_intp* y, npy_intp* shape, keydnn_pair* a) {
  const int ndim = nx > ny ? nx : ny;
  if (ndim > KEYDNN_MAX_AXES) return false;
  int64_t x_step = 1, y_step = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    const int ix = i - (ndim - nx), iy = i - (ndim - ny);
    const int64_t lx = ix < 0 ? 1 : x[ix], ly = iy < 0 ? 1 : y[iy];
    if (lx != ly && lx != 1 && ly != 1) return false;
    shape[i] = a->shape[i] = lx == 1 ? ly : lx;
    a->x_strides[i] = lx == 1 ? 0 : x_step;
    a->y_strides[i] = ly == 1 ? 0 : y_step;
    x_step *= lx;
    y_step *= ly;
  }
  a->ndim = ndim;
  merge_axes(a);
  return true;
}

keydnn_pair line(int64_t n, int64_t x_stride, int64_t y_stride) {
  keydnn_pair a;
  a.ndim = 1;
  a.shape[0] = n;
  a.x_strides[0] = x_stride;
  a.y_strides[0] = y_stride;
  return a;
}

// z = f(x, y, z, axes): arrays of one dtype that broadcast, or an array and a Python number.
object pairwise(handle hx, handle hy, Kernel<Pairwise> kernel) {
  double c;
  if (is_number(hy, &c)) {
    const Operand x(hx);
    if (!x) return object();
    object z = empty(x.ndim(), x.shape(), x.type());
    const keydnn_pair axes = line(x.size(), 1, 0);
    by_type(x.type(), [&](auto zero) {
      using T = decltype(zero);
      const T number = static_cast<T>(c);
      run(0.3 * axes.shape[0], [&] { return kernel.of(zero)(x.data<T>(), &number, data<T>(z), &axes); });
    });
    return z;
  }
  if (is_number(hx, &c)) {
    const Operand y(hy);
    if (!y) return object();
    object z = empty(y.ndim(), y.shape(), y.type());
    const keydnn_pair axes = line(y.size(), 0, 1);
    by_type(y.type(), [&](auto zero) {
      using T = decltype(zero);
      const T number = static_cast<T>(c);
      run(0.3 * axes.shape[0], [&] { return kernel.of(zero)(&number, y.data<T>(), data<T>(z), &axes); });
    });
    return z;
  }
  const Operand x(hx), y(hy);
  if (!x || !y || x.type() != y.type()) return object();
  keydnn_pair axes;
  npy_intp shape[KEYDNN_MAX_AXES];
  object z;
  if (x.same_shape(y)) {
    axes = line(x.size(), 1, 1);
    z = empty(x.ndim(), x.shape(), x.type());
  } else {
    if (!broadcast(x.ndim(), x.shape(), y.ndim(), y.shape(), shape, &axes)) return object();
    z = empty(x.ndim() > y.ndim() ? x.ndim() : y.ndim(), shape, x.type());
  }
  int64_t n = 1;
  for (int64_t i = 0; i < axes.ndim; ++i) n *= axes.shape[i];
  if (n == 0) return z;
  by_type(x.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.3 * n, [&] { return kernel.of(zero)(x.data<T>(), y.data<T>(), data<T>(z), &axes); });
  });
  return z;
}

// dst = f(dst, y): y of dst's dtype that broadcasts to dst, or a Python number.
object in_place(handle hdst, handle hy, Kernel<Pairwise> kernel) {
  const Target dst(hdst);
  if (!dst) return object();
  const int64_t n = dst.size();
  double c;
  if (is_number(hy, &c)) {
    const keydnn_pair axes = line(n, 1, 0);
    by_type(dst.type(), [&](auto zero) {
      using T = decltype(zero);
      const T number = static_cast<T>(c);
      run(0.3 * n, [&] { return kernel.of(zero)(static_cast<const T*>(dst.data<T>()), &number, dst.data<T>(), &axes); });
    });
    return nb::none();
  }
  const Operand y(hy);
  if (!y || y.type() != dst.type() || !dst.is_apart_from(y)) return object();
  keydnn_pair axes = line(n, 1, 1);
  if (!dst.fits(y)) {
    npy_intp shape[KEYDNN_MAX_AXES];
    if (y.ndim() > dst.ndim() || !broadcast(dst.ndim(), dst.shape(), y.ndim(), y.shape(), shape, &axes)) return object();
    if (!PyArray_CompareLists(shape, dst.shape(), dst.ndim())) return object();
  }
  if (n == 0) return nb::none();
  by_type(dst.type(), [&](auto zero) {
    using T = decltype(zero);
    run(0.3 * n, [&] { return kernel.of(zero)(static_cast<const T*>(dst.data<T>()), y.data<T>(), dst.data<T>(), &axes); });
  });
  return nb::none();
}

// where: an array mask; x and y arrays of the mask's shape or Python numbers, not both numbers.
object where(handle hmask, handle hx, handle hy) {
  const Operand mask(hmask);
  if (!mask) return object();
  double cx = 0, cy = 0;
  const bool x_number = is_number(hx, &cx), y_number = is_number(hy, &cy);
  if (x_number && y_number) return object();
  const Operand x(x_number ? hy : hx), y(y_number ? hx : hy);
  if (!mask.fits(x) || !mask.fits(y)) return object();
  object z = empty(mask.ndim(), mask.shape(), mask.type());
  const int64_t n = mask.size();
  by_type(mask.type(), [&](auto zero) {
    using T = decltype(zero);
    const T a = static_cast<T>(cx), b = static_cast<T>(cy);
    run(0.4 * n, [&] {
      return api::where(mask.data<T>(), x_number ? &a : x.data<T>(), y_number ? &b : y.data<T>(), data<T>(z), n, x_number ? 0 : 1,
                        y_number ? 0 : 1);
    });
  });
  return z;
}

object clamp(handle x, handle hlow, handle hhigh) {
  double low = -INFINITY, high = INFINITY;
  if (!hlow.is_none() && !is_real(hlow, &low)) return object();
  if (!hhigh.is_none() && !is_real(hhigh, &high)) return object();
  return unary_with(x, 0.2, [=](auto... a) { return api::clamp(a..., low, high); });
}

// Activations with a slope or scale alpha.
#define KEYDNN_WITH_ALPHA(name, ns)                                             \
  object name(handle x, handle halpha) {                                        \
    double alpha;                                                               \
    if (!is_real(halpha, &alpha)) return object();                              \
    return unary_with(x, ns, [=](auto... a) { return api::name(a..., alpha); }); \
  }
#define KEYDNN_WITH_ALPHA_GRAD(name)                                            \
  object name(handle x, handle g, handle halpha) {                              \
    double alpha;                                                               \
    if (!is_real(halpha, &alpha)) return object();                              \
    return twin_with(x, g, [=](auto... a) { return api::name(a..., alpha); });  \
  }
KEYDNN_WITH_ALPHA(leaky_relu, 0.2)
KEYDNN_WITH_ALPHA(elu, 0.9)
KEYDNN_WITH_ALPHA_GRAD(leaky_relu_grad)
KEYDNN_WITH_ALPHA_GRAD(elu_grad)

nb::dict kernels(handle reference) {
  Kernels k(reference);
#define KEYDNN_BOTH(name) {&keydnn_##name##_f32, &keydnn_##name##_f64}
  struct { const char* name; double ns; Kernel<Unary> f; } unaries[] = {
      {"neg", 0.2, KEYDNN_BOTH(neg)},
      {"abs", 0.2, KEYDNN_BOTH(abs)},
      {"sign", 0.2, KEYDNN_BOTH(sign)},
      {"exp", 0.5, KEYDNN_BOTH(exp)},
      {"expm1", 0.8, KEYDNN_BOTH(expm1)},
      {"log", 0.6, KEYDNN_BOTH(log)},
      {"log1p", 0.8, KEYDNN_BOTH(log1p)},
      {"sqrt", 0.4, KEYDNN_BOTH(sqrt)},
      {"rsqrt", 0.6, KEYDNN_BOTH(rsqrt)},
      {"reciprocal", 0.3, KEYDNN_BOTH(reciprocal)},
      {"square", 0.2, KEYDNN_BOTH(square)},
      {"tanh", 0.7, KEYDNN_BOTH(tanh)},
      {"sigmoid", 0.6, KEYDNN_BOTH(sigmoid)},
      {"erf", 1.2, KEYDNN_BOTH(erf)},
      {"relu", 0.2, KEYDNN_BOTH(relu)},
      {"gelu", 1.4, KEYDNN_BOTH(gelu)},
      {"silu", 0.7, KEYDNN_BOTH(silu)},
      {"softplus", 1.4, KEYDNN_BOTH(softplus)},
      {"copy", 0.2, KEYDNN_BOTH(copy)},
  };
  for (const auto& u : unaries) k.add(u.name, [ns = u.ns, f = u.f](handle x) { return unary(x, ns, f); });
  struct { const char* name; Kernel<Twin> f; } twins[] = {
      {"relu_grad", KEYDNN_BOTH(relu_grad)},
      {"tanh_grad", KEYDNN_BOTH(tanh_grad)},
      {"sigmoid_grad", KEYDNN_BOTH(sigmoid_grad)},
      {"gelu_grad", KEYDNN_BOTH(gelu_grad)},
      {"silu_grad", KEYDNN_BOTH(silu_grad)},
      {"softplus_grad", KEYDNN_BOTH(softplus_grad)},
  };
  for (const auto& t : twins) k.add(t.name, [f = t.f](handle x, handle y) { return twin(x, y, f); });
  struct { const char* name; Kernel<Pairwise> f; } pairs[] = {
      {"add", KEYDNN_BOTH(add)},
      {"sub", KEYDNN_BOTH(sub)},
      {"mul", KEYDNN_BOTH(mul)},
      {"div", KEYDNN_BOTH(div)},
      {"maximum", KEYDNN_BOTH(maximum)},
      {"minimum", KEYDNN_BOTH(minimum)},
      {"gt", KEYDNN_BOTH(gt)},
      {"ge", KEYDNN_BOTH(ge)},
      {"lt", KEYDNN_BOTH(lt)},
      {"le", KEYDNN_BOTH(le)},
      {"eq", KEYDNN_BOTH(eq)},
      {"ne", KEYDNN_BOTH(ne)},
  };
  for (const auto& p : pairs) k.add(p.name, [f = p.f](handle x, handle y) { return pairwise(x, y, f); });
  struct { const char* name; Kernel<Pairwise> f; } updates[] = {
      {"add_", KEYDNN_BOTH(add)},
      {"sub_", KEYDNN_BOTH(sub)},
      {"mul_", KEYDNN_BOTH(mul)},
      {"div_", KEYDNN_BOTH(div)},
  };
  for (const auto& u : updates) k.add(u.name, [f = u.f](handle dst, handle y) { return in_place(dst, y, f); });
  k.add("where", [](handle mask, handle x, handle y) { return where(mask, x, y); });
  const nb::arg x("x"), g("g"), alpha("alpha"), low("low"), high("high");
  k.add("clamp", [](handle x, handle l, handle h) { return clamp(x, l, h); }, x, nb::arg("low").none(), nb::arg("high").none());
  k.add("leaky_relu", [](handle x, handle a) { return leaky_relu(x, a); }, x, alpha);
  k.add("leaky_relu_grad", [](handle x, handle g, handle a) { return leaky_relu_grad(x, g, a); }, x, g, alpha);
  k.add("elu", [](handle x, handle a) { return elu(x, a); }, x, alpha);
  k.add("elu_grad", [](handle x, handle g, handle a) { return elu_grad(x, g, a); }, x, g, alpha);
  return k.table();
}

}  // namespace

void bind_elementwise(nb::module_& m) { m.def("elementwise_kernels", &kernels, nb::arg("reference")); }

}  // namespace keydnn
