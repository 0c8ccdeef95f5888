// Rows of a table by number, masks of padded sequences, triangles.
// Meaning: kernels/reference/movement.py and recurrent.py.
// Numerics: the gradient adds the rows in the order of the index, whatever the number of threads: the columns are cut, not
// the index.
#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

bool is_good(const int64_t* index, int64_t count, int64_t size) {
  for (int64_t i = 0; i < count; ++i)
    if (index[i] < -size || index[i] >= size) return false;
  return true;
}

template <class T>
int embedding(const T* w, const int64_t* index, T* y, int64_t size, int64_t n, int64_t count, int64_t padding) {
  if (!is_good(index, count, size)) return KEYDNN_BAD_INDEX;
  parallel_ranges(count, greater<int64_t>(1, 16384 / n), 0.2 * static_cast<double>(count * n), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (index[i] == padding && padding >= 0) {
        memset(y + i * n, 0, sizeof(T) * static_cast<size_t>(n));
      } else {
        memcpy(y + i * n, w + (index[i] < 0 ? index[i] + size : index[i]) * n, sizeof(T) * static_cast<size_t>(n));
      }
    }
  });
  return KEYDNN_OK;
}

template <class T>
int embedding_grad(const T* g, const int64_t* index, T* dw, int64_t size, int64_t n, int64_t count, int64_t padding) {
  if (!is_good(index, count, size)) return KEYDNN_BAD_INDEX;
  parallel_ranges(n, 64, 0.2 * static_cast<double>((count + size) * n), [=](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < size; ++i) memset(dw + i * n + begin, 0, sizeof(T) * static_cast<size_t>(end - begin));
    for (int64_t i = 0; i < count; ++i) {
      if (index[i] == padding && padding >= 0) continue;
      T* const to = dw + (index[i] < 0 ? index[i] + size : index[i]) * n;
      const T* const from = g + i * n;
      for (int64_t j = begin; j < end; ++j) to[j] += from[j];
    }
  });
  return KEYDNN_OK;
}

template <class T>
int sequence_mask(const int64_t* lengths, T* m, int64_t steps, int64_t rows) {
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t r = 0; r < rows; ++r) m[t * rows + r] = t < lengths[r] ? T(1) : T(0);
  return KEYDNN_OK;
}

template <class T>
int triangle(const T* x, T* y, int64_t count, int64_t rows, int64_t columns, int64_t k, int64_t lower) {
  const int64_t plane = rows * columns;
  parallel_for(count, 0.3 * static_cast<double>(count * plane), [=](int64_t i) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t at = i * plane + r * columns + c;
        y[at] = (lower ? c <= r + k : c >= r + k) ? x[at] : T(0);
      }
  });
  return KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_LOOKUP)
