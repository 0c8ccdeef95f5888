// Moving bytes: constants, copies with any strides, casts, gathering rows by label.
#include <string.h>

#include <algorithm>

#include "entries.h"
#include "parallel.h"

namespace keydnn::plan {
namespace {

constexpr int64_t kGrain = 16384;

// places: y; integers: n; reals: the value
template <class T>
int fill(const Call& call) {
  T* y = at<T>(call, 0);
  const T value = static_cast<T>(call.f[0]);
  parallel_ranges(call.n[0], kGrain, 0.1 * double(call.n[0]), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = value;
  });
  return KEYDNN_OK;
}

// places: x, y; integers: bytes
int copy_bytes(const Call& call) {
  const char* x = at<char>(call, 0);
  char* y = at<char>(call, 1);
  parallel_ranges(call.n[0], 65536, 0.05 * double(call.n[0]), [=](int64_t begin, int64_t end) {
    memcpy(y + begin, x + begin, static_cast<size_t>(end - begin));
  });
  return KEYDNN_OK;
}

// How many of the axes before the last one repeat the same row of x, laid out one after the other in y.
int repeated_axes(int axes, const int64_t* dim) {
  if (axes < 2 || dim[3 * (axes - 1) + 1] != 1 || dim[3 * (axes - 1) + 2] != 1) return 0;
  int64_t step = dim[3 * (axes - 1)];
  int found = 0;
  for (int a = axes - 2; a >= 0 && dim[3 * a + 1] == 0 && dim[3 * a + 2] == step; --a, ++found) step *= dim[3 * a];
  return found;
}

// `rows` times the row x of n elements: what is there already is copied behind itself, in pieces that stay in cache.
template <class T>
void repeat_row(const T* x, T* y, int64_t n, int64_t rows) {
  constexpr int64_t kPiece = 16384 / sizeof(T);
  if (n == 0 || rows == 0) return;
  memcpy(y, x, sizeof(T) * static_cast<size_t>(n));
  const int64_t whole = n < kPiece ? kPiece / n * n : n;
  for (int64_t done = n; done < n * rows;) {
    const int64_t next = std::min({done, whole, n * rows - done});
    memcpy(y + done, y, sizeof(T) * static_cast<size_t>(next));
    done += next;
  }
}

// y[...] = x[...] with strides in elements; places: x, y; integers: axes, then (size, stride of x, stride of y) per axis,
// outermost first.
template <class T>
int copy_strided(const Call& call) {
  const int axes = static_cast<int>(call.n[0]);
  const int64_t* dim = call.n + 1;
  if (axes == 0) {
    at<T>(call, 1)[0] = at<T>(call, 0)[0];
    return KEYDNN_OK;
  }
  const int64_t inner = dim[3 * (axes - 1)], x_step = dim[3 * (axes - 1) + 1], y_step = dim[3 * (axes - 1) + 2];
  const int again = repeated_axes(axes, dim), outer = axes - 1 - again;
  int64_t repeats = 1, rows = 1;
  for (int a = outer; a < axes - 1; ++a) repeats *= dim[3 * a];
  for (int a = 0; a < outer; ++a) rows *= dim[3 * a];
  const T* x = at<T>(call, 0);
  T* y = at<T>(call, 1);
  if (outer == 0 && again > 0) {
    parallel_ranges(repeats, kGrain / (inner + 1) + 1, 0.05 * double(repeats) * double(inner),
                    [=](int64_t begin, int64_t end) { repeat_row(x, y + begin * inner, inner, end - begin); });
    return KEYDNN_OK;
  }
  const int64_t each = repeats * inner;
  parallel_ranges(rows, each > 0 ? (kGrain + each - 1) / each : 1, 0.3 * double(rows) * double(each), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t rest = row, from = 0, to = 0;
      for (int a = outer - 1; a >= 0; --a) {
        const int64_t i = rest % dim[3 * a];
        rest /= dim[3 * a];
        from += i * dim[3 * a + 1];
        to += i * dim[3 * a + 2];
      }
      if (again > 0) {
        repeat_row(x + from, y + to, inner, repeats);
      } else if (x_step == 1 && y_step == 1) {
        memcpy(y + to, x + from, sizeof(T) * static_cast<size_t>(inner));
      } else {
        for (int64_t i = 0; i < inner; ++i) y[to + i * y_step] = x[from + i * x_step];
      }
    }
  });
  return KEYDNN_OK;
}

template <class From, class To>
int cast(const Call& call) {
  const From* x = at<From>(call, 0);
  To* y = at<To>(call, 1);
  parallel_ranges(call.n[0], kGrain, 0.2 * double(call.n[0]), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<To>(x[i]);
  });
  return KEYDNN_OK;
}

// y = 1 at the index along a new last axis; places: index (int64), y; integers: rows, n
template <class T>
int one_hot(const Call& call) {
  const int64_t rows = call.n[0], n = call.n[1];
  const int64_t* index = at<int64_t>(call, 0);
  T* y = at<T>(call, 1);
  memset(y, 0, sizeof(T) * static_cast<size_t>(rows * n));
  for (int64_t i = 0; i < rows; ++i) {
    if (index[i] < 0 || index[i] >= n) return kBadLabel;
    y[i * n + index[i]] = T(1);
  }
  return KEYDNN_OK;
}

// 1 where two int64 arrays agree; places: x, y, z (float); integers: n
template <class T>
int equal_int64(const Call& call) {
  const int64_t *x = at<int64_t>(call, 0), *y = at<int64_t>(call, 1);
  T* z = at<T>(call, 2);
  for (int64_t i = 0; i < call.n[0]; ++i) z[i] = x[i] == y[i] ? T(1) : T(0);
  return KEYDNN_OK;
}

}  // namespace

void add_movement(Table& table) {
  KEYDNN_ENTER(table, fill);
  table["fill:i64"] = &fill<int64_t>;
  KEYDNN_ENTER(table, one_hot);
  KEYDNN_ENTER(table, equal_int64);
  table["copy_bytes"] = &copy_bytes;
  table["copy_strided:4"] = &copy_strided<uint32_t>;
  table["copy_strided:8"] = &copy_strided<uint64_t>;
  table["cast:f32:f64"] = &cast<float, double>;
  table["cast:f64:f32"] = &cast<double, float>;
  table["cast:i64:f32"] = &cast<int64_t, float>;
  table["cast:i64:f64"] = &cast<int64_t, double>;
  table["cast:f32:i64"] = &cast<float, int64_t>;
  table["cast:f64:i64"] = &cast<double, int64_t>;
}

}  // namespace keydnn::plan
