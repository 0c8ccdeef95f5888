// Elementwise kernels of one operand and the gradients of activations, cut into chunks of kGrain elements.
// Meaning: kernels/reference/elementwise.py and activation.py, function of the same name.
// Numerics: vmath.h states the errors of exp, log, ...; the others are rounded once per operation written.  An element's
// result does not depend on its place or on the number of threads.
#include "activations.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kGrain = 16384;

// Plain loops: y[i] = f(x[i]), for expressions in which the compiler has no choice of what to fuse.
template <class T, class F>
KEYDNN_INLINE int each(const T* x, T* y, int64_t n, double ns, F f) {
  const bool past = goes_past(n, x, y);
  parallel_ranges(n, kGrain, ns * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    fill_ahead(y, begin, end, past, [=](int64_t i) { return f(x[i]); }, x);
  });
  return KEYDNN_OK;
}
template <class T, class F>
KEYDNN_INLINE int each2(const T* x, const T* y, T* z, int64_t n, F f) {
  const bool past = goes_past(n, x, y, z);
  parallel_ranges(n, kGrain, 0.3 * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    fill_ahead(z, begin, end, past, [=](int64_t i) { return f(x[i], y[i]); }, x, y);
  });
  return KEYDNN_OK;
}
// Registers, for functions of vmath.h.  Those that take long (1 ns and more on one core) hide stores that fetch their lines.
template <class T, class F>
KEYDNN_INLINE int each_vector(const T* x, T* y, int64_t n, double ns, F f) {
  const bool past = ns < 1 && goes_past(n, x, y);
  parallel_ranges(n, kGrain, ns * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE { map_range(x, y, begin, end, f, past); });
  return KEYDNN_OK;
}
template <class T, class F>
KEYDNN_INLINE int each_vector2(const T* x, const T* y, T* z, int64_t n, double ns, F f) {
  const bool past = ns < 1 && goes_past(n, x, y, z);
  parallel_ranges(n, kGrain, ns * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE { map_range2(x, y, z, begin, end, f, past); });
  return KEYDNN_OK;
}

template <class T>
int neg(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.2, [](T v) { return -v; });
}
template <class T>
int abs(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.2, [](T v) { return size_of(v); });
}
template <class T>
int sign(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.2, [](T v) { return v > 0 ? T(1) : v < 0 ? T(-1) : v; });  // zeros and NaN stay
}
template <class T>
int exp(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 0.5, [](Vec<T> v) { return vexp<T>(v); });
}
template <class T>
int expm1(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 0.8, [](Vec<T> v) { return vexpm1<T>(v); });
}
template <class T>
int log(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 0.6, [](Vec<T> v) { return vlog<T>(v); });
}
template <class T>
int log1p(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 0.8, [](Vec<T> v) { return vlog1p<T>(v); });
}
template <class T>
int sqrt(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.4, [](T v) { return root(v); });
}
template <class T>
int rsqrt(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.6, [](T v) { return T(1) / root(v); });
}
template <class T>
int reciprocal(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.3, [](T v) { return T(1) / v; });
}
template <class T>
int square(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.2, [](T v) { return v * v; });
}
template <class T>
int tanh(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 0.7, [](Vec<T> v) { return vtanh<T>(v); });
}
template <class T>
int sigmoid(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 0.6, [](Vec<T> v) { return vsigmoid<T>(v); });
}
template <class T>
int erf(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 1.2, [](Vec<T> v) { return verf<T>(v); });
}
template <class T>
int relu(const T* x, T* y, int64_t n) {
  return each(x, y, n, 0.2, [](T v) { return v <= 0 ? T(0) : v; });  // NaN is not <= 0: it stays
}
template <class T>
int copy(const T* x, T* y, int64_t n) {
  parallel_ranges(n, kGrain, 0.2 * n, [=](int64_t begin, int64_t end) {
    memcpy(y + begin, x + begin, sizeof(T) * static_cast<size_t>(end - begin));
  });
  return KEYDNN_OK;
}

template <class T>
int leaky_relu(const T* x, T* y, int64_t n, double alpha) {
  const T slope = static_cast<T>(alpha);
  return each(x, y, n, 0.2, [=](T v) { return v > 0 ? v : slope * v; });
}
template <class T>
int clamp(const T* x, T* y, int64_t n, double low, double high) {
  const T lo = static_cast<T>(low), hi = static_cast<T>(high);
  return each(x, y, n, 0.2, [=](T v) {
    const T raised = v < lo ? lo : v;
    return raised > hi ? hi : raised;
  });
}
template <class T>
int gelu(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 1.4, [](Vec<T> v) { return vgelu<T>(v); });
}
template <class T>
int silu(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 0.7, [](Vec<T> v) { return vsilu<T>(v); });
}
template <class T>
int softplus(const T* x, T* y, int64_t n) {
  return each_vector(x, y, n, 1.4, [](Vec<T> v) { return vsoftplus<T>(v); });
}
template <class T>
int elu(const T* x, T* y, int64_t n, double alpha) {
  const T scale = static_cast<T>(alpha);
  return each_vector(x, y, n, 0.9, [=](Vec<T> v) { return velu<T>(v, scale); });
}
template <class T>
int relu_grad(const T* y, const T* g, T* dx, int64_t n) {
  return each2(y, g, dx, n, [](T a, T b) { return a > 0 ? b : T(0); });
}
template <class T>
int leaky_relu_grad(const T* x, const T* g, T* dx, int64_t n, double alpha) {
  const T slope = static_cast<T>(alpha);
  return each2(x, g, dx, n, [=](T a, T b) { return a > 0 ? b : slope * b; });
}
template <class T>
int tanh_grad(const T* y, const T* g, T* dx, int64_t n) {
  return each2(y, g, dx, n, [](T a, T b) { return b * (T(1) - a * a); });
}
template <class T>
int sigmoid_grad(const T* y, const T* g, T* dx, int64_t n) {
  return each2(y, g, dx, n, [](T a, T b) { return (b * a) * (T(1) - a); });
}
template <class T>
int gelu_grad(const T* x, const T* g, T* dx, int64_t n) {
  return each_vector2(x, g, dx, n, 2.0, [](Vec<T> a, Vec<T> b) { return vgelu_grad<T>(a, b); });
}
template <class T>
int silu_grad(const T* x, const T* g, T* dx, int64_t n) {
  return each_vector2(x, g, dx, n, 0.8, [](Vec<T> a, Vec<T> b) { return vsilu_grad<T>(a, b); });
}
template <class T>
int softplus_grad(const T* x, const T* g, T* dx, int64_t n) {
  return each_vector2(x, g, dx, n, 0.7, [](Vec<T> a, Vec<T> b) { return vsoftplus_grad<T>(a, b); });
}
template <class T>
int elu_grad(const T* x, const T* g, T* dx, int64_t n, double alpha) {
  const T scale = static_cast<T>(alpha);
  return each_vector2(x, g, dx, n, 0.7, [=](Vec<T> a, Vec<T> b) { return velu_grad<T>(a, b, scale); });
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_ELEMENTWISE)
