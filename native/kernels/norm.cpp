// Batch and layer normalisation with the operand's own statistics, and their gradients.
// Meaning: kernels/reference/norm.py.
// Numerics: statistics and the sums of the gradients in double (layer norm's of float after adding four as floats).  The variance comes from one pass over x - shift, where
// the shift is the mean of the first elements, so that nothing cancels.  Every channel or row is computed by itself;
// dgamma and dbeta of layer norm add up rows in fixed groups.
#include "ahead.h"
#include "sums.h"

namespace keydnn::KEYDNN_NS {
namespace {

struct Moments {
  double mean, var;
};

// Mean and biased variance of `count` runs of n elements that start `stride` apart.
template <class T>
KEYDNN_INLINE Moments moments(const T* x, int64_t n, int64_t count, int64_t stride) {
  const int64_t first = lesser<int64_t>(n, 64);
  const double shift = sum_of(x, first) / static_cast<double>(first);
  double s[2];
  sum_runs<2>(
      n, count, stride, s,
      [=](int64_t i, Vec<double>* sums) {
        const Vec<double> d = load_wide(x + i) - shift;
        sums[0] += d;
        sums[1] += d * d;
      },
      [=](int64_t i, double* sums) {
        const double d = static_cast<double>(x[i]) - shift;
        sums[0] += d;
        sums[1] += d * d;
      });
  const double m = static_cast<double>(n * count), offset = s[0] / m, var = s[1] / m - offset * offset;
  return {shift + offset, var < 0 ? 0 : var};  // NaN stays
}

// ---- what follows batch norm, and what comes before its gradient: nothing, or relu ---------------------------------

// y as it is, and its gradient.  line: null, or what is written for the way back.
template <class T>
struct Straight {
  static KEYDNN_INLINE T after(T v) { return v; }
  static void keep(T*, int64_t, int64_t, T, T) {}
  Straight() = default;
  Straight(const T*, const T*, int64_t, int64_t) {}
  KEYDNN_INLINE T before(T g, T) const { return g; }
  KEYDNN_INLINE Vec<double> before_wide(const T* g, const T*) const { return load_wide(g); }
};

// relu(y); g where the element was positive, which is computed again from x: reading x, which is needed anyway, is all it takes.
template <class T>
struct Relu {
  using Part = typename PartOf<T>::type;
  T center, scale, shift;
  static KEYDNN_INLINE T after(T v) { return v <= 0 ? T(0) : v; }
  static void keep(T* line, int64_t c, int64_t channel, T scale, T shift) { line[channel] = scale, line[c + channel] = shift; }
  Relu(const T* mean, const T* line, int64_t c, int64_t channel) : center(mean[channel]), scale(line[channel]), shift(line[c + channel]) {}
  KEYDNN_INLINE T before(T g, T x) const { return (x - center) * scale + shift > 0 ? g : T(0); }
  KEYDNN_INLINE Vec<double> before_wide(const T* g, const T* x) const {
    using Loose = typename PartOf<T>::loose;
    const Part v = (*reinterpret_cast<const Loose*>(x) - center) * scale + shift, some = *reinterpret_cast<const Loose*>(g), none = {};
    return __builtin_convertvector(v > 0 ? some : none, Vec<double>);
  }
};

// s[0] = sum of g, s[1] = sum of g * (x - mean), over runs as above; g as `way` has it.
template <class T, class Way>
KEYDNN_INLINE void gradient_sums(const T* g, const T* x, double mean, Way way, int64_t n, int64_t count, int64_t stride, double* s) {
  sum_runs<2>(
      n, count, stride, s,
      [=](int64_t i, Vec<double>* sums) {
        const Vec<double> d = way.before_wide(g + i, x + i);
        sums[0] += d;
        sums[1] += d * (load_wide(x + i) - mean);
      },
      [=](int64_t i, double* sums) {
        const double d = static_cast<double>(way.before(g[i], x[i]));
        sums[0] += d;
        sums[1] += d * (static_cast<double>(x[i]) - mean);
      });
}

// ---- batch norm, channels of planes: x (n, c, s) with s > 1 -------------------------------------------------------

template <class Way, class T>
int batch_norm_planes(const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* var, T* inv, T* line, int64_t n, int64_t c,
                      int64_t s) {
  const bool past = s % kLine<T> == 0 && goes_past(n * c * s, x, y);
  parallel_for(c, 0.6 * static_cast<double>(n * c * s), [=](int64_t channel) KEYDNN_NOINLINE {
    const T* const from = x + channel * s;
    const Moments m = moments(from, s, n, c * s);
    const double root = 1.0 / __builtin_sqrt(m.var + eps);
    mean[channel] = static_cast<T>(m.mean);
    var[channel] = static_cast<T>(m.var);
    inv[channel] = static_cast<T>(root);
    const T center = mean[channel], scale = static_cast<T>(gamma ? gamma[channel] * root : root), shift = beta ? beta[channel] : T(0);
    Way::keep(line, c, channel, scale, shift);
    for (int64_t i = 0; i < n; ++i) {
      const T* const xi = from + i * c * s;
      T* const yi = y + (i * c + channel) * s;
      fill_ahead(yi, 0, s, past, [=](int64_t j) { return Way::after((xi[j] - center) * scale + shift); }, xi);
    }
  });
  return KEYDNN_OK;
}

template <class Way, class T>
int batch_norm_grad_planes(const T* g, const T* x, const T* gamma, const T* mean, const T* inv, const T* line, T* dx, T* dgamma, T* dbeta,
                           int64_t n, int64_t c, int64_t s) {
  const bool past = s % kLine<T> == 0 && goes_past(n * c * s, g, x, dx);
  parallel_for(c, 0.9 * static_cast<double>(n * c * s), [=](int64_t channel) KEYDNN_NOINLINE {
    const Way way(mean, line, c, channel);
    double sums[2];
    gradient_sums(g + channel * s, x + channel * s, static_cast<double>(mean[channel]), way, s, n, c * s, sums);
    const double m = static_cast<double>(n * s), r = static_cast<double>(inv[channel]);
    dbeta[channel] = static_cast<T>(sums[0]);
    dgamma[channel] = static_cast<T>(sums[1] * r);
    const T center = mean[channel], a = static_cast<T>(sums[0] / m), b = static_cast<T>(sums[1] * r * r / m);
    const T scale = gamma ? gamma[channel] * inv[channel] : inv[channel];
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = (i * c + channel) * s;
      const T *const gi = g + at, *const xi = x + at;
      T* const di = dx + at;
      fill_ahead(di, 0, s, past, [=](int64_t j) { return ((way.before(gi[j], xi[j]) - a) - (xi[j] - center) * b) * scale; }, gi, xi);
    }
  });
  return KEYDNN_OK;
}

// ---- batch norm, channels side by side: x (n, c) ------------------------------------------------------------------

constexpr int64_t kColumns = 64;

template <class Way, class T>
int batch_norm_columns(const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* var, T* inv, T* line, int64_t n, int64_t c) {
  parallel_for(ceil_div(c, kColumns), 0.8 * static_cast<double>(n * c), [=](int64_t block) KEYDNN_NOINLINE {
    const int64_t first = block * kColumns, width = lesser(kColumns, c - first);
    const double m = static_cast<double>(n);
    double center[kColumns] = {}, spread[kColumns] = {};
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < width; ++j) center[j] += static_cast<double>(x[i * c + first + j]);
    for (int64_t j = 0; j < width; ++j) center[j] /= m;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < width; ++j) {
        const double d = static_cast<double>(x[i * c + first + j]) - center[j];
        spread[j] += d * d;
      }
    T middle[kColumns], scale[kColumns], shift[kColumns];
    for (int64_t j = 0; j < width; ++j) {
      const int64_t k = first + j;
      const double v = spread[j] / m, root = 1.0 / __builtin_sqrt(v + eps);
      mean[k] = middle[j] = static_cast<T>(center[j]);
      var[k] = static_cast<T>(v);
      inv[k] = static_cast<T>(root);
      scale[j] = static_cast<T>(gamma ? gamma[k] * root : root);
      shift[j] = beta ? beta[k] : T(0);
      Way::keep(line, c, k, scale[j], shift[j]);
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < width; ++j) y[i * c + first + j] = Way::after((x[i * c + first + j] - middle[j]) * scale[j] + shift[j]);
  });
  return KEYDNN_OK;
}

template <class Way, class T>
int batch_norm_grad_columns(const T* g, const T* x, const T* gamma, const T* mean, const T* inv, const T* line, T* dx, T* dgamma, T* dbeta,
                            int64_t n, int64_t c) {
  parallel_for(ceil_div(c, kColumns), 1.0 * static_cast<double>(n * c), [=](int64_t block) KEYDNN_NOINLINE {
    const int64_t first = block * kColumns, width = lesser(kColumns, c - first);
    const double m = static_cast<double>(n);
    double total[kColumns] = {}, along[kColumns] = {};
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < width; ++j) {
        const int64_t at = i * c + first + j;
        const double d = static_cast<double>(Way(mean, line, c, first + j).before(g[at], x[at]));
        total[j] += d;
        along[j] += d * (static_cast<double>(x[at]) - static_cast<double>(mean[first + j]));
      }
    T a[kColumns], b[kColumns], scale[kColumns];
    for (int64_t j = 0; j < width; ++j) {
      const int64_t k = first + j;
      const double r = static_cast<double>(inv[k]);
      dbeta[k] = static_cast<T>(total[j]);
      dgamma[k] = static_cast<T>(along[j] * r);
      a[j] = static_cast<T>(total[j] / m);
      b[j] = static_cast<T>(along[j] * r * r / m);
      scale[j] = gamma ? gamma[k] * inv[k] : inv[k];
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < width; ++j) {
        const int64_t at = i * c + first + j;
        dx[at] = ((Way(mean, line, c, first + j).before(g[at], x[at]) - a[j]) - (x[at] - mean[first + j]) * b[j]) * scale[j];
      }
  });
  return KEYDNN_OK;
}

template <class Way, class T>
int batch_norm_with(const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* var, T* inv, T* line, int64_t n, int64_t c,
                    int64_t s) {
  if (n < 1 || c < 1 || s < 1) return KEYDNN_BAD_SHAPE;
  return s > 1 ? batch_norm_planes<Way>(x, gamma, beta, eps, y, mean, var, inv, line, n, c, s)
               : batch_norm_columns<Way>(x, gamma, beta, eps, y, mean, var, inv, line, n, c);
}
template <class T>
int batch_norm(const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* var, T* inv, int64_t n, int64_t c, int64_t s) {
  return batch_norm_with<Straight<T>>(x, gamma, beta, eps, y, mean, var, inv, static_cast<T*>(nullptr), n, c, s);
}
template <class T>
int batch_norm_relu(const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* var, T* inv, T* line, int64_t n, int64_t c,
                    int64_t s) {
  return batch_norm_with<Relu<T>>(x, gamma, beta, eps, y, mean, var, inv, line, n, c, s);
}

template <class Way, class T>
int batch_norm_grad_with(const T* g, const T* x, const T* gamma, const T* mean, const T* inv, const T* line, T* dx, T* dgamma, T* dbeta,
                         int64_t n, int64_t c, int64_t s) {
  if (n < 1 || c < 1 || s < 1) return KEYDNN_BAD_SHAPE;
  return s > 1 ? batch_norm_grad_planes<Way>(g, x, gamma, mean, inv, line, dx, dgamma, dbeta, n, c, s)
               : batch_norm_grad_columns<Way>(g, x, gamma, mean, inv, line, dx, dgamma, dbeta, n, c);
}
template <class T>
int batch_norm_grad(const T* g, const T* x, const T* gamma, const T* mean, const T* inv, T* dx, T* dgamma, T* dbeta, int64_t n, int64_t c,
                    int64_t s) {
  return batch_norm_grad_with<Straight<T>>(g, x, gamma, mean, inv, static_cast<const T*>(nullptr), dx, dgamma, dbeta, n, c, s);
}
template <class T>
int batch_norm_relu_grad(const T* g, const T* x, const T* gamma, const T* mean, const T* inv, const T* line, T* dx, T* dgamma, T* dbeta,
                         int64_t n, int64_t c, int64_t s) {
  return batch_norm_grad_with<Relu<T>>(g, x, gamma, mean, inv, line, dx, dgamma, dbeta, n, c, s);
}

// ---- layer norm: x (rows, n) --------------------------------------------------------------------------------------

template <class T>
int layer_norm(const T* x, const T* gamma, const T* beta, double eps, T* y, T* mean, T* inv, int64_t rows, int64_t n) {
  if (rows < 1 || n < 1) return KEYDNN_BAD_SHAPE;
  parallel_ranges(rows, greater<int64_t>(1, 16384 / n), 0.6 * static_cast<double>(rows * n), [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    for (int64_t i = begin; i < end; ++i) {
      const T* const xi = x + i * n;
      T* const yi = y + i * n;
      const Moments m = moments(xi, n, 1, 0);
      const T center = static_cast<T>(m.mean), scale = static_cast<T>(1.0 / __builtin_sqrt(m.var + eps));
      mean[i] = center;
      inv[i] = scale;
      if (gamma && beta) {
        for (int64_t j = 0; j < n; ++j) yi[j] = ((xi[j] - center) * scale) * gamma[j] + beta[j];
      } else {
        for (int64_t j = 0; j < n; ++j) yi[j] = (xi[j] - center) * scale;
        for (int64_t j = 0; gamma && j < n; ++j) yi[j] *= gamma[j];
        for (int64_t j = 0; beta && j < n; ++j) yi[j] += beta[j];
      }
    }
  });
  return KEYDNN_OK;
}

// s[0] = sum of d, s[1] = sum of d * (x - center) over a row; of float, four numbers are added before they become doubles.
KEYDNN_INLINE void row_sums(const double* d, const double* x, double center, int64_t n, double* s) {
  gradient_sums(d, x, center, Straight<double>(), n, 1, 0, s);
}
KEYDNN_INLINE void row_sums(const float* d, const float* x, float center, int64_t n, double* s) {
  constexpr int64_t L = kLanes<float>;
  const auto widened = [](Vec<float> v) {
    PartOf<float>::type half[2];
    memcpy(half, &v, sizeof v);
    return __builtin_convertvector(half[0], Vec<double>) + __builtin_convertvector(half[1], Vec<double>);
  };
  Vec<double> plain = {}, along = {};
  double rest[2] = {};
  int64_t j = 0;
  for (; j + 4 * L <= n; j += 4 * L) {
    Vec<float> v[4], w[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[i] = load(d + j + i * L);
      w[i] = v[i] * (load(x + j + i * L) - center);
    }
    plain += widened((v[0] + v[1]) + (v[2] + v[3]));
    along += widened((w[0] + w[1]) + (w[2] + w[3]));
  }
  for (; j + L <= n; j += L) {
    plain += widened(load(d + j));
    along += widened(load(d + j) * (load(x + j) - center));
  }
  for (; j < n; ++j) {
    rest[0] += static_cast<double>(d[j]);
    rest[1] += static_cast<double>(d[j]) * static_cast<double>(x[j] - center);
  }
  s[0] = add_lanes(plain) + rest[0];
  s[1] = add_lanes(along) + rest[1];
}

// along[j] += sum of g * (x - mean) * inv, total[j] += sum of g over R rows of n, whose terms are added as T first.
template <int R, class T>
KEYDNN_INLINE void add_rows(const T* g, const T* x, const T* mean, const T* inv, int64_t n, double* along, double* total) {
#pragma GCC ivdep
  for (int64_t j = 0; j < n; ++j) {
    T a = 0, t = 0;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const T slope = g[r * n + j];
      a += slope * ((x[r * n + j] - mean[r]) * inv[r]);
      t += slope;
    }
    along[j] += static_cast<double>(a);
    total[j] += static_cast<double>(t);
  }
}

template <class T>
int layer_norm_grad(const T* g, const T* x, const T* gamma, const T* mean, const T* inv, T* dx, T* dgamma, T* dbeta, int64_t rows,
                    int64_t n) {
  if (rows < 1 || n < 1) return KEYDNN_BAD_SHAPE;
  const int64_t group = greater(ceil_div(rows, 32), greater<int64_t>(1, 8192 / n)), groups = ceil_div(rows, group);
  const Scratch<double> partial(groups * 2 * n);  // per group: sums of g * xhat, then sums of g
  const Scratch<T> weighted(groups * n);          // a row of g * gamma
  if (!partial || !weighted) return KEYDNN_NO_MEMORY;
  double* const sums = partial.data;
  T* const lines = weighted.data;
  parallel_for(groups, 1.2 * static_cast<double>(rows * n), [=](int64_t at) KEYDNN_NOINLINE {
    double *const along = sums + at * 2 * n, *const total = along + n;
    T* const d = lines + at * n;
    for (int64_t j = 0; j < n; ++j) along[j] = total[j] = 0;
    const int64_t first = at * group, end = lesser(first + group, rows);
    for (int64_t i = first; i < end; ++i) {
      const T *const gi = g + i * n, *const xi = x + i * n;
      const T center = mean[i], scale = inv[i];
      if ((i - first) % 4 == 0 && i + 4 <= end) {
        add_rows<4>(gi, xi, mean + i, inv + i, n, along, total);
      } else if (i >= first + (end - first) / 4 * 4) {
        add_rows<1>(gi, xi, mean + i, inv + i, n, along, total);
      }
      const T* di = gi;
      if (gamma) {
        for (int64_t j = 0; j < n; ++j) d[j] = gi[j] * gamma[j];
        di = d;
      }
      double s[2];
      row_sums(di, xi, center, n, s);
      const double m = static_cast<double>(n), r = static_cast<double>(scale);
      const T a = static_cast<T>(s[0] / m), b = static_cast<T>(s[1] * r * r / m);
      T* const out = dx + i * n;
      for (int64_t j = 0; j < n; ++j) out[j] = ((di[j] - a) - (xi[j] - center) * b) * scale;
    }
  });
  for (int64_t at = 1; at < groups; ++at)  // group by group: columns of them meet in one set of the first-level cache
    for (int64_t j = 0; j < 2 * n; ++j) sums[j] += sums[at * 2 * n + j];
  for (int64_t j = 0; j < n; ++j) dgamma[j] = static_cast<T>(sums[j]);
  for (int64_t j = 0; j < n; ++j) dbeta[j] = static_cast<T>(sums[n + j]);
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_NORM)
