// Gradient of a convolution with 3x3 taps to its weight, by Winograd's tiles (winograd.h):
//
//   dw[o,c] = G' s[o,c] G,   s[o,c] = sum_t (A g[o,t] A') * (B' x[c,t] B)           t: tiles of 2x2 outputs, 4x4 inputs
//
// that is 16 matrix products over tiles, at 16 `points`, where tap by tap they are 36.  A chunk has some images, input channels and
// output channels, and sums of its own.  It takes a group of tiles after the other: packs and transforms a register of channels
// at a time, then multiplies point by point in tiles of registers (tile.h).
//
// Numerics: a group (64 to 128 tiles, or a long row) is summed in order, then added to the chunk's sums; then blocks of images, in
// order.  Infinities and NaN spread to all taps, so where dw is not finite it is left to others.
#pragma once
#include "packed.h"
#include "winograd.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kPoints = 16;
constexpr int64_t kChunkVecs = 256 / KEYDNN_VECTOR_BYTES;  // registers of channels in a chunk, input and output
constexpr int64_t kGroupTiles = 128;
constexpr int64_t kGroupBytes = int64_t(512) << 10;        // of transformed operands

// Planes framed with zeros, a register of channels at each position: (row, col) of an image lies at (row + top, col + left).
template <class T>
struct FramedChannels {
  int64_t height, width, top, left, pitch;
  Scratch<int64_t> place;  // of the image's positions, in elements
  FramedChannels(int64_t h, int64_t w, int64_t above, int64_t before, int64_t cols)
      : height(h), width(w), top(above), left(before), pitch(cols * kLanes<T>), place(h * w) {
    for (int64_t i = 0; place && i < h * w; ++i) place.data[i] = i / w * pitch + (left + i % w) * kLanes<T>;
  }
  // Rows [first, first + rows) of the frame; columns outside of the image are zero before.
  void pack(const T* plane, int64_t channels, int64_t first, int64_t rows, T* to, double* sums) const {
    const int64_t r0 = lesser(greater(first - top, int64_t(0)), height), r1 = greater(r0, lesser(first + rows - top, height));
    const int64_t above = lesser(rows, r0 + top - first), inside = r1 - r0;
    memset(to, 0, sizeof(T) * static_cast<size_t>(above * pitch));
    memset(to + (above + inside) * pitch, 0, sizeof(T) * static_cast<size_t>((rows - above - inside) * pitch));
    const int64_t* const at = place.data + r0 * width;
    T* const image = to + (above - r0) * pitch;
    pack_register(plane + r0 * width, height * width, channels, inside * width, [=](int64_t i) { return image + at[i]; }, sums);
  }
};

// The points of n tiles side by side: a tile goes `step` elements past the one before, a point `apart`.
template <class T>
void input_points(const T* x, int64_t pitch, int64_t n, T* to, int64_t step, int64_t apart) {
  for (; n > 0; --n, x += 2 * kLanes<T>, to += step) {
    Vec<T> v[4][4];
#pragma GCC unroll 16
    for (int i = 0; i < kPoints; ++i) v[i / 4][i % 4] = load(x + i / 4 * pitch + i % 4 * kLanes<T>);
    winograd::inputs(v);
#pragma GCC unroll 16
    for (int i = 0; i < kPoints; ++i) store(to + i * apart, v[i / 4][i % 4]);
  }
}
template <class T>
void gradient_points(const T* g, int64_t pitch, int64_t n, T* to, int64_t step, int64_t apart) {
  for (; n > 0; --n, g += 2 * kLanes<T>, to += step) {
    const Vec<T> v[2][2] = {{load(g), load(g + kLanes<T>)}, {load(g + pitch), load(g + pitch + kLanes<T>)}};
    Vec<T> points[4][4];
    winograd::gradients(v, points);
#pragma GCC unroll 16
    for (int i = 0; i < kPoints; ++i) store(to + i * apart, points[i / 4][i % 4]);
  }
}

// sums[c] += sum_t v[t][c] * q[t], for a register of input channels of which `channels` exist.
template <class T, int NR>
void multiply_points(const T* v, const T* q, int64_t tiles, int64_t channels, T* sums) {
  constexpr int64_t L = kLanes<T>, MR = lesser(int64_t(kTileRows), L);
  for (int64_t c = 0; c < lesser(channels, L); c += MR) {
    T* const to = sums + c * NR * L;
#pragma GCC unroll 32
    for (int k = 0; k < MR * NR; ++k) __builtin_prefetch(to + k * L, 1);
    Vec<T> acc[MR][NR] = {};
    tile<T, MR, NR>(tiles, v + c, 1, L, [=](int64_t t) { return q + t * NR * L; }, acc);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < NR; ++j) {
        T* const sum = to + (i * NR + j) * L;
        store(sum, load(sum) + acc[i][j]);
      }
  }
}

template <class T>
struct TileGradW {
  static constexpr int64_t L = kLanes<T>;
  const keydnn_conv_shape& s;
  const T *x, *g;
  T *dw, *db;
  int64_t high, wide;                    // tiles of an image
  int64_t in_vecs;                       // registers of input channels
  LaneBlocks<T> out;
  int64_t in_chunks, out_chunks, parts;  // parts: blocks of images
  int64_t images, rows;                  // of a group; rows of tiles
  FramedChannels<T> x_frame, g_frame;
  TileGradW(const keydnn_conv_shape& shape, const T* x_, const T* g_, T* dw_, T* db_)
      : s(shape), x(x_), g(g_), dw(dw_), db(db_), high(ceil_div(s.oh, 2)), wide(ceil_div(s.ow, 2)), in_vecs(ceil_div(s.c, L)), out(s.o),
        in_chunks(ceil_div(in_vecs, kChunkVecs)), out_chunks(ceil_div(out.count, kChunkVecs / kBlockVecs)),
        x_frame(s.h, s.w, s.ph, s.pw, 2 * wide + 2), g_frame(s.oh, s.ow, 0, 0, 2 * wide) {
    const int64_t vecs = lesser(in_vecs, kChunkVecs) + lesser(out.lanes / L, kChunkVecs);
    const int64_t most = lesser(kGroupTiles, kGroupBytes / (kPoints * vecs * KEYDNN_VECTOR_BYTES));
    parts = lesser(lesser(ceil_div(16, in_chunks * out_chunks), s.n), greater(int64_t(4), s.n * high * wide / most));
    images = greater(int64_t(1), lesser(most / (high * wide), s.n / parts));
    rows = images > 1 ? high : ceil_div(high, ceil_div(high, greater(int64_t(1), most / wide)));
  }
  // Whether there are chunks enough, registers are filled, and 16 products of each tile, with as many as of 32 tiles for what is
  // done once with the sums, are well below 9 of each position.
  static bool pays(const keydnn_conv_shape& s) {
    if (!winograd::fits(s) || s.oh != s.h + 2 * s.ph - 2 || s.ow != s.w + 2 * s.pw - 2) return false;
    const int64_t tiles = s.n * ceil_div(s.oh, 2) * ceil_div(s.ow, 2), positions = s.n * s.oh * s.ow, most = kChunkVecs * L;
    return s.c >= 16 && s.o >= 16 && fills_registers<T>(s.c) && fills_registers<T>(s.o) &&
           s.n * ceil_div(s.c, most) * ceil_div(s.o, most) >= 8 && 10 * kPoints * (tiles + 32) <= 7 * 9 * positions;
  }
  // KEYDNN_OK, KEYDNN_NO_MEMORY or kNotFinite.
  int run() const {
    const Scratch<T> sums(parts * part_size());
    const Scratch<double> bias_sums(parts * out.lanes);
    if (!x_frame.place || !g_frame.place || !sums || !bias_sums) return KEYDNN_NO_MEMORY;
    const int64_t chunks = in_chunks * out_chunks;
    const double cost = kPoints * double(s.n) * high * wide * s.o * s.c * (sizeof(T) / 4) / kMacsPerNs;
    int status = KEYDNN_OK;
    parallel_for(parts * chunks, cost, [&](int64_t chunk) KEYDNN_NOINLINE {
      const int64_t i = chunk / chunks;
      const int got = add(chunk % chunks / out_chunks, chunk % out_chunks, i * s.n / parts, (i + 1) * s.n / parts,
                          sums.data + i * part_size(), bias_sums.data + i * out.lanes);
      if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
    });
    if (status != KEYDNN_OK) return status;
    parallel_for(out.count * in_vecs, 0.1 * parts * part_size(), [&](int64_t chunk) KEYDNN_NOINLINE {
      if (!finish(chunk / in_vecs, chunk % in_vecs, sums.data)) __atomic_store_n(&status, kNotFinite, __ATOMIC_RELAXED);
    });
    for (int64_t o = 0; db && o < s.o; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < parts; ++i) sum += bias_sums.data[i * out.lanes + o];
      db[o] = static_cast<T>(sum);
    }
    return status;
  }

 private:
  // Sums of a part: [block of outputs][register of inputs][point][input][output].
  int64_t sums_at(int64_t block, int64_t vec) const { return kPoints * L * (in_vecs * out.first(block) + vec * out.vecs(block) * L); }
  int64_t part_size() const { return kPoints * L * in_vecs * out.lanes; }

  // The sums of a chunk's channels over images [n0, n1), in its part.
  int add(int64_t in_chunk, int64_t out_chunk, int64_t n0, int64_t n1, T* sums, double* bias_sums) const {
    const int64_t c0 = in_chunk * kChunkVecs, c1 = lesser(c0 + kChunkVecs, in_vecs), per_chunk = kChunkVecs / kBlockVecs;
    const int64_t b0 = out_chunk * per_chunk, b1 = lesser(b0 + per_chunk, out.count), o0 = out.first(b0);
    const int64_t lanes = lesser(out.first(b1), out.lanes) - o0, tiles = images * rows * wide;
    const int64_t x_point = (c1 - c0) * tiles * L + L, g_point = lanes * tiles + L;  // no multiples of 4 KiB
    const int64_t x_size = (2 * rows + 2) * x_frame.pitch, g_size = 2 * rows * g_frame.pitch;
    const Scratch<T> x_rows(x_size), g_rows(g_size), v(kPoints * x_point), q(kPoints * g_point);
    if (!x_rows || !g_rows || !v || !q) return KEYDNN_NO_MEMORY;
    memset(x_rows.data, 0, sizeof(T) * static_cast<size_t>(x_size));
    memset(g_rows.data, 0, sizeof(T) * static_cast<size_t>(g_size));
    for (int64_t b = b0; b < b1; ++b)
      memset(sums + sums_at(b, c0), 0, sizeof(T) * static_cast<size_t>(kPoints * L * out.vecs(b) * L * (c1 - c0)));
    bias_sums = db && c0 == 0 ? bias_sums + o0 : nullptr;
    if (bias_sums) memset(bias_sums, 0, sizeof(double) * static_cast<size_t>(lanes));
    for (int64_t n = n0; n < n1; n += images)
      for (int64_t r = 0; r < high; r += rows) {
        const int64_t n_images = lesser(images, n1 - n), n_rows = lesser(rows, high - r), n_tiles = n_images * n_rows * wide;
        for (int64_t i = 0; i < n_images; ++i) {
          for (int64_t vec = c0; vec < c1; ++vec) {
            x_frame.pack(x + ((n + i) * s.c + vec * L) * s.h * s.w, s.c - vec * L, 2 * r, 2 * n_rows + 2, x_rows.data, nullptr);
            T* const to = v.data + ((vec - c0) * n_tiles + i * n_rows * wide) * L;
            for (int64_t k = 0; k < n_rows; ++k)
              input_points(x_rows.data + 2 * k * x_frame.pitch, x_frame.pitch, wide, to + k * wide * L, L, x_point);
          }
          for (int64_t b = b0; b < b1; ++b)
            for (int64_t vec = 0, width = out.vecs(b) * L; vec * L < width; ++vec) {
              const int64_t o = out.first(b) + vec * L;
              g_frame.pack(g + ((n + i) * s.o + o) * s.oh * s.ow, s.o - o, 2 * r, 2 * n_rows, g_rows.data,
                           bias_sums ? bias_sums + o - o0 : nullptr);
              T* const to = q.data + (out.first(b) - o0) * n_tiles + i * n_rows * wide * width + vec * L;
              for (int64_t k = 0; k < n_rows; ++k)
                gradient_points(g_rows.data + 2 * k * g_frame.pitch, g_frame.pitch, wide, to + k * wide * width, width, g_point);
            }
        }
        for (int64_t point = 0; point < kPoints; ++point)
          for (int64_t b = b0; b < b1; ++b)
            for (int64_t vec = c0; vec < c1; ++vec) {
              const auto multiply = out.vecs(b) == 2 ? multiply_points<T, 2> : multiply_points<T, 1>;
              multiply(v.data + point * x_point + (vec - c0) * n_tiles * L, q.data + point * g_point + (out.first(b) - o0) * n_tiles,
                       n_tiles, s.c - vec * L, sums + sums_at(b, vec) + point * L * out.vecs(b) * L);
            }
      }
    return KEYDNN_OK;
  }

  // dw of a block of outputs and a register of inputs, from the sums of all parts, which it adds up in the first.  Whether it is
  // finite: 0 * inf and 0 * NaN are NaN.
  bool finish(int64_t block, int64_t in_vec, T* sums) const {
    const int64_t width = out.vecs(block), point = L * width * L, c0 = in_vec * L, channels = lesser(L, s.c - c0);
    T* const first = sums + sums_at(block, in_vec);
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t i = 0; i < kPoints * point; ++i) first[i] += first[part * part_size() + i];
    Vec<T> zero = {};
    for (int64_t vec = 0; vec < width; ++vec) {
      T rows[9 * L * L];
      for (int64_t c = 0; c < channels; ++c) {
        Vec<T> points[4][4], taps[3][3];
        for (int i = 0; i < kPoints; ++i) points[i / 4][i % 4] = load(first + i * point + (c * width + vec) * L);
        winograd::weight_gradients(points, taps);
        for (int i = 0; i < 9; ++i) {
          store(rows + (9 * c + i) * L, taps[i / 3][i % 3]);
          zero += T(0) * taps[i / 3][i % 3];
        }
      }
      const int64_t o = out.first(block) + vec * L;
      unpack_planes(rows, 1, lesser(L, s.o - o), 9 * channels, dw + (o * s.c + c0) * 9, s.c * 9);
    }
    return lane_sum<T>(zero) == 0;
  }
};

}  // namespace
}  // namespace keydnn::KEYDNN_NS
