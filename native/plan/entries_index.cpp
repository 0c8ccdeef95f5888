// Elements found by int64 indices, and reductions that have no kernel family.
// Meaning: kernels/reference/movement.py and reduce.py; negative indices count from the end, others outside are an error.
#include <string.h>

#include "entries.h"

namespace keydnn::plan {
namespace {

// index as a position in [0, n), or -1
int64_t position(int64_t index, int64_t n) {
  const int64_t at = index < 0 ? index + n : index;
  return at >= 0 && at < n ? at : -1;
}

// y[i, j, k] = x[i, index[i, j, k], k]; places: x, index, y; integers: before, along x, along index, behind
template <class T>
int gather(const Call& call) {
  const int64_t before = call.n[0], n = call.n[1], m = call.n[2], behind = call.n[3];
  const T* x = at<T>(call, 0);
  const int64_t* index = at<int64_t>(call, 1);
  T* y = at<T>(call, 2);
  for (int64_t i = 0; i < before; ++i, x += n * behind)
    for (int64_t j = 0; j < m; ++j)
      for (int64_t k = 0; k < behind; ++k) {
        const int64_t from = position(*index++, n);
        if (from < 0) return KEYDNN_BAD_INDEX;
        *y++ = x[from * behind + k];
      }
  return KEYDNN_OK;
}

// y = x with src added where gather would read, in order; places: x, index, src, y; integers as gather's
template <class T>
int scatter_add(const Call& call) {
  const int64_t before = call.n[0], n = call.n[1], m = call.n[2], behind = call.n[3];
  const int64_t* index = at<int64_t>(call, 1);
  const T* src = at<T>(call, 2);
  T* y = at<T>(call, 3);
  memcpy(y, at<T>(call, 0), sizeof(T) * static_cast<size_t>(before * n * behind));
  for (int64_t i = 0; i < before; ++i, y += n * behind)
    for (int64_t j = 0; j < m; ++j)
      for (int64_t k = 0; k < behind; ++k) {
        const int64_t to = position(*index++, n);
        if (to < 0) return KEYDNN_BAD_INDEX;
        y[to * behind + k] += *src++;
      }
  return KEYDNN_OK;
}

// A running sum, in double; places: x, y; integers: before, along, behind
template <class T>
int cumsum(const Call& call) {
  const int64_t along = call.n[1], behind = call.n[2];
  for (int64_t i = 0; i < call.n[0]; ++i)
    for (int64_t k = 0; k < behind; ++k) {
      const T* x = at<T>(call, 0) + i * along * behind + k;
      T* y = at<T>(call, 1) + i * along * behind + k;
      double sum = 0;
      for (int64_t j = 0; j < along; ++j) y[j * behind] = static_cast<T>(sum = j ? sum + double(x[j * behind]) : double(x[0]));
    }
  return KEYDNN_OK;
}

// places: x, y; integers: k0, r0, k1, r1 as the other reductions'
template <class T, class Join>
int reduced(const Call& call, double first, Join join) {
  const int64_t *n = call.n, inner = n[2] * n[3];
  T* y = at<T>(call, 1);
  for (int64_t a = 0; a < n[0]; ++a)
    for (int64_t c = 0; c < n[2]; ++c) {
      double value = first;
      for (int64_t b = 0; b < n[1]; ++b) {
        const T* x = at<T>(call, 0) + (a * n[1] + b) * inner + c * n[3];
        for (int64_t d = 0; d < n[3]; ++d) value = join(value, double(x[d]));
      }
      *y++ = static_cast<T>(value);
    }
  return KEYDNN_OK;
}
template <class T>
int prod(const Call& call) {
  return reduced<T>(call, 1.0, [](double a, double b) { return a * b; });
}
template <class T>
int any(const Call& call) {
  return reduced<T>(call, 0.0, [](double a, double b) { return a != 0 || b != 0 ? 1.0 : 0.0; });
}
template <class T>
int all(const Call& call) {
  return reduced<T>(call, 1.0, [](double a, double b) { return a != 0 && b != 0 ? 1.0 : 0.0; });
}

}  // namespace

void add_index(Table& table) {
  KEYDNN_ENTER(table, gather);
  KEYDNN_ENTER(table, scatter_add);
  KEYDNN_ENTER(table, cumsum);
  KEYDNN_ENTER(table, prod);
  KEYDNN_ENTER(table, any);
  KEYDNN_ENTER(table, all);
}

}  // namespace keydnn::plan
