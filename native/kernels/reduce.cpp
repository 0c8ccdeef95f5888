// Sum, mean, largest and smallest over the axes r0 and r1 of x (k0, r0, k1, r1).
// Meaning: kernels/reference/reduce.py.
// Numerics: means in double (see sums.h), sums of float in double, those of rows and of columns that are near after adding four as
// floats; NaN wins in max and min.
//
// Work is cut into parts of about kPart elements: part p of an output covers fixed positions of r0 (or of r1, where r0
// is 1), and parts are combined in order, so bits depend on the shape alone.
#include "ahead.h"
#include "sums.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kPart = 32768;
constexpr int64_t kNear = 4096;    // elements that stay in the first-level cache, in whatever order they are read
constexpr int64_t kColumns = 256;  // columns that are summed side by side where r1 is 1
constexpr int64_t kTall = 1024;    // rows from which it is so many:
constexpr int64_t kMostColumns = 2048;

// v as doubles, halves added.
KEYDNN_INLINE Vec<double> widened(Vec<float> v) {
  typename PartOf<float>::type half[2];
  memcpy(half, &v, sizeof v);
  return __builtin_convertvector(half[0], Vec<double>) + __builtin_convertvector(half[1], Vec<double>);
}

// A register of doubles' worth of T, and as doubles.
template <class T>
KEYDNN_INLINE typename PartOf<T>::type load_narrow(const T* p) {
  return *reinterpret_cast<const typename PartOf<T>::loose*>(p);
}
KEYDNN_INLINE Vec<double> widened(PartOf<float>::type v) {
#if defined(KEYDNN_IS_avx512)
  return _mm512_cvtps_pd(v);  // GCC makes four instructions of the general form
#else
  return __builtin_convertvector(v, Vec<double>);
#endif
}
KEYDNN_INLINE Vec<double> widened(Vec<double> v) { return v; }

// sum_of, but four registers of floats are added as floats, (a + b) + (c + d), before they become doubles.  An element sees
// two roundings to float; in a pairwise sum of floats it sees about log2 n.
KEYDNN_INLINE double quick_sum_of(const double* x, int64_t n, int64_t count, int64_t stride) { return sum_of(x, n, count, stride); }
KEYDNN_INLINE double quick_sum_of(const float* x, int64_t n, int64_t count, int64_t stride) {
  constexpr int64_t L = kLanes<float>;
  Vec<double> even = {}, odd = {};
  double tail = 0;
  for (int64_t run = 0; run < count; ++run, x += stride) {
    int64_t i = 0;
    for (; i + 8 * L <= n; i += 8 * L) {
      const float *const a = x + i, *const b = a + 4 * L;
      for (int64_t j = 0; j < 8 * L; j += kLine<float>) fetch_ahead(a + j);
      even += widened((load(a) + load(a + L)) + (load(a + 2 * L) + load(a + 3 * L)));
      odd += widened((load(b) + load(b + L)) + (load(b + 2 * L) + load(b + 3 * L)));
    }
    for (; i + kWide <= n; i += kWide) even += load_wide(x + i);
    for (; i < n; ++i) tail += static_cast<double>(x[i]);
  }
  return add_lanes(even + odd) + tail;
}

// A rule has its accumulator Acc, run(x, n, count, stride) over `count`
// runs of n neighbours, join(a, b), and finish(a, count).
template <class T>
struct Sum {
  using Acc = double;
  static constexpr bool kIsSum = true, kAddsFour = sizeof(T) == 4;
  static KEYDNN_INLINE double run(const T* x, int64_t n, int64_t count, int64_t stride) { return quick_sum_of(x, n, count, stride); }
  static KEYDNN_INLINE double join(double a, double b) { return a + b; }
  static KEYDNN_INLINE T finish(double a, int64_t) { return static_cast<T>(a); }
};
template <class T>
struct Mean : Sum<T> {
  // all in double: the mean of numbers that exist as floats exists, too
  static constexpr bool kAddsFour = false;
  static KEYDNN_INLINE double run(const T* x, int64_t n, int64_t count, int64_t stride) { return sum_of(x, n, count, stride); }
  static KEYDNN_INLINE T finish(double a, int64_t count) { return static_cast<T>(a / static_cast<double>(count)); }
};
template <class T, bool Up>
struct Extreme {
  using Acc = T;
  static constexpr bool kIsSum = false, kAddsFour = false;
  static KEYDNN_INLINE T run(const T* x, int64_t n, int64_t count, int64_t stride) { return extreme_of<Up>(x, n, count, stride); }
  static KEYDNN_INLINE T join(T a, T b) { return extreme<Up>(a, b); }
  static KEYDNN_INLINE T finish(T a, int64_t) { return a; }
};

// r1 > 1: every output is a number of contiguous runs.
template <class T, class Rule>
int reduce_rows(const T* x, T* y, int64_t k0, int64_t r0, int64_t k1, int64_t r1) {
  using Acc = typename Rule::Acc;
  const int64_t outputs = k0 * k1, each = r0 * r1;
  if (outputs == 1 && each <= kPart) {
    y[0] = Rule::finish(Rule::run(x, r1, r0, r1), each);
    return KEYDNN_OK;
  }
  const double cost = 0.15 * static_cast<double>(outputs * each);
  if (each <= kPart || outputs >= 64) {  // whole outputs
    parallel_ranges(outputs, greater<int64_t>(1, kPart / each), cost, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
      for (int64_t o = begin; o < end; ++o) {
        const T* from = x + (o / k1 * r0 * k1 + o % k1) * r1;
        y[o] = Rule::finish(Rule::run(from, r1, r0, k1 * r1), each);
      }
    });
    return KEYDNN_OK;
  }
  const bool along_r0 = r0 > 1;
  const int64_t step = along_r0 ? greater<int64_t>(1, kPart / r1) : kPart;  // positions of r0 or of r1 in a part
  const int64_t parts = ceil_div(along_r0 ? r0 : r1, step);
  const Scratch<Acc> partial(outputs * parts);
  if (!partial) return KEYDNN_NO_MEMORY;
  Acc* const totals = partial.data;
  parallel_for(outputs * parts, cost, [=](int64_t unit) KEYDNN_NOINLINE {
    const int64_t o = unit / parts, begin = unit % parts * step;
    const T* from = x + (o / k1 * r0 * k1 + o % k1) * r1;
    totals[unit] = along_r0 ? Rule::run(from + begin * k1 * r1, r1, lesser(step, r0 - begin), k1 * r1)
                            : Rule::run(from + begin, lesser(step, r1 - begin), 1, 0);
  });
  for (int64_t o = 0; o < outputs; ++o) {
    Acc total = totals[o * parts];
    for (int64_t p = 1; p < parts; ++p) total = Rule::join(total, totals[o * parts + p]);
    y[o] = Rule::finish(total, each);
  }
  return KEYDNN_OK;
}

// Sums of N neighbouring columns (a divisor of kWide), rows after rows: registers of whole rows, in four chains.
template <class T, int N>
KEYDNN_INLINE void sum_columns(const T* x, int64_t rows, double* sums) {
  Vec<double> chain[4] = {};
  const int64_t n = rows * N;
  int64_t i = 0;
  for (; i + 4 * kWide <= n; i += 4 * kWide)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) chain[c] += load_wide(x + i + c * kWide);
  for (; i + kWide <= n; i += kWide) chain[0] += load_wide(x + i);
  const Vec<double> all = (chain[0] + chain[1]) + (chain[2] + chain[3]);
  for (int j = 0; j < N; ++j) sums[j] = 0;
  for (int j = 0; j < kWide; ++j) sums[j % N] += all[j];
  for (; i < n; ++i) sums[i % N] += static_cast<double>(x[i]);
}

// Whether that did the sums of n columns.
template <class T>
bool sum_few(const T* x, int64_t rows, int64_t n, double* sums) {
  if (n == 1) return sum_columns<T, 1>(x, rows, sums), true;
  if (n == 2) return sum_columns<T, 2>(x, rows, sums), true;
  if constexpr (kWide >= 4)
    if (n == 4) return sum_columns<T, 4>(x, rows, sums), true;
  if constexpr (kWide >= 8)
    if (n == 8) return sum_columns<T, 8>(x, rows, sums), true;
  return false;
}
template <class T, class Acc>
bool sum_few(const T*, int64_t, int64_t, Acc*) {
  return false;
}

// Sums of n columns of a few rows, a register's worth of columns after the other; every sum runs in order of the rows.  kFours:
// four of them are added as they are, (a + b) + (c + d), before they become doubles.
template <bool kFours, class T>
void sum_side_by_side(const T* x, int64_t rows, int64_t row, int64_t n, double* sums) {
  const int64_t fours = kFours ? rows / 4 * 4 : 0;
  auto columns = [&](auto count, int64_t j) {
    constexpr int64_t part = kWide;
    Vec<double> sum[count.value];
#pragma GCC unroll 4
    for (int c = 0; c < count.value; ++c) sum[c] = splat(-0.0);  // adding to it keeps every bit
    const T* from = x + j;
    for (int64_t i = 0; i < fours; i += 4, from += 4 * row)
#pragma GCC unroll 4
      for (int c = 0; c < count.value; ++c) {
        const T* const at = from + c * part;
        sum[c] += widened((load_narrow(at) + load_narrow(at + row)) + (load_narrow(at + 2 * row) + load_narrow(at + 3 * row)));
      }
    for (int64_t i = fours; i < rows; ++i, from += row)
#pragma GCC unroll 4
      for (int c = 0; c < count.value; ++c) sum[c] += load_wide(from + c * part);
#pragma GCC unroll 4
    for (int c = 0; c < count.value; ++c) store(sums + j + c * part, sum[c]);
  };
  int64_t j = 0;
  for (; j + 4 * kWide <= n; j += 4 * kWide) columns(Const<4>{}, j);
  for (; j + kWide <= n; j += kWide) columns(Const<1>{}, j);
  for (; j < n; ++j) {
    const T* from = x + j;
    sums[j] = -0.0;
    for (int64_t i = 0; i < fours; i += 4, from += 4 * row) sums[j] += static_cast<double>((from[0] + from[row]) + (from[2 * row] + from[3 * row]));
    for (int64_t i = fours; i < rows; ++i, from += row) sums[j] += static_cast<double>(*from);
  }
}
template <bool kFours, class T, class Acc>
void sum_side_by_side(const T*, int64_t, int64_t, int64_t, Acc*) {}

// Sums or means of columns that are few and near: nothing is cut, so nothing need be divided.
template <class T, class Rule>
KEYDNN_NOINLINE void sum_near(const T* x, T* y, int64_t rows, int64_t n) {
  typename Rule::Acc sums[kColumns];
  if (!sum_few(x, rows, n, sums)) sum_side_by_side<Rule::kAddsFour>(x, rows, n, n, sums);
  for (int64_t j = 0; j < n; ++j) y[j] = Rule::finish(sums[j], rows);
}

// r1 = 1: k1 neighbouring outputs are reduced side by side, kColumns or (long runs of memory, where there is much) kMostColumns
// at a time.
template <class T, class Rule>
int reduce_columns(const T* x, T* y, int64_t k0, int64_t r0, int64_t k1) {
  using Acc = typename Rule::Acc;
  if (Rule::kIsSum && k0 == 1 && k1 <= kColumns && r0 * k1 <= kNear) {
    sum_near<T, Rule>(x, y, r0, k1);
    return KEYDNN_OK;
  }
  const int64_t columns = r0 < kTall ? kColumns : kMostColumns, width = lesser(k1, columns), blocks = ceil_div(k1, columns);
  const int64_t step = greater(kPart / width, r0 < kTall ? 1 : ceil_div(r0, 32)), parts = ceil_div(r0, step);
  const Scratch<Acc> partial(parts > 1 ? k0 * parts * k1 : 0);
  if (parts > 1 && !partial) return KEYDNN_NO_MEMORY;
  Acc* const totals = partial.data;
  parallel_for(k0 * parts * blocks, 0.2 * static_cast<double>(k0 * r0 * k1), [=](int64_t unit) KEYDNN_NOINLINE {
    const int64_t block = unit % blocks, part = unit / blocks % parts, o = unit / blocks / parts;
    const int64_t column = block * columns, n = lesser(columns, k1 - column);
    const T* from = x + (o * r0 + part * step) * k1 + column;
    Acc sums[kMostColumns];
    const int64_t rows = lesser(step, r0 - part * step);
    if (Rule::kIsSum && rows * k1 <= kNear) {
      if (!sum_few(from, rows, k1, sums)) sum_side_by_side<false>(from, rows, k1, n, sums);
    } else if (!(Rule::kIsSum && sum_few(from, rows, k1, sums))) {
      for (int64_t j = 0; j < n; ++j) sums[j] = from[j];
      for (int64_t i = 1; i < rows; ++i) {
        const T* row = from + i * k1;
        each_ahead<T>(0, n, [&](int64_t j) { sums[j] = Rule::join(sums[j], static_cast<Acc>(row[j])); }, row);
      }
    }
    if (parts == 1) {
      for (int64_t j = 0; j < n; ++j) y[o * k1 + column + j] = Rule::finish(sums[j], r0);
    } else {
      for (int64_t j = 0; j < n; ++j) totals[(o * parts + part) * k1 + column + j] = sums[j];
    }
  });
  if (parts == 1) return KEYDNN_OK;
  parallel_for(k0 * blocks, 0.3 * static_cast<double>(k0 * parts * k1), [=](int64_t unit) KEYDNN_NOINLINE {
    const int64_t o = unit / blocks, column = unit % blocks * columns, n = lesser(columns, k1 - column);
    Acc* const first = totals + o * parts * k1 + column;
    for (int64_t p = 1; p < parts; ++p)
      for (int64_t j = 0; j < n; ++j) first[j] = Rule::join(first[j], first[p * k1 + j]);
    for (int64_t j = 0; j < n; ++j) y[o * k1 + column + j] = Rule::finish(first[j], r0);
  });
  return KEYDNN_OK;
}

template <class T, class Rule>
int reduce(const T* x, T* y, int64_t k0, int64_t r0, int64_t k1, int64_t r1) {
  if (k0 < 1 || r0 < 1 || k1 < 1 || r1 < 1) return KEYDNN_BAD_SHAPE;
  return r1 > 1 ? reduce_rows<T, Rule>(x, y, k0, r0, k1, r1) : reduce_columns<T, Rule>(x, y, k0, r0, k1);
}

template <class T>
int sum(const T* x, T* y, int64_t k0, int64_t r0, int64_t k1, int64_t r1) {
  return reduce<T, Sum<T>>(x, y, k0, r0, k1, r1);
}
template <class T>
int mean(const T* x, T* y, int64_t k0, int64_t r0, int64_t k1, int64_t r1) {
  return reduce<T, Mean<T>>(x, y, k0, r0, k1, r1);
}
template <class T>
int max(const T* x, T* y, int64_t k0, int64_t r0, int64_t k1, int64_t r1) {
  return reduce<T, Extreme<T, true>>(x, y, k0, r0, k1, r1);
}
template <class T>
int min(const T* x, T* y, int64_t k0, int64_t r0, int64_t k1, int64_t r1) {
  return reduce<T, Extreme<T, false>>(x, y, k0, r0, k1, r1);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_REDUCE)
