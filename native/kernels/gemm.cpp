// Matrix products: c = a b (+ bias), and relu(c), and the gradient of relu of c.
//
// b is cut into panels of up to three vectors of columns; a panel is packed as [k][columns] when that pays, kDepth rows
// at a time: by the chunk that uses it if one chunk does (few rows of a), else all of b beforehand.  With b transposed
// and few rows of a, c is computed turned (c^T = b^T a^T): then a, the smaller one, is packed, and b is read as it lies.
// With b transposed and at most kFew rows or columns, rows of both are multiplied as they lie, lane by lane.
// Numerics: which path is taken, and every order of summation, follows from m, n, k and the strides alone.
// Meaning: kernels/reference, functions matmul and linear.
#include "few.h"
#include "panels.h"
#include "row_sums.h"
#include "small.h"
#include "thin.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kDepth = 512;       // rows of b that are taken at a time
constexpr int64_t kNarrow = 256;      // rows of a that one chunk may have
constexpr double kLarge = 3e5;        // multiply-adds from which a product is cut for threads
constexpr int64_t kShort = 128;       // rows of b up to which neighbouring panels are packed together
constexpr int64_t kNear = 512 << 10;  // bytes of panels that stay in the second-level cache
constexpr int64_t kStrips = 64;       // rows of a transposed a that are packed together
constexpr int64_t kNearSums = 4096;   // elements up to which sums run in an order of their own, see reduce.cpp
constexpr double kShared = 4e3;       // ns of packing from which threads share it, where they share the product

// ---- how products are cut and packed --------------------------------------------------------------------------------

// From one strip of k columns to the next: not a power of two, which would crowd the cache's sets.
template <class T>
int64_t strip_pitch(int64_t k) {
  return kTileRows * k + kLanes<T>;
}

// Rows [i0, i1) and columns [k0, k0 + n_k) of a, close together: rows as they lie, or strips.
template <class T>
Matrix<T> pack_rows(const Matrix<T>& a, int64_t i0, int64_t i1, int64_t k0, int64_t n_k, T* to) {
  if (a.row == 1) return pack_strips(a, i0, i1, k0, n_k, strip_pitch<T>(n_k), to);
  const int64_t pitch = kDepth + kLanes<T>;  // not a power of two, which would crowd the cache's sets
  for (int64_t i = i0; i < i1; ++i) {
    T* const row = to + (i - i0) * pitch;
    if (a.col == 1) {
      const T* const from = a.at(i, k0);
      int64_t k = 0;
      for (; k + kLanes<T> <= n_k; k += kLanes<T>) {
        __builtin_prefetch(from + a.row + k);  // the next row: memory is not foreseen from row to row
        store(row + k, load(from + k));
      }
      for (; k < n_k; ++k) row[k] = from[k];
    } else {
      for (int64_t k = 0; k < n_k; ++k) row[k] = *a.at(i, k0 + k);
    }
  }
  return {to - i0 * pitch - k0, pitch, 1};
}

// The next rows of b, from k0 on, of the panel that begins at column j.
template <class T>
Next<T> next_rows(const Product<T>& p, int64_t j, int64_t columns, int64_t k0) {
  const int64_t n_k = lesser(kDepth, p.k - k0);
  if (n_k <= 0) return {};
  columns = lesser(columns, p.n - j);
  if (p.b.col == 1) return {p.b.at(k0, j), columns, n_k, p.b.row};
  return {p.b.at(k0, j), n_k, columns, p.b.col};
}

// Whether all of b stays in the second-level cache.
template <class T>
bool is_near(const Product<T>& p) {
  return p.n * p.k * int64_t(sizeof(T)) <= kNear;
}

// What rows meet after `panel` of [p0, p1), from row k0 on, unless it is near; `shared`: all panels, packed.
template <class T>
Soon next_packed(const Product<T>& p, const Panels& panels, int64_t panel, int64_t p0, int64_t p1, int64_t k0, const T* shared) {
  const bool last = panel + 1 == p1;
  panel = last ? p0 : panel + 1;
  k0 += last ? kDepth : 0;
  const int64_t columns = panels.width(panel) * kLanes<T>, n_k = lesser(kDepth, p.k - k0);
  if (n_k <= 0 || is_near(p)) return {};
  return Soon::of(shared + panels.first(panel) * kLanes<T> * p.k + k0 * columns, n_k * columns);
}

// How a product is cut: chunks of `rows` rows times `wide` panels.  Up to kNarrow rows, a chunk has them all and packs its
// own panel; otherwise b is packed beforehand, for all chunks.
struct Cut {
  Panels panels;
  int64_t rows, wide;
  bool shared;
  int64_t down(int64_t m) const { return ceil_div(m, rows); }
  int64_t across() const { return ceil_div(panels.count(), wide); }
};

template <class T>
Cut cut_of(const Product<T>& p) {
  Cut cut = {Panels(ceil_div(p.n, kLanes<T>)), p.m, 1, false};
  const int64_t count = cut.panels.count();
  const bool strips = p.a.row == 1 && p.a.col != 1;  // rows are packed: not again for every few panels
  if (double(p.m) * p.n * p.k < kLarge) {
    cut.wide = count;
  } else if (p.m <= kNarrow && count >= 3 && !(strips && count < 8 && p.k > kDepth / 2)) {
    cut.wide = count >= 32 && p.k <= kShort ? 4 : count >= 16 ? 2 : 1;
  } else if (strips) {
    cut = {cut.panels, p.m >= 1024 ? 128 : p.m >= 512 ? 64 : 32, count, true};
  } else if (p.k <= kDepth * 3 / 4 && count > 3) {  // rows of c are written along, by panels that stay in the cache
    const int64_t most = greater(kNear / int64_t(sizeof(T)) / (p.k * kTileVecs * kLanes<T>), int64_t(4));
    cut = {cut.panels, p.m >= 1024 ? 128 : p.m >= 512 ? 64 : 32, ceil_div(count, ceil_div(count, most)), true};
  } else {
    const int64_t tall = is_near(p) ? 256 : 128;  // panels that come from afar are fetched in time for half of the rows, too
    cut.rows = p.m >= 1024 ? tall : p.m >= 256 ? tall / 2 : 32;
    cut.wide = ceil_div(count, ceil_div(int64_t(8), cut.down(p.m)));
    cut.shared = true;
  }
  return cut;
}

// Rows [i0, i1) times panels [p0, p1).  shared: all panels of b, packed one after the other, or null; sums: of these rows of a,
// or null.
template <class T>
int block(const Product<T>& p, const Panels& panels, int64_t i0, int64_t i1, int64_t p0, int64_t p1, const T* shared,
          RowSums<T>* sums = nullptr) {
  constexpr int64_t lanes = kLanes<T>;
  const bool crowded = p.a.row * int64_t(sizeof(T)) % 4096 == 0 || (!p.a.strip && p.a.row == 1 && p.a.col * int64_t(sizeof(T)) % 512 == 0);
  const bool pack_a = !p.a.strip && i1 - i0 > 2 * kTileRows && (crowded || (p.a.col != 1 && p1 - p0 > 3)) && p.k * (p1 - p0) > 64;
  const bool pack_b = !shared && (p.b.col != 1 || i1 - i0 > 32);
  const int64_t depth = lesser(kDepth, p.k), first = panels.first(p0), last = panels.first(p1 - 1);
  const bool whole = last == first + (p1 - 1 - p0) * kTileVecs && (last + kTileVecs) * lanes <= p.n && panels.width(p1 - 1) == kTileVecs;
  const int64_t group = pack_b && whole && p.k <= kShort && p1 - p0 <= 4 ? p1 - p0 : 1;
  const Room<T> a_room(pack_a ? round_up(i1 - i0, int64_t(kTileRows)) * (kDepth + lanes) : 0), b_room(shared ? 0 : group * depth * kTileVecs * lanes);
  if (!a_room || !b_room) return KEYDNN_NO_MEMORY;
  if (shared && !pack_a && !sums && p.k <= kDepth && p1 - p0 > 3) {
    rows_by_panels(p, panels, i0, i1, p0, p1, shared);
    return KEYDNN_OK;
  }
  for (int64_t k0 = 0; k0 < greater(p.k, int64_t(1)); k0 += kDepth) {
    const int64_t n_k = lesser(kDepth, p.k - k0);
    Product<T> q = p;
    if (pack_a) q.a = pack_rows(p.a, i0, i1, k0, n_k, a_room.data);
    if (sums) sums->add(q.a, k0, n_k);
    if (group > 1) {
      rows_by_group(q, i0, i1, first * lanes, group, b_room.data);
      break;
    }
    for (int64_t panel = p0; panel < p1; ++panel) {
      const int64_t j = panels.first(panel) * lanes, width = panels.width(panel), columns = width * lanes;
      auto rows = [&](const T* b, int64_t b_row, Next<T> next, Soon soon = {}) {
        rows_by_panel(q, i0, i1, j, width, k0, n_k, b, b_row, next, soon);
      };
      if (shared) {
        rows(shared + j * p.k + k0 * columns, columns, {}, next_packed(p, panels, panel, p0, p1, k0, shared));
      } else if (pack_b || j + columns > p.n) {
        pack_panel(p.b, p.n, k0, k0 + n_k, j, columns, b_room.data);
        rows(b_room.data, columns, panel + 1 < p1 ? next_rows(p, j + columns, columns, k0) : next_rows(p, j, columns, k0 + n_k));
      } else {
        rows(p.b.at(k0, j), p.b.row, {});
      }
    }
  }
  return KEYDNN_OK;
}

// The same for panels [0, p1), and the sums of these rows of a.
template <class T>
KEYDNN_NOINLINE int block_with_sums(const Product<T>& p, const Panels& panels, int64_t i0, int64_t i1, int64_t p1, const T* shared) {
  RowSums<T> sums(i1 - i0, i0, p.m, p.k, p.sums);
  return sums ? block<T>(p, panels, i0, i1, 0, p1, shared, &sums) : KEYDNN_NO_MEMORY;
}

// What packing for a product costs; from some microseconds on, that of the product too, which needs the threads anyway: so they
// are awake in time, and each has packed a part of what all read.
template <class T>
double packing_ns(const Product<T>& p, int64_t elements) {
  const double ns = 0.15 * static_cast<double>(elements);
  return ns < kShared ? ns : ns + cost_ns<T>(double(p.m) * p.n * p.k);
}

// All panels of b, one after the other.
template <class T>
void pack_panels(const Matrix<T>& b, int64_t n, int64_t k, const Panels& panels, double ns, T* to) {
  const int64_t deep = ceil_div(k, kDepth);
  parallel_for(panels.count() * deep, ns, [&](int64_t unit) {
    const int64_t panel = unit / deep, k0 = unit % deep * kDepth;
    const int64_t j = panels.first(panel) * kLanes<T>, columns = panels.width(panel) * kLanes<T>;
    pack_panel(b, n, k0, lesser(k0 + kDepth, k), j, columns, to + j * k + k0 * columns);
  });
}

// All rows of a, whose columns are contiguous, in strips.
template <class T>
Matrix<T> pack_all_strips(const Matrix<T>& a, int64_t m, int64_t k, double ns, T* to) {
  const int64_t deep = ceil_div(k, kDepth), pitch = strip_pitch<T>(k);
  parallel_for(ceil_div(m, kStrips) * deep, ns, [&](int64_t unit) {
    const int64_t i = unit / deep * kStrips, k0 = unit % deep * kDepth;
    pack_strips(a, i, lesser(i + kStrips, m), k0, lesser(kDepth, k - k0), pitch, to + i / kTileRows * pitch + k0 * kTileRows);
  });
  return {to, 1, kTileRows, pitch};
}

template <class T>
int by_panels(Product<T> p) {
  const Cut cut = cut_of(p);
  const bool strips = !cut.shared && p.a.row == 1 && p.a.col != 1 && cut.panels.count() > 3;
  const Scratch<T> stripped(strips ? ceil_div(p.m, int64_t(kTileRows)) * strip_pitch<T>(p.k) : 0);
  if (strips) {
    if (!stripped) return KEYDNN_NO_MEMORY;
    p.a = pack_all_strips(p.a, p.m, p.k, packing_ns(p, p.m * p.k), stripped.data);
  }
  const Scratch<T> packed(cut.shared ? cut.panels.vecs * kLanes<T> * p.k : 0);
  if (cut.shared) {
    if (!packed) return KEYDNN_NO_MEMORY;
    pack_panels(p.b, p.n, p.k, cut.panels, packing_ns(p, p.n * p.k), packed.data);
  }
  const int64_t across = cut.across();
  int status = KEYDNN_OK;
  parallel_for(cut.down(p.m) * across, cost_ns<T>(double(p.m) * p.n * p.k), [&](int64_t chunk) {
    const int64_t i0 = chunk / across * cut.rows, p0 = chunk % across * cut.wide;
    const int64_t i1 = lesser(i0 + cut.rows, p.m), p1 = lesser(p0 + cut.wide, cut.panels.count());
    const T* const panels = cut.shared ? packed.data : nullptr;
    const int got = p.sums && p0 == 0 ? block_with_sums<T>(p, cut.panels, i0, i1, p1, panels) : block<T>(p, cut.panels, i0, i1, p0, p1, panels);
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  });
  return status;
}

// ---- turned: c^T = b^T a^T -----------------------------------------------------------------------------------------

// Whether packing b would cost more than packing a and turning c; or a's columns fill registers, and b's rows do not.
template <class T>
bool is_turned(const Product<T>& p) {
  const int64_t lanes = kLanes<T>;
  if (p.a.row == 1 && p.b.col == 1) return p.n < lanes && p.m >= lanes;
  return p.b.row == 1 && p.b.col != 1 && p.a.col == 1 && p.m <= kNarrow && 3 * p.m >= 2 * round_up(p.m, lanes) &&
         2 * p.n * p.k > 3 * p.m * (p.k + 2 * p.n) && double(p.m) * p.n * p.k > kLarge;
}

// Rows [j0, j1) of c^T, at `from`, to columns of c; adds the bias.
template <class T>
void turn_rows(const Product<T>& p, int64_t j0, int64_t j1, const T* from) {
  constexpr int64_t lanes = kLanes<T>;
  alignas(64) T tile[lanes * lanes];
  for (int64_t j = j0; j < j1; j += lanes) {
    const int64_t n_j = lesser(lanes, j1 - j);
    const Vec<T> bias = p.bias ? load_some(p.bias + j, n_j) : Vec<T>{};
    for (int64_t i = 0; i < p.m; i += lanes) {
      const int64_t n_i = lesser(lanes, p.m - i);
      transpose_part<T>(from + (j - j0) * p.m + i, p.m, n_j, n_i, tile, lanes);
      for (int64_t r = 0; r < n_i; ++r) {
        const int64_t at = (i + r) * p.n + j;
        Vec<T> y = load(tile + r * lanes) + bias;
        if (p.relu) y = relu<T>(y);
        if (p.mask) y = load_some(p.mask + at, n_j) > 0 ? y : Vec<T>{};
        store_some(p.c + at, y, n_j);
      }
    }
  }
}

constexpr int64_t kTurned = 32;  // columns of c that are computed before they are turned

template <class T>
int turned(const Product<T>& p) {
  const Panels panels(ceil_div(p.m, kLanes<T>));
  const Matrix<T> b = {p.a.data, p.a.col, p.a.row};
  const bool packs = b.col != 1;
  const Scratch<T> packed(packs ? panels.vecs * kLanes<T> * p.k : 0);
  if (packs) {
    if (!packed) return KEYDNN_NO_MEMORY;
    pack_panels(b, p.m, p.k, panels, packing_ns(p, p.m * p.k), packed.data);
  }
  int status = KEYDNN_OK;
  parallel_ranges(p.n, kTurned, cost_ns<T>(double(p.m) * p.n * p.k), [&](int64_t j0, int64_t j1) {
    const Room<T> turned_c((j1 - j0) * p.m);
    int got = KEYDNN_NO_MEMORY;
    if (turned_c) {
      const Product<T> q = {{p.b.data, p.b.col, p.b.row}, b, nullptr, turned_c.data - j0 * p.m, p.n, p.m, p.k};
      got = block<T>(q, panels, j0, j1, 0, panels.count(), packed.data);
      turn_rows(p, j0, j1, turned_c.data);
    }
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  });
  return status;
}

// ---- one product, many products ------------------------------------------------------------------------------------

template <class T>
int product(const Product<T>& p) {
  if (thin(p.a.data, p.a.row, p.a.col, p.b.data, p.b.row, p.b.col, p.bias, p.c, p.m, p.n, p.k)) {
    for (int64_t i = 0; (p.relu || p.mask) && i < p.m * p.n; ++i) p.c[i] = finished(p, i, p.c[i]);
    return KEYDNN_OK;
  }
  if (is_dot(p)) return dots(p);
  if (is_small(p)) return small_product(p), KEYDNN_OK;
  return is_turned(p) ? turned(p) : by_panels(p);
}

template <class T>
int gemm(const T* a, int64_t a_row, int64_t a_col, const int64_t* a_items, const T* b, int64_t b_row, int64_t b_col,
         const int64_t* b_items, const T* bias, T* c, int64_t batch, int64_t m, int64_t n, int64_t k) {
  if (batch < 0 || m < 0 || n < 0 || k < 0) return KEYDNN_BAD_SHAPE;
  if (batch * m * n == 0) return KEYDNN_OK;
  auto item = [&](int64_t i) {
    return product(Product<T>{{a + (a_items ? a_items[i] : 0), a_row, a_col}, {b + (b_items ? b_items[i] : 0), b_row, b_col}, bias,
                              c + i * m * n, m, n, k});
  };
  int status = KEYDNN_OK;
  auto note = [&](int got) {
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  };
  const double macs = double(m) * n * k;
  if (batch == 1 || macs > 4e6) {  // large items: threads inside each
    for (int64_t i = 0; i < batch; ++i) note(item(i));
  } else {
    const int64_t grain = greater(int64_t(1), int64_t(5e5 / (macs + 1)));
    parallel_ranges(batch, grain, cost_ns<T>(macs * batch), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) note(item(i));
    });
  }
  return status;
}

template <class T>
int linear_relu(const T* x, const T* w, const T* bias, T* y, int64_t m, int64_t n, int64_t k) {
  if (m < 0 || n < 0 || k < 0) return KEYDNN_BAD_SHAPE;
  return m * n == 0 ? KEYDNN_OK : product(Product<T>{{x, k, 1}, {w, 1, k}, bias, y, m, n, k, true});
}

template <class T>
int gemm_sums(const T* a, int64_t a_col, const T* b, int64_t b_row, int64_t b_col, T* c, T* sums, int64_t m, int64_t n, int64_t k) {
  if (m < 1 || n < 0 || k < 1) return KEYDNN_BAD_SHAPE;
  Product<T> p = {{a, 1, a_col}, {b, b_row, b_col}, nullptr, c, m, n, k};
  if (m >= 16 && m * k > kNearSums && n > kThin && n >= kLanes<T> && !is_dot(p) && !is_turned(p)) {
    p.sums = sums;
    return by_panels(p);
  }
  const int got = n == 0 ? KEYDNN_OK : product(p);
  return got == KEYDNN_OK ? api::sum(a, sums, 1, k, m, 1) : got;
}

template <class T>
int gemm_relu_grad(const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row, int64_t b_col, const T* y, T* c, int64_t m,
                   int64_t n, int64_t k) {
  if (m < 0 || n < 0 || k < 0) return KEYDNN_BAD_SHAPE;
  return m * n == 0 ? KEYDNN_OK : product(Product<T>{{a, a_row, a_col}, {b, b_row, b_col}, nullptr, c, m, n, k, false, y});
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_GEMM)
