// Matrix products: c = a b (+ bias).
//
// b is cut into panels of up to three vectors of columns; a panel is packed as [k][columns] when that pays, kBlock rows
// at a time: by the chunk that uses it if one chunk does (few rows of a), else all of b beforehand.  With b transposed
// and few rows of a, c is computed turned (c^T = b^T a^T): then a, the smaller one, is packed, and b is read as it lies.
// With b transposed and at most kFew rows or columns, rows of both are multiplied as they lie, lane by lane.
// Numerics: which path is taken, and every order of summation, follows from m, n, k and the strides alone.
// Meaning: kernels/reference, functions matmul and linear.
#include "lanes.h"
#include "thin.h"
#include "tile.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr double kMacsPerNs = KEYDNN_VECTOR_BYTES / 4 * 2;  // float multiply-adds, roughly

template <class T>
double cost_ns(double macs) {
  return macs * (sizeof(T) / 4) / kMacsPerNs;
}

template <class T>
struct Matrix {
  const T* data;
  int64_t row, col;
  const T* at(int64_t i, int64_t j) const { return data + i * row + j * col; }
};

template <class T>
struct Product {
  Matrix<T> a, b;
  const T* bias;
  T* c;
  int64_t m, n, k;
};

constexpr int64_t kBlock = 384;       // rows of b that are taken at a time
constexpr int64_t kAhead = 8;         // rows of b that are fetched ahead
constexpr int64_t kNarrow = 256;      // rows of a that one chunk may have
constexpr double kLarge = 3e5;        // multiply-adds from which a product is cut for threads

// The first n of a vector's lanes; n may exceed them.
template <class T>
KEYDNN_INLINE Vec<T> load_some(const T* p, int64_t n) {
  return n >= kLanes<T> ? load(p) : load_part(p, n, T(0));
}
template <class T>
KEYDNN_INLINE void store_some(T* p, Vec<T> v, int64_t n) {
  n >= kLanes<T> ? store(p, v) : store_part(p, v, n);
}

// Scratch memory; a little of it lies on the stack.
template <class T>
struct Room {
  static constexpr int64_t kOnStack = 8192 / sizeof(T);
  alignas(64) T own[kOnStack];
  Scratch<T> more;
  T* data;
  explicit Room(int64_t count) : more(count > kOnStack ? count : 0), data(count > kOnStack ? more.data : own) {}
  explicit operator bool() const { return data != nullptr; }
};

// ---- transposing one block of lanes x lanes ------------------------------------------------------------------------

// to[i * to_row + j] = from[j * from_row + i], i, j < lanes: log2(lanes) rounds of interleaving halves.
template <class T>
KEYDNN_INLINE void transpose_block(const T* from, int64_t from_row, T* to, int64_t to_row) {
  constexpr int n = kLanes<T>;
  Vec<T> v[n], w[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) v[i] = load(from + i * from_row);
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) interleave<T>(v[i], v[i + n / 2], w[2 * i], w[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) v[i] = w[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store(to + i * to_row, v[i]);
}

// The same for n_i columns of n_j rows, with zeros for the other j.
template <class T>
void transpose_part(const T* from, int64_t from_row, int64_t n_j, int64_t n_i, T* to, int64_t to_row) {
  constexpr int64_t n = kLanes<T>;
  alignas(64) T rows[n * n], turned[n * n];
  for (int64_t j = 0; j < n; ++j) store(rows + j * n, j < n_j ? load_some(from + j * from_row, n_i) : Vec<T>{});
  transpose_block<T>(rows, n, turned, n);
  for (int64_t i = 0; i < n_i; ++i) store(to + i * to_row, load(turned + i * n));
}

// Rows [k0, k1) of the panel `columns` wide (a multiple of lanes) from column `first` of b, to [k][columns]; zeros beyond
// column n.
template <class T>
void pack_panel(const Matrix<T>& b, int64_t n, int64_t k0, int64_t k1, int64_t first, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>;
  to -= k0 * columns;
  if (b.col == 1) {
    const int64_t whole = lesser(columns, n - first) / lanes * lanes;
    for (int64_t i = k0; i < k1; ++i) {
      const T* const from = b.at(i, first);
      for (int64_t j = 0; j < whole; j += lanes) store(to + i * columns + j, load(from + j));
      for (int64_t j = whole; j < columns; j += lanes)
        store(to + i * columns + j, first + j < n ? load_some(from + j, n - first - j) : Vec<T>{});
    }
  } else if (b.row == 1) {
    for (int64_t j = 0; j < columns; j += lanes) {
      const int64_t live = n - first - j;
      int64_t i = k0;
      if (live >= lanes)
        for (; i + lanes <= k1; i += lanes) transpose_block<T>(b.at(i, first + j), b.col, to + i * columns + j, columns);
      for (; i < k1; i += lanes) transpose_part<T>(b.at(i, first + j), b.col, live, lesser(lanes, k1 - i), to + i * columns + j, columns);
    }
  } else {
    for (int64_t i = k0; i < k1; ++i)
      for (int64_t j = 0; j < columns; ++j) to[i * columns + j] = first + j < n ? *b.at(i, first + j) : T(0);
  }
}

// ---- packed panels times rows --------------------------------------------------------------------------------------

// One tile of c: rows [i, i + MR) x NR vectors from column j; adds to c unless it is the first block of k.
template <class T, int MR, int NR>
KEYDNN_INLINE void c_tile(const Product<T>& p, int64_t i, int64_t j, int64_t k0, int64_t n_k, const T* b, int64_t b_row) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t live = p.n - j;
  T* const c = p.c + i * p.n + j;
  const int64_t last = live - (NR - 1) * lanes;  // live lanes of the last vector; the others are whole
  const T* from = k0 > 0 ? c : p.bias ? p.bias + j : nullptr;
  const int64_t from_row = k0 > 0 ? p.n : 0;
  Vec<T> acc[MR][NR] = {};
  if (from) {
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < NR - 1; ++v) acc[r][v] = load(from + r * from_row + v * lanes);
      acc[r][NR - 1] = load_some(from + r * from_row + (NR - 1) * lanes, last);
    }
  }
  auto row = [=](int64_t k) {
    const T* const here = b + k * b_row;
#pragma GCC unroll 8
    for (int v = 0; v < NR; ++v) __builtin_prefetch(here + kAhead * b_row + v * lanes);
    return here;
  };
  tile<T, MR, NR>(n_k, p.a.at(i, k0), p.a.row, p.a.col, row, acc);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NR - 1; ++v) store(c + r * p.n + v * lanes, acc[r][v]);
    store_some(c + r * p.n + (NR - 1) * lanes, acc[r][NR - 1], last);
  }
}

// Memory that will be packed next: fetched to the second-level cache piece by piece, while tiles are computed.
template <class T>
struct Next {
  const T* data;
  int64_t run, runs, step;  // `runs` runs of `run` elements, `step` apart
  int64_t at = 0;
  void fetch(int64_t n) {
    for (const int64_t end = lesser(at + n, runs); at < end; ++at)
      for (int64_t i = 0; i < run; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(data + at * step + i, 0, 2);
  }
};

// Rows [i0, i1) times one panel; b's row k starts at b + k * b_row.
template <class T>
void rows_by_panel(const Product<T>& p, int64_t i0, int64_t i1, int64_t j, int64_t width, int64_t k0, int64_t n_k, const T* b,
                   int64_t b_row, Next<T> next) {
  const int64_t tiles = greater((i1 - i0) / kTileRows, int64_t(1)), share = ceil_div(next.runs, tiles);
  with_tile_vecs(width, [&](auto nr) {
    for_tile_rows(i1 - i0, [&](auto mr, int64_t i) {
      next.fetch(share);
      c_tile<T, mr.value, nr.value>(p, i0 + i, j, k0, n_k, b, b_row);
    });
  });
}

// Rows [i0, i1) and columns [k0, k0 + n_k) of a, close together: as they lie, or transposed a as [k][row].
template <class T>
Matrix<T> pack_rows(const Matrix<T>& a, int64_t i0, int64_t i1, int64_t k0, int64_t n_k, T* to) {
  if (a.col == 1) {
    const int64_t pitch = kBlock + kLanes<T>;  // not a power of two, which would crowd the cache's sets
    for (int64_t i = i0; i < i1; ++i) memcpy(to + (i - i0) * pitch, a.at(i, k0), sizeof(T) * static_cast<size_t>(n_k));
    return {to - i0 * pitch - k0, pitch, 1};
  }
  const int64_t rows = i1 - i0;
  for (int64_t k = 0; k < n_k; ++k) {
    T* const column = to + k * rows;
    if (a.row == 1) {
      memcpy(column, a.at(i0, k0 + k), sizeof(T) * static_cast<size_t>(rows));
    } else {
      for (int64_t i = 0; i < rows; ++i) column[i] = *a.at(i0 + i, k0 + k);
    }
  }
  return {to - i0 - k0 * rows, 1, rows};
}

// The next rows of b, from k0 on, of the panel that begins at column j.
template <class T>
Next<T> next_rows(const Product<T>& p, int64_t j, int64_t columns, int64_t k0) {
  const int64_t n_k = lesser(kBlock, p.k - k0);
  if (n_k <= 0) return {};
  columns = lesser(columns, p.n - j);
  if (p.b.col == 1) return {p.b.at(k0, j), columns, n_k, p.b.row};
  return {p.b.at(k0, j), n_k, columns, p.b.col};
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
  if (double(p.m) * p.n * p.k < kLarge || (p.m <= kNarrow && cut.panels.count() >= 3)) return cut;
  cut.rows = p.m >= 1024 ? 256 : p.m >= 256 ? 128 : 32;
  cut.shared = true;
  cut.wide = ceil_div(cut.panels.count(), ceil_div(int64_t(8), cut.down(p.m)));
  return cut;
}

// Rows [i0, i1) times panels [p0, p1).  shared: all panels of b, packed one after the other, or null.
template <class T>
int block(const Product<T>& p, const Panels& panels, int64_t i0, int64_t i1, int64_t p0, int64_t p1, const T* shared) {
  constexpr int64_t lanes = kLanes<T>;
  const bool crowded = p.a.row * int64_t(sizeof(T)) % 4096 == 0;
  const bool pack_a = i1 - i0 > 2 * kTileRows && (p1 - p0 > 3 || crowded) && p.k * (p1 - p0) > 64;
  const bool pack_b = !shared && (p.b.col != 1 || i1 - i0 > 32);
  const int64_t depth = lesser(kBlock, p.k);
  const Room<T> a_room(pack_a ? (i1 - i0) * (kBlock + lanes) : 0), b_room(shared ? 0 : depth * kTileVecs * lanes);
  if (!a_room || !b_room) return KEYDNN_NO_MEMORY;
  for (int64_t k0 = 0; k0 < greater(p.k, int64_t(1)); k0 += kBlock) {
    const int64_t n_k = lesser(kBlock, p.k - k0);
    Product<T> q = p;
    if (pack_a) q.a = pack_rows(p.a, i0, i1, k0, n_k, a_room.data);
    for (int64_t panel = p0; panel < p1; ++panel) {
      const int64_t j = panels.first(panel) * lanes, width = panels.width(panel), columns = width * lanes;
      auto rows = [&](const T* b, int64_t b_row, Next<T> next) { rows_by_panel(q, i0, i1, j, width, k0, n_k, b, b_row, next); };
      if (shared) {
        rows(shared + j * p.k + k0 * columns, columns, {});
      } else if (pack_b || j + columns > p.n) {
        pack_panel(p.b, p.n, k0, k0 + n_k, j, columns, b_room.data);
        rows(b_room.data, columns, next_rows(p, j, columns, k0 + n_k));
      } else {
        rows(p.b.at(k0, j), p.b.row, {});
      }
    }
  }
  return KEYDNN_OK;
}

// All panels of b, one after the other.
template <class T>
void pack_panels(const Matrix<T>& b, int64_t n, int64_t k, const Panels& panels, T* to) {
  const int64_t deep = ceil_div(k, kBlock);
  parallel_for(panels.count() * deep, 0.15 * n * k, [&](int64_t unit) {
    const int64_t panel = unit / deep, k0 = unit % deep * kBlock;
    const int64_t j = panels.first(panel) * kLanes<T>, columns = panels.width(panel) * kLanes<T>;
    pack_panel(b, n, k0, lesser(k0 + kBlock, k), j, columns, to + j * k + k0 * columns);
  });
}

template <class T>
int by_panels(const Product<T>& p) {
  const Cut cut = cut_of(p);
  const Scratch<T> packed(cut.shared ? cut.panels.vecs * kLanes<T> * p.k : 0);
  if (cut.shared) {
    if (!packed) return KEYDNN_NO_MEMORY;
    pack_panels(p.b, p.n, p.k, cut.panels, packed.data);
  }
  const int64_t across = cut.across();
  int status = KEYDNN_OK;
  parallel_for(cut.down(p.m) * across, cost_ns<T>(double(p.m) * p.n * p.k), [&](int64_t chunk) {
    const int64_t i0 = chunk / across * cut.rows, p0 = chunk % across * cut.wide;
    const int64_t i1 = lesser(i0 + cut.rows, p.m), p1 = lesser(p0 + cut.wide, cut.panels.count());
    const int got = block<T>(p, cut.panels, i0, i1, p0, p1, cut.shared ? packed.data : nullptr);
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  });
  return status;
}

// ---- few rows, b transposed: c^T = b^T a^T --------------------------------------------------------------------------

// Whether packing b would cost more than packing a and turning c.
template <class T>
bool is_turned(const Product<T>& p) {
  const int64_t lanes = kLanes<T>;
  return p.b.row == 1 && p.b.col != 1 && p.a.col == 1 && p.m <= kNarrow && 3 * p.m >= 2 * round_up(p.m, lanes) &&
         2 * p.n * p.k > 3 * p.m * (p.k + 2 * p.n) && double(p.m) * p.n * p.k > kLarge;
}

template <class T>
int turned(const Product<T>& p) {
  constexpr int64_t lanes = kLanes<T>;
  const Scratch<T> turned_c(p.m * p.n);
  if (!turned_c) return KEYDNN_NO_MEMORY;
  const T* const from = turned_c.data;
  const int status = by_panels(Product<T>{{p.b.data, p.b.col, 1}, {p.a.data, 1, p.a.row}, nullptr, turned_c.data, p.n, p.m, p.k});
  if (status != KEYDNN_OK) return status;
  parallel_ranges(p.n, 8 * lanes, 0.5 * double(p.m * p.n), [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    alignas(64) T tile[kLanes<T> * kLanes<T>];
    for (int64_t j = begin; j < end; j += lanes) {
      const int64_t n_j = lesser(lanes, end - j);
      const Vec<T> bias = p.bias ? load_some(p.bias + j, n_j) : Vec<T>{};
      for (int64_t i = 0; i < p.m; i += lanes) {
        const int64_t n_i = lesser(lanes, p.m - i);
        transpose_part<T>(from + j * p.m + i, p.m, n_j, n_i, tile, lanes);
        for (int64_t r = 0; r < n_i; ++r) store_some(p.c + (i + r) * p.n + j, load(tile + r * lanes) + bias, n_j);
      }
    }
  });
  return KEYDNN_OK;
}

// ---- few rows or columns, b transposed ---------------------------------------------------------------------------------

constexpr int64_t kFew = 4;

// c[i, j .. j + NR) for MR rows: products of whole rows, lane by lane.
template <class T, int MR, int NR>
KEYDNN_INLINE void dot_tile(const Product<T>& p, int64_t i, int64_t j) {
  constexpr int64_t lanes = kLanes<T>;
  Vec<T> acc[MR * NR] = {};
  auto step = [&](int64_t k, int64_t live) {
    Vec<T> x[MR], y[NR];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) x[r] = load_n(p.a.at(i + r, k), live);
#pragma GCC unroll 8
    for (int s = 0; s < NR; ++s) y[s] = load_n(p.b.at(k, j + s), live);
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
      for (int s = 0; s < NR; ++s) acc[r * NR + s] += x[r] * y[s];
  };
  int64_t k = 0;
  for (; k + lanes <= p.k; k += lanes) step(k, lanes);
  if (k < p.k) step(k, p.k - k);
  T sums[MR * NR];
  lane_sums<T>(acc, sums);
  for (int r = 0; r < MR; ++r)
    for (int s = 0; s < NR; ++s) p.c[(i + r) * p.n + j + s] = sums[r * NR + s] + (p.bias ? p.bias[j + s] : T(0));
}

// c[i0 .. i1, j0 .. j1) in tiles of 4 and 1.
template <class T>
void dot_block(const Product<T>& p, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  auto columns = [&](auto mr, int64_t i) {
    int64_t j = j0;
    for (; j + 4 <= j1; j += 4) dot_tile<T, mr.value, 4>(p, i, j);
    for (; j < j1; ++j) dot_tile<T, mr.value, 1>(p, i, j);
  };
  int64_t i = i0;
  for (; i + 4 <= i1; i += 4) columns(Const<4>{}, i);
  for (; i < i1; ++i) columns(Const<1>{}, i);
}

template <class T>
int dots(const Product<T>& p) {
  const int64_t few = lesser(p.m, p.n), many = greater(p.m, p.n);
  const int64_t grain = round_up(int64_t(65536) / (p.k * few + 1) + 1, 4);
  parallel_ranges(many, grain, cost_ns<T>(4.0 * p.m * p.n * p.k), [&](int64_t begin, int64_t end) {
    if (p.m <= p.n) {
      dot_block(p, 0, p.m, begin, end);
    } else {
      dot_block(p, begin, end, 0, p.n);
    }
  });
  return KEYDNN_OK;
}

template <class T>
bool is_dot(const Product<T>& p) {
  return lesser(p.m, p.n) <= kFew && p.b.row == 1 && p.a.col == 1 && p.k >= kLanes<T>;
}

// ---- one product, many products ------------------------------------------------------------------------------------

template <class T>
int product(const Product<T>& p) {
  if (thin(p.a.data, p.a.row, p.a.col, p.b.data, p.b.row, p.b.col, p.bias, p.c, p.m, p.n, p.k)) return KEYDNN_OK;
  if (is_dot(p)) return dots(p);
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

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_GEMM)
