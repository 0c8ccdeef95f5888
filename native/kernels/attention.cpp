// Attention of several heads: per row of the batch and head, scores, softmax and mixture while all of them lie in the cache.
// Meaning: kernels/reference/softmax.py, functions attention and attention_grad.
// Numerics: the row's maximum is taken out first; a head's result depends on its own operands alone.
#include "sequence.h"

namespace keydnn::KEYDNN_NS {
namespace {

// Lane i of the result: the lanes of v[i], joined as lane_sums adds them.  v is used up.
template <class T, class Join>
KEYDNN_INLINE Vec<T> join_lanes(Vec<T> (&v)[kLanes<T>], Join join) {
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      Vec<T> low, high;
      interleave<T>(v[i], v[i + half], low, high);
      v[i] = join(low, high);
    }
  return v[0];
}

// Rows of n are taken as many at a time as a register has lanes: what is one number a row is then one register, and no
// row waits for its own previous step.

// x (count, n), count <= kLanes<T>, becomes softmax(scale * x), row by row.
template <class T>
void softmax_rows(T* x, int64_t n, int64_t count, T scale) {
  constexpr int64_t lanes = kLanes<T>;
  const T low = -T(__builtin_inf());
  const auto larger = [](Vec<T> a, Vec<T> b) { return (a > b) | (a != a) ? a : b; };
  Vec<T> tops[lanes], sums[lanes];
  T top[lanes], inverse[lanes];
  for (int64_t i = 0; i < lanes; ++i) {
    tops[i] = splat<T>(i < count ? low : T(0));
    for (int64_t j = 0; i < count && j < n; j += lanes) {
      const int64_t live = n - j;
      const Vec<T> v = (live >= lanes ? load(x + i * n + j) : load_part(x + i * n + j, live, T(0))) * scale;
      tops[i] = larger(live >= lanes ? v : load_part(reinterpret_cast<const T*>(&v), live, low), tops[i]);
    }
  }
  store(top, join_lanes<T>(tops, larger));
  for (int64_t i = 0; i < lanes; ++i) {
    sums[i] = splat<T>(i < count ? T(0) : T(1));
    for (int64_t j = 0; i < count && j < n; j += lanes) {
      T* const at = x + i * n + j;
      const int64_t live = n - j;
      const Vec<T> e = vexp<T>((live >= lanes ? load(at) : load_part(at, live, low)) * scale - top[i]);
      sums[i] += e;
      live >= lanes ? store(at, e) : store_part(at, e, live);
    }
  }
  store(inverse, T(1) / join_lanes<T>(sums, [](Vec<T> a, Vec<T> b) { return a + b; }));
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < n; ++j) x[i * n + j] *= inverse[i];
}

// dp (count, n) becomes scale * p * (dp - sum(dp * p)), row by row.
template <class T>
void softmax_rows_grad(T* dp, const T* p, int64_t n, int64_t count, T scale) {
  constexpr int64_t lanes = kLanes<T>;
  Vec<T> sums[lanes] = {};
  T total[lanes];
  for (int64_t i = 0; i < count; ++i) each_lane<T>(n, [&](auto get, auto) { sums[i] += get(dp + i * n) * get(p + i * n); });
  store(total, join_lanes<T>(sums, [](Vec<T> a, Vec<T> b) { return a + b; }));
  for (int64_t i = 0; i < count; ++i)
    each_lane<T>(n, [&](auto get, auto put) { put(dp + i * n, get(p + i * n) * (get(dp + i * n) - total[i]) * scale); });
}

// body(first elements of the head in q and in k, of its plane in p) -> status, for every row and head.
template <class T, class Body>
int each_head(int64_t n, int64_t steps, int64_t keys, int64_t heads, int64_t d, double products, Body body) {
  if (n < 1 || steps < 1 || keys < 1 || heads < 1 || d < 1) return KEYDNN_BAD_SHAPE;
  const double cost = static_cast<double>(n * heads * steps * keys) * (products * static_cast<double>(d) / 16 + 2) * (sizeof(T) / 4);
  int status = KEYDNN_OK;
  parallel_for(n * heads, cost, [&](int64_t item) KEYDNN_NOINLINE {
    const int64_t row = item / heads, head = item % heads;
    const int got = body((row * steps * heads + head) * d, (row * keys * heads + head) * d, item * steps * keys);
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  });
  return status;
}

template <class T>
int attention(const T* q, const T* k, const T* v, T* y, T* p, int64_t n, int64_t steps, int64_t keys, int64_t heads, int64_t d,
              double scale) {
  const int64_t wide = heads * d;
  return each_head<T>(n, steps, keys, heads, d, 2, [&](int64_t at_q, int64_t at_k, int64_t at_p) {
    const Packed<T> across(k + at_k, 1, wide, d, keys), values(v + at_k, wide, 1, keys, d);
    if (!across || !values) return KEYDNN_NO_MEMORY;
    T* const plane = p + at_p;
    rows_product<T>(across, q + at_q, wide, steps, {nullptr, 0, nullptr}, plane, keys);
    for (int64_t i = 0; i < steps; i += kLanes<T>)
      softmax_rows(plane + i * keys, keys, lesser(kLanes<T>, steps - i), static_cast<T>(scale));
    rows_product<T>(values, plane, keys, steps, {nullptr, 0, nullptr}, y + at_q, wide);
    return KEYDNN_OK;
  });
}

template <class T>
int attention_grad(const T* g, const T* p, const T* q, const T* k, const T* v, T* dq, T* dk, T* dv, int64_t n, int64_t steps, int64_t keys,
                   int64_t heads, int64_t d, double scale) {
  const int64_t wide = heads * d;
  return each_head<T>(n, steps, keys, heads, d, 4, [&](int64_t at_q, int64_t at_k, int64_t at_p) {
    const Packed<T> across(v + at_k, 1, wide, d, keys), by_key(k + at_k, wide, 1, keys, d);
    const Packed<T> queries(q + at_q, wide, 1, steps, d), arrived(g + at_q, wide, 1, steps, d);
    const Scratch<T> memory(steps * keys);
    if (!across || !by_key || !queries || !arrived || !memory) return KEYDNN_NO_MEMORY;
    T* const ds = memory.data;
    const T* const plane = p + at_p;
    const Start<T> zero{nullptr, 0, nullptr};
    rows_product<T>(across, g + at_q, wide, steps, zero, ds, keys);
    for (int64_t i = 0; i < steps; i += kLanes<T>)
      softmax_rows_grad(ds + i * keys, plane + i * keys, keys, lesser(kLanes<T>, steps - i), static_cast<T>(scale));
    rows_product<T>(by_key, ds, keys, steps, zero, dq + at_q, wide);
    rows_product<T>(queries, ds, 1, keys, zero, dk + at_k, wide, keys);
    rows_product<T>(arrived, plane, 1, keys, zero, dv + at_k, wide, keys);
    return KEYDNN_OK;
  });
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_ATTENTION)
