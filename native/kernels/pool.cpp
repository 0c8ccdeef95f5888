// 2-D pooling: maximum with the position that won, average, their gradients, and the mean of whole planes.
//
// One plane after the other; inside, one output row is built tap by tap, so that every inner loop runs along a row and is
// vector code.  Windows 2x2 with stride 2 and no padding, the usual ones, have a loop of their own.
// The maximum: ties go to the first position in row-major order, the first NaN wins, padding never does.
// Numerics: averages are summed in the array's precision in row-major order; plane_mean sums in double.
// Meaning: kernels/reference, functions of the same names (plane_mean: global_avgpool2d).
#include "relu_windows.h"

namespace keydnn::KEYDNN_NS {
namespace {

using Shape = keydnn_pool_shape;

bool is_sane(const Shape& s) {
  return s.planes >= 0 && s.h >= 0 && s.w >= 0 && s.oh >= 0 && s.ow >= 0 && s.kh > 0 && s.kw > 0 && s.sh > 0 && s.sw > 0 && s.ph >= 0 &&
         s.pw >= 0 && (s.oh == 0 || (s.oh - 1) * s.sh + s.kh <= s.h + 2 * s.ph) &&
         (s.ow == 0 || (s.ow - 1) * s.sw + s.kw <= s.w + 2 * s.pw);
}

bool is_plain_2x2(const Shape& s) { return s.kh == 2 && s.kw == 2 && s.sh == 2 && s.sw == 2 && s.ph == 0 && s.pw == 0; }

// body(plane) for all planes, in chunks of about 16,000 elements of x.
template <class Body>
void for_planes(int64_t planes, int64_t size, double ns_per_element, Body body) {
  const int64_t grain = greater(int64_t(1), 16384 / greater(size, int64_t(1)));
  parallel_ranges(planes, grain, ns_per_element * planes * size, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) body(plane);
  });
}

// Windows [begin, end) along one axis whose tap `at` falls on a real cell.
struct Span {
  int64_t begin, end;
  Span(int64_t at, int64_t count, int64_t size, int64_t stride, int64_t padding) {
    const int64_t first = padding - at, last = size + padding - at;  // cells stride * j in [first, last) are real
    begin = lesser(count, first > 0 ? ceil_div(first, stride) : int64_t(0));
    end = greater(begin, lesser(count, last > 0 ? ceil_div(last, stride) : int64_t(0)));
  }
};

// Calls f(step) with a constant step where the compiler can use one.
template <class F>
KEYDNN_INLINE void with_step(int64_t step, F&& f) {
  if (step == 1) return f([](int64_t j) { return j; });
  if (step == 2) return f([](int64_t j) { return 2 * j; });
  f([=](int64_t j) { return j * step; });
}

// Calls f(offset, span, u, v) for the taps (u, v) of output row i: its windows `span` meet the cells offset + j * sw of the plane.
template <class F>
KEYDNN_INLINE void for_taps(const Shape& s, int64_t i, F&& f) {
  for (int64_t u = 0; u < s.kh; ++u) {
    const int64_t row = s.sh * i + u - s.ph;
    if (row < 0 || row >= s.h) continue;
    for (int64_t v = 0; v < s.kw; ++v) f(row * s.w + v - s.pw, Span(v, s.ow, s.w, s.sw, s.pw), u, v);
  }
}

// ---- maximum -------------------------------------------------------------------------------------------------------

// The best values so far and where they were, L windows at a time (or one: then the members are numbers).  Positions are
// of type I.
template <class T, class I, int L>
struct Best {
  using Value = typename Run<T, L>::vec;
  using Index = typename Run<I, L>::vec;
  Value value;
  Index at;
  // Takes `v`, found at `where`, where it is larger; the first NaN wins and stays.
  KEYDNN_INLINE void meet(Value v, Index where) {
    const auto take = ~((v <= value) | (value != value));
    value = take ? v : value;
    at = __builtin_convertvector(take, Index) ? where : at;
  }
};
template <class T, class I>
struct Best<T, I, 1> {
  using Index = I;
  T value;
  I at;
  KEYDNN_INLINE void meet(T v, I where) {
    const bool take = !((v <= value) | (value != value));
    value = take ? v : value;
    at = take ? where : at;
  }
};

template <class T, int L>
KEYDNN_INLINE auto fetch(const T* p) {
  if constexpr (L == 1) {
    return *p;
  } else {
    return Run<T, L>::at(p);
  }
}
template <class T, int L, class V>
KEYDNN_INLINE void keep(T* p, V v) {
  if constexpr (L == 1) {
    *p = v;
  } else {
    Run<T, L>::put(p, v);
  }
}
template <class T, int L, int STEP>
KEYDNN_INLINE auto fetch_step(const T* p) {
  if constexpr (L > 1 && STEP == 2) {
    return every_second<T, L>(p);
  } else {
    return fetch<T, L>(p);
  }
}

// first, first + step, ...
template <int L>
KEYDNN_INLINE auto ramp(int64_t first, int64_t step) {
  if constexpr (L == 1) {
    return first;
  } else {
    typename Run<int64_t, L>::vec v;
    for (int i = 0; i < L; ++i) v[i] = first + i * step;
    return v;
  }
}

// Positions as integers of 64 bits.
template <int L, class I>
KEYDNN_INLINE auto widen(I at) {
  if constexpr (L == 1) {
    return static_cast<int64_t>(at);
  } else {
    return __builtin_convertvector(at, typename Run<int64_t, L>::vec);
  }
}

// One row of windows 2x2 with stride 2; at: position of the first window's corner.  Positions relative to the corner are
// integers as wide as T, so that masks fit.
template <class T>
void max_row_2x2(const T* top, const T* bottom, int64_t width, int64_t at, int64_t n, T* y, int64_t* argmax) {
  using Int = typename SameSize<T>::type;
  const Int below = static_cast<Int>(width);
  cover<kLanes<T>>(n, [&](auto lanes, int64_t j) {
    constexpr int L = lanes.value;
    using B = Best<T, Int, L>;
    const typename B::Index corner = {};
    B best{fetch_step<T, L, 2>(top + 2 * j), corner};
    best.meet(fetch_step<T, L, 2>(top + 2 * j + 1), corner + 1);
    best.meet(fetch_step<T, L, 2>(bottom + 2 * j), corner + below);
    best.meet(fetch_step<T, L, 2>(bottom + 2 * j + 1), corner + below + 1);
    keep<T, L>(y + j, best.value);
    keep<int64_t, L>(argmax + j, ramp<L>(at + 2 * j, 2) + widen<L>(best.at));
  });
}

// The same without positions.  L windows, whose numbers lie side by side.
template <class T, int L>
KEYDNN_INLINE auto largest_of_pairs(const T* p) {
  if constexpr (L == 1) {
    return first_largest(p[0], p[1]);
  } else {
    typename Run<T, L>::vec even, odd;
    split_pairs<T, L>(p, even, odd);
    return first_largest(even, odd);
  }
}
template <class T, int L>
KEYDNN_INLINE void largest_2x2(const T* top, const T* bottom, T* y) {
  keep<T, L>(y, first_largest(largest_of_pairs<T, L>(top), largest_of_pairs<T, L>(bottom)));
}
// Rows [begin, end) of windows, n in each, over rows of x that lie `width` apart.  Rows that do not fill a register but more than half of
// it take a whole one, whose surplus the next row overwrites.
template <class T, int L = kLanes<T>>
void largest_rows_2x2(const T* x, int64_t width, int64_t n, int64_t begin, int64_t end, T* y) {
  if constexpr (L > 2)
    if (2 * n <= L) return largest_rows_2x2<T, L / 2>(x, width, n, begin, end, y);
  int64_t i = begin;
  for (; n < L && i + 1 < end; ++i) largest_2x2<T, L>(x + 2 * i * width, x + (2 * i + 1) * width, y + i * n);
  for (; i < end; ++i) {
    const T *const top = x + 2 * i * width, *const bottom = top + width;
    cover<L>(n, [&](auto lanes, int64_t j) { largest_2x2<T, lanes.value>(top + 2 * j, bottom + 2 * j, y + i * n + j); });
  }
}

// One tap of an output row: window j meets from[j * step], which lies at `at` + j * step.
template <class T, int STEP>
void max_tap(const T* from, int64_t at, const Span& span, T* y, int64_t* argmax) {
  cover<kLanes<int64_t>>(span.end - span.begin, [&](auto lanes, int64_t i) {
    constexpr int L = lanes.value;
    const int64_t j = span.begin + i;
    Best<T, int64_t, L> best{fetch<T, L>(y + j), fetch<int64_t, L>(argmax + j)};
    best.meet(fetch_step<T, L, STEP>(from + j * STEP), ramp<L>(at + j * STEP, STEP));
    keep<T, L>(y + j, best.value);
    keep<int64_t, L>(argmax + j, best.at);
  });
}
template <class T>
void max_tap_any(const T* from, int64_t at, int64_t step, const Span& span, T* y, int64_t* argmax) {
  for (int64_t j = span.begin; j < span.end; ++j) {
    Best<T, int64_t, 1> best{y[j], argmax[j]};
    best.meet(from[j * step], at + j * step);
    y[j] = best.value;
    argmax[j] = best.at;
  }
}

// Output row i of any windows.
template <class T>
void max_row(const Shape& s, const T* x, int64_t i, T* y, int64_t* argmax) {
  const int64_t width = s.w + 2 * s.pw, top = s.sh * i;
  const int64_t first_row = lesser(greater(top, s.ph), top + s.kh - 1);  // of real cells; what a window of -inf points at
  for (int64_t j = 0; j < s.ow; ++j) {
    y[j] = -static_cast<T>(INFINITY);
    argmax[j] = first_row * width + lesser(greater(s.sw * j, s.pw), s.sw * j + s.kw - 1);
  }
  for_taps(s, i, [&](int64_t offset, const Span& span, int64_t u, int64_t v) {
    const int64_t at = (top + u) * width + v;
    if (s.sw == 1) {
      max_tap<T, 1>(x + offset, at, span, y, argmax);
    } else if (s.sw == 2) {
      max_tap<T, 2>(x + offset, at, span, y, argmax);
    } else {
      max_tap_any(x + offset, at, s.sw, span, y, argmax);
    }
  });
}

// Output row i of any windows, without positions.
template <class T>
void largest_row(const Shape& s, const T* x, int64_t i, T* y) {
  for (int64_t j = 0; j < s.ow; ++j) y[j] = -static_cast<T>(INFINITY);
  for_taps(s, i, [&](int64_t offset, const Span& span, int64_t, int64_t) {
    with_step(s.sw, [&](auto step) {
      for (int64_t j = span.begin; j < span.end; ++j) y[j] = first_largest(y[j], x[offset + step(j)]);
    });
  });
}

template <class T>
int maxpool2d(const T* x, T* y, int64_t* argmax, const Shape* shape) {
  const Shape& s = *shape;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  const bool plain = is_plain_2x2(s) && s.w < (int64_t(1) << 30);
  if (plain && !argmax && s.h % 2 == 0) {  // planes follow one another as their rows do
    const int64_t rows = s.planes * s.oh, grain = greater(int64_t(1), 8192 / greater(s.w, int64_t(1)));
    parallel_ranges(rows, grain, 0.5 * rows * s.w, [&](int64_t begin, int64_t end) { largest_rows_2x2(x, s.w, s.ow, begin, end, y); });
    return KEYDNN_OK;
  }
  for_planes(s.planes, s.h * s.w, (plain ? 0.5 : 0.5 * s.kh * s.kw) * (argmax ? 1.0 : 0.5), [&](int64_t plane) {
    const T* const from = x + plane * s.h * s.w;
    for (int64_t i = 0; i < s.oh; ++i) {
      const int64_t out = (plane * s.oh + i) * s.ow, row = 2 * i * s.w;
      const T *const top = from + row, *const bottom = top + s.w;
      if (plain && argmax) {
        max_row_2x2(top, bottom, s.w, row, s.ow, y + out, argmax + out);
      } else if (plain) {
        largest_rows_2x2(from, s.w, s.ow, i, i + 1, y + plane * s.oh * s.ow);
      } else if (argmax) {
        max_row(s, from, i, y + out, argmax + out);
      } else {
        largest_row(s, from, i, y + out);
      }
    }
  });
  return KEYDNN_OK;
}

// Adds g at argmax.  With padding this happens in a padded plane, of which the middle is kept.
template <class T>
int maxpool2d_grad(const T* g, const int64_t* argmax, T* dx, const Shape* shape) {
  const Shape& s = *shape;
  const int64_t rows = s.h + 2 * s.ph, width = s.w + 2 * s.pw, cells = rows * width, out = s.oh * s.ow, size = s.h * s.w;
  const bool padded = cells != size;
  int status = KEYDNN_OK;
  for_planes(s.planes, size + out, 1.0, [&](int64_t plane) {
    Scratch<T> frame(padded ? cells : 1);
    if (!frame) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
    T* const to = padded ? frame.data : dx + plane * size;
    memset(to, 0, sizeof(T) * static_cast<size_t>(cells));
    for (int64_t i = plane * out; i < (plane + 1) * out; ++i) {
      if (static_cast<uint64_t>(argmax[i]) >= static_cast<uint64_t>(cells)) {
        return __atomic_store_n(&status, KEYDNN_BAD_SHAPE, __ATOMIC_RELAXED);
      }
      to[argmax[i]] += g[i];
    }
    for (int64_t i = 0; padded && i < s.h; ++i)
      memcpy(dx + plane * size + i * s.w, to + (i + s.ph) * width + s.pw, sizeof(T) * static_cast<size_t>(s.w));
  });
  return status;
}

// ---- average -------------------------------------------------------------------------------------------------------

template <class T>
void mean_row_2x2(const T* top, const T* bottom, int64_t n, T* y) {
  cover<kLanes<T>>(n, [&](auto lanes, int64_t j) {
    constexpr int L = lanes.value;
    const auto above = fetch_step<T, L, 2>(top + 2 * j) + fetch_step<T, L, 2>(top + 2 * j + 1);
    keep<T, L>(y + j, (above + fetch_step<T, L, 2>(bottom + 2 * j) + fetch_step<T, L, 2>(bottom + 2 * j + 1)) * T(0.25));
  });
}

template <class T>
void mean_row(const Shape& s, const T* x, int64_t i, T* y) {
  for (int64_t j = 0; j < s.ow; ++j) y[j] = T(0);
  for_taps(s, i, [&](int64_t offset, const Span& span, int64_t, int64_t) {
    with_step(s.sw, [&](auto step) {
      for (int64_t j = span.begin; j < span.end; ++j) y[j] += x[offset + step(j)];
    });
  });
  const T count = static_cast<T>(s.kh * s.kw);
  for (int64_t j = 0; j < s.ow; ++j) y[j] /= count;
}

template <class T>
int avgpool2d(const T* x, T* y, const Shape* shape) {
  const Shape& s = *shape;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  const bool plain = is_plain_2x2(s);
  for_planes(s.planes, s.h * s.w, plain ? 0.25 : 0.25 * s.kh * s.kw, [&](int64_t plane) {
    const T* const from = x + plane * s.h * s.w;
    for (int64_t i = 0; i < s.oh; ++i) {
      T* const to = y + (plane * s.oh + i) * s.ow;
      if (plain) {
        mean_row_2x2(from + 2 * i * s.w, from + (2 * i + 1) * s.w, s.ow, to);
      } else {
        mean_row(s, from, i, to);
      }
    }
  });
  return KEYDNN_OK;
}

template <class T>
void spread_row_2x2(const T* g, int64_t n, T* top, T* bottom) {
  for (int64_t j = 0; j < n; ++j) {
    const T part = g[j] * T(0.25);
    top[2 * j] = top[2 * j + 1] = part;
    bottom[2 * j] = bottom[2 * j + 1] = part;
  }
}

template <class T>
void spread_row(const Shape& s, const T* g, int64_t i, T* dx) {
  const T count = static_cast<T>(s.kh * s.kw);
  for_taps(s, i, [&](int64_t offset, const Span& span, int64_t, int64_t) {
    with_step(s.sw, [&](auto step) {
      for (int64_t j = span.begin; j < span.end; ++j) dx[offset + step(j)] += g[j] / count;
    });
  });
}

template <class T>
int avgpool2d_grad(const T* g, T* dx, const Shape* shape) {
  const Shape& s = *shape;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  const bool plain = is_plain_2x2(s);
  const int64_t size = s.h * s.w;
  for_planes(s.planes, size, plain ? 0.25 : 0.25 * s.kh * s.kw, [&](int64_t plane) {
    T* const to = dx + plane * size;
    if (!plain || s.h != 2 * s.oh || s.w != 2 * s.ow) memset(to, 0, sizeof(T) * static_cast<size_t>(size));
    for (int64_t i = 0; i < s.oh; ++i) {
      const T* const from = g + (plane * s.oh + i) * s.ow;
      if (plain) {
        spread_row_2x2(from, s.ow, to + 2 * i * s.w, to + (2 * i + 1) * s.w);
      } else {
        spread_row(s, from, i, to);
      }
    }
  });
  return KEYDNN_OK;
}

// Sum of n elements in double, four vectors of partial sums.
template <class T>
double wide_sum(const T* p, int64_t n) {
  constexpr int L = kLanes<double>;
  Vec<double> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L)
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sums[k] += __builtin_convertvector(Run<T, L>::at(p + i + k * L), Vec<double>);
  const Vec<double> all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double total = 0;
  for (int k = 0; k < L; ++k) total += all[k];
  for (; i < n; ++i) total += p[i];
  return total;
}

template <class T>
int plane_mean(const T* x, T* y, int64_t planes, int64_t size) {
  if (planes < 0 || size < 0) return KEYDNN_BAD_SHAPE;
  for_planes(planes, size, 0.15, [&](int64_t plane) {
    y[plane] = static_cast<T>(wide_sum(x + plane * size, size) / static_cast<double>(size));
  });
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_POOL)
