// Convolution with 3x3 taps by the tiles of winograd.h, of many positions:
//
//   tiles of all images are numbered in order, and taken in blocks: B' x B of a block for all channels, a plane for each of the 16
//   products; then for some outputs at a time the products, and A' m A of them, finished.
//
// A block has the width of a register tile (tile.h), wherever rows and images end.
#pragma once
#include "conv_products.h"
#include "winograd.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr double kInput = 8, kOutput = 4.5, kWeight = 15;  // what transforming takes, for a tile's inputs, its outputs and the taps of a
constexpr double kGain = 1.5;            // pair of channels, in multiply-adds of registers of tiles; and how many times that is saved
constexpr int64_t kManyTiles = 768;      // from so many on, threads share what is made of the weights
constexpr double kNsOfTwo = 120e3;       // up to which fewer are cut in two
constexpr int64_t kChannelsAhead = 3;    // whose inputs are fetched
constexpr int64_t kMostBytes = 1 << 20;  // of the inputs of a block, for the second-level cache

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

  // Whether transforming is little beside the 20 of 36 products that are not needed.
  static bool pays(int64_t n, int64_t c, int64_t o, int64_t oh, int64_t ow) {
    const double tiles = double(n) * (oh * ow / 4), pairs = double(c) * o;
    return oh > 1 && ow > 1 && 16 * 2 * L * c * int64_t(sizeof(T)) <= kMostBytes &&
           20 * pairs * tiles / 16 > kGain * (tiles * (kInput * c + kOutput * o) + kWeight * pairs);
  }
  int run() const {
    const int64_t all = n * down() * across();
    const double cost = all * (16.0 * o * c + 16 * (kInput * c + kOutput * o)) / kMacsPerNs * (sizeof(T) / 4);
    return all < kManyTiles ? few(all, cost) : many(all, cost);
  }

 private:
  static constexpr int64_t kOuts = greater(L, int64_t(kTileRows));  // whose weights are prepared together

  // Weights once, then blocks of tiles.
  int many(int64_t all, double cost) const {
    const Scratch<T> u(round_up(o, kOuts) / kTileRows * 16 * strip());
    if (!u) return KEYDNN_NO_MEMORY;
    parallel_for(ceil_div(o, kOuts), 1.0 * o * c, [&](int64_t i) {
      prepare(i * kOuts, lesser((i + 1) * kOuts, o), u.data + i * kOuts / kTileRows * 16 * strip());
    });
    int status = KEYDNN_OK;
    const int64_t size = 16 * kBlock * c * int64_t(sizeof(T)) <= kMostBytes ? kBlock : 2 * L;
    parallel_for(ceil_div(all, size), cost, [&](int64_t i) {
      const int got = tiles(i * size, lesser((i + 1) * size, all), 0, o, u.data);
      if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
    });
    return status;
  }
  // Few tiles: a chunk has some of them, or of the outputs, and shares nothing that another thread has written: weights, or what inputs
  // are transformed to, whichever is less, are computed by each.
  int few(int64_t all, double cost) const {
    const bool by_tiles = all > o;
    const int64_t size = by_tiles ? all : o, unit = by_tiles ? L : kOuts, units = ceil_div(size, unit);
    const int64_t pieces = lesser(units, cost > kNsOfTwo ? int64_t(4) : int64_t(2));
    int status = KEYDNN_OK;
    parallel_for(pieces, cost, [&](int64_t i) {
      const int64_t from = i * units / pieces * unit, to = lesser((i + 1) * units / pieces * unit, size);
      const int64_t t0 = by_tiles ? from : 0, t1 = by_tiles ? to : all, o0 = by_tiles ? 0 : from, o1 = by_tiles ? o : to;
      const Scratch<T> u(round_up(o1 - o0, kOuts) / kTileRows * 16 * strip());
      int got = u ? KEYDNN_OK : KEYDNN_NO_MEMORY;
      if (u) prepare(o0, o1, u.data);
      const int64_t blocks = ceil_div(ceil_div(t1 - t0, L), kTileVecs), vecs = ceil_div(t1 - t0, L);
      for (int64_t k = 0; k < blocks && got == KEYDNN_OK; ++k)
        got = tiles(t0 + k * vecs / blocks * L, lesser(t0 + (k + 1) * vecs / blocks * L, t1), o0, o1, u.data);
      if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
    });
    return status;
  }

  // Tiles [t0, t1) of outputs [o0, o1), whose weights begin at u.
  KEYDNN_NOINLINE int tiles(int64_t t0, int64_t t1, int64_t o0, int64_t o1, const T* u) const {
    const Scratch<T> v(16 * plane()), m(16 * kTileRows * kBlock);
    if (!v || !m) return KEYDNN_NO_MEMORY;
    const Block block(*this, t0, t1 - t0);
    for (int64_t i = 0; block.count % L && i < 16 * c; ++i) store(v.data + i / c * plane() + i % c * kBlock + block.count / L * L, Vec<T>{});
    transform(block, v.data);
    Vec<T> zero = {};  // 0 times all results
    with_tile_vecs(ceil_div(block.count, L), [&](auto vecs) {
      for_tile_rows(o1 - o0, [&](auto rows, int64_t i) {
        multiply<rows.value, vecs.value>(block, o0 + i, weights_of(u, i), v.data, m.data);
        for (int64_t r = 0; r < rows.value; ++r) put<vecs.value>(block, o0 + i + r, m.data + r * kBlock, rows.value * kBlock, zero);
      });
    });
    return lane_sum<T>(zero) == 0 ? KEYDNN_OK : kNotFinite;
  }

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
  int64_t plane() const { return c * kBlock + L; }     // of a product's inputs; not a multiple of a page
  int64_t strip() const { return c * kTileRows + L; }  // of a product's weights, likewise

  // G w G' of outputs [o0, o1), o0 a multiple of kOuts, by strips of kTileRows: [strip][product][output][channel], or where w is turned
  // [strip][product][channel][output].
  void prepare(int64_t o0, int64_t o1, T* u) const {
    const int64_t rows = turned ? c : o1 - o0, cols = turned ? o1 - o0 : c;  // of w, 9 taps each
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t col = 0; col < cols; col += L) {
        const int64_t live = lesser(L, cols - col);
        const T* const from = turned ? w + row * in_step + (o0 + col) * out_step : w + (o0 + row) * out_step + col * in_step;
        Vec<T> raw[9], taps[3][3], to[4][4];
        if (live == L) {
#pragma GCC unroll 9
          for (int i = 0; i < 9; ++i) raw[i] = load(from + i * L);
        } else {
          memset(raw, 0, sizeof raw);
          memcpy(raw, from, sizeof(T) * static_cast<size_t>(9 * live));
        }
        each_tap(raw, taps, std::make_integer_sequence<int, 9>{});
        winograd::weights(taps, to);
        if (turned) {
          constexpr int64_t step = lesser(L, int64_t(kTileRows));
          for (int64_t i = 0; i < L; i += step) {
            T* const put = u + (col + i) / kTileRows * 16 * strip() + row * kTileRows + (col + i) % kTileRows;
            for (int k = 0; k < 16; ++k) memcpy(put + k * strip(), reinterpret_cast<const T*>(&to[k / 4][k % 4]) + i, sizeof(T) * step);
          }
        } else {
          T* const put = u + row / kTileRows * 16 * strip() + row % kTileRows * c + col;
          for (int k = 0; k < 16; ++k)
            live < L ? store_part(put + k * strip(), to[k / 4][k % 4], live) : store(put + k * strip(), to[k / 4][k % 4]);
        }
      }
  }
  // Number 9 i + TAP of 9 L in a row, for lane i; TAP of `taps`, or the last but TAP.
  template <int... TAP>
  KEYDNN_INLINE void each_tap(const Vec<T> (&raw)[9], Vec<T> (&taps)[3][3], std::integer_sequence<int, TAP...>) const {
    const Vec<T> all[9] = {every_ninth<TAP>(raw, std::make_integer_sequence<int, int(L)>{})...};
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) taps[i / 3][i % 3] = all[turned ? 8 - i : i];
  }
  template <int TAP, int... I>
  static KEYDNN_INLINE Vec<T> every_ninth(const Vec<T> (&raw)[9], std::integer_sequence<int, I...>) {
    Vec<T> v = raw[0];
    auto take = [&](auto from) {
      constexpr int r = from.value, n = int(L);
      v = __builtin_shufflevector(v, raw[r], ((9 * I + TAP) / n == r ? n + (9 * I + TAP) % n : r == 1 && (9 * I + TAP) / n == 0 ? (9 * I + TAP) % n : I)...);
    };
    take(Const<1>{}), take(Const<2>{}), take(Const<3>{}), take(Const<4>{}), take(Const<5>{}), take(Const<6>{}), take(Const<7>{}), take(Const<8>{});
    return v;
  }
  // Of output i and on, as prepared.
  const T* weights_of(const T* u, int64_t i) const {
    return u + i / kTileRows * 16 * strip() + i % kTileRows * (turned ? 1 : c);
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
    for (int k = 0; k < 16; ++k, u += strip(), v += plane()) {
      if (k < 2 * R && !finish.pooled) fetch(block, first + k / 2, k % 2);
      Vec<T> acc[R][NV] = {};
      tile<T, R, NV>(c, u, turned ? 1 : c, turned ? kTileRows : 1, [=](int64_t channel) {
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
