// Planes: images copied once into scratch memory, framed with zeros, and split by stride, so that every kernel tap reads
// them as one long vector shifted by a constant.
#pragma once
#include <utility>

#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

// A vector of L elements, perhaps fewer than a register holds.
template <class T, int L>
struct Run {
  typedef T vec __attribute__((vector_size(L * sizeof(T))));
  typedef T loose __attribute__((vector_size(L * sizeof(T)), aligned(sizeof(T)), may_alias));
  static KEYDNN_INLINE vec at(const T* p) { return *reinterpret_cast<const loose*>(p); }
  static KEYDNN_INLINE void put(T* p, vec v) { *reinterpret_cast<loose*>(p) = v; }
};

template <class V, int... I>
KEYDNN_INLINE V pick(V x, V y) {
  return __builtin_shufflevector(x, y, I...);
}

// p[0], p[2], ..., L elements.  Nothing beyond the last of them is touched: the second half is read one element early.
template <class T, int L>
KEYDNN_INLINE typename Run<T, L>::vec every_second(const T* p) {
  using V = typename Run<T, L>::vec;
  const V x = Run<T, L>::at(p), y = Run<T, L>::at(p + L - 1);
  if constexpr (L == 16) {
    return pick<V, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31>(x, y);
  } else if constexpr (L == 8) {
    return pick<V, 0, 2, 4, 6, 9, 11, 13, 15>(x, y);
  } else if constexpr (L == 4) {
    return pick<V, 0, 2, 5, 7>(x, y);
  } else {
    return pick<V, 0, 3>(x, y);
  }
}

// x and y, one after the other, are even[0], odd[0], even[1], ...: L elements of each.
template <class V, int... I>
KEYDNN_INLINE void split_pairs(V x, V y, V& even, V& odd, std::integer_sequence<int, I...>) {
  even = pick<V, 2 * I...>(x, y);
  odd = pick<V, (2 * I + 1)...>(x, y);
}
template <class T, int L>
KEYDNN_INLINE void split_pairs(typename Run<T, L>::vec x, typename Run<T, L>::vec y, typename Run<T, L>::vec& even, typename Run<T, L>::vec& odd) {
  split_pairs(x, y, even, odd, std::make_integer_sequence<int, L>{});
}
template <class T, int L>
KEYDNN_INLINE void split_pairs(const T* p, typename Run<T, L>::vec& even, typename Run<T, L>::vec& odd) {
  split_pairs<T, L>(Run<T, L>::at(p), Run<T, L>::at(p + L), even, odd);
}

// x[0], y[0], x[1], y[1], ...: 2 L elements.
template <class T, int L>
KEYDNN_INLINE void put_pairs(T* to, typename Run<T, L>::vec x, typename Run<T, L>::vec y) {
  using V = typename Run<T, L>::vec;
  V low, high;
  if constexpr (L == 1) {
    low = x, high = y;
  } else if constexpr (L == 16) {
    low = pick<V, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(x, y);
    high = pick<V, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(x, y);
  } else if constexpr (L == 8) {
    low = pick<V, 0, 8, 1, 9, 2, 10, 3, 11>(x, y);
    high = pick<V, 4, 12, 5, 13, 6, 14, 7, 15>(x, y);
  } else if constexpr (L == 4) {
    low = pick<V, 0, 4, 1, 5>(x, y);
    high = pick<V, 2, 6, 3, 7>(x, y);
  } else {
    low = pick<V, 0, 2>(x, y);
    high = pick<V, 1, 3>(x, y);
  }
  Run<T, L>::put(to, low);
  Run<T, L>::put(to + L, high);
}

// Calls step(Const<L>{}, i) so that [i, i + L) cover [0, n), the last one overlapping its neighbour; L is shorter than a
// register where n is, and 1 for what is left then.
template <int L, class Step>
KEYDNN_INLINE void cover(int64_t n, Step&& step) {
  if (n >= L) {
    int64_t i = 0;
    for (; i + L <= n; i += L) step(Const<L>{}, i);
    if (i < n) step(Const<L>{}, n - L);
  } else if constexpr (L > 2) {
    cover<L / 2>(n, step);
  } else if (n == 1) {
    step(Const<1>{}, 0);
  }
}

// to[i] = from[i * STEP], i < n; STEP is 1 or 2, and the two do not overlap.
template <class T, int STEP>
KEYDNN_INLINE void copy_run(T* to, const T* from, int64_t n) {
  cover<kLanes<T>>(n, [&](auto lanes, int64_t i) {
    constexpr int L = lanes.value;
    if constexpr (L == 1) {
      to[i] = from[i * STEP];
    } else if constexpr (STEP == 1) {
      Run<T, L>::put(to + i, Run<T, L>::at(from + i));
    } else {
      Run<T, L>::put(to + i, every_second<T, L>(from + 2 * i));
    }
  });
}

// A view into an image: element (r, q) of the plane is source element (row0 + r * row_step, col0 + q * col_step), or zero
// outside of it.
constexpr int64_t kMostFolded = 64;  // columns of a plane that is folded
struct Frame {
  int64_t height, width;                   // of the source
  int64_t row0, col0, row_step, col_step;
  int64_t rows, cols;                      // of the plane
};

// What of a plane's columns has a source: [q0, q1), from source column `first` on.
struct Columns {
  int64_t q0, q1, first;
  explicit Columns(const Frame& f) {
    q0 = lesser(f.cols, f.col0 < 0 ? ceil_div(-f.col0, f.col_step) : int64_t(0));
    q1 = greater(q0, lesser(f.cols, f.width > f.col0 ? ceil_div(f.width - f.col0, f.col_step) : int64_t(0)));
    first = f.col0 + q0 * f.col_step;
  }
};

// to[i] = from[i * step], i < n.
template <class T>
KEYDNN_INLINE void copy_columns(T* to, const T* from, int64_t n, int64_t step) {
  if (step == 1) return copy_run<T, 1>(to, from, n);
  if (step == 2) return copy_run<T, 2>(to, from, n);
  for (int64_t i = 0; i < n; ++i) to[i] = from[i * step];
}

template <class T>
void fill_plane(const T* from, const Frame& f, T* to) {
  constexpr int64_t L = kLanes<T>;
  const Columns columns(f);
  const bool is_narrow = f.cols < L || columns.q0 > L || f.cols - columns.q1 > L;
  for (int64_t r = 0; r < f.rows; ++r, to += f.cols) {
    const int64_t i = f.row0 + r * f.row_step;
    const bool is_outside = i < 0 || i >= f.height;
    if (is_outside || is_narrow) {
      memset(to, 0, sizeof(T) * static_cast<size_t>(f.cols));
    } else {  // both ends, of which the columns between may take back their part
      store(to, Vec<T>{});
      store(to + f.cols - L, Vec<T>{});
    }
    if (!is_outside) copy_columns(to + columns.q0, from + i * f.width + columns.first, columns.q1 - columns.q0, f.col_step);
  }
}

// Two rows of half a register, from p or zeros where p is null: x[0], y[0], x[1], y[1], ...
template <class T, int... I>
KEYDNN_INLINE Vec<T> fold_rows(const T* x, const T* y, std::integer_sequence<int, I...>) {
  constexpr int H = kLanes<T> / 2;
  using Half = typename Run<T, H>::vec;
  const Half a = x ? Run<T, H>::at(x) : Half{}, b = y ? Run<T, H>::at(y) : Half{};
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * H)...);
}

// The same as fill_folded, where a row of two is a register, to be put `left` elements from the start; FRAMED: zeros are there.
template <class T, bool FRAMED>
KEYDNN_INLINE void fill_folded_rows(const T* from, const Frame& f, int64_t down, int64_t left, T* to) {
  constexpr int64_t L = kLanes<T>;
  const Vec<T> zeros = {};
  const int64_t width = 2 * f.cols, last = width - L;
  for (int64_t r = 0, i = f.row0, k = f.row0 + down * f.row_step; r < f.rows - down; ++r, i += f.row_step, k += f.row_step, to += width) {
    const T* const x = i >= 0 && i < f.height ? from + i * f.width : nullptr;
    const T* const y = k >= 0 && k < f.height ? from + k * f.width : nullptr;
    const Vec<T> both = fold_rows<T>(x, y, std::make_integer_sequence<int, L>{});
    if (!FRAMED) {
      store(to, zeros);
      store(to + last, zeros);
    }
    store(to + left, both);
  }
}

// The plane folded: element (r, q), then element (r + down, q), then (r, q + 1), ...; r < rows - down.
template <class T>
void fill_folded(const T* from, const Frame& f, int64_t down, T* to) {
  const Columns columns(f);
  const int64_t n = columns.q1 - columns.q0;
  T rows[2][kMostFolded];
  const T none[kMostFolded] = {};
  const int64_t width = 2 * f.cols;
  const bool is_narrow = width < kLanes<T> || 2 * columns.q0 > kLanes<T> || width - 2 * columns.q1 > kLanes<T>;
  if (!is_narrow && 2 * n == kLanes<T> && f.col_step == 1)
    return fill_folded_rows<T, false>(from + columns.first, f, down, 2 * columns.q0, to);
  if (is_narrow) memset(to, 0, sizeof(T) * static_cast<size_t>(width * (f.rows - down)));
  for (int64_t r = 0; r < f.rows - down; ++r, to += width) {
    if (!is_narrow) {  // both ends, as above
      store(to, Vec<T>{});
      store(to + width - kLanes<T>, Vec<T>{});
    }
    const T* row[2];
    for (int half = 0; half < 2; ++half) {
      const int64_t i = f.row0 + (r + half * down) * f.row_step;
      row[half] = i < 0 || i >= f.height ? none : from + i * f.width + columns.first;
      if (row[half] == none || f.col_step == 1) continue;
      copy_columns(rows[half], row[half], n, f.col_step);
      row[half] = rows[half];
    }
    cover<kLanes<T> / 2>(n, [&](auto lanes, int64_t i) {
      constexpr int L = lanes.value;
      put_pairs<T, L>(to + 2 * (columns.q0 + i), Run<T, L>::at(row[0] + i), Run<T, L>::at(row[1] + i));
    });
  }
}

// The same as fill_plane for `count` images and planes, that far apart each, where all that has no source is zero before.
template <class T>
void fill_inside(const T* from, int64_t from_step, const Frame& f, T* to, int64_t to_step, int64_t count) {
  const Columns across(f), down(Frame{f.width, f.height, f.col0, f.row0, f.col_step, f.row_step, f.cols, f.rows});
  const int64_t rows = down.q1 - down.q0, cols = across.q1 - across.q0, from_row = f.row_step * f.width;
  from += down.first * f.width + across.first;
  to += down.q0 * f.cols + across.q0;
  for (; count > 0; --count, from += from_step, to += to_step)
    for (int64_t r = 0; r < rows; ++r) copy_columns(to + r * f.cols, from + r * from_row, cols, f.col_step);
}

// The same as fill_folded, likewise.
template <class T>
void fill_folded_inside(const T* from, int64_t from_step, const Frame& f, int64_t down, T* to, int64_t to_step, int64_t count) {
  const Columns columns(f);
  const bool in_registers = 2 * (columns.q1 - columns.q0) == kLanes<T> && f.col_step == 1;
  for (; count > 0; --count, from += from_step, to += to_step) {
    if (in_registers) {
      fill_folded_rows<T, true>(from + columns.first, f, down, 2 * columns.q0, to);
    } else {
      fill_folded(from, f, down, to);
    }
  }
}

// The input planes of a convolution: per channel one plane for each (row phase, column phase) that a tap meets.
// Tap (u, v) reads phase (dh u % sh, dw v % sw), shifted by (dh u / sh) rows and (dw v / sw) columns.
// Folded, the rows of the upper and of the lower half of the output meet their elements side by side.
struct InputPlanes {
  keydnn_conv_shape s;
  int64_t rows, pitch, size;               // of one plane, in elements
  int64_t row_phases, col_phases;          // phases 0 .. n-1 exist
  int64_t step = 1;                        // from one column to the next: 2 where planes are folded
  explicit InputPlanes(const keydnn_conv_shape& shape) : s(shape) {
    rows = s.oh + floor_div(s.dh * (s.kh - 1), s.sh);
    pitch = s.ow + floor_div(s.dw * (s.kw - 1), s.sw);
    size = rows * pitch;
    row_phases = lesser(s.sh, s.dh * (s.kh - 1) + 1);
    col_phases = lesser(s.sw, s.dw * (s.kw - 1) + 1);
  }
  void fold() {  // where s.oh is even
    step = 2;
    size = (rows - s.oh / 2) * pitch * step;
  }
  int64_t phases() const { return row_phases * col_phases; }
  int64_t channel() const { return phases() * size; }  // elements of all planes of a channel
  int64_t positions() const { return (s.oh - 1) * pitch + s.ow; }
  // Of tap (c, u, v), c below n_channels, in the planes: all taps in row-major order.
  void offsets(int64_t n_channels, int64_t* to) const {
    int64_t* next = to;
    for (int64_t u = 0; u < s.kh; ++u)
      for (int64_t v = 0; v < s.kw; ++v) {
        const int64_t row = s.dh * u, col = s.dw * v, down = floor_div(row, s.sh), right = floor_div(col, s.sw);
        *next++ = ((row - down * s.sh) * col_phases + col - right * s.sw) * size + (down * pitch + right) * step;
      }
    const int64_t taps = s.kh * s.kw;
    for (int64_t c = 1; c < n_channels; ++c)
      for (int64_t i = 0; i < taps; ++i) *next++ = to[i] + c * channel();
  }
  Frame frame(int64_t row_phase, int64_t col_phase, int64_t r0) const {
    return {s.h, s.w, row_phase - s.ph + r0 * s.sh, col_phase - s.pw, s.sh, s.sw, rows, pitch};
  }
  template <class T>
  void fill(const T* image_channel, T* to) const {
    for (int64_t a = 0; a < row_phases; ++a)
      for (int64_t b = 0; b < col_phases; ++b, to += size) {
        step == 1 ? fill_plane(image_channel, frame(a, b, 0), to) : fill_folded(image_channel, frame(a, b, 0), s.oh / 2, to);
      }
  }
  // Of `count` channels, and of the rows of the output from r0 on; all is zero before.
  template <class T>
  void fill_zeros(const T* image, int64_t count, T* to, int64_t r0) const {
    const int64_t plane = s.h * s.w;
    for (int64_t a = 0; a < row_phases; ++a)
      for (int64_t b = 0; b < col_phases; ++b, to += size) {
        const Frame f = frame(a, b, r0);
        if (step == 1) {
          fill_inside(image, plane, f, to, channel(), count);
        } else {
          fill_folded_inside(image, plane, f, s.oh / 2, to, channel(), count);
        }
      }
  }
};

KEYDNN_INLINE bool is_sane(const keydnn_conv_shape& s) {
  const bool positive = s.kh > 0 && s.kw > 0 && s.sh > 0 && s.sw > 0 && s.dh > 0 && s.dw > 0 && s.groups > 0;
  return positive && s.ph >= 0 && s.pw >= 0 && s.c % s.groups == 0 && s.o % s.groups == 0 && s.n >= 0 && s.c >= 0 && s.o >= 0 &&
         s.h >= 0 && s.w >= 0 && s.oh >= 0 && s.ow >= 0 && (s.oh == 0 || (s.oh - 1) * s.sh + s.dh * (s.kh - 1) < s.h + 2 * s.ph) &&
         (s.ow == 0 || (s.ow - 1) * s.sw + s.dw * (s.kw - 1) < s.w + 2 * s.pw);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
