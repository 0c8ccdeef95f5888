// Softmax, log-softmax, cross-entropy of logits with integer labels, and their gradients, row by row.
// Meaning: kernels/reference/softmax.py.
// Numerics: the row's maximum is taken out first; sums in double; e^x of vmath.h.  A row's result depends on the row alone.
#include "sums.h"
#include "vmath.h"

namespace keydnn::KEYDNN_NS {
namespace {

// body(row) for every row, in chunks of about 16,384 elements.
template <class Body>
KEYDNN_INLINE int each_row(int64_t rows, int64_t n, double ns, Body body) {
  if (n < 1) return KEYDNN_BAD_SHAPE;
  parallel_ranges(rows, greater<int64_t>(1, 16384 / n), ns * static_cast<double>(rows * n), [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
  return KEYDNN_OK;
}

// y[j] = e^(x[j] - top); returns the sum of y.
template <class T>
KEYDNN_INLINE double exponentials(const T* x, T top, T* y, int64_t n) {
  map_range(x, y, 0, n, [=](Vec<T> v) { return vexp<T>(v - top); });
  return sum_of(y, n);
}

template <class T>
int softmax(const T* x, T* y, int64_t rows, int64_t n) {
  return each_row(rows, n, 1.0, [=](int64_t i) {
    const T* const xi = x + i * n;
    T* const yi = y + i * n;
    const T scale = static_cast<T>(1.0 / exponentials(xi, extreme_of<true>(xi, n), yi, n));
    for (int64_t j = 0; j < n; ++j) yi[j] *= scale;
  });
}

template <class T>
int log_softmax(const T* x, T* y, int64_t rows, int64_t n) {
  return each_row(rows, n, 1.0, [=](int64_t i) {
    const T* const xi = x + i * n;
    T* const yi = y + i * n;
    const T top = extreme_of<true>(xi, n);
    const T rest = static_cast<T>(vlog<double>(splat<double>(exponentials(xi, top, yi, n)))[0]);
    for (int64_t j = 0; j < n; ++j) yi[j] = (xi[j] - top) - rest;
  });
}

// sum of a[j] * b[j], in double
template <class T>
KEYDNN_INLINE double dot(const T* a, const T* b, int64_t n) {
  double sum;
  sum_runs<1>(
      n, 1, 0, &sum, [=](int64_t j, Vec<double>* s) { s[0] += load_wide(a + j) * load_wide(b + j); },
      [=](int64_t j, double* s) { s[0] += static_cast<double>(a[j]) * static_cast<double>(b[j]); });
  return sum;
}

template <class T>
int softmax_grad(const T* y, const T* g, T* dx, int64_t rows, int64_t n) {
  return each_row(rows, n, 0.6, [=](int64_t i) {
    const T *const yi = y + i * n, *const gi = g + i * n;
    const T mean = static_cast<T>(dot(yi, gi, n));
    T* const di = dx + i * n;
    for (int64_t j = 0; j < n; ++j) di[j] = yi[j] * (gi[j] - mean);
  });
}

template <class T>
int log_softmax_grad(const T* y, const T* g, T* dx, int64_t rows, int64_t n) {
  return each_row(rows, n, 1.0, [=](int64_t i) {
    const T* const gi = g + i * n;
    T* const di = dx + i * n;
    const T total = static_cast<T>(sum_of(gi, n));
    map_range(y + i * n, di, 0, n, [=](Vec<T> v) { return vexp<T>(v) * total; });
    for (int64_t j = 0; j < n; ++j) di[j] = gi[j] - di[j];
  });
}

template <class T>
int cross_entropy(const T* logits, const int64_t* labels, T* loss, T* p, int64_t rows, int64_t n) {
  return each_row(rows, n, 1.0, [=](int64_t i) {
    const T* const xi = logits + i * n;
    T* const pi = p + i * n;
    const T top = extreme_of<true>(xi, n);
    const double sum = exponentials(xi, top, pi, n);
    loss[i] = static_cast<T>(vlog<double>(splat<double>(sum))[0] - (static_cast<double>(xi[labels[i]]) - static_cast<double>(top)));
    const T scale = static_cast<T>(1.0 / sum);
    for (int64_t j = 0; j < n; ++j) pi[j] *= scale;
  });
}

template <class T>
int cross_entropy_grad(const T* p, const int64_t* labels, const T* g, T* d, int64_t rows, int64_t n) {
  return each_row(rows, n, 0.3, [=](int64_t i) {
    const T* const pi = p + i * n;
    T* const di = d + i * n;
    const T scale = g[i];
    for (int64_t j = 0; j < n; ++j) di[j] = pi[j] * scale;
    di[labels[i]] = (pi[labels[i]] - T(1)) * scale;
  });
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_SOFTMAX)
