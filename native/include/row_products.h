// Convolution of few images whose rows fill registers, or nearly so, in one pass without preparations:
//
//   a chunk is a band of rows of an image and some of its outputs: piece by piece, channels are copied into planes (planes.h)
//   of its own and multiplied by weights that are read as they lie (row_tiles.h), then results are finished.
//
// Threads share nothing that one of them has written, and one that met the upper rows meets them again in the next convolution.
// Numerics: as in conv_products.h, with the same bits.
#pragma once
#include "conv_products.h"
#include "row_tiles.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr double kNsPerBand = 10e3;       // of a chunk, at least
constexpr int64_t kRowsOfBand = 4;        // at least: its planes hold a kernel's height of rows more
constexpr double kNsPerOuts = 40e3;       // where each chunk makes planes of the same channels
constexpr int64_t kLeastOuts = 32;        // of these; planes should be little beside them
constexpr double kMostByRows = 1e6;       // ns of everything: beyond, packing is little, and its tiles are met again
constexpr int64_t kTapsOfPiece = 144;     // their planes stay in the first cache
constexpr int64_t kPlacesKept = 1 << 19;  // elements for all chunks together, up to which each has a place of its own

// The convolution, if `folded`; run() computes it.
template <class T>
struct RowConvolution {
  const T *x, *w, *bias;
  T* y;  // not written where results are pooled
  const keydnn_conv_shape& s;
  const Finish<T>& finish;
  int64_t in_c, out_c, taps;        // channels of a group; taps of a channel
  keydnn_conv_shape band;           // the shape of a band, rows 0 .. band.oh
  InputPlanes planes;               // of a band
  int64_t folded;                   // rows side by side in a register; 0 where this way is not taken
  int64_t line;                     // from one row of results to the next, where they are not folded
  int64_t outs, channels;           // of a chunk, of a piece
  int64_t down, across;             // chunks of an image and group
  RowConvolution(const T* x_, const T* w_, const T* bias_, T* y_, const keydnn_conv_shape& shape, const Finish<T>& all)
      : x(x_), w(w_), bias(bias_), y(y_), s(shape), finish(all), in_c(s.c / s.groups), out_c(s.o / s.groups), taps(s.kh * s.kw), band(shape),
        planes(band), folded(s.n < kImagesApart && in_c > 0 && cost() <= kMostByRows ? rows_per_register<T>(planes) : 0),
        line(s.ow % kLanes<T> ? planes.pitch : s.ow), outs(out_c),
        channels(lesser(in_c, greater(int64_t(1), kTapsOfPiece / taps))) {
    if (!folded) return;
    cut();
    planes = InputPlanes(band);
    if (folded == 2) planes.fold();
  }

  int run() const {
    constexpr int64_t L = kLanes<T>;  // so many more where the last register reads past its plane, or a window past its row
    const int64_t per_image = down * across * s.groups, planes_size = round_up(channels * planes.channel(), L) + L;
    const int64_t stage_size = outs * size() + 2 * L, own = planes_size + stage_size + size();
    Scratch<int64_t> offset(channels * taps), at(registers(band.oh));
    const bool is_kept = s.n * per_image * own <= kPlacesKept;  // so a thread meets its own again in the next call
    Scratch<T> places(is_kept ? s.n * per_image * own : 0);
    if (!offset || !at || (is_kept && !places)) return KEYDNN_NO_MEMORY;
    planes.offsets(channels, offset.data);
    place_registers(at.data);
    int status = KEYDNN_OK;
    parallel_for(s.n * per_image, cost(), [&](int64_t chunk) {
      const int64_t group = chunk / (down * across) % s.groups, r0 = chunk / across % down * band.oh, o0 = chunk % across * outs;
      const Scratch<T> fresh(is_kept ? 0 : own);
      if (!is_kept && !fresh) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
      T* const mine = is_kept ? places.data + chunk * own : fresh.data;
      const Chunk c{chunk / per_image, group, r0, lesser(r0 + band.oh, s.oh), group * out_c + o0, group * out_c + lesser(o0 + outs, out_c)};
      memset(mine, 0, sizeof(T) * static_cast<size_t>(planes_size));
      store(mine + planes_size + stage_size - 2 * L, Vec<T>{});
      store(mine + planes_size + stage_size - L, Vec<T>{});
      multiply(c, offset.data, at.data, mine, mine + planes_size);
      for (int64_t o = c.o0; o < c.o1; ++o) finish_plane(c, o, mine + planes_size + (o - c.o0) * size(), mine + planes_size + stage_size);
    });
    return status;
  }

 private:
  struct Chunk {
    int64_t image, group, r0, r1, o0, o1;
  };
  double cost() const { return (double(s.n) * s.o * s.oh * s.ow * (in_c * taps / kMacsPerNs + kNsPerOutput)) * (sizeof(T) / 4); }
  int64_t size() const { return registers(band.oh) * kLanes<T>; }  // elements of an output's results in a chunk
  int64_t registers(int64_t rows) const {
    return ceil_div(folded == 2 ? rows * s.ow : (rows - 1) * line + s.ow, kLanes<T>);
  }

  // Into halves, quarters, ... that threads share evenly: of the rows while there are enough of them, then of the outputs.
  void cut() {
    const int64_t least = greater(kRowsOfBand, ceil_div(kRowVecs * kLanes<T>, s.ow));
    double ns = cost() / (s.n * s.groups);
    for (; ns > 2 * kNsPerBand && folded == 1 && band.oh % 4 == 0 && band.oh >= 2 * least; ns /= 2) band.oh /= 2;
    for (; ns > 2 * kNsPerOuts && outs >= 2 * kLeastOuts; ns /= 2) outs = ceil_div(outs, int64_t(2));
    down = ceil_div(s.oh, band.oh);
    across = ceil_div(out_c, outs);
  }

  // Where the registers of a band's results lie in planes.
  void place_registers(int64_t* at) const {
    constexpr int64_t L = kLanes<T>;
    const bool runs_on = folded == 1 && s.ow % L != 0;  // registers take no notice of the ends of rows
    const int64_t per_row = runs_on ? 1 : greater(int64_t(1), s.ow / L), row = runs_on ? L : planes.pitch * folded;
    const int64_t vecs = registers(band.oh);
    for (int64_t start = 0, vec = 0; vec < vecs; start += row)
      for (int64_t i = 0; i < per_row; ++i) at[vec++] = start + i * L;
  }

  // The sums of a chunk, to the stage: output by output, the registers of its rows one after the other.
  void multiply(const Chunk& c, const int64_t* offset, const int64_t* at, T* own_planes, T* stage) const {
    constexpr int64_t L = kLanes<T>;
    const int64_t vecs = registers(c.r1 - c.r0), n_k = in_c * taps;
    const int64_t tiles = ceil_div(c.o1 - c.o0, kRowOuts), height = (c.o1 - c.o0) / tiles, higher = (c.o1 - c.o0) % tiles;
    for (int64_t first = 0; first < in_c; first += channels) {
      const int64_t count = lesser(channels, in_c - first), k = first * taps;
      planes.fill_zeros(x + (c.image * s.c + c.group * in_c + first) * s.h * s.w, count, own_planes, c.r0);
      for (int64_t vec = 0; vec < vecs; vec += kRowVecs) {
        const int64_t width = lesser(int64_t(kRowVecs), vecs - vec);
        for (int64_t i = 0, o = c.o0, n; i < tiles; ++i, o += n) {
          n = height + (i < higher);
          T* const sums = stage + (o - c.o0) * size() + vec * L;
          run_row_tile<T>(n, width, RowTile<T>{own_planes, at + vec, offset, count * taps, w + o * n_k + k, n_k, k ? sums : nullptr, size(),
                                               bias ? bias + o : nullptr, sums, size()});
        }
      }
    }
  }

  // What becomes of the sums of output o; `plane` has room for them.
  void finish_plane(const Chunk& c, int64_t o, T* sums, T* plane) const {
    const int64_t rows = c.r1 - c.r0, n = rows * s.ow;
    T* const to = finish.pooled ? plane : y + (c.image * s.o + o) * s.oh * s.ow + c.r0 * s.ow;
    const FinishOne<T> change(finish, o);
    if (folded == 2) {
      copy_run<T, 2>(to, sums, n / 2);
      copy_run<T, 2>(to + n / 2, sums + 1, n / 2);
    }
    const T* const done = folded == 2 ? to : sums;
    const int64_t row = folded == 2 ? s.ow : line;
    if (finish.pooled) {
      const int64_t pooled = ((c.image * s.o + o) * (s.oh / 2) + c.r0 / 2) * (s.ow / 2);
      T* const best = finish.pooled + pooled;
      uint8_t* const code = finish.code + pooled;
      if (finish.changes()) {
        relu_maxpool_plane<T>(done, best, code, rows, s.ow, row, change);
      } else {
        relu_maxpool_plane<T>(done, best, code, rows, s.ow, row);
      }
    } else if (row == s.ow) {
      finish_row(finish, o, done, to, n);
    } else {
      for (int64_t r = 0; r < rows; ++r) finish_row(finish, o, sums + r * row, to + r * s.ow, s.ow);
    }
  }
};

}  // namespace
}  // namespace keydnn::KEYDNN_NS
