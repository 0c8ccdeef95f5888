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
// stride-one convolution of g with its own subset of taps.  Of few channels, all phases are computed together, as more outputs
// of one convolution over the window of g that any of them meets, with zeros for the taps that a phase does not meet.
//
// With 3x3 taps and enough channels and positions both are computed by Winograd's tiles instead (tile_convolution.h).
//
// Numerics of sums over taps: bias first, then taps in the order (c, u, v) resp. (o, u, v), in the array's precision.
// Meaning: kernels/reference, functions of the same names.
#include "conv_products.h"
#include "row_products.h"
#include "tile_convolution.h"
#include "keydnn/conv_finish.h"

namespace keydnn::KEYDNN_NS {
namespace {

// The same for the outputs of a group of an image.
template <class T>
Finish<T> finish_of(const Finish<T>& all, int64_t group, int64_t image, const keydnn_conv_shape& s) {
  const int64_t out_c = s.o / s.groups, first = group * out_c, pooled = (image * s.o + first) * (s.oh / 2) * (s.ow / 2);
  auto from = [=](const T* p) { return p ? p + first : nullptr; };
  return {from(all.mean), from(all.scale), from(all.beta), all.relu, all.pooled ? all.pooled + pooled : nullptr,
          all.code ? all.code + pooled : nullptr};
}

// y is not written where results are pooled.
template <class T>
int convolve(const T* x, const T* weight, const T* bias, T* y, const keydnn_conv_shape& s, const Finish<T>& finish) {
  if (winograd::fits(s) && TileConvolution<T>::pays(s.n, s.c, s.o, s.oh, s.ow)) {
    const TileConvolution<T> by_tiles{x, weight, bias, s.c * 9, 9, false, y, s.n, s.c, s.h, s.w, s.o, s.oh, s.ow, s.ph, s.pw, finish};
    const int status = by_tiles.run();
    if (status != kNotFinite) return status;
  }
  const RowConvolution<T> by_rows(x, weight, bias, y, s, finish);
  if (by_rows.folded) return by_rows.run();
  const int64_t out = s.oh * s.ow, in_c = s.c / s.groups, out_c = s.o / s.groups, n_k = in_c * s.kh * s.kw;
  const InputPlanes planes(s);
  const bool pack = packs<T>(out_c, n_k, s.ow);
  const LaneBlocks<T> lanes(out_c);
  const int64_t group_w = (pack ? lanes.lanes : out_c) * n_k;
  Scratch<int64_t> offset(greater(n_k, s.kh * s.kw));  // of no channels too
  Scratch<T> packed(pack ? s.groups * group_w : 0);
  if (!offset || (pack && !packed)) return KEYDNN_NO_MEMORY;
  planes.offsets(in_c, offset.data);
  auto pack_block = [&](int64_t i) {
    const int64_t group = i / lanes.count, block = i % lanes.count, o = lanes.first(block);
    pack_planes<T>(weight + (group * out_c + o) * n_k, n_k, lanes.size(block), n_k, lanes.vecs(block),
                   packed.data + group * group_w + o * n_k, nullptr);
  };
  const Before<decltype(pack_block)> before{pack ? s.groups * lanes.count : 0, kNsPerPlane * s.groups * group_w, pack_block};
  const T* const w = pack ? packed.data : weight;
  const Problem<T> problem{s.n, s.groups, s.c, planes.channel(), 1, double(s.n) * s.o * out * n_k, double(s.n) * s.o * out};
  auto fill = [&](int64_t image, int64_t channel, T* to) { planes.fill(x + (image * s.c + channel) * s.h * s.w, to); };
  auto product = [&](int64_t image, int64_t group, int64_t, const T* image_planes, T* own) {
    return Product<T>{image_planes + group * in_c * planes.channel(), offset.data, n_k, w + group * group_w,
                      bias ? bias + group * out_c : nullptr, out_c, s.oh, s.ow, planes.pitch,
                      (finish.pooled ? own : y + image * s.o * out) + group * out_c * out, out, s.ow, 1, pack, nullptr,
                      finish_of(finish, group, image, s)};
  };
  return solve(problem, before, fill, product, finish.pooled ? s.o * out : 0);
}

template <class T>
int conv2d(const T* x, const T* weight, const T* bias, T* y, const keydnn_conv_shape* shape) {
  if (!is_sane(*shape)) return KEYDNN_BAD_SHAPE;
  if (shape->n * shape->o * shape->oh * shape->ow == 0) return KEYDNN_OK;
  return convolve(x, weight, bias, y, *shape, Finish<T>{});
}

template <class T>
int conv2d_finish(const T* x, const T* weight, const T* bias, const T* mean, const T* scale, const T* beta, T* y, uint8_t* code,
                  const keydnn_conv_shape* shape, int relu) {
  const keydnn_conv_shape& s = *shape;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  if (s.n * s.o * (code ? (s.oh / 2) * (s.ow / 2) : s.oh * s.ow) == 0) return KEYDNN_OK;
  return convolve(x, weight, bias, y, s, Finish<T>{mean, scale, beta, relu && !code, code ? y : nullptr, code});
}

template <class T>
int conv2d_relu_maxpool(const T* x, const T* weight, const T* bias, T* y, uint8_t* code, const keydnn_conv_shape* shape) {
  return conv2d_finish<T>(x, weight, bias, nullptr, nullptr, nullptr, y, code, shape, 0);
}

// ---- gradient to the input -----------------------------------------------------------------------------------------

// One axis of the gradient: which taps a phase of x meets, and where in g.
struct Axis {
  int64_t size, out, kernel, stride, padding, dilation;  // size of x, of g
  int64_t low, window;                                   // the smallest shift, and to the largest
  Axis(int64_t size_, int64_t out_, int64_t kernel_, int64_t stride_, int64_t padding_, int64_t dilation_)
      : size(size_), out(out_), kernel(kernel_), stride(stride_), padding(padding_), dilation(dilation_), low(0), window(1) {
    bool first = true;
    int64_t top = 0;
    for (int64_t r = 0; r < phases(); ++r)
      for (int64_t u = 0; u < kernel; ++u)
        if (meets(r, u)) {
          low = first ? shift(r, u) : lesser(low, shift(r, u));
          top = first ? shift(r, u) : greater(top, shift(r, u));
          first = false;
        }
    window = top - low + 1;
  }
  int64_t reach() const { return window - 1 + count(0); }  // rows of g, from low on, that any phase may read
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
  bool pack;           // the weights are packed
};

constexpr int64_t kJoinedWaste = 2;  // times the products that are needed, at most, where phases are computed together

// Everything about conv2d_grad_x that does not depend on the numbers in g.
template <class T>
struct GradX {
  const keydnn_conv_shape& s;
  Axis down, across;
  int64_t in_c, out_c, taps;     // channels per group, taps of a kernel
  int64_t rows, pitch, size;     // of a plane of g
  int64_t n_phases;
  LaneBlocks<T> lanes;           // of a group's channels of x
  Scratch<Phase> phases;
  Scratch<int64_t> offset, met;  // met: the taps that each phase meets
  Scratch<T> w;
  explicit GradX(const keydnn_conv_shape& shape)
      : s(shape), down(s.h, s.oh, s.kh, s.sh, s.ph, s.dh), across(s.w, s.ow, s.kw, s.sw, s.pw, s.dw), in_c(s.c / s.groups),
        out_c(s.o / s.groups), taps(s.kh * s.kw), rows(down.reach()), pitch(across.reach()), size(rows * pitch),
        n_phases(down.phases() * across.phases()), lanes(in_c), phases(n_phases), offset(out_c * taps), met(taps),
        w(s.groups * lanes.lanes * out_c * taps) {}
  explicit operator bool() const { return phases && offset && met && w; }
  // Whether the phases together fill the rows of a tile better, and meet enough of their common window.
  bool joins() const {
    return n_phases > 1 && in_c < kTileRows && n_phases * down.window * across.window <= kJoinedWaste * taps;
  }

  void prepare(const T* weight) {
    int64_t first_k = 0;
    for (int64_t r = 0; r < down.phases(); ++r)
      for (int64_t q = 0; q < across.phases(); ++q) {
        const int64_t n_met = meet(r, q, first_k), n_k = out_c * n_met;
        for (int64_t o = 1; o < out_c; ++o)
          for (int64_t i = 0; i < n_met; ++i) offset.data[first_k + o * n_met + i] = offset.data[first_k + i] + o * size;
        phases.data[r * across.phases() + q] = Phase{r, q, n_k, first_k, first_k * s.groups * lanes.lanes, packs<T>(in_c, n_k, across.count(q))};
        first_k += n_k;
      }
    parallel_for(n_phases * s.groups * lanes.count, 1.0 * s.c * out_c * taps, [&](int64_t i) {
      gather(weight, phases.data[i / lanes.count / s.groups], i / lanes.count % s.groups, i % lanes.count);
    });
  }
  int64_t group_w(const Phase& phase) const { return (phase.pack ? lanes.lanes : in_c) * phase.n_k; }  // weights of a group

 private:
  // Notes the taps that a phase meets, and where they read a plane of g; returns how many.
  int64_t meet(int64_t r, int64_t q, int64_t first_k) {
    int64_t n = 0;
    for (int64_t u = 0; u < s.kh; ++u)
      for (int64_t v = 0; v < s.kw && down.meets(r, u); ++v)
        if (across.meets(q, v)) {
          offset.data[first_k + n] = (down.shift(r, u) - down.low) * pitch + across.shift(q, v) - across.low;
          met.data[first_k / out_c + n++] = u * s.kw + v;
        }
    return n;
  }
  // The weights of a block of a group's channels, as (c, [o, tap]) or packed as ([o, tap], c).
  void gather(const T* weight, const Phase& phase, int64_t group, int64_t block) const {
    const int64_t c0 = lanes.first(block), count = lanes.size(block), n_met = phase.n_k / out_c;
    const int64_t width = lanes.vecs(block) * kLanes<T>, step_k = phase.pack ? width : 1, step_c = phase.pack ? 1 : phase.n_k;
    const int64_t* const tap = met.data + phase.first_k / out_c;
    T* const to = w.data + phase.first_w + group * group_w(phase) + c0 * phase.n_k;
    for (int64_t o = 0; o < out_c; ++o)
      for (int64_t i = 0; i < n_met; ++i) {
        const T* const from = weight + ((group * out_c + o) * in_c + c0) * taps + tap[i];
        T* const put = to + (o * n_met + i) * step_k;
        for (int64_t c = 0; c < count; ++c) put[c * step_c] = from[c * taps];
        for (int64_t c = count; phase.pack && c < width; ++c) put[c] = T(0);
      }
  }
};

// The phases of x as outputs (phase, channel) of one convolution over g.
template <class T>
struct Joined {
  const GradX<T>& q;
  int64_t n_window, n_k, n_out;  // n_k taps for each of n_out outputs of a group
  Scratch<int64_t> offset;
  Scratch<Place> place;
  Scratch<T> w;
  explicit Joined(const GradX<T>& g)
      : q(g), n_window(q.down.window * q.across.window), n_k(q.out_c * n_window), n_out(q.n_phases * q.in_c), offset(n_k), place(n_out),
        w(q.s.groups * n_out * n_k) {}
  explicit operator bool() const { return offset && place && w; }

  // Window element (a, b) lies a rows and b columns before its end, so that taps keep their order.
  void prepare(const T* weight) {
    const keydnn_conv_shape& s = q.s;
    for (int64_t i = 0; i < n_k; ++i) {
      const int64_t a = i % n_window / q.across.window, b = i % q.across.window;
      offset.data[i] = i / n_window * q.size + (q.down.window - 1 - a) * q.pitch + q.across.window - 1 - b;
    }
    for (int64_t out = 0; out < n_out; ++out) {
      const int64_t phase = out / q.in_c, c = out % q.in_c, r = phase / q.across.phases(), col = phase % q.across.phases();
      place.data[out] = Place{(c * s.h + r) * s.w + col, q.down.count(r), q.across.count(col)};
    }
    parallel_for(s.groups * n_out, 1.0 * s.groups * n_out * n_k, [&](int64_t i) { gather(weight, i / n_out, i % n_out); });
  }

 private:
  void gather(const T* weight, int64_t group, int64_t out) const {
    const keydnn_conv_shape& s = q.s;
    const int64_t phase = out / q.in_c, c = out % q.in_c, r = phase / q.across.phases(), col = phase % q.across.phases();
    T* const to = w.data + (group * n_out + out) * n_k;
    memset(to, 0, sizeof(T) * static_cast<size_t>(n_k));
    for (int64_t o = 0; o < q.out_c; ++o)
      for (int64_t u = 0; u < s.kh; ++u)
        for (int64_t v = 0; v < s.kw && q.down.meets(r, u); ++v) {
          if (!q.across.meets(col, v)) continue;
          const int64_t a = q.down.window - 1 - (q.down.shift(r, u) - q.down.low);
          const int64_t b = q.across.window - 1 - (q.across.shift(col, v) - q.across.low);
          to[o * n_window + a * q.across.window + b] = weight[((group * q.out_c + o) * q.in_c + c) * q.taps + u * s.kw + v];
        }
  }
};

// Whether all are finite: 0 * inf and 0 * NaN are NaN.
template <class T>
bool is_finite(const T* p, int64_t n) {
  bool finite = true;
  parallel_ranges(n, 32768, 0.1 * n * (sizeof(T) / 4), [&](int64_t begin, int64_t end) {
    Vec<T> zeros[4] = {};
    int64_t i = begin;
    for (; i + 4 * kLanes<T> <= end; i += 4 * kLanes<T>)
      for (int k = 0; k < 4; ++k) zeros[k] += T(0) * load(p + i + k * kLanes<T>);
    T zero = lane_sum<T>((zeros[0] + zeros[1]) + (zeros[2] + zeros[3]));
    for (; i < end; ++i) zero += T(0) * p[i];
    if (zero != 0) __atomic_store_n(&finite, false, __ATOMIC_RELAXED);
  });
  return finite;
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

// The planes of g that all phases read.
template <class T>
void fill_g(const GradX<T>& q, const T* g, int64_t image, int64_t channel, T* to) {
  const keydnn_conv_shape& s = q.s;
  const Frame frame{s.oh, s.ow, q.down.low, q.across.low, 1, 1, q.rows, q.pitch};
  fill_plane(g + (image * s.o + channel) * s.oh * s.ow, frame, to);
}

template <class T>
int by_phases(GradX<T>& q, const T* g, const T* weight, T* dx) {
  const keydnn_conv_shape& s = q.s;
  q.prepare(weight);
  const double macs = double(s.n) * s.o * s.oh * s.ow * q.in_c * q.taps;
  const Problem<T> problem{s.n, s.groups, s.o, q.size, q.n_phases, macs, double(s.n) * s.c * s.h * s.w};
  auto fill = [&](int64_t image, int64_t channel, T* to) { fill_g(q, g, image, channel, to); };
  auto product = [&](int64_t image, int64_t group, int64_t i, const T* image_planes, T*) {
    const Phase& f = q.phases.data[i];
    return Product<T>{image_planes + group * q.out_c * q.size, q.offset.data + f.first_k, f.n_k,
                      q.w.data + f.first_w + group * q.group_w(f), nullptr, q.in_c, q.down.count(f.r), q.across.count(f.q), q.pitch,
                      dx + ((image * s.c + group * q.in_c) * s.h + f.r) * s.w + f.q, s.h * s.w, s.sh * s.w, s.sw, f.pack, nullptr,
                      Finish<T>{}};
  };
  return solve(problem, nothing_before(), fill, product, 0);
}

template <class T>
int joined_phases(const GradX<T>& q, const T* g, const T* weight, T* dx) {
  const keydnn_conv_shape& s = q.s;
  Joined<T> all(q);
  if (!all) return KEYDNN_NO_MEMORY;
  all.prepare(weight);
  const int64_t rows = q.down.count(0), cols = q.across.count(0);
  const double outputs = double(s.n) * s.groups * all.n_out * rows * cols;
  const Problem<T> problem{s.n, s.groups, s.o, q.size, 1, outputs * all.n_k, outputs};
  auto fill = [&](int64_t image, int64_t channel, T* to) { fill_g(q, g, image, channel, to); };
  auto product = [&](int64_t image, int64_t group, int64_t, const T* image_planes, T*) {
    return Product<T>{image_planes + group * q.out_c * q.size, all.offset.data, all.n_k, all.w.data + group * all.n_out * all.n_k,
                      nullptr, all.n_out, rows, cols, q.pitch, dx + (image * s.c + group * q.in_c) * s.h * s.w, 0, s.sh * s.w, s.sw,
                      false, all.place.data, Finish<T>{}};
  };
  return solve(problem, nothing_before(), fill, product, 0);
}

template <class T>
int conv2d_grad_x(const T* g, const T* weight, T* dx, const keydnn_conv_shape* shape) {
  const keydnn_conv_shape& s = *shape;
  const int64_t size = s.n * s.c * s.h * s.w;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  if (size == 0) return KEYDNN_OK;
  if (s.o * s.oh * s.ow == 0) {
    memset(dx, 0, sizeof(T) * static_cast<size_t>(size));
    return KEYDNN_OK;
  }
  if (winograd::fits(s) && TileConvolution<T>::pays(s.n, s.o, s.c, s.h, s.w)) {
    const TileConvolution<T> by_tiles{g, weight, nullptr, 9, s.c * 9, true, dx, s.n, s.o, s.oh, s.ow, s.c, s.h, s.w, 2 - s.ph, 2 - s.pw, {}};
    const int status = by_tiles.run();
    if (status != kNotFinite) return status;
  }
  GradX<T> q(s);
  if (!q) return KEYDNN_NO_MEMORY;
  if (!is_finite(weight, s.o * q.in_c * q.taps)) {
    by_taps(q, g, weight, dx);
    return KEYDNN_OK;
  }
  if (q.joins()) {
    const int status = joined_phases(q, g, weight, dx);
    // an infinity or NaN in g also met zeros in the place of taps
    if (status != KEYDNN_OK || is_finite(dx, size)) return status;
  }
  return by_phases(q, g, weight, dx);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_CONV)
KEYDNN_EXPORT(KEYDNN_CONV_FINISH)
