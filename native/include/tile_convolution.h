// Convolution with 3x3 taps by the tiles of winograd.h, of many positions:
//
//   tiles of all images are numbered in order, and a chunk is a block of them: B' x B of its tiles for all channels, a plane for each of
//   the 16 products; then for some outputs at a time the products, and A' m A of them, finished.
//
// Blocks are the registers of a row of a register tile (tile.h), wherever rows and images end.
#pragma once
#include "conv_products.h"
#include "winograd.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int kNotFinite = -1;          // sums are not, and have to be computed in another way
constexpr int64_t kLeastChannels = 16;  // in and out, for tiles
constexpr int64_t kLeastTiles = 128;    // of all images: else weights are too much beside them
constexpr int64_t kManyBlocks = 16;     // else they are smaller, so that threads share them evenly
constexpr int64_t kChannelsAhead = 3;   // fetched
constexpr double kMostBytes = 1 << 20;  // of the inputs of a block

// The convolution.  w[out * out_step + in * in_step + tap], taps backwards where `turned`.
template <class T>
struct TileConvolution {
  static constexpr int64_t L = kLanes<T>, kBlock = kTileVecs * L;
  const T *x, *w, *bias;
  int64_t out_step, in_step;
  bool turned;
  T* y;  // not written where results are pooled
  int64_t n, c, h, width, o, oh, ow, ph, pw;
  Finish<T> finish;

  static bool pays(int64_t n, int64_t c, int64_t o, int64_t oh, int64_t ow) {
    return c >= kLeastChannels && o >= kLeastChannels && n * (oh / 2) * (ow / 2) >= kLeastTiles && double(16 * kBlock * c) * sizeof(T) <= kMostBytes;
  }
  int run() const {
    Scratch<T> u(16 * o * c);
    if (!u) return KEYDNN_NO_MEMORY;
    int status = KEYDNN_OK;
    const int64_t all = n * down() * across(), size = all >= kManyBlocks * kBlock ? kBlock : 2 * L;
    parallel_for(ceil_div(o, kTileRows), 3.0 * o * c, [&](int64_t i) {
      const int64_t first = i * kTileRows;
      for_tile_rows(lesser(int64_t(kTileRows), o - first), [&](auto rows, int64_t at) { prepare<rows.value>(first + at, u.data + 16 * c * (first + at)); });
    });
    parallel_for(ceil_div(all, size), 16 * (double(o) * c * all / kMacsPerNs) * (sizeof(T) / 4), [&](int64_t chunk) KEYDNN_NOINLINE {
      Scratch<T> v(16 * plane()), m(16 * kTileRows * kBlock);
      if (!v || !m) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
      const Block block(*this, chunk * size, lesser(size, all - chunk * size));
      if (block.count % L) memset(v.data, 0, sizeof(T) * static_cast<size_t>(16 * plane()));
      transform(block, v.data);
      Vec<T> zero = {};  // 0 times all results
      with_tile_vecs(ceil_div(block.count, L), [&](auto vecs) {
        for_tile_rows(o, [&](auto rows, int64_t first) {
          multiply<rows.value, vecs.value>(block, first, u.data + 16 * c * first, v.data, m.data);
          for (int64_t i = 0; i < rows.value; ++i) put<vecs.value>(block, first + i, m.data + i * kBlock, rows.value * kBlock, zero);
        });
      });
      if (lane_sum<T>(zero) != 0) __atomic_store_n(&status, kNotFinite, __ATOMIC_RELAXED);
    });
    return status;
  }

 private:
  // Neighbours in a row of tiles, number `at` and on of a block.
  struct Piece {
    int64_t image, row, col, count, at;
    int64_t from;             // their first input in the first channel
    bool inside[4];           // whether rows of inputs are
    bool follows;             // the piece before is the one above
    Between<T> first, second, third;  // inputs 0 to L, L to 2 L and the two after them that exist
  };
  struct Block {
    Piece runs[kBlock];
    int64_t n_runs, count;
    Block(const TileConvolution& q, int64_t first, int64_t n) : n_runs(0), count(n) {
      for (int64_t at = 0; at < n;) {
        const int64_t tile = first + at, col = tile % q.across(), row = tile / q.across();
        const int64_t size = lesser(lesser(q.across() - col, n - at), L);
        Piece& p = runs[n_runs];
        p.image = row / q.down(), p.row = row % q.down(), p.col = col, p.count = size, p.at = at;
        const int64_t r0 = 2 * p.row - q.ph, c0 = 2 * col - q.pw;
        p.from = (p.image * q.c * q.h + r0) * q.width + c0;
        for (int64_t i = 0; i < 4; ++i) p.inside[i] = r0 + i >= 0 && r0 + i < q.h;
        p.first = Between<T>(-c0, q.width - c0);
        p.second = Between<T>(-c0 - L, q.width - c0 - L);
        p.third = Between<T>(-c0 - 2 * L, lesser(q.width - c0 - 2 * L, int64_t(2)));
        p.follows = n_runs > 0 && p.row > 0 && p.col == (&p)[-1].col;
        ++n_runs;
        at += size;
      }
    }
  };
  int64_t down() const { return ceil_div(oh, 2); }
  int64_t across() const { return ceil_div(ow, 2); }
  int64_t plane() const { return c * kBlock + L; }  // not a multiple of a page

  // G w G' of outputs [first, first + R): [product][channel][output].
  template <int R>
  void prepare(int64_t first, T* to) const {
    using V = typename Run<T, R>::vec;
    for (int64_t channel = 0; channel < c; ++channel) {
      T taps[9][R];
      for (int r = 0; r < R; ++r) {
        const T* const from = w + (first + r) * out_step + channel * in_step;
        for (int k = 0; k < 9; ++k) taps[k][r] = from[turned ? 8 - k : k];
      }
      V in[3][3], out[4][4];
      for (int k = 0; k < 9; ++k) in[k / 3][k % 3] = Run<T, R>::at(taps[k]);
      winograd::weights(in, out);
      for (int k = 0; k < 16; ++k) Run<T, R>::put(to + (k * c + channel) * R, out[k / 4][k % 4]);
    }
  }

  // B' x B of all channels: [product][channel][tile].
  void transform(const Block& block, T* v) const {
    const T none[2 * L + 2] = {};
    for (int64_t channel = 0; channel < c; ++channel) {
      Vec<T> rows[4][4] = {};
      for (int64_t i = 0; i < block.n_runs; ++i) {
        const Piece& piece = block.runs[i];
        const T* const from = x + piece.from + channel * h * width;
        auto row = [&](int k) {
          const T* const p = piece.inside[k] ? from + k * width : none;
          __builtin_prefetch(p + kChannelsAhead * h * width);
          __builtin_prefetch(p + kChannelsAhead * h * width + L);
          load_row(piece, p, rows[k]);
        };
        if (piece.follows) {
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) rows[0][k] = rows[2][k], rows[1][k] = rows[3][k];
        } else {
          row(0);
          row(1);
        }
        row(2);
        row(3);
        Vec<T> t[4][4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) winograd::four(rows[0][k], rows[1][k], rows[2][k], rows[3][k], t[0][k], t[1][k], t[2][k], t[3][k]);
        T* const to = v + channel * kBlock + piece.at;
        if (piece.at + L <= kBlock) {
#pragma GCC unroll 16
          for (int k = 0; k < 16; ++k) store(to + k * plane(), t[k / 4][k % 4]);
        } else {
#pragma GCC unroll 16
          for (int k = 0; k < 16; ++k) store_part(to + k * plane(), t[k / 4][k % 4], kBlock - piece.at);
        }
      }
    }
  }
  // A row of inputs times B.
  KEYDNN_INLINE void load_row(const Piece& piece, const T* p, Vec<T> (&row)[4]) const {
    const Vec<T> a = piece.first.load(p), b = piece.second.load(p + L), last = piece.third.load(p + 2 * L);
    Vec<T> even, odd, even_last, odd_last;
    split_pairs<T, L>(a, b, even, odd);
    split_pairs<T, L>(last, last, even_last, odd_last);
    const Vec<T> next_even = shifted(even, even_last), next_odd = shifted(odd, odd_last);
    winograd::four(even, odd, next_even, next_odd, row[0], row[1], row[2], row[3]);
  }
  template <int... I>
  static KEYDNN_INLINE Vec<T> shifted(Vec<T> v, Vec<T> w, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, w, (I + 1)...);
  }
  static KEYDNN_INLINE Vec<T> shifted(Vec<T> v, Vec<T> w) { return shifted(v, w, std::make_integer_sequence<int, int(L)>{}); }

  // 16 products of R outputs: [product][output][tile].
  template <int R, int NV>
  void multiply(const Block& block, int64_t first, const T* u, const T* v, T* m) const {
    for (int k = 0; k < 16; ++k, u += c * R, v += plane()) {
      if (k < 2 * R && !finish.pooled) fetch(block, first + k / 2, k % 2);
      Vec<T> acc[R][NV] = {};
      tile<T, R, NV>(c, u, 1, R, [=](int64_t channel) {
        const T* const row = v + channel * kBlock;
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) __builtin_prefetch(row + 8 * kBlock + j * L);
        return row;
      }, acc);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) store(m + (k * R + i) * kBlock + j * L, acc[i][j]);
    }
  }

  // Fetches where row 0 or 1 of the tiles of an output goes.
  KEYDNN_INLINE void fetch(const Block& block, int64_t out, int64_t row) const {
    for (int64_t i = 0; i < block.n_runs; ++i) {
      const Piece& run = block.runs[i];
      const T* const to = y + ((run.image * o + out) * oh + 2 * run.row + row) * ow + 2 * run.col;
      __builtin_prefetch(to, 1);
      __builtin_prefetch(to + L, 1);
    }
  }

  // A' m A of an output, finished, to where its tiles lie.  Adds 0 times all to zero.
  template <int NV>
  void put(const Block& block, int64_t out, const T* m, int64_t step, Vec<T>& zero) const {
    T rows[2][2 * kBlock], best[kBlock];
    uint8_t code[kBlock];
    const Vec<T> start = splat(bias ? bias[out] : T(0));
    const FinishOne<T> change(finish, out);
    const bool changes = finish.changes();
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      Vec<T> in[4][4], four[2][2];
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) in[k / 4][k % 4] = load(m + k * step + j * L);
      winograd::outputs(in, four);
      for (int k = 0; k < 4; ++k) {
        Vec<T>& one = four[k / 2][k % 2];
        one += start;
        zero += T(0) * one;
        if (changes) one = change(one);
      }
      if (finish.pooled) {
        pool_four<T, L>(four[0][0], four[0][1], four[1][0], four[1][1], best + j * L, code + j * L);
      } else {
        put_pairs<T, L>(rows[0] + 2 * j * L, four[0][0], four[0][1]);
        put_pairs<T, L>(rows[1] + 2 * j * L, four[1][0], four[1][1]);
      }
    }
    for (int64_t i = 0; i < block.n_runs; ++i) {
      const Piece& run = block.runs[i];
      if (finish.pooled) {
        const int64_t n_windows = lesser(run.count, ow / 2 - run.col), to = ((run.image * o + out) * (oh / 2) + run.row) * (ow / 2) + run.col;
        if (run.row >= oh / 2) continue;
        copy_run<T, 1>(finish.pooled + to, best + run.at, n_windows);
        memcpy(finish.code + to, code + run.at, static_cast<size_t>(n_windows));
      } else {
        const int64_t n_cols = lesser(2 * run.count, ow - 2 * run.col);
        T* const to = y + ((run.image * o + out) * oh + 2 * run.row) * ow + 2 * run.col;
        copy_run<T, 1>(to, rows[0] + 2 * run.at, n_cols);
        if (2 * run.row + 1 < oh) copy_run<T, 1>(to + ow, rows[1] + 2 * run.at, n_cols);
      }
    }
  }
};

}  // namespace
}  // namespace keydnn::KEYDNN_NS
