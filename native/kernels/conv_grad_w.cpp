// Gradient of a 2-D convolution to its weight, and to its bias.
//
//   dw[o,c,u,v] = sum_{n,i,j} g[n,o,i,j] * x[n, c, sh i + dh u - ph, sw j + dw v - pw]                 (x is 0 outside)
//   db[o]       = sum_{n,i,j} g[n,o,i,j]
//
// x is copied into planes (planes.h).  Where the output channels fill registers, g is packed with its channels last and the
// tiles of tap_tiles.h run over bands of rows: many images in blocks, each with planes and a dw of its own; few images, or many
// outputs, which would need the same planes again and again, by blocks of dw.  Few output channels: grad_w_positions.h.  3x3 taps
// and many images and channels: winograd_grad_w.h.
//
// Numerics: bands (about 384 positions) are summed in order, then added up in order; then blocks of images, in order.
// db: in double, so that a sum which is all rounding errors is theirs and not its own.
// Meaning: kernels/reference, function conv2d_grad_w.
#include "sums.h"
#include "tap_tiles.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr double kMacsPerNs = KEYDNN_VECTOR_BYTES / 4 * 2;

}  // namespace
}  // namespace keydnn::KEYDNN_NS

#include "grad_w_positions.h"
#include "winograd_grad_w.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kBand = 384, kSlab = 1024;   // positions
constexpr int64_t kManyImages = 8;             // from so many on, they are cut into blocks
constexpr int64_t kPartsBytes = int64_t(4) << 20;
constexpr int64_t kManyOutputs = 129;          // of a group: from so many on, chunks of dw share the planes of many images, too,
constexpr int64_t kSharedBytes = int64_t(8) << 20;  // if these and the packed g are no more than that, for the last cache
constexpr int64_t kWorthClaiming = 8192;       // elements of planes

template <class T>
struct ByChannels {
  const keydnn_conv_shape& s;
  const T *x, *g;
  T *dw, *db;
  InputPlanes planes;
  int64_t in_c, out_c, n_k, n_out;  // per group; positions of an output plane
  int64_t x_image;                  // elements of a group's planes of an image
  LaneBlocks<T> out;                // a group's output channels
  TapPlan<T> plan;
  Scratch<int64_t> offset;
  ByChannels(const keydnn_conv_shape& shape, const T* x_, const T* g_, T* dw_, T* db_)
      : s(shape), x(x_), g(g_), dw(dw_), db(db_), planes(shape), in_c(s.c / s.groups), out_c(s.o / s.groups), n_k(in_c * s.kh * s.kw),
        n_out(s.oh * s.ow), x_image(in_c * planes.channel()), out(out_c), plan(n_k), offset(s.kh * s.kw) {}
  bool prepare() {
    if (!plan || !offset) return false;
    planes.offsets(1, offset.data);
    return plan.prepare(offset.data, s.kh * s.kw, in_c, planes.channel());
  }
  double cost() const { return double(s.n) * n_out * s.o * n_k * (sizeof(T) / 4) / kMacsPerNs; }

  void fill(int64_t image, int64_t group, int64_t channel, T* to) const {
    const int64_t c = group * in_c + channel;
    planes.fill(x + (image * s.c + c) * s.h * s.w, to + channel * planes.channel());
  }
  // Positions [begin, end) of an image's block of output channels; sums may be null.
  void pack(int64_t image, int64_t group, int64_t block, int64_t begin, int64_t end, T* to, double* sums) const {
    const int64_t o = group * out_c + out.first(block);
    const T* const from = g + (image * s.o + o) * n_out + begin;
    pack_planes<T>(from, n_out, out.size(block), end - begin, out.vecs(block), to, sums);
  }
  // Adds to part what tiles [t0, t1) find in rows of planes, whose block of g is packed.
  void multiply(const T* x_planes, const int64_t* rows, int64_t n_rows, const T* packed, int64_t width, int64_t t0, int64_t t1,
                T* part) const {
    const int64_t bands = greater((n_rows * s.ow + kBand / 2) / kBand, int64_t(1));
    const int64_t height = ceil_div(n_rows, lesser(bands, n_rows));
    for (int64_t r = 0; r < n_rows; r += height) {
      const Band<T> band{x_planes, packed + r * s.ow * width * kLanes<T>, rows + r, lesser(height, n_rows - r), s.ow};
      for (const TapTile<T>* t = plan.tiles.data + t0; t < plan.tiles.data + t1; ++t)
        t->tile[width - 1](band, plan.runs.data + t->run, part + t->row * width * kLanes<T>);
    }
  }
  // Rows [s0, s1) of a block of dw: the sum of n parts that lie `apart` elements from each other.
  void finish(int64_t group, int64_t block, const T* parts, int64_t n, int64_t apart, int64_t s0, int64_t s1) const {
    constexpr int64_t L = kLanes<T>;
    const int64_t width = out.vecs(block);
    for (int64_t vec = 0; vec < width; ++vec) {
      const int64_t o = out.first(block) + vec * L, count = lesser(L, out_c - o);
      for (int64_t row = s0; row < s1; row += L) {
        const int64_t rows = lesser(L, s1 - row);
        Vec<T> v[L] = {};
        for (int64_t l = 0; l < rows; ++l) {
          const T* from = parts + ((row + l) * width + vec) * L;
          v[l] = load(from);
          for (int64_t i = 1; i < n; ++i) v[l] += load(from += apart);
        }
        transpose<T>(v);
        for (int64_t l = 0; l < count; ++l) put(dw + (group * out_c + o + l) * n_k, plan.tap.data + row, v[l], rows);
      }
    }
  }

 private:
  static void put(T* to, const int64_t* tap, Vec<T> v, int64_t n) {
    T values[kLanes<T>];
    store(values, v);
    for (int64_t i = 0; i < n; ++i) to[tap[i]] = values[i];
  }
};

// ---- many images --------------------------------------------------------------------------------------------------------

// How they are cut: `parts` blocks of images, and blocks of output channels in chunks.
template <class T>
struct ImageCut {
  int64_t together;        // images of a slab, at least 1
  int64_t slab_rows;       // of an image in a slab
  int64_t wide, across;    // blocks of output channels in a chunk; chunks of a group
  int64_t parts, apart;    // apart: elements of one part
  explicit ImageCut(const ByChannels<T>& q) {
    together = greater(int64_t(1), lesser(kSlab / 2 / q.n_out, q.s.n / kManyImages));
    slab_rows = together > 1 ? q.s.oh : lesser(q.s.oh, greater(int64_t(1), kSlab / q.s.ow));
    wide = lesser(q.out.count, int64_t(2));
    across = ceil_div(q.out.count, wide);
    const int64_t size = q.s.groups * q.out.lanes * q.n_k, others = q.s.groups * across;
    const int64_t few = ceil_div(8, others), more = lesser(ceil_div(16, others), kPartsBytes / (int64_t(sizeof(T)) * size));
    parts = lesser(ceil_div(q.s.n, together), greater(few, more));
    apart = size;
  }
};

// Adds a chunk's images [n0, n1) to part (a block's rows after another's) and to sums (double, one per lane; or null).
template <class T>
int add_images(const ByChannels<T>& q, const ImageCut<T>& cut, int64_t group, int64_t b0, int64_t b1, int64_t n0, int64_t n1, T* part,
               double* sums) {
  constexpr int64_t L = kLanes<T>;
  const Scratch<T> x_planes(cut.together * q.x_image), packed(cut.together * cut.slab_rows * q.s.ow * kBlockVecs * L);
  const Scratch<int64_t> rows(cut.together * cut.slab_rows);
  if (!x_planes || !packed || !rows) return KEYDNN_NO_MEMORY;
  for (int64_t n = n0; n < n1; n += cut.together) {
    const int64_t images = lesser(cut.together, n1 - n);
    for (int64_t i = 0; i < images; ++i)
      for (int64_t c = 0; c < q.in_c; ++c) q.fill(n + i, group, c, x_planes.data + i * q.x_image);
    for (int64_t r0 = 0; r0 < q.s.oh; r0 += cut.slab_rows) {
      const int64_t r1 = lesser(r0 + cut.slab_rows, q.s.oh), n_rows = images * (r1 - r0);
      for (int64_t i = 0; i < n_rows; ++i) rows.data[i] = i / (r1 - r0) * q.x_image + (r0 + i % (r1 - r0)) * q.planes.pitch;
      for (int64_t block = b0; block < b1; ++block) {
        const int64_t width = q.out.vecs(block), lane = q.out.first(block) - q.out.first(b0);
        for (int64_t i = 0; i < images; ++i)
          q.pack(n + i, group, block, r0 * q.s.ow, r1 * q.s.ow, packed.data + i * (r1 - r0) * q.s.ow * width * L,
                 sums ? sums + lane : nullptr);
        q.multiply(x_planes.data, rows.data, n_rows, packed.data, width, 0, q.plan.n_tiles, part + lane * q.n_k);
      }
    }
  }
  return KEYDNN_OK;
}

template <class T>
int many_images(const ByChannels<T>& q) {
  const keydnn_conv_shape& s = q.s;
  const ImageCut<T> cut(q);
  const int64_t all_lanes = s.groups * q.out.lanes;
  Scratch<T> parts(cut.parts * cut.apart);
  Scratch<double> sums(cut.parts * all_lanes);
  if (!parts || !sums) return KEYDNN_NO_MEMORY;
  int status = KEYDNN_OK;
  parallel_for(cut.parts * s.groups * cut.across, q.cost(), [&](int64_t chunk) KEYDNN_NOINLINE {
    const int64_t i = chunk / (s.groups * cut.across), group = chunk / cut.across % s.groups, b0 = chunk % cut.across * cut.wide;
    const int64_t b1 = lesser(b0 + cut.wide, q.out.count), lane = group * q.out.lanes + q.out.first(b0);
    const int64_t width = lesser(q.out.first(b1), q.out.lanes) - q.out.first(b0);
    T* const part = parts.data + i * cut.apart + lane * q.n_k;
    double* const part_sums = sums.data + i * all_lanes + lane;
    memset(part, 0, sizeof(T) * static_cast<size_t>(width * q.n_k));
    memset(part_sums, 0, sizeof(double) * static_cast<size_t>(width));
    const int got =
        add_images(q, cut, group, b0, b1, i * s.n / cut.parts, (i + 1) * s.n / cut.parts, part, q.db ? part_sums : nullptr);
    if (got != KEYDNN_OK) __atomic_store_n(&status, got, __ATOMIC_RELAXED);
  });
  constexpr int64_t grain = 128;  // taps
  const int64_t down = ceil_div(q.n_k, grain);
  parallel_for(s.groups * q.out.count * down, 0.1 * cut.parts * cut.apart, [&](int64_t chunk) KEYDNN_NOINLINE {
    const int64_t group = chunk / down / q.out.count, block = chunk / down % q.out.count, s0 = chunk % down * grain;
    const T* const first = parts.data + (group * q.out.lanes + q.out.first(block)) * q.n_k;
    q.finish(group, block, first, cut.parts, cut.apart, s0, lesser(s0 + grain, q.n_k));
  });
  for (int64_t o = 0; q.db && o < s.o; ++o) {
    double sum = 0;
    for (int64_t i = 0; i < cut.parts; ++i) sum += sums.data[i * all_lanes + o / q.out_c * q.out.lanes + o % q.out_c];
    q.db[o] = static_cast<T>(sum);
  }
  return status;
}

// ---- few images, or many output channels ------------------------------------------------------------------------------------

// All planes and all of g, packed, are made once; then all chunks of dw read them.
template <class T>
int shared_planes(const ByChannels<T>& q) {
  constexpr int64_t L = kLanes<T>;
  const keydnn_conv_shape& s = q.s;
  const int64_t group_x = s.n * q.x_image, n_positions = s.n * q.n_out, blocks = s.groups * q.out.count;
  Scratch<T> x_planes(s.groups * group_x), packed(s.groups * q.out.lanes * n_positions), part(s.groups * q.out.lanes * q.n_k);
  Scratch<int64_t> rows(s.n * s.oh);
  if (!x_planes || !packed || !part || !rows) return KEYDNN_NO_MEMORY;
  for (int64_t i = 0; i < s.n * s.oh; ++i) rows.data[i] = i / s.oh * q.x_image + i % s.oh * q.planes.pitch;
  auto packed_at = [&](int64_t group, int64_t block) { return packed.data + (group * q.out.lanes + q.out.first(block)) * n_positions; };
  const int64_t together = greater(int64_t(1), kWorthClaiming / greater(q.planes.channel(), int64_t(1)));  // planes of x
  const int64_t fills = ceil_div(s.c, together), per_image = fills + blocks;
  parallel_for(s.n * per_image, 0.3 * s.n * (s.groups * q.x_image + s.o * q.n_out), [&](int64_t chunk) {
    const int64_t image = chunk / per_image, i = chunk % per_image;
    if (i < fills) {
      for (int64_t c = i * together; c < lesser((i + 1) * together, s.c); ++c)
        q.fill(image, c / q.in_c, c % q.in_c, x_planes.data + c / q.in_c * group_x + image * q.x_image);
    } else {
      const int64_t group = (i - fills) / q.out.count, block = (i - fills) % q.out.count;
      q.pack(image, group, block, 0, q.n_out, packed_at(group, block) + image * q.n_out * q.out.vecs(block) * L, nullptr);
    }
  });
  const int64_t across = lesser(q.plan.n_tiles, ceil_div(16, blocks));
  parallel_for(blocks * across, q.cost(), [&](int64_t chunk) KEYDNN_NOINLINE {
    const int64_t group = chunk / across / q.out.count, block = chunk / across % q.out.count, width = q.out.vecs(block) * L;
    const int64_t t0 = chunk % across * q.plan.n_tiles / across, t1 = (chunk % across + 1) * q.plan.n_tiles / across;
    const int64_t s0 = q.plan.tiles.data[t0].row, s1 = t1 < q.plan.n_tiles ? q.plan.tiles.data[t1].row : q.n_k;
    T* const to = part.data + (group * q.out.lanes + q.out.first(block)) * q.n_k;
    memset(to + s0 * width, 0, sizeof(T) * static_cast<size_t>((s1 - s0) * width));
    q.multiply(x_planes.data + group * group_x, rows.data, s.n * s.oh, packed_at(group, block), q.out.vecs(block), t0, t1, to);
    q.finish(group, block, to, 1, 0, s0, s1);
  });
  return KEYDNN_OK;
}

template <class T>
bool shares_planes(const keydnn_conv_shape& s) {
  const int64_t per_image = s.c * InputPlanes(s).channel() + s.o * s.oh * s.ow;
  return s.o / s.groups >= kManyOutputs && s.n * per_image * int64_t(sizeof(T)) <= kSharedBytes;
}

template <class T>
void sum_planes(const T* g, T* db, const keydnn_conv_shape& s) {
  const int64_t size = s.oh * s.ow;
  parallel_for(s.o, 0.2 * double(s.n) * s.o * size, [=](int64_t o) { db[o] = static_cast<T>(sum_of(g + o * size, size, s.n, s.o * size)); });
}

template <class T>
int conv2d_grad_wb(const T* x, const T* g, T* dw, T* db, const keydnn_conv_shape* shape) {
  const keydnn_conv_shape& s = *shape;
  if (!is_sane(s)) return KEYDNN_BAD_SHAPE;
  if (s.o * s.c * s.n * s.oh * s.ow == 0) {
    memset(dw, 0, sizeof(T) * static_cast<size_t>(s.o * (s.c / s.groups) * s.kh * s.kw));
    if (db) memset(db, 0, sizeof(T) * static_cast<size_t>(s.o));
    return KEYDNN_OK;
  }
  if (TileGradW<T>::pays(s)) {
    const int status = TileGradW<T>(s, x, g, dw, db).run();
    if (status != kNotFinite) return status;
  }
  const bool wide = fills_registers<T>(s.o / s.groups), many = wide && s.n >= kManyImages && !shares_planes<T>(s);
  if (db && !many) sum_planes(g, db, s);
  if (!wide) return grad_w_by_positions(x, g, dw, s);
  ByChannels<T> q(s, x, g, dw, db);
  if (!q.prepare()) return KEYDNN_NO_MEMORY;
  return many ? many_images(q) : shared_planes(q);
}

template <class T>
int conv2d_grad_w(const T* x, const T* g, T* dw, const keydnn_conv_shape* shape) {
  return conv2d_grad_wb<T>(x, g, dw, nullptr, shape);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_CONV_GRAD_W)
