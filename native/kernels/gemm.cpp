// Matrix products: c = a b (+ bias).
//
// b is cut into panels of up to three vectors of columns; a panel is packed as [k][columns] when that pays, and taken
// kBlock rows at a time so that it stays in the first-level cache while rows of a pass by.  With b transposed and few
// rows of a (inference) or few columns, rows of both are multiplied as they lie, lane by lane.
// Numerics: which path is taken, and every order of summation, follows from m, n, k and the strides alone.
// Meaning: kernels/reference, functions matmul and linear.
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

// Rows [k0, k1) of the panel `columns` wide (a multiple of lanes) from column `first` of b, to [k][columns]; zeros beyond
// column n.
template <class T>
void pack_panel(const Matrix<T>& b, int64_t n, int64_t k0, int64_t k1, int64_t first, int64_t columns, T* to) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t live = lesser(columns, n - first);
  int64_t done = 0;  // columns packed by a fast path
  if (b.col == 1) {
    done = live / lanes * lanes;
    for (int64_t i = k0; i < k1; ++i)
      for (int64_t j = 0; j < done; j += lanes) store(to + i * columns + j, load(b.at(i, first + j)));
  } else if (b.row == 1) {
    for (; done + lanes <= live; done += lanes) {
      int64_t i = k0;
      for (; i + lanes <= k1; i += lanes) transpose_block<T>(b.at(i, first + done), b.col, to + i * columns + done, columns);
      for (; i < k1; ++i)
        for (int64_t j = done; j < done + lanes; ++j) to[i * columns + j] = *b.at(i, first + j);
    }
  }
  if (done == columns) return;
  for (int64_t i = k0; i < k1; ++i) {
    for (int64_t j = done; j < live; ++j) to[i * columns + j] = *b.at(i, first + j);
    for (int64_t j = live; j < columns; ++j) to[i * columns + j] = T(0);
  }
}

// All panels of b, one after the other.  Rows that lie whole are read once from end to end; transposed, one panel reads
// its own rows of memory.
template <class T>
void pack_panels(const Matrix<T>& b, int64_t n, int64_t k, const Panels& panels, T* to) {
  const double cost = 0.3 * n * k;
  auto one = [&](int64_t panel, int64_t k0, int64_t k1) {
    const int64_t j = panels.first(panel) * kLanes<T>;
    pack_panel(b, n, k0, k1, j, panels.width(panel) * kLanes<T>, to + j * k);
  };
  if (b.col != 1) return parallel_for(panels.count(), cost, [&](int64_t panel) { one(panel, 0, k); });
  parallel_ranges(k, 32, cost, [&](int64_t k0, int64_t k1) {
    for (int64_t i = k0; i < k1; i += 4)
      for (int64_t panel = 0; panel < panels.count(); ++panel) one(panel, i, lesser(i + 4, k1));
  });
}

// ---- packed panels times rows --------------------------------------------------------------------------------------

// One tile of c: rows [i, i + MR) x NR vectors from column j; adds to c unless it is the first block of k.
template <class T, int MR, int NR, class Row>
KEYDNN_INLINE void c_tile(const Product<T>& p, int64_t i, int64_t j, int64_t k0, int64_t n_k, Row row) {
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
      acc[r][NR - 1] = load_n(from + r * from_row + (NR - 1) * lanes, last);
    }
  }
  tile<T, MR, NR>(n_k, p.a.at(i, k0), p.a.row, p.a.col, row, acc);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NR - 1; ++v) store(c + r * p.n + v * lanes, acc[r][v]);
    store_n(c + r * p.n + (NR - 1) * lanes, acc[r][NR - 1], last);
  }
}

// Rows [i0, i1) times one panel; b's row k starts at b + k * b_row.
template <class T>
void rows_by_panel(const Product<T>& p, int64_t i0, int64_t i1, int64_t j, int64_t width, int64_t k0, int64_t n_k, const T* b,
                   int64_t b_row) {
  auto row = [=](int64_t k) { return b + k * b_row; };
  with_tile_vecs(width, [&](auto nr) {
    for_tile_rows(i1 - i0, [&](auto mr, int64_t i) { c_tile<T, mr.value, nr.value>(p, i0 + i, j, k0, n_k, row); });
  });
}

template <class T>
constexpr int64_t kBlock = 24576 / (kTileVecs * KEYDNN_VECTOR_BYTES);

// Rows [i0, i1) and columns [k0, k0 + n_k) of a, close together: as they lie, or transposed a as [k][row].
template <class T>
Matrix<T> pack_rows(const Matrix<T>& a, int64_t i0, int64_t i1, int64_t k0, int64_t n_k, T* to) {
  if (a.col == 1) {
    const int64_t pitch = kBlock<T> + kLanes<T>;  // not a power of two, which would crowd the cache's sets
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

// Rows [i0, i1) times panels [p0, p1).  packed: all panels of b one after the other, or null to read b as it lies (then
// its columns are contiguous and the last, narrow panel stands in `tail`).
template <class T>
int block(const Product<T>& p, const Panels& panels, int64_t i0, int64_t i1, int64_t p0, int64_t p1, const T* packed, const T* tail) {
  constexpr int64_t lanes = kLanes<T>;
  const bool pack_a = p1 - p0 > 1 && i1 - i0 > kTileRows;
  Scratch<T> a_packed(pack_a ? (i1 - i0) * (kBlock<T> + lanes) : 1);
  if (!a_packed) return KEYDNN_NO_MEMORY;
  for (int64_t k0 = 0; k0 < greater(p.k, int64_t(1)); k0 += kBlock<T>) {
    const int64_t n_k = lesser(kBlock<T>, p.k - k0);
    Product<T> q = p;
    if (pack_a) q.a = pack_rows(p.a, i0, i1, k0, n_k, a_packed.data);
    for (int64_t panel = p0; panel < p1; ++panel) {
      const int64_t j = panels.first(panel) * lanes, width = panels.width(panel);
      if (packed) {
        rows_by_panel(q, i0, i1, j, width, k0, n_k, packed + j * p.k + k0 * width * lanes, width * lanes);
      } else if (j + width * lanes > p.n) {
        rows_by_panel(q, i0, i1, j, width, k0, n_k, tail + k0 * width * lanes, width * lanes);
      } else {
        rows_by_panel(q, i0, i1, j, width, k0, n_k, p.b.at(k0, j), p.b.row);
      }
    }
  }
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
  constexpr int64_t lanes = kLanes<T>;
  if (is_dot(p)) return dots(p);
  const Panels panels(ceil_div(p.n, lanes));
  const bool pack = p.b.col != 1 || p.m > 32;
  const int64_t last = panels.count() - 1, last_column = panels.first(last) * lanes, last_width = panels.width(last) * lanes;
  Scratch<T> packed(pack ? panels.vecs * lanes * p.k : last_width * p.k);
  if (!packed) return KEYDNN_NO_MEMORY;
  if (pack) {
    pack_panels(p.b, p.n, p.k, panels, packed.data);
  } else if (last_column + last_width > p.n) {
    pack_panel(p.b, p.n, 0, p.k, last_column, last_width, packed.data);
  }
  // chunks: rows x panels, halved until there are eight, unless they become too small to be worth claiming
  int64_t rows = p.m >= 128 ? 64 : round_up(p.m, 8), wide = lesser(panels.count(), int64_t(4));
  auto chunks = [&] { return ceil_div(p.m, rows) * ceil_div(panels.count(), wide); };
  while (chunks() < 8 && double(rows) * wide * kTileVecs * lanes * p.k > 1e6) {
    if (wide > 1) {
      wide = ceil_div(wide, 2);
    } else if (rows > 8) {
      rows = round_up(rows / 2, 8);
    } else {
      break;
    }
  }
  const int64_t down = ceil_div(p.m, rows), across = ceil_div(panels.count(), wide);
  int status = KEYDNN_OK;
  parallel_for(down * across, cost_ns<T>(double(p.m) * p.n * p.k), [&](int64_t chunk) {
    const int64_t i0 = chunk / across * rows, p0 = chunk % across * wide;
    const int64_t i1 = lesser(i0 + rows, p.m), p1 = lesser(p0 + wide, panels.count());
    const int got = block(p, panels, i0, i1, p0, p1, pack ? packed.data : nullptr, packed.data);
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  });
  return status;
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
