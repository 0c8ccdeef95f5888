// 2-D convolution and its gradient to the input.
//
//   y[n,o,i,j] = b[o] + sum_{c,u,v} x[n, c, sh i + dh u - ph, sw j + dw v - pw] * w[o,c,u,v]          (x is 0 outside)
//
// Input channels are copied into planes (planes.h).  Then output plane o, seen as one long vector with the pitch of the
// planes, is a sum over taps k = (c, u, v) of w[o, k] times a plane shifted by a constant: a matrix product whose right
// side is never built.  Elements past the end of a row are computed and not stored.
//
// The gradient to x is the same product over planes of g: input row i = sh q + r meets exactly the taps with
// (r + ph - dh u) divisible by sh, at row q + (r + ph - dh u) / sh of g.  So each of the sh * sw phases of x is a
// stride-one convolution of g with its own subset of taps.
//
// Numerics: bias first, then taps in the order (c, u, v) resp. (o, u, v), in the array's precision.
// Meaning: kernels/reference, functions of the same names.
#include "planes.h"
#include "tile.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr double kMacsPerNs = KEYDNN_VECTOR_BYTES / 4 * 2;
constexpr int64_t kImagesApart = 8;  // from so many images on, each is a chunk of its own

// One product: n_out planes from n_k taps.  All strides in elements.
template <class T>
struct Product {
  const T* planes;
  const int64_t* offset;                // of each tap in planes
  int64_t n_k;
  const T* w;                           // (n_out, n_k)
  const T* bias;                        // (n_out) or null
  int64_t n_out, rows, cols, pitch;     // positions: rows x pitch, of which cols are wanted
  T* out;
  int64_t out_plane, out_row, out_col;  // element (o, r, q) goes to out[o * out_plane + r * out_row + q * out_col]
};

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

// Output planes [o0, o1), rows [r0, r1).  stage holds kTileRows x stage_row(p, r1 - r0) elements.
template <class T>
int64_t stage_row(const Product<T>& p, int64_t rows) {
  return round_up(rows * p.pitch, kLanes<T>);
}
template <class T>
void product_block(const Product<T>& p, int64_t o0, int64_t o1, int64_t r0, int64_t r1, T* stage) {
  const int64_t width = stage_row(p, r1 - r0);
  const Panels panels(ceil_div((r1 - r0 - 1) * p.pitch + p.cols, kLanes<T>));
  for_tile_rows(o1 - o0, [&](auto mr, int64_t i) {
    const int64_t o = o0 + i;
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int64_t first = panels.first(panel) * kLanes<T>;
      with_tile_vecs(panels.width(panel), [&](auto nr) {
        position_tile<T, mr.value, nr.value>(p, o, r0 * p.pitch + first, stage + first, width);
      });
    }
    for (int m = 0; m < mr.value; ++m)
      for (int64_t r = r0; r < r1; ++r) {
        const T* const from = stage + m * width + (r - r0) * p.pitch;
        T* const to = p.out + (o + m) * p.out_plane + r * p.out_row;
        if (p.out_col == 1) {
          copy_run<T, 1>(to, from, p.cols);
        } else {
          for (int64_t q = 0; q < p.cols; ++q) to[q * p.out_col] = from[q];
        }
      }
  });
}

// How a product is cut: rows evenly, so that a block has some 256 positions, and planes so that it is worth claiming.
template <class T>
struct Cut {
  int64_t rows, outs;  // of a block
  int64_t down, across;
  explicit Cut(const Product<T>& p) {
    rows = ceil_div(p.rows, greater(int64_t(1), p.rows * p.pitch >> 8));
    const double macs_per_out = double(rows) * p.pitch * greater(p.n_k, int64_t(1));
    outs = lesser(round_up(p.n_out, kTileRows), round_up(int64_t(2e5 / macs_per_out) + 1, kTileRows));
    down = ceil_div(p.rows, rows);
    across = ceil_div(p.n_out, outs);
  }
  int64_t count() const { return down * across; }
};

template <class T>
void run_block(const Product<T>& p, const Cut<T>& cut, int64_t block, T* stage) {
  const int64_t r0 = block / cut.across * cut.rows, o0 = block % cut.across * cut.outs;
  product_block(p, o0, lesser(o0 + cut.outs, p.n_out), r0, lesser(r0 + cut.rows, p.rows), stage);
}

// A convolution-like problem: `items` = images x groups, each with planes that `fill` makes and products that `product`
// describes.
template <class T>
struct Problem {
  int64_t images, groups, channels;   // channels to fill per image
  int64_t channel_size;               // elements of one channel's planes
  int64_t n_products;                 // per image and group
  double macs;                        // of everything
};

// fill(image, channel, to) makes a channel's planes; product(image, group, index, planes) describes a product on the
// image's planes.
template <class T, class Fill, class MakeProduct>
int solve(const Problem<T>& q, Fill fill, MakeProduct product) {
  constexpr int64_t slack = kLanes<T>;  // the last vector of the last plane may read past it
  const int64_t image_size = q.channels * q.channel_size;
  const double cost = q.macs * (sizeof(T) / 4) / kMacsPerNs, fill_cost = 0.3 * q.images * image_size;
  auto finish = [&](T* planes) {
    for (int64_t i = 0; i < slack; ++i) planes[i] = T(0);
  };
  int status = KEYDNN_OK;
  if (q.images >= kImagesApart) {
    parallel_for(q.images, cost + fill_cost, [&](int64_t image) {
      Scratch<T> planes(image_size + slack);
      if (!planes) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
      for (int64_t channel = 0; channel < q.channels; ++channel) fill(image, channel, planes.data + channel * q.channel_size);
      finish(planes.data + image_size);
      for (int64_t i = 0; i < q.groups * q.n_products; ++i) {
        const Product<T> p = product(image, i / q.n_products, i % q.n_products, static_cast<const T*>(planes.data));
        const Cut<T> cut(p);
        Scratch<T> stage(kTileRows * stage_row(p, cut.rows));
        if (!stage) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
        for (int64_t block = 0; block < cut.count(); ++block) run_block(p, cut, block, stage.data);
      }
    });
    return status;
  }
  Scratch<T> planes(q.images * image_size + slack);
  if (!planes) return KEYDNN_NO_MEMORY;
  parallel_for(q.images * q.channels, fill_cost, [&](int64_t i) {
    fill(i / q.channels, i % q.channels, planes.data + i * q.channel_size);
  });
  finish(planes.data + q.images * image_size);
  for (int64_t i = 0; i < q.n_products; ++i) {
    auto at = [&](int64_t item) {
      return product(item / q.groups, item % q.groups, i, static_cast<const T*>(planes.data + item / q.groups * image_size));
    };
    const Cut<T> cut(at(0));
    parallel_for(q.images * q.groups * cut.count(), cost / q.n_products, [&](int64_t chunk) {
      const Product<T> p = at(chunk / cut.count());
      Scratch<T> stage(kTileRows * stage_row(p, cut.rows));
      if (!stage) return __atomic_store_n(&status, KEYDNN_NO_MEMORY, __ATOMIC_RELAXED);
      run_block(p, cut, chunk % cut.count(), stage.data);
    });
  }
  return status;
}

template <class T>
int conv2d(const T* x, const T* weight, const T* bias, T* y, const keydnn_conv_shape* shape) {
  const keydnn_conv_shape& s = *shape;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  const int64_t out = s.oh * s.ow, in_c = s.c / s.groups, out_c = s.o / s.groups, n_k = in_c * s.kh * s.kw;
  if (s.n * s.o * out == 0) return KEYDNN_OK;
  const InputPlanes planes(s);
  Scratch<int64_t> offset(n_k);
  if (!offset) return KEYDNN_NO_MEMORY;
  planes.offsets(in_c, offset.data);
  const Problem<T> problem{s.n, s.groups, s.c, planes.channel(), 1, double(s.n) * s.o * out * n_k};
  auto fill = [&](int64_t image, int64_t channel, T* to) { planes.fill(x + (image * s.c + channel) * s.h * s.w, to); };
  auto product = [&](int64_t image, int64_t group, int64_t, const T* image_planes) {
    return Product<T>{image_planes + group * in_c * planes.channel(), offset.data, n_k, weight + group * out_c * n_k,
                      bias ? bias + group * out_c : nullptr, out_c, s.oh, s.ow, planes.pitch,
                      y + (image * s.o + group * out_c) * out, out, s.ow, 1};
  };
  return solve(problem, fill, product);
}

// ---- gradient to the input -----------------------------------------------------------------------------------------

// One axis of the gradient: which taps a phase of x meets, and where in g.
struct Axis {
  int64_t size, out, kernel, stride, padding, dilation;  // size of x, of g
  int64_t low, high;                                     // rows of g that any phase reads
  Axis(int64_t size_, int64_t out_, int64_t kernel_, int64_t stride_, int64_t padding_, int64_t dilation_)
      : size(size_), out(out_), kernel(kernel_), stride(stride_), padding(padding_), dilation(dilation_), low(0), high(1) {
    bool first = true;
    for (int64_t r = 0; r < phases(); ++r)
      for (int64_t u = 0; u < kernel; ++u)
        if (meets(r, u)) {
          low = first ? shift(r, u) : lesser(low, shift(r, u));
          high = first ? shift(r, u) + count(r) : greater(high, shift(r, u) + count(r));
          first = false;
        }
    high = greater(high, low + count(0));
  }
  int64_t phases() const { return lesser(stride, size); }
  int64_t count(int64_t r) const { return ceil_div(size - r, stride); }  // rows of x in phase r
  bool meets(int64_t r, int64_t u) const { return stride == 1 || (r + padding - dilation * u) % stride == 0; }
  int64_t shift(int64_t r, int64_t u) const { return (r + padding - dilation * u) / stride; }  // exact where it meets
};

// One phase of x: the taps that it meets, and the weights that belong to them, as (channel, [o, tap]).
struct Phase {
  int64_t r, q;        // row and column phase
  int64_t n_k;         // taps times output channels of a group
  int64_t first_k;     // where its offsets start
  int64_t first_w;     // where its weights start
};

// Everything about conv2d_grad_x that does not depend on the numbers in g.
template <class T>
struct GradX {
  const keydnn_conv_shape& s;
  Axis down, across;
  int64_t in_c, out_c, taps;     // channels per group, taps of a kernel
  int64_t rows, pitch, size;     // of a plane of g
  int64_t n_phases;
  Scratch<Phase> phases;
  Scratch<int64_t> offset, met;  // met: taps of the phase at hand
  Scratch<T> w;
  explicit GradX(const keydnn_conv_shape& shape)
      : s(shape), down(s.h, s.oh, s.kh, s.sh, s.ph, s.dh), across(s.w, s.ow, s.kw, s.sw, s.pw, s.dw), in_c(s.c / s.groups),
        out_c(s.o / s.groups), taps(s.kh * s.kw), rows(down.high - down.low), pitch(across.high - across.low), size(rows * pitch),
        n_phases(down.phases() * across.phases()), phases(n_phases), offset(out_c * taps), met(taps), w(s.c * out_c * taps) {}
  explicit operator bool() const { return phases && offset && met && w; }

  void prepare(const T* weight) {
    int64_t first_k = 0, first_w = 0;
    for (int64_t r = 0; r < down.phases(); ++r)
      for (int64_t q = 0; q < across.phases(); ++q) {
        const int64_t n_met = meet(r, q, offset.data + first_k), n_k = out_c * n_met;
        for (int64_t o = 1; o < out_c; ++o)
          for (int64_t i = 0; i < n_met; ++i) offset.data[first_k + o * n_met + i] = offset.data[first_k + i] + o * size;
        phases.data[r * across.phases() + q] = Phase{r, q, n_k, first_k, first_w};
        if (n_met) gather(weight, n_met, w.data + first_w);
        first_k += n_k;
        first_w += n_k * s.c;
      }
  }

 private:
  // Notes the taps that a phase meets, and where they read a plane of g; returns how many.
  int64_t meet(int64_t r, int64_t q, int64_t* to) {
    int64_t n = 0;
    for (int64_t u = 0; u < s.kh; ++u)
      for (int64_t v = 0; v < s.kw && down.meets(r, u); ++v)
        if (across.meets(q, v)) {
          to[n] = (down.shift(r, u) - down.low) * pitch + across.shift(q, v) - across.low;
          met.data[n++] = u * s.kw + v;
        }
    return n;
  }
  void gather(const T* weight, int64_t n_met, T* to) const {
    for (int64_t group = 0; group < s.groups; ++group)
      for (int64_t c = 0; c < in_c; ++c)
        for (int64_t o = 0; o < out_c; ++o) {
          const T* const from = weight + ((group * out_c + o) * in_c + c) * taps;
          for (int64_t i = 0; i < n_met; ++i) *to++ = from[met.data[i]];
        }
  }
};

// Whether all are finite: 0 * inf and 0 * NaN are NaN.
template <class T>
bool is_finite(const T* p, int64_t n) {
  Vec<T> zeros[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes<T> <= n; i += 4 * kLanes<T>)
    for (int k = 0; k < 4; ++k) zeros[k] += T(0) * load(p + i + k * kLanes<T>);
  T zero = lane_sum<T>((zeros[0] + zeros[1]) + (zeros[2] + zeros[3]));
  for (; i < n; ++i) zero += T(0) * p[i];
  return zero == 0;
}

// The gradient tap by tap, from the elements of g that exist.  solve() also multiplies the zeros that frame g, which for
// an infinite or NaN weight would spoil elements that never meet it.
template <class T>
void by_taps(const GradX<T>& q, const T* g, const T* weight, T* dx) {
  const keydnn_conv_shape& s = q.s;
  parallel_for(s.n * s.c, 1e9, [&](int64_t plane) {
    const int64_t n = plane / s.c, c = plane % s.c, group = c / q.in_c;
    T* const to = dx + plane * s.h * s.w;
    for (int64_t i = 0; i < s.h * s.w; ++i) to[i] = T(0);
    for (int64_t o = group * q.out_c; o < (group + 1) * q.out_c; ++o)
      for (int64_t tap = 0; tap < q.taps; ++tap) {
        const T w = weight[(o * q.in_c + c % q.in_c) * q.taps + tap];
        const T* const from = g + (n * s.o + o) * s.oh * s.ow;
        const int64_t down = s.dh * (tap / s.kw) - s.ph, right = s.dw * (tap % s.kw) - s.pw;
        for (int64_t i = 0; i < s.oh; ++i)
          for (int64_t j = 0; j < s.ow; ++j) {
            const int64_t row = s.sh * i + down, col = s.sw * j + right;
            if (row >= 0 && row < s.h && col >= 0 && col < s.w) to[row * s.w + col] += w * from[i * s.ow + j];
          }
      }
  });
}

template <class T>
int conv2d_grad_x(const T* g, const T* weight, T* dx, const keydnn_conv_shape* shape) {
  const keydnn_conv_shape& s = *shape;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  if (s.n * s.c * s.h * s.w == 0) return KEYDNN_OK;
  if (s.o * s.oh * s.ow == 0) {
    memset(dx, 0, sizeof(T) * static_cast<size_t>(s.n * s.c * s.h * s.w));
    return KEYDNN_OK;
  }
  GradX<T> q(s);
  if (!q) return KEYDNN_NO_MEMORY;
  if (!is_finite(weight, s.o * q.in_c * q.taps)) {
    by_taps(q, g, weight, dx);
    return KEYDNN_OK;
  }
  q.prepare(weight);
  const Problem<T> problem{s.n, s.groups, s.o, q.size, q.n_phases, double(s.n) * s.o * s.oh * s.ow * q.in_c * q.taps};
  auto fill = [&](int64_t image, int64_t channel, T* to) {
    const Frame frame{s.oh, s.ow, q.down.low, q.across.low, 1, 1, q.rows, q.pitch};
    fill_plane(g + (image * s.o + channel) * s.oh * s.ow, frame, to);
  };
  auto product = [&](int64_t image, int64_t group, int64_t i, const T* image_planes) {
    const Phase& f = q.phases.data[i];
    return Product<T>{image_planes + group * q.out_c * q.size, q.offset.data + f.first_k, f.n_k,
                      q.w.data + f.first_w + group * q.in_c * f.n_k, nullptr, q.in_c, q.down.count(f.r), q.across.count(f.q), q.pitch,
                      dx + ((image * s.c + group * q.in_c) * s.h + f.r) * s.w + f.q, s.h * s.w, s.sh * s.w, s.sw};
  };
  return solve(problem, fill, product);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_CONV)
