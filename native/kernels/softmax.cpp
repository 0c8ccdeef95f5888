// Softmax, log-softmax, cross-entropy of logits with integer labels, and their gradients, row by row.
// Meaning: kernels/reference/softmax.py.
// Numerics: the row's maximum is taken out first; sums in double, of float after adding four as floats; e^x of vmath.h.
// A row's result depends on the row alone.
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

// v as doubles, halves added.
KEYDNN_INLINE Vec<double> widened(Vec<float> v) {
  typename PartOf<float>::type half[2];
  memcpy(half, &v, sizeof v);
  return __builtin_convertvector(half[0], Vec<double>) + __builtin_convertvector(half[1], Vec<double>);
}

// v with zeros from lane k on.
template <class T>
KEYDNN_INLINE Vec<T> first_lanes(Vec<T> v, int64_t k) {
  T room[kLanes<T>];
  store(room, v);
  return load_part(room, k, T(0));
}

// The sum of e^(x[j] - top), in double; with kStore also y[j] = e^(x[j] - top).
template <bool kStore, class T>
KEYDNN_INLINE double exponentials(const T* x, T top, T* y, int64_t n) {
  constexpr int64_t L = kLanes<T>;
  Vec<double> sum = {};
  int64_t j = 0;
  if constexpr (sizeof(T) == 4) {  // four registers are added before they become doubles
    for (; j + 4 * L <= n; j += 4 * L) {
      Vec<T> e[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) e[i] = vexp<T>(load(x + j + i * L) - top);
#pragma GCC unroll 4
      for (int i = 0; kStore && i < 4; ++i) store(y + j + i * L, e[i]);
      sum += widened((e[0] + e[1]) + (e[2] + e[3]));
    }
  }
  for (; j < n; j += L) {
    const int64_t k = n - j;
    // lanes beyond the row are e^0, then 0: a result that underflows, as e^-inf does, costs 150 cycles
    const Vec<T> e = k >= L ? vexp<T>(load(x + j) - top) : first_lanes<T>(vexp<T>(load_part(x + j, k, top) - top), k);
    if constexpr (sizeof(T) == 4) {
      sum += widened(e);
    } else {
      sum += e;
    }
    if (!kStore) continue;
    if (k >= kLanes<T>) {
      store(y + j, e);
    } else {
      store_part(y + j, e, k);
    }
  }
  return add_lanes(sum);
}

// Rows in groups: every step is done for all rows of a group before the next, so that a row need not wait for its own
// previous step.  body(first, count, tops, sums): tops[i] is the maximum of row first + i of x, sums is for the body.
constexpr int64_t kGroup = 32;
template <class T, class Body>
KEYDNN_INLINE int each_group(const T* x, int64_t rows, int64_t n, Body body) {
  if (n < 1) return KEYDNN_BAD_SHAPE;
  const int64_t group = lesser(kGroup, greater<int64_t>(1, 2048 / n));
  const int64_t grain = round_up(greater<int64_t>(1, 16384 / n), group);
  parallel_ranges(rows, grain, 1.0 * static_cast<double>(rows * n), [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    T tops[kGroup];
    double sums[kGroup];
    for (; begin < end; begin += group) {
      const int64_t count = lesser(group, end - begin);
      for (int64_t i = 0; i < count; ++i) tops[i] = extreme_of<true>(x + (begin + i) * n, n);
      body(begin, count, tops, sums);
    }
  });
  return KEYDNN_OK;
}

template <class T>
KEYDNN_INLINE void scale_row(T* y, int64_t n, double scale) {
  const T factor = static_cast<T>(scale);
  for (int64_t j = 0; j < n; ++j) y[j] *= factor;
}

template <class T>
int softmax(const T* x, T* y, int64_t rows, int64_t n) {
  return each_group(x, rows, n, [=](int64_t first, int64_t count, const T* tops, double* sums) {
    const T* const xs = x + first * n;
    T* const ys = y + first * n;
    for (int64_t i = 0; i < count; ++i) sums[i] = exponentials<true>(xs + i * n, tops[i], ys + i * n, n);
    for (int64_t i = 0; i < count; ++i) scale_row(ys + i * n, n, 1.0 / sums[i]);
  });
}

template <class T>
int log_softmax(const T* x, T* y, int64_t rows, int64_t n) {
  return each_group(x, rows, n, [=](int64_t first, int64_t count, const T* tops, double* sums) {
    for (int64_t i = 0; i < count; ++i) sums[i] = exponentials<false>(x + (first + i) * n, tops[i], y, n);
    map_range(sums, sums, 0, count, [](Vec<double> v) { return vlog<double>(v); });
    for (int64_t i = 0; i < count; ++i) {
      const T* const xi = x + (first + i) * n;
      T* const yi = y + (first + i) * n;
      const T top = tops[i], rest = static_cast<T>(sums[i]);
      for (int64_t j = 0; j < n; ++j) yi[j] = (xi[j] - top) - rest;
    }
  });
}

// sum of a[j] * b[j], in double
template <class T>
KEYDNN_INLINE double dot(const T* a, const T* b, int64_t n) {
  double sum;
  if constexpr (sizeof(T) == 4) {  // four products are added before they become doubles
    constexpr int64_t L = kLanes<T>;
    Vec<double> even = {}, odd = {};
    double rest = 0;
    int64_t j = 0;
    const auto product = [=](int64_t at) { return load(a + at) * load(b + at); };
    for (; j + 8 * L <= n; j += 8 * L) {
      even += widened((product(j) + product(j + L)) + (product(j + 2 * L) + product(j + 3 * L)));
      odd += widened((product(j + 4 * L) + product(j + 5 * L)) + (product(j + 6 * L) + product(j + 7 * L)));
    }
    for (; j + L <= n; j += L) even += widened(product(j));
    for (; j < n; ++j) rest += static_cast<double>(a[j]) * static_cast<double>(b[j]);
    return add_lanes(even + odd) + rest;
  }
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
  return each_group(logits, rows, n, [=](int64_t first, int64_t count, const T* tops, double* sums) {
    const T* const xs = logits + first * n;
    T* const ps = p + first * n;
    for (int64_t i = 0; i < count; ++i) sums[i] = exponentials<true>(xs + i * n, tops[i], ps + i * n, n);
    for (int64_t i = 0; i < count; ++i) scale_row(ps + i * n, n, 1.0 / sums[i]);
    map_range(sums, sums, 0, count, [](Vec<double> v) { return vlog<double>(v); });
    for (int64_t i = 0; i < count; ++i) {
      const double own = static_cast<double>(xs[i * n + labels[first + i]]) - static_cast<double>(tops[i]);
      loss[first + i] = static_cast<T>(sums[i] - own);
    }
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
