// Convolution-like sums over planes, as products whose right side is never built:
//
//   out[o, p] = bias[o] + sum_k w[o, k] * planes[p + offset[k]]                p: positions of an output plane
//
// Two kernels.  With enough outputs and taps, outputs lie side by side in registers (pixel_tiles.h).  Otherwise neighbouring
// positions do: output plane o, seen as one long vector with the pitch of the planes, is a sum of planes shifted by constants;
// elements past the end of a row are computed and not stored.
//
// Numerics: bias first, then taps in order, in the array's precision; both kernels give the same bits.
#pragma once
#include "pixel_tiles.h"
#include "planes.h"
#include "relu_windows.h"
#include "tile.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr double kMacsPerNs = KEYDNN_VECTOR_BYTES / 4 * 2;
constexpr double kNsPerOutput = 0.6; // to store a result, and to finish it
constexpr double kNsPerPlane = 0.3;  // to copy an element into its plane
constexpr double kNsPerBlock = 6e3;  // of a chunk of a product, at least
constexpr int64_t kImagesApart = 8;  // from so many images on, each is a chunk of its own
constexpr int64_t kLeastTaps = 32;   // for outputs side by side
constexpr int64_t kLeastPiece = 144; // taps at a time of packed weights, at least; more while, times the bytes of a plane's row,
constexpr int64_t kPieceBytes = 36 << 10;  // they are no more than this: a third of it is what a row of 3x3 windows reads

// Where an output goes that has fewer positions than its product, or a place of its own: element (r, q), r < rows, q < cols,
// to out[at + r * out_row + q * out_col].
struct Place {
  int64_t at, rows, cols;
};

// What becomes of the results y before they are stored.  Pointers are to values per output, or null.
template <class T>
struct Finish {
  const T *mean, *scale, *beta;  // where there is a mean: (y - mean) * scale, then + beta; each rounded by itself
  bool relu;
  T* pooled;                     // not null: relu and 2x2 maximum pooling of y (relu_windows.h), and its code, plane by plane
  uint8_t* code;
  bool changes() const { return mean || beta || relu; }
};

// One product: n_out planes from n_k taps.  All strides in elements.
template <class T>
struct Product {
  const T* planes;
  const int64_t* offset;                // of each tap in planes
  int64_t n_k;
  const T* w;                           // (n_out, n_k); or packed blocks of lanes, (n_k, lanes) each
  const T* bias;                        // (n_out) or null
  int64_t n_out, rows, cols, pitch;     // positions: rows x pitch, of which cols are wanted
  T* out;
  int64_t out_plane, out_row, out_col;  // element (o, r, q) goes to out[o * out_plane + r * out_row + q * out_col]
  bool is_packed;
  const Place* place;                   // of each output, instead of o * out_plane; not packed.  Or null
  Finish<T> finish;
};

// Whether outputs should lie side by side: they fill two registers, and unpacking them is little beside the taps.
template <class T>
bool packs(int64_t n_out, int64_t n_k, int64_t cols) {
  return n_out > kLanes<T> && fills_registers<T>(n_out) && n_k >= kLeastTaps && cols >= 4;
}

template <class T, int MR, int NR>
KEYDNN_INLINE void position_tile(const Product<T>& p, int64_t o, int64_t position, T* stage, int64_t stage_row) {
  Vec<T> acc[MR][NR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NR; ++v) acc[r][v] = splat(p.bias ? p.bias[o + r] : T(0));
  const T* const base = p.planes + position;
  tile<T, MR, NR>(p.n_k, p.w + o * p.n_k, p.n_k, 1, [=](int64_t k) { return base + p.offset[k]; }, acc);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NR; ++v) store(stage + r * stage_row + v * kLanes<T>, acc[r][v]);
}

// `finish` of n positions with W outputs from o on side by side, of which `count` exist.  Sums are a pass of their own, so that
// no product is fused with one.
template <class T, int64_t W>
void finish_lanes(const Finish<T>& finish, int64_t o, int64_t count, T* y, int64_t n) {
  if (finish.mean) {
    T mean[W] = {}, scale[W] = {};
    for (int64_t i = 0; i < count; ++i) mean[i] = finish.mean[o + i], scale[i] = finish.scale[o + i];
    for (int64_t at = 0; at < n * W; at += W)
      for (int64_t i = 0; i < W; ++i) y[at + i] = (y[at + i] - mean[i]) * scale[i];
  }
  if (finish.beta) {
    T beta[W] = {};
    for (int64_t i = 0; i < count; ++i) beta[i] = finish.beta[o + i];
    for (int64_t at = 0; at < n * W; at += W)
      for (int64_t i = 0; i < W; ++i) y[at + i] += beta[i];
  }
  for (int64_t i = 0; finish.relu && i < n * W; ++i) y[i] = y[i] <= 0 ? T(0) : y[i];
}
// to[i] = change(from[i]), i < n; register by register.
template <class T, class Change>
KEYDNN_INLINE void map_row(const T* from, T* to, int64_t n, Change change) {
  constexpr int64_t L = kLanes<T>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store(to + i, change(load(from + i)));
  if (i < n) store_n(to + i, change(load_n(from + i, n - i)), n - i);
}
// The same, out of the compiler's sight: so a product is not fused with the sum that follows.
template <class V>
KEYDNN_INLINE V rounded(V v) {
#if defined(__x86_64__) && !defined(__clang__)  // which knows no half registers here
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+m"(v));
#endif
  return v;
}
// `finish` of numbers or vectors of results of one output.
template <class T>
struct FinishOne {
  T mean, scale, beta, least;  // those that change nothing, where `finish` has none
  FinishOne(const Finish<T>& finish, int64_t o)
      : mean(finish.mean ? finish.mean[o] : T(0)), scale(finish.mean ? finish.scale[o] : T(1)), beta(finish.beta ? finish.beta[o] : -T(0)),
        least(finish.relu ? T(0) : -T(INFINITY)) {}
  template <class V>
  KEYDNN_INLINE V operator()(V v) const {
    v = rounded((v - mean) * scale) + beta;
    return v <= least ? V{} + least : v;
  }
};
// Of n neighbouring positions of output o, on the way from `from` to `y`, which may be the same.
template <class T>
void finish_row(const Finish<T>& finish, int64_t o, const T* from, T* y, int64_t n) {
  if (finish.changes()) {
    map_row(from, y, n, FinishOne<T>(finish, o));
  } else if (from != y) {
    copy_run<T, 1>(y, from, n);
  }
}
// Of rows [r0, r1) of planes [o0, o1), r0 even.
template <class T>
void finish_pooling(const Product<T>& p, int64_t o0, int64_t o1, int64_t r0, int64_t r1) {
  for (int64_t o = o0; o < o1; ++o) {
    const int64_t to = (o * (p.rows / 2) + r0 / 2) * (p.cols / 2);
    relu_maxpool_plane(p.out + o * p.out_plane + r0 * p.out_row, p.finish.pooled + to, p.finish.code + to, r1 - r0, p.cols, p.out_row);
  }
}

// A block of lanes of packed outputs, rows [r0, r1): the sums of a piece of the taps after the other in a stage, which then
// goes to its planes.
template <class T, int NR>
void packed_rows(const Product<T>& p, int64_t block, int64_t r0, int64_t r1, T* stage) {
  constexpr int64_t W = NR * kLanes<T>;
  const LaneBlocks<T> lanes(p.n_out);
  const int64_t o = lanes.first(block), count = lanes.size(block), row_size = p.cols * W;
  T start[W] = {};
  for (int64_t i = 0; p.bias && i < count; ++i) start[i] = p.bias[o + i];
  const PixelRow<T, NR> row(p.cols);
  const bool finishes = p.finish.changes();
  const int64_t most = greater(kLeastPiece, kPieceBytes / (p.pitch * int64_t(sizeof(T))));
  const int64_t pieces = greater((p.n_k + most / 2) / most, int64_t(1)), piece = ceil_div(p.n_k, pieces);
  Fetch<T> fetch{p.out + o * p.out_plane + r0 * p.out_row, (r1 - r0) * p.out_row, p.out_plane, count};
  const int64_t lines = ceil_div(fetch.count(), row.count * (r1 - r0) * pieces);
  for (int64_t k = 0; k == 0 || k < p.n_k; k += piece)
    for (int64_t r = r0; r < r1; ++r) {
      T* const to = stage + (r - r0) * row_size;
      const int64_t taps = lesser(piece, p.n_k - k);
      row.run(p.planes + r * p.pitch, p.offset + k, taps, p.w + o * p.n_k + k * W, k ? to : start, k ? W : 0, to, fetch, lines);
      if (finishes && k + piece >= p.n_k) finish_lanes<T, W>(p.finish, o, count, to, p.cols);
    }
  T* const out = p.out + o * p.out_plane;
  if (p.out_col == 1 && p.out_row == p.cols)
    return unpack_planes(stage, NR, count, (r1 - r0) * p.cols, out + r0 * p.out_row, p.out_plane);
  for (int64_t r = r0; r < r1; ++r)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t q = 0; q < p.cols; ++q)
        out[i * p.out_plane + r * p.out_row + q * p.out_col] = stage[((r - r0) * p.cols + q) * W + i];
}

// Output planes [o0, o1), rows [r0, r1).  stage holds kTileRows x stage_row(p, r1 - r0) elements.
template <class T>
int64_t stage_row(const Product<T>& p, int64_t rows) {
  return round_up(rows * p.pitch, kLanes<T>);
}
template <class T>
void product_block(const Product<T>& p, int64_t o0, int64_t o1, int64_t r0, int64_t r1, T* stage) {
  if (p.is_packed) {
    const LaneBlocks<T> lanes(p.n_out);
    for (int64_t block = o0 / (kBlockVecs * kLanes<T>); block < lanes.count && lanes.first(block) < o1; ++block)
      lanes.vecs(block) == 1 ? packed_rows<T, 1>(p, block, r0, r1, stage) : packed_rows<T, 2>(p, block, r0, r1, stage);
    return;
  }
  const int64_t width = stage_row(p, r1 - r0);
  const bool finishes = p.finish.changes();
  const Panels panels(ceil_div((r1 - r0 - 1) * p.pitch + p.cols, kLanes<T>));
  for_tile_rows(o1 - o0, [&](auto mr, int64_t i) {
    const int64_t o = o0 + i;
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int64_t first = panels.first(panel) * kLanes<T>;
      with_tile_vecs(panels.width(panel), [&](auto nr) {
        position_tile<T, mr.value, nr.value>(p, o, r0 * p.pitch + first, stage + first, width);
      });
    }
    for (int m = 0; m < mr.value; ++m) {
      const Place place = p.place ? p.place[o + m] : Place{(o + m) * p.out_plane, p.rows, p.cols};
      for (int64_t r = r0; r < lesser(r1, place.rows); ++r) {
        T* const from = stage + m * width + (r - r0) * p.pitch;
        if (finishes) finish_row<T>(p.finish, o + m, from, from, place.cols);
        T* const to = p.out + place.at + r * p.out_row;
        if (p.out_col == 1) {
          copy_run<T, 1>(to, from, place.cols);
        } else {
          for (int64_t q = 0; q < place.cols; ++q) to[q * p.out_col] = from[q];
        }
      }
    }
  });
}

// How a product is cut: rows evenly, so that a block has some 256 positions (half of them where outputs lie side by side and
// blocks are what threads share), and planes so that it is worth claiming.
template <class T>
struct Cut {
  int64_t rows, outs;  // of a block
  int64_t down, across;
  int64_t stage;       // elements that a block works in
  Cut(const Product<T>& p, bool is_shared) {
    const int64_t unit = p.is_packed ? kBlockVecs * kLanes<T> : kTileRows;
    const int64_t positions = is_shared ? 128 : 256;
    const int64_t blocks = p.is_packed ? (p.rows * p.cols + positions / 2) / positions : p.rows * p.pitch >> 8;
    rows = ceil_div(p.rows, greater(int64_t(1), blocks));
    if (p.finish.pooled) rows = round_up(rows, 2);
    const double ns_per_out = double(rows) * p.pitch * (greater(p.n_k, int64_t(1)) / kMacsPerNs + (is_shared ? kNsPerOutput : 0));
    outs = lesser(round_up(p.n_out, unit), round_up(int64_t(kNsPerBlock / ns_per_out) + 1, unit));
    if (is_shared) outs = round_up(ceil_div(p.n_out, ceil_div(p.n_out, outs)), unit);  // evenly
    down = ceil_div(p.rows, rows);
    across = ceil_div(p.n_out, outs);
    stage = p.is_packed ? rows * p.cols * unit : kTileRows * stage_row(p, rows);
  }
  int64_t count() const { return down * across; }
};

template <class T>
void run_block(const Product<T>& p, const Cut<T>& cut, int64_t block, T* stage) {
  const int64_t r0 = block / cut.across * cut.rows, o0 = block % cut.across * cut.outs;
  const int64_t r1 = lesser(r0 + cut.rows, p.rows), o1 = lesser(o0 + cut.outs, p.n_out);
  product_block(p, o0, o1, r0, r1, stage);
  if (p.finish.pooled) finish_pooling(p, o0, o1, r0, r1);
}

// A convolution-like problem: `items` = images x groups, each with planes that `fill` makes and products that `product`
// describes.
template <class T>
struct Problem {
  int64_t images, groups, channels;   // channels to fill per image
  int64_t channel_size;               // elements of one channel's planes
  int64_t n_products;                 // per image and group
  double macs, outputs;               // of everything
  double cost() const { return (macs / kMacsPerNs + outputs * kNsPerOutput) * (sizeof(T) / 4); }
  double fill_cost() const { return kNsPerPlane * images * channels * channel_size; }
};

// What has to be done before the first product, piece by piece: beside the planes where there are few images.
template <class Piece>
struct Before {
  int64_t pieces;
  double cost;
  Piece piece;
};
inline auto nothing_before() {
  auto piece = [](int64_t) {};
  return Before<decltype(piece)>{0, 0, piece};
}

// fill(image, channel, to) makes a channel's planes; product(image, group, index, planes, own) describes a product on the
// image's planes.  Where own_size is not 0, an image's results go to `own` memory of so many elements.
//
// Many images: one is finished before the next, and `own` stays in the cache.
template <class T, class Fill, class MakeProduct>
int solve_images(const Problem<T>& q, Fill fill, MakeProduct product, int64_t own_size) {
  constexpr int64_t slack = kLanes<T>;  // the last vector of the last plane may read past it
  const int64_t image_size = q.channels * q.channel_size;
  int status = KEYDNN_OK;
  parallel_for(q.images, q.cost() + q.fill_cost(), [&](int64_t image) {
    Scratch<T> planes(image_size + slack), own(own_size);
    if (!planes || (own_size && !own)) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
    for (int64_t channel = 0; channel < q.channels; ++channel) fill(image, channel, planes.data + channel * q.channel_size);
    for (int64_t i = 0; i < slack; ++i) planes.data[image_size + i] = T(0);
    for (int64_t i = 0; i < q.groups * q.n_products; ++i) {
      const Product<T> p = product(image, i / q.n_products, i % q.n_products, static_cast<const T*>(planes.data), own.data);
      const Cut<T> cut(p, false);
      Scratch<T> stage(cut.stage);
      if (!stage) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
      for (int64_t block = 0; block < cut.count(); ++block) run_block(p, cut, block, stage.data);
    }
  });
  return status;
}

template <class T, class Fill, class MakeProduct, class Piece>
int solve(const Problem<T>& q, const Before<Piece>& before, Fill fill, MakeProduct product, int64_t own_size) {
  if (q.images >= kImagesApart) {
    parallel_for(before.pieces, before.cost, [&](int64_t i) { before.piece(i); });
    return solve_images(q, fill, product, own_size);
  }
  constexpr int64_t slack = kLanes<T>;  // the last vector of the last plane may read past it
  constexpr int64_t filled = 2048;      // elements of planes that are worth claiming
  const int64_t image_size = q.channels * q.channel_size, planes_in_all = q.images * q.channels;
  const int64_t together = greater(int64_t(1), filled / greater(q.channel_size, int64_t(1)));
  int status = KEYDNN_OK;
  Scratch<T> planes(q.images * image_size + slack), own(q.images * own_size);
  if (!planes || (own_size && !own)) return KEYDNN_NO_MEMORY;
  // cost of the products too: they need the threads anyway, which so are awake in time
  parallel_for(before.pieces + ceil_div(planes_in_all, together), before.cost + q.fill_cost() + q.cost(), [&](int64_t piece) {
    if (piece < before.pieces) return before.piece(piece);
    const int64_t first = (piece - before.pieces) * together;
    for (int64_t i = first; i < lesser(first + together, planes_in_all); ++i)
      fill(i / q.channels, i % q.channels, planes.data + i * q.channel_size);
  });
  for (int64_t i = 0; i < slack; ++i) planes.data[q.images * image_size + i] = T(0);
  for (int64_t i = 0; i < q.n_products; ++i) {
    auto at = [&](int64_t item) {
      const int64_t image = item / q.groups;
      return product(image, item % q.groups, i, static_cast<const T*>(planes.data + image * image_size), own.data + image * own_size);
    };
    const Cut<T> cut(at(0), true);
    parallel_for(q.images * q.groups * cut.count(), q.cost() / q.n_products, [&](int64_t chunk) {
      const Product<T> p = at(chunk / cut.count());
      Scratch<T> stage(cut.stage);
      if (!stage) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
      run_block(p, cut, chunk % cut.count(), stage.data);
    });
  }
  return status;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
