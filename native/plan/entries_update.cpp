// Running averages, optimizer updates, and random numbers.  The rate is read when the op runs.
#include "entries.h"
#include "keydnn/adam_many.h"
#include "parallel.h"

namespace keydnn::plan {
namespace {

// places: running, batch; integers: n; reals: momentum
template <class T>
int ema(const Call& call) {
  return api::ema(at<T>(call, 0), at<const T>(call, 1), call.n[0], call.f[0]);
}

// places: p, g, velocity or null, lr (double); integers: n, nesterov; reals: momentum, weight decay
template <class T>
int sgd(const Call& call) {
  return api::sgd(at<T>(call, 0), at<const T>(call, 1), at<T>(call, 2), call.n[0], *at<double>(call, 3), call.f[0],
                  static_cast<int>(call.n[1]), call.f[1]);
}

// places: p, g, m, v, t (int64), lr (double); integers: n, decoupled; reals: beta1, beta2, eps, weight decay
template <class T>
int adam(const Call& call) {
  const int64_t step = ++*at<int64_t>(call, 4);
  return api::adam(at<T>(call, 0), at<const T>(call, 1), at<T>(call, 2), at<T>(call, 3), call.n[0], step, *at<double>(call, 5), call.f[0],
                   call.f[1], call.f[2], call.f[3], static_cast<int>(call.n[1]));
}

constexpr int64_t kPiece = 4096;
constexpr int64_t kTogether = 64;  // arrays that one call may update, if they are small
constexpr double kAdamNs = 0.8;    // per element

int64_t pieces_of(int64_t size) { return (size + kPiece - 1) / kPiece; }

// Cuts the arrays of a table into pieces and runs f(array, begin, length) over all of them, in parallel.  The first half of each
// array comes before the second half of any: threads that claim from the two ends keep their halves of all arrays in their caches.
template <class F>
int over_table(int64_t count, const int64_t* sizes, double ns, F&& f) {
  int64_t pieces = 0, total = 0;
  for (int64_t i = 0; i < count; ++i) {
    pieces += pieces_of(sizes[i]);
    total += sizes[i];
  }
  int failed = KEYDNN_OK;
  const auto run = [&](int64_t i, int64_t begin, int64_t n) {
    const int status = f(i, begin, n);
    if (status != KEYDNN_OK) failed = status;
  };
  if (ns * double(total) < kParallelThreshold) {
    for (int64_t i = 0; i < count; ++i) run(i, 0, sizes[i]);
    return failed;
  }
  parallel_for(pieces, ns * double(total), [&](int64_t piece) {
    int64_t i = 0, first = 0;  // array, and its first piece that counts
    for (int64_t half = 0;; ++i) {
      if (i == count) half = 1, i = 0;
      const int64_t middle = pieces_of(sizes[i]) / 2, here = half ? pieces_of(sizes[i]) - middle : middle;
      first = half ? middle : 0;
      if (piece < here) break;
      piece -= here;
    }
    const int64_t begin = (first + piece) * kPiece, rest = sizes[i] - begin;
    run(i, begin, rest < kPiece ? rest : kPiece);
  });
  return failed;
}

template <class T>
T* part(const Call& call, int64_t place, int64_t begin) {
  T* base = at<T>(call, static_cast<int>(place));
  return base ? base + begin : nullptr;
}

// places: lr (double); p, g, velocity or null per parameter
// integers: parameters, nesterov, elements of each; reals: momentum, weight decay
template <class T>
int sgd_many(const Call& call) {
  return over_table(call.n[0], call.n + 2, 0.4, [&](int64_t i, int64_t begin, int64_t n) {
    return api::sgd(part<T>(call, 1 + 3 * i, begin), static_cast<const T*>(part<T>(call, 2 + 3 * i, begin)), part<T>(call, 3 + 3 * i, begin),
                    n, *at<double>(call, 0), call.f[0], static_cast<int>(call.n[1]), call.f[1]);
  });
}

// places: lr (double); p, g, m, v, t (int64) per parameter
// integers: parameters, decoupled, elements of each; reals: beta1, beta2, eps, weight decay
template <class T>
int adam_many(const Call& call) {
  const int64_t count = call.n[0], step = *at<int64_t>(call, 5) + 1;
  int64_t total = 0;
  bool together = count <= kTogether;  // all at one step
  for (int64_t i = 0; i < count; ++i) {
    together &= ++*at<int64_t>(call, static_cast<int>(5 + 5 * i)) == step;
    total += call.n[2 + i];
  }
  if (together && kAdamNs * double(total) < kParallelThreshold) {
    T* arrays[4 * kTogether];
    for (int64_t i = 0; i < 4 * count; ++i) arrays[i] = at<T>(call, static_cast<int>(1 + i / 4 * 5 + i % 4));
    return api::adam_many(arrays, call.n + 2, count, step, *at<double>(call, 0), call.f[0], call.f[1], call.f[2], call.f[3],
                          static_cast<int>(call.n[1]));
  }
  return over_table(count, call.n + 2, kAdamNs, [&](int64_t i, int64_t begin, int64_t n) {
    return api::adam(part<T>(call, 1 + 5 * i, begin), static_cast<const T*>(part<T>(call, 2 + 5 * i, begin)), part<T>(call, 3 + 5 * i, begin),
                     part<T>(call, 4 + 5 * i, begin), n, *at<int64_t>(call, static_cast<int>(5 + 5 * i)), *at<double>(call, 0), call.f[0],
                     call.f[1], call.f[2], call.f[3], static_cast<int>(call.n[1]));
  });
}

// places: key (int64), mask; integers: n; reals: p
template <class T>
int dropout_mask(const Call& call) {
  return api::dropout_mask(*at<uint64_t>(call, 0), at<T>(call, 1), call.n[0], call.f[0]);
}

// places: key (int64), u; integers: n
template <class T>
int uniform(const Call& call) {
  return api::uniform(*at<uint64_t>(call, 0), at<T>(call, 1), call.n[0]);
}

// places: x, y; integers: n, then keydnn_fixed
template <class T>
int quantize_fixed(const Call& call) {
  const int64_t* n = call.n;
  const keydnn_fixed format = {n[1], n[2], n[3], n[4], n[5], n[6]};
  return api::quantize_fixed(at<const T>(call, 0), at<T>(call, 1), n[0], &format);
}

// places: x, keydnn_fixed (int64), y; integers: n
template <class T>
int quantize_by(const Call& call) {
  return api::quantize_fixed(at<const T>(call, 0), at<T>(call, 2), call.n[0], at<const keydnn_fixed>(call, 1));
}

}  // namespace

void add_update(Table& table) {
  KEYDNN_ENTER(table, ema);
  KEYDNN_ENTER(table, sgd);
  KEYDNN_ENTER(table, adam);
  KEYDNN_ENTER(table, sgd_many);
  KEYDNN_ENTER(table, adam_many);
  KEYDNN_ENTER(table, dropout_mask);
  KEYDNN_ENTER(table, uniform);
  KEYDNN_ENTER(table, quantize_fixed);
  KEYDNN_ENTER(table, quantize_by);
}

}  // namespace keydnn::plan
