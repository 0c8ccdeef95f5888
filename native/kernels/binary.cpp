// Arithmetic and comparisons of two operands that broadcast, and `where`; chunks of kGrain elements of the result.
// Meaning: kernels/reference/elementwise.py, function of the same name.  Bits: those of IEEE 754, so NumPy's.
#include "ahead.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kGrain = 16384;

// z[i] = op(x[i * xs], y[i * ys]); a stride of 0 is a number, 1 an array.  z may be x or y, so no loop carries anything.
template <class T>
using Row = void (*)(const T* x, int64_t xs, const T* y, int64_t ys, T* z, int64_t n, bool past);

template <class T, class Op>
KEYDNN_INLINE void row(const T* x, int64_t xs, const T* y, int64_t ys, T* z, int64_t n, bool past, Op op) {
  const T a = *x, b = *y;
  if (xs && ys) {
    fill_ahead(z, 0, n, past, [=](int64_t i) { return op(x[i], y[i]); }, x, y);
  } else if (xs) {
    fill_ahead(z, 0, n, past, [=](int64_t i) { return op(x[i], b); }, x);
  } else if (ys) {
    fill_ahead(z, 0, n, past, [=](int64_t i) { return op(a, y[i]); }, y);
  } else {
    const T c = op(a, b);
    for (int64_t i = 0; i < n; ++i) z[i] = c;
  }
}

template <class T>
int pairwise(const T* x, const T* y, T* z, const keydnn_pair* axes, Row<T> row) {
  const keydnn_pair& a = *axes;
  const int last = static_cast<int>(a.ndim) - 1;
  if (last < 0 || last >= KEYDNN_MAX_AXES) return KEYDNN_BAD_SHAPE;
  const int64_t inner = a.shape[last], xs = a.x_strides[last], ys = a.y_strides[last];
  int64_t total = inner;
  for (int i = 0; i < last; ++i) total *= a.shape[i];
  if (total == 0) return KEYDNN_OK;
  if (last == 0 && total <= kGrain) {
    row(x, xs, y, ys, z, total, false);
    return KEYDNN_OK;
  }
  const bool past = inner % kLine<T> == 0 && goes_past(total, xs ? x : z, ys ? y : z, z);
  parallel_ranges(total, kGrain, 0.3 * total, [&](int64_t begin, int64_t end) {
    int64_t index[KEYDNN_MAX_AXES], outer = begin / inner, from = begin % inner, xo = 0, yo = 0;
    for (int i = last - 1; i >= 0; --i) {
      index[i] = outer % a.shape[i];
      outer /= a.shape[i];
      xo += index[i] * a.x_strides[i];
      yo += index[i] * a.y_strides[i];
    }
    for (int64_t at = begin; at < end;) {  // row by row of the last axis
      const int64_t n = lesser(inner - from, end - at);
      row(x + xo + from * xs, xs, y + yo + from * ys, ys, z + at, n, past);
      at += n;
      from = 0;
      for (int i = last - 1; i >= 0; --i) {
        xo += a.x_strides[i];
        yo += a.y_strides[i];
        if (++index[i] < a.shape[i]) break;
        xo -= a.shape[i] * a.x_strides[i];
        yo -= a.shape[i] * a.y_strides[i];
        index[i] = 0;
      }
    }
  });
  return KEYDNN_OK;
}

#define KEYDNN_PAIRWISE_KERNEL(name, expression)                                                \
  template <class T>                                                                            \
  void name##_row(const T* x, int64_t xs, const T* y, int64_t ys, T* z, int64_t n, bool past) { \
    row(x, xs, y, ys, z, n, past, [](T a, T b) -> T { return expression; });                    \
  }                                                                                             \
  template <class T>                                                                            \
  int name(const T* x, const T* y, T* z, const keydnn_pair* axes) {                             \
    return pairwise<T>(x, y, z, axes, name##_row<T>);                                           \
  }
KEYDNN_PAIRWISE_KERNEL(add, a + b)
KEYDNN_PAIRWISE_KERNEL(sub, a - b)
KEYDNN_PAIRWISE_KERNEL(mul, a * b)
KEYDNN_PAIRWISE_KERNEL(div, a / b)
KEYDNN_PAIRWISE_KERNEL(maximum, (a > b) | (a != a) ? a : b)  // NaN wins on either side
KEYDNN_PAIRWISE_KERNEL(minimum, (a < b) | (a != a) ? a : b)
KEYDNN_PAIRWISE_KERNEL(gt, a > b ? T(1) : T(0))
KEYDNN_PAIRWISE_KERNEL(ge, a >= b ? T(1) : T(0))
KEYDNN_PAIRWISE_KERNEL(lt, a < b ? T(1) : T(0))
KEYDNN_PAIRWISE_KERNEL(le, a <= b ? T(1) : T(0))
KEYDNN_PAIRWISE_KERNEL(eq, a == b ? T(1) : T(0))
KEYDNN_PAIRWISE_KERNEL(ne, a != b ? T(1) : T(0))

template <class T>
int where(const T* mask, const T* x, const T* y, T* z, int64_t n, int64_t x_stride, int64_t y_stride) {
  if (n == 0) return KEYDNN_OK;
  parallel_ranges(n, kGrain, 0.4 * n, [=](int64_t begin, int64_t end) {
    const T a = *x, b = *y;
    if (x_stride && y_stride) {
      for (int64_t i = begin; i < end; ++i) z[i] = mask[i] != 0 ? x[i] : y[i];
    } else if (x_stride) {
      for (int64_t i = begin; i < end; ++i) z[i] = mask[i] != 0 ? x[i] : b;
    } else {
      for (int64_t i = begin; i < end; ++i) z[i] = mask[i] != 0 ? a : y[i];
    }
  });
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_BINARY)
