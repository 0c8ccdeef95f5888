// Whole sequences of plain recurrent cells and of long short-term memories, and their gradients.
// Meaning: kernels/reference/recurrent.py.
// The gates' sums are made in the place where the gates are kept: a product of the chunk's states with the packed weights
// that starts from the input's part and the bias, then the gates' functions, while both lie in the cache.
#include "sequence.h"

namespace keydnn::KEYDNN_NS {
namespace {

// ---- h = tanh(p + h_before w + b) ---------------------------------------------------------------------------------------

template <class T>
int rnn(const T* p, const T* w, const T* b, const T* h0, const T* mask, T* h, T* last, int64_t steps, int64_t rows, int64_t n,
        int64_t reverse) {
  const Shape s{steps, rows, n, reverse != 0};
  if (s.is_bad()) return KEYDNN_BAD_SHAPE;
  const Packed<T> weights(w, n, 1, n, n);
  if (!weights) return KEYDNN_NO_MEMORY;
  each_chunk<T>(s, 1, [&](int64_t, int64_t r, int64_t m) {
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t t = s.step(i), at = (t * rows + r) * n;
      const T* const before = state_before(s, h, h0, t, r);
      rows_product(weights, before, n, m, {p + at, n, b}, h + at, n);
      for (int64_t k = 0; k < m; ++k) {
        T* const row = h + at + k * n;
        if (mask && mask[t * rows + r + k] == T(0)) {
          copy_rows(before + k * n, row, n);
        } else {
          each_lane<T>(n, [&](auto get, auto put) { put(row, gate_tanh<T>(get(row))); });
        }
      }
    }
    copy_rows(h + (s.end() * rows + r) * n, last + r * n, m * n);
  });
  return KEYDNN_OK;
}

template <class T>
int rnn_grad(const T* g, const T* g_last, const T* h, const T* w, const T* h0, const T* mask, T* dp, T* dw, T* db, T* dh0, int64_t steps,
             int64_t rows, int64_t n, int64_t reverse) {
  const Shape s{steps, rows, n, reverse != 0};
  if (s.is_bad()) return KEYDNN_BAD_SHAPE;
  const Packed<T> weights(w, 1, n, n, n);
  const ColumnSums<T> sums(s.chunks(), n);
  if (!weights || !sums) return KEYDNN_NO_MEMORY;
  each_chunk<T>(s, 1, [&](int64_t chunk, int64_t r, int64_t m) {
    T* const dh = dh0 + r * n;
    copy_or_clear(g_last ? g_last + r * n : nullptr, dh, m * n);
    for (int64_t i = steps - 1; i >= 0; --i) {
      const int64_t t = s.step(i), at = (t * rows + r) * n;
      for (int64_t k = 0; k < m; ++k) {
        const bool live = !mask || mask[t * rows + r + k] != T(0);
        const T *const here = h + at + k * n, *const arrived = g ? g + at + k * n : nullptr;
        T *const d = dh + k * n, *const da = dp + at + k * n;
        each_lane<T>(n, [&](auto get, auto put) {
          const Vec<T> sum = arrived ? get(d) + get(arrived) : get(d), y = get(here);
          put(da, live ? sum * (T(1) - y * y) : Vec<T>{});
          put(d, live ? Vec<T>{} : sum);
        });
      }
      sums.add(chunk, dp + at, n, m);
      rows_product(weights, dp + at, n, m, {dh, n, nullptr}, dh, n);
    }
  });
  sums.write(db);
  return dw ? weight_grad(s, h, h0, dp, n, n, dw) : KEYDNN_OK;
}

// ---- long short-term memory -----------------------------------------------------------------------------------------------

template <class T>
int lstm(const T* p, const T* w, const T* b, const T* h0, const T* c0, const T* mask, T* h, T* last, T* c_last, T* c, T* gates,
         int64_t steps, int64_t rows, int64_t n, int64_t reverse) {
  const Shape s{steps, rows, n, reverse != 0};
  if (s.is_bad()) return KEYDNN_BAD_SHAPE;
  const int64_t wide = 4 * n;
  const Packed<T> weights(w, wide, 1, n, wide);
  if (!weights) return KEYDNN_NO_MEMORY;
  each_chunk<T>(s, 4, [&](int64_t, int64_t r, int64_t m) {
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t t = s.step(i), at = (t * rows + r) * n;
      const T *const before = state_before(s, h, h0, t, r), *const cell = state_before(s, c, c0, t, r);
      rows_product(weights, before, n, m, {p + 4 * at, wide, b}, gates + 4 * at, wide);
      for (int64_t k = 0; k < m; ++k) {
        T *const a = gates + 4 * at + k * wide, *const to_h = h + at + k * n, *const to_c = c + at + k * n;
        const T* const from_c = cell + k * n;
        each_lane<T>(n, [&](auto get, auto put) {
          const Vec<T> in = gate_sigmoid<T>(get(a)), forget = gate_sigmoid<T>(get(a + n)), g = gate_tanh<T>(get(a + 2 * n));
          const Vec<T> out = gate_sigmoid<T>(get(a + 3 * n)), next = forget * get(from_c) + in * g;
          put(a, in);
          put(a + n, forget);
          put(a + 2 * n, g);
          put(a + 3 * n, out);
          put(to_c, next);
          put(to_h, out * gate_tanh<T>(next));
        });
        if (mask && mask[t * rows + r + k] == T(0)) {
          copy_rows(before + k * n, to_h, n);
          copy_rows(from_c, to_c, n);
        }
      }
    }
    copy_rows(h + (s.end() * rows + r) * n, last + r * n, m * n);
    copy_rows(c + (s.end() * rows + r) * n, c_last + r * n, m * n);
  });
  return KEYDNN_OK;
}

template <class T>
int lstm_grad(const T* g, const T* g_h, const T* g_c, const T* gates, const T* c, const T* h, const T* w, const T* h0, const T* c0,
              const T* mask, T* dp, T* dw, T* db, T* dh0, T* dc0, int64_t steps, int64_t rows, int64_t n, int64_t reverse) {
  const Shape s{steps, rows, n, reverse != 0};
  if (s.is_bad()) return KEYDNN_BAD_SHAPE;
  const int64_t wide = 4 * n;
  const Packed<T> weights(w, 1, wide, wide, n);
  const ColumnSums<T> sums(s.chunks(), wide);
  if (!weights || !sums) return KEYDNN_NO_MEMORY;
  each_chunk<T>(s, 4, [&](int64_t chunk, int64_t r, int64_t m) {
    T *const dh = dh0 + r * n, *const dc = dc0 + r * n;
    copy_or_clear(g_h ? g_h + r * n : nullptr, dh, m * n);
    copy_or_clear(g_c ? g_c + r * n : nullptr, dc, m * n);
    for (int64_t i = steps - 1; i >= 0; --i) {
      const int64_t t = s.step(i), at = (t * rows + r) * n;
      const T* const cell = state_before(s, c, c0, t, r);
      for (int64_t k = 0; k < m; ++k) {
        const T *const a = gates + 4 * at + k * wide, *const arrived = g ? g + at + k * n : nullptr;
        const T *const now = c + at + k * n, *const from_c = cell + k * n;
        T *const d_h = dh + k * n, *const d_c = dc + k * n, *const da = dp + 4 * at + k * wide;
        if (mask && mask[t * rows + r + k] == T(0)) {
          for (int64_t j = 0; arrived && j < n; ++j) d_h[j] += arrived[j];
          memset(da, 0, sizeof(T) * static_cast<size_t>(wide));
          continue;
        }
        each_lane<T>(n, [&](auto get, auto put) {
          const Vec<T> in = get(a), forget = get(a + n), u = get(a + 2 * n), out = get(a + 3 * n), y = gate_tanh<T>(get(now));
          const Vec<T> sum = arrived ? get(d_h) + get(arrived) : get(d_h), d = get(d_c) + sum * out * (T(1) - y * y);
          put(da, d * u * in * (T(1) - in));
          put(da + n, d * get(from_c) * forget * (T(1) - forget));
          put(da + 2 * n, d * in * (T(1) - u * u));
          put(da + 3 * n, sum * y * out * (T(1) - out));
          put(d_c, d * forget);
          put(d_h, Vec<T>{});
        });
      }
      sums.add(chunk, dp + 4 * at, wide, m);
      rows_product(weights, dp + 4 * at, wide, m, {dh, n, nullptr}, dh, n);
    }
  });
  sums.write(db);
  return weight_grad(s, h, h0, dp, wide, wide, dw);
}

// ---- gated recurrent unit: z, r, u along the last axis; with `after` also q = h_before w_u + b ------------------------------

// The biases where the sums want them.
template <class T>
struct GruBias {
  Scratch<T> memory;
  T *zr, *u, *q;
  GruBias(const T* b_ih, const T* b_hh, int64_t n, bool after) : memory(4 * n), zr(memory.data), u(zr + 2 * n), q(u + n) {
    for (int64_t j = 0; memory && j < 3 * n; ++j) {
      const T x = b_ih ? b_ih[j] : T(0), y = b_hh ? b_hh[j] : T(0);
      zr[j] = j < 2 * n || !after ? x + y : x;  // u follows zr
      if (j >= 2 * n) q[j - 2 * n] = y;
    }
  }
};

template <class T>
int gru(const T* p, const T* w, const T* b_ih, const T* b_hh, const T* h0, const T* mask, T* h, T* last, T* gates, int64_t steps,
        int64_t rows, int64_t n, int64_t reverse, int64_t after) {
  const Shape s{steps, rows, n, reverse != 0};
  if (s.is_bad()) return KEYDNN_BAD_SHAPE;
  const int64_t wide = 3 * n, kept = after ? 4 * n : 3 * n;
  const Packed<T> zr(w, wide, 1, n, 2 * n), into_u(w + 2 * n, wide, 1, n, n);
  const GruBias<T> bias(b_ih, b_hh, n, after != 0);
  const Scratch<T> reset(rows * n);  // r * h_before
  if (!zr || !into_u || !bias.memory || !reset) return KEYDNN_NO_MEMORY;
  each_chunk<T>(s, 3, [&](int64_t, int64_t r, int64_t m) {
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t t = s.step(i), at = (t * rows + r) * n;
      const T *const before = state_before(s, h, h0, t, r), *const x = p + 3 * at;
      T* const kept_here = gates + at / n * kept;
      rows_product(zr, before, n, m, {x, wide, bias.zr}, kept_here, kept);
      if (after) {
        rows_product(into_u, before, n, m, {nullptr, 0, bias.q}, kept_here + 3 * n, kept);
      } else {
        for (int64_t k = 0; k < m; ++k) {
          T *const a = kept_here + k * kept, *const to = reset.data + (r + k) * n;
          each_lane<T>(n, [&](auto get, auto put) { put(to, gate_sigmoid<T>(get(a + n)) * get(before + k * n)); });
        }
        rows_product(into_u, reset.data + r * n, n, m, {x + 2 * n, wide, bias.u}, kept_here + 2 * n, kept);
      }
      for (int64_t k = 0; k < m; ++k) {
        T *const a = kept_here + k * kept, *const to = h + at + k * n;
        const T *const from = before + k * n, *const x_u = x + k * wide + 2 * n;
        each_lane<T>(n, [&](auto get, auto put) {
          const Vec<T> z = gate_sigmoid<T>(get(a)), g = gate_sigmoid<T>(get(a + n));
          const Vec<T> u = gate_tanh<T>(after ? (get(x_u) + get(bias.u)) + g * get(a + 3 * n) : get(a + 2 * n));
          put(a, z);
          put(a + n, g);
          put(a + 2 * n, u);
          put(to, (T(1) - z) * u + z * get(from));
        });
        if (mask && mask[t * rows + r + k] == T(0)) copy_rows(from, to, n);
      }
    }
    copy_rows(h + (s.end() * rows + r) * n, last + r * n, m * n);
  });
  return KEYDNN_OK;
}

// What the two variants differ in: one row of one step.  dq, of the recurrent product in u, is du itself without `after`;
// `through` then is dq w_u^T, and `reset` gets r * h_before.
template <class T>
KEYDNN_INLINE void gru_row_grad(bool after, const T* a, const T* before, const T* arrived, const T* through, T* d_h, T* da, T* other,
                                int64_t n) {
  each_lane<T>(n, [&](auto get, auto put) {
    const Vec<T> z = get(a), r = get(a + n), u = get(a + 2 * n), prev = get(before);
    const Vec<T> sum = !after ? get(d_h) : arrived ? get(d_h) + get(arrived) : get(d_h);  // without `after` it was added before
    const Vec<T> du = sum * (T(1) - z) * (T(1) - u * u);
    const Vec<T> dr = after ? du * get(a + 3 * n) : get(through) * prev;
    put(da, sum * (prev - u) * z * (T(1) - z));
    put(da + n, dr * r * (T(1) - r));
    put(da + 2 * n, du);
    put(other, after ? du * r : r * prev);
    put(d_h, after ? sum * z : sum * z + get(through) * r);
  });
}

template <class T>
int gru_grad(const T* g, const T* g_last, const T* gates, const T* h, const T* w, const T* h0, const T* mask, T* dp, T* dw, T* db_ih,
             T* db_hh, T* dh0, int64_t steps, int64_t rows, int64_t n, int64_t reverse, int64_t after) {
  const Shape s{steps, rows, n, reverse != 0};
  if (s.is_bad()) return KEYDNN_BAD_SHAPE;
  const int64_t wide = 3 * n, kept = after ? 4 * n : 3 * n;
  const Packed<T> zr(w, 1, wide, 2 * n, n), into_u(w + 2 * n, 1, wide, n, n);
  const ColumnSums<T> sums(s.chunks(), wide), q_sums(s.chunks(), n);
  const Scratch<T> other(steps * rows * n), through(rows * n), parts(3 * n * n);  // other: dq with `after`, else r * h_before
  if (!zr || !into_u || !sums || !q_sums || !other || !through || !parts) return KEYDNN_NO_MEMORY;
  each_chunk<T>(s, 3, [&](int64_t chunk, int64_t r, int64_t m) {
    T *const dh = dh0 + r * n, *const back = through.data + r * n;
    copy_or_clear(g_last ? g_last + r * n : nullptr, dh, m * n);
    for (int64_t i = steps - 1; i >= 0; --i) {
      const int64_t t = s.step(i), at = (t * rows + r) * n;
      const T *const before = state_before(s, h, h0, t, r), *const kept_here = gates + at / n * kept;
      T *const da = dp + 3 * at, *const extra = other.data + at;
      auto skipped = [&](int64_t k) { return mask && mask[t * rows + r + k] == T(0); };
      if (!after) {
        for (int64_t k = 0; k < m; ++k) {
          const T *const a = kept_here + k * kept, *const arrived = g ? g + at + k * n : nullptr;
          T *const d_h = dh + k * n, *const du = da + k * wide + 2 * n;
          const bool live = !skipped(k);
          each_lane<T>(n, [&](auto get, auto put) {
            const Vec<T> sum = arrived ? get(d_h) + get(arrived) : get(d_h), z = get(a), u = get(a + 2 * n);
            put(du, live ? sum * (T(1) - z) * (T(1) - u * u) : Vec<T>{});
            put(d_h, sum);
          });
        }
        rows_product(into_u, da + 2 * n, wide, m, {nullptr, 0, nullptr}, back, n);
      }
      for (int64_t k = 0; k < m; ++k) {
        const T* const arrived = after && g ? g + at + k * n : nullptr;
        T *const d_h = dh + k * n, *const d_a = da + k * wide;
        if (skipped(k)) {
          for (int64_t j = 0; arrived && j < n; ++j) d_h[j] += arrived[j];
          memset(d_a, 0, sizeof(T) * static_cast<size_t>(wide));
          memset(extra + k * n, 0, sizeof(T) * static_cast<size_t>(n));
        } else {
          gru_row_grad(after != 0, kept_here + k * kept, before + k * n, arrived, back + k * n, d_h, d_a, extra + k * n, n);
        }
      }
      sums.add(chunk, da, wide, m);
      if (after) {
        q_sums.add(chunk, extra, n, m);
        rows_product(into_u, extra, n, m, {dh, n, nullptr}, dh, n);
      }
      rows_product(zr, da, wide, m, {dh, n, nullptr}, dh, n);
    }
  });
  sums.write(db_ih);
  copy_rows(db_ih, db_hh, wide);
  if (after) q_sums.write(db_hh + 2 * n);
  T *const left = parts.data, *const right = left + 2 * n * n;
  int status = weight_grad(s, h, h0, dp, wide, 2 * n, left);
  if (status != KEYDNN_OK) return status;
  if (after) {
    status = weight_grad(s, h, h0, static_cast<const T*>(other.data), n, n, right);
  } else {
    status = api::gemm(static_cast<const T*>(other.data), int64_t(1), n, nullptr, static_cast<const T*>(dp + 2 * n), wide, int64_t(1), nullptr,
                       static_cast<const T*>(nullptr), right, int64_t(1), n, n, steps * rows);
  }
  for (int64_t i = 0; i < n; ++i) {
    copy_rows(left + i * 2 * n, dw + i * wide, 2 * n);
    copy_rows(right + i * n, dw + i * wide + 2 * n, n);
  }
  return status;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_RECURRENT)
