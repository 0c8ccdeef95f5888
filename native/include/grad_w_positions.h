// Gradient of a convolution to its weight for few output channels: registers hold neighbouring positions.
//
// x is copied into planes (planes.h), g into planes of the same pitch with zeros past the end of a row.  Then each element
// of dw is the product of two long vectors, a plane of g and a shifted plane of x; a tile of them shares its loads.
//
// Positions and images are taken in pieces that stay in the cache while all tiles pass over them.
//
// Numerics: a piece is summed lane by lane, over at most kPiece vectors, then over lanes; pieces, and then blocks of images,
// are added in order.  Where a row of g has ended, 0 * x would turn an infinite x into NaN: elements that come out NaN are summed
// again, one by one, from the formula.
#pragma once
#include "planes.h"
#include "tile.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kPiece = 128;             // vectors that are summed lane by lane; four rows of g are 32 KiB at most
constexpr int64_t kCacheBytes = 512 << 10;  // what a piece may take
constexpr int64_t kMaxBlocks = 16;          // of images, each with a dw of its own
constexpr int64_t kMinBlocks = 8;           // fewer are not worth it
constexpr int kTileOuts = kTileRows / 2, kTileTaps = 6;

template <class T>
struct GradW {
  const keydnn_conv_shape& s;
  InputPlanes planes;
  int64_t in_c, out_c, n_k;           // per group
  int64_t g_size, length;             // elements of a plane of g, of which the first `length` are multiplied
  int64_t x_image, g_image;           // elements of an image's planes
  const int64_t* offset;              // of each tap in a group's planes of x
  const T *x, *g;                     // the operands
  explicit GradW(const keydnn_conv_shape& shape) : s(shape), planes(shape) {
    in_c = s.c / s.groups;
    out_c = s.o / s.groups;
    n_k = in_c * s.kh * s.kw;
    length = round_up(planes.positions(), kLanes<T>);
    g_size = round_up(s.oh * planes.pitch, kLanes<T>);
    x_image = s.c * planes.channel();
    g_image = s.o * g_size;
  }
};

// A piece: elements [begin, end) of the planes of some images.
template <class T>
struct Piece {
  const T *x, *g;  // the first image's planes
  int64_t images, begin, end;
};

// How images and positions are cut into pieces.
template <class T>
struct Cut {
  int64_t images, span;
  explicit Cut(const GradW<T>& q) {
    const int64_t vectors = q.length / kLanes<T>, bytes = q.planes.channel() * q.in_c + q.g_size * q.out_c;
    const int64_t fit = kCacheBytes / (int64_t(sizeof(T)) * (bytes / vectors + 1));  // vectors of positions
    images = greater(int64_t(1), greater(fit, int64_t(48)) / vectors);
    images = lesser(images, greater(int64_t(1), kPiece / vectors));
    span = lesser(kPiece, greater(fit, int64_t(48))) * kLanes<T>;
  }
};

// to[i][j] += product of plane i of g with tap k + j of x, over the piece.
template <class T, int MO, int MK>
KEYDNN_INLINE void product_tile(const GradW<T>& q, const Piece<T>& in, const T* g0, int64_t k, T* to) {
  Vec<T> acc[MO * MK] = {};
  for (int64_t image = 0; image < in.images; ++image) {
    const T* const g = g0 + image * q.g_image;
    const T* const x = in.x + image * q.x_image;
    for (int64_t p = in.begin; p < in.end; p += kLanes<T>) {
      Vec<T> a[MO];
#pragma GCC unroll 8
      for (int i = 0; i < MO; ++i) a[i] = load(g + i * q.g_size + p);
#pragma GCC unroll 8
      for (int j = 0; j < MK; ++j) {
        const Vec<T> b = load(x + q.offset[k + j] + p);
#pragma GCC unroll 8
        for (int i = 0; i < MO; ++i) acc[i * MK + j] += a[i] * b;
      }
    }
  }
  T sums[MO * MK];
  lane_sums<T>(acc, sums);
  for (int i = 0; i < MO; ++i)
    for (int j = 0; j < MK; ++j) to[i * q.n_k + j] += sums[i * MK + j];
}

// Rows [o, o + MO) of dw, taps [k0, k1).
template <class T, int MO>
void product_rows(const GradW<T>& q, const Piece<T>& in, const T* g, int64_t k0, int64_t k1, T* to) {
  int64_t k = k0;
  for (; k + kTileTaps <= k1; k += kTileTaps) product_tile<T, MO, kTileTaps>(q, in, g, k, to + k);
  for (; k + 3 <= k1; k += 3) product_tile<T, MO, 3>(q, in, g, k, to + k);
  for (; k < k1; ++k) product_tile<T, MO, 1>(q, in, g, k, to + k);
}

// Adds the products over n images' planes to rows [o0, o1) of dw, which lie in one group, taps [k0, k1).
template <class T>
void product_block(const GradW<T>& q, const T* x_planes, const T* g_planes, int64_t n, int64_t o0, int64_t o1, int64_t k0,
                   int64_t k1, T* dw) {
  const Cut<T> cut(q);
  const T* const x = x_planes + o0 / q.out_c * q.in_c * q.planes.channel();
  for (int64_t image = 0; image < n; image += cut.images)
    for (int64_t begin = 0; begin < q.length; begin += cut.span) {
      const Piece<T> piece{x + image * q.x_image, g_planes + image * q.g_image, lesser(cut.images, n - image), begin,
                           lesser(begin + cut.span, q.length)};
      auto rows = [&](auto mo, int64_t o) { product_rows<T, mo.value>(q, piece, piece.g + o * q.g_size, k0, k1, dw + o * q.n_k); };
      int64_t o = o0;
      if constexpr (kTileOuts == 4)
        for (; o + 4 <= o1; o += 4) rows(Const<4>{}, o);
      for (; o + 2 <= o1; o += 2) rows(Const<2>{}, o);
      if (o < o1) rows(Const<1>{}, o);
    }
}

// One image's plane of x (channel < c) or g (channel - c).
template <class T>
void fill_channel(const GradW<T>& q, int64_t image, int64_t channel, T* x_planes, T* g_planes) {
  const keydnn_conv_shape& s = q.s;
  if (channel < s.c) return q.planes.fill(q.x + (image * s.c + channel) * s.h * s.w, x_planes + channel * q.planes.channel());
  const int64_t o = channel - s.c;
  T* const to = g_planes + o * q.g_size;
  fill_plane(q.g + (image * s.o + o) * s.oh * s.ow, Frame{s.oh, s.ow, 0, 0, 1, 1, s.oh, q.planes.pitch}, to);
  for (int64_t i = s.oh * q.planes.pitch; i < q.g_size; ++i) to[i] = T(0);
}

// Adds the part of images [n0, n1) to dw.
template <class T>
int images_block(const GradW<T>& q, int64_t n0, int64_t n1, T* dw) {
  const int64_t together = lesser(n1 - n0, Cut<T>(q).images);
  Scratch<T> planes(together * (q.x_image + q.g_image) + kLanes<T>);
  if (!planes) return KEYDNN_NO_MEMORY;
  T* const g_planes = planes.data;
  T* const x_planes = planes.data + together * q.g_image;
  store(x_planes + together * q.x_image, Vec<T>{});  // the last vector of the last plane may read past it
  for (int64_t n = n0; n < n1; n += together) {
    const int64_t images = lesser(together, n1 - n);
    for (int64_t i = 0; i < images; ++i)
      for (int64_t channel = 0; channel < q.s.c + q.s.o; ++channel)
        fill_channel(q, n + i, channel, x_planes + i * q.x_image, g_planes + i * q.g_image);
    for (int64_t group = 0; group < q.s.groups; ++group)
      product_block(q, x_planes, g_planes, images, group * q.out_c, (group + 1) * q.out_c, 0, q.n_k, dw);
  }
  return KEYDNN_OK;
}

// The element from its formula, one product after the other; stops at NaN.
template <class T>
T exact(const GradW<T>& q, int64_t o, int64_t k) {
  const keydnn_conv_shape& s = q.s;
  const int64_t c = o / q.out_c * q.in_c + k / (s.kh * s.kw), u = k / s.kw % s.kh, v = k % s.kw;
  T sum = 0;
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t i = 0; i < s.oh; ++i)
      for (int64_t j = 0; j < s.ow; ++j) {
        const int64_t row = s.sh * i + s.dh * u - s.ph, col = s.sw * j + s.dw * v - s.pw;
        const bool inside = row >= 0 && row < s.h && col >= 0 && col < s.w;
        const T value = inside ? q.x[((n * s.c + c) * s.h + row) * s.w + col] : T(0);
        sum += q.g[((n * s.o + o) * s.oh + i) * s.ow + j] * value;
        if (sum != sum) return sum;
      }
  return sum;
}

// Few images, or a large dw: all planes first, then blocks of dw.
template <class T>
int by_rows(const GradW<T>& q, double cost, T* dw) {
  const keydnn_conv_shape& s = q.s;
  Scratch<T> planes(s.n * (q.x_image + q.g_image) + kLanes<T>);
  if (!planes) return KEYDNN_NO_MEMORY;
  T* const g_planes = planes.data;
  T* const x_planes = planes.data + s.n * q.g_image;
  store(x_planes + s.n * q.x_image, Vec<T>{});
  parallel_for(s.n * (s.c + s.o), 0.3 * s.n * (q.x_image + q.g_image), [&](int64_t i) {
    const int64_t image = i / (s.c + s.o);
    fill_channel(q, image, i % (s.c + s.o), x_planes + image * q.x_image, g_planes + image * q.g_image);
  });
  // blocks of dw, halved until there are eight (unless they become too small to be worth claiming) and their part of the
  // planes stays in the cache
  int64_t outs = round_up(q.out_c, kTileOuts), taps = round_up(q.n_k, kTileTaps);
  auto blocks = [&] { return s.groups * ceil_div(q.out_c, outs) * ceil_div(q.n_k, taps); };
  auto macs = [&] { return double(s.n) * q.length * outs * taps; };
  while ((blocks() < 8 && macs() > 4e5) || macs() > 3e7) {
    if (outs > kTileOuts && (8 * outs >= taps || taps == kTileTaps)) {
      outs = round_up(outs / 2, kTileOuts);
    } else if (taps > kTileTaps) {
      taps = round_up(taps / 2, kTileTaps);
    } else {
      break;
    }
  }
  const int64_t down = ceil_div(q.out_c, outs), across = ceil_div(q.n_k, taps);
  parallel_for(s.groups * down * across, cost, [&](int64_t chunk) {
    const int64_t group = chunk / (down * across), o = chunk / across % down * outs, k = chunk % across * taps;
    product_block(q, x_planes, g_planes, s.n, group * q.out_c + o, group * q.out_c + lesser(o + outs, q.out_c), k,
                  lesser(k + taps, q.n_k), dw);
  });
  return KEYDNN_OK;
}

// Many images: each block of them makes its own dw; these are added in order.
template <class T>
int by_images(const GradW<T>& q, double cost, int64_t blocks, T* dw) {
  const int64_t n = q.s.n, size = q.s.o * q.n_k;
  Scratch<T> parts((blocks - 1) * size);  // the first block's part is dw itself
  if (!parts) return KEYDNN_NO_MEMORY;
  memset(parts.data, 0, sizeof(T) * static_cast<size_t>((blocks - 1) * size));
  int status = KEYDNN_OK;
  parallel_for(blocks, cost, [&](int64_t block) {
    T* const part = block ? parts.data + (block - 1) * size : dw;
    const int got = images_block(q, block * n / blocks, (block + 1) * n / blocks, part);
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  });
  parallel_ranges(size, 4096, 0.3 * blocks * size, [&](int64_t begin, int64_t end) {
    for (int64_t block = 0; block + 1 < blocks; ++block)
      for (int64_t i = begin; i < end; ++i) dw[i] += parts.data[block * size + i];
  });
  return status;
}

template <class T>
int grad_w_by_positions(const T* x, const T* g, T* dw, const keydnn_conv_shape& s) {
  GradW<T> q(s);
  const int64_t size = s.o * q.n_k;
  memset(dw, 0, sizeof(T) * static_cast<size_t>(size));
  Scratch<int64_t> offset(q.n_k);
  if (!offset) return KEYDNN_NO_MEMORY;
  q.planes.offsets(q.in_c, offset.data);
  q.offset = offset.data;
  q.x = x;
  q.g = g;
  const double cost = double(s.n) * q.length * size * (sizeof(T) / 4) / kMacsPerNs;
  const int64_t blocks = lesser(kMaxBlocks, s.n / Cut<T>(q).images);
  const int status = blocks >= kMinBlocks ? by_images(q, cost, blocks, dw) : by_rows(q, cost, dw);
  for (int64_t i = 0; i < size; ++i)
    if (dw[i] != dw[i]) dw[i] = exact(q, i / q.n_k, i % q.n_k);
  return status;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
