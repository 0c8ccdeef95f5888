// Optimizer updates, and random numbers.
#include <math.h>

#include "entries.h"
#include "parallel.h"

namespace keydnn::plan {
namespace {

constexpr int64_t kGrain = 16384;

// places: p, g, velocity or null, lr (double); integers: n, nesterov; reals: momentum, weight decay
template <class T>
int sgd(const Call& call) {
  T *p = at<T>(call, 0), *v = at<T>(call, 2);
  const T* g = at<T>(call, 1);
  const T lr = T(*at<double>(call, 3)), mu = T(call.f[0]), wd = T(call.f[1]);
  const bool nesterov = call.n[1] != 0;
  parallel_ranges(call.n[0], kGrain, 0.4 * double(call.n[0]), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T d = wd != 0 ? g[i] + wd * p[i] : g[i];
      if (v) {
        v[i] = mu * v[i] + d;
        d = nesterov ? d + mu * v[i] : v[i];
      }
      p[i] -= lr * d;
    }
  });
  return KEYDNN_OK;
}

// places: p, g, m, v, t (int64), lr (double); integers: n, decoupled; reals: beta1, beta2, eps, weight decay
template <class T>
int adam(const Call& call) {
  T *p = at<T>(call, 0), *m = at<T>(call, 2), *v = at<T>(call, 3);
  const T* g = at<T>(call, 1);
  int64_t* t = at<int64_t>(call, 4);
  const double lr = *at<double>(call, 5), b1 = call.f[0], b2 = call.f[1], wd = call.f[3];
  *t += 1;
  const T a = T(1 - pow(b1, double(*t))), b = T(1 - pow(b2, double(*t))), eps = T(call.f[2]);
  const T shrink = call.n[1] ? T(lr * wd) : T(0), add = call.n[1] ? T(0) : T(wd);
  parallel_ranges(call.n[0], kGrain, 1.0 * double(call.n[0]), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T q = p[i] - shrink * p[i];
      const T d = g[i] + add * q;
      m[i] = T(b1) * m[i] + T(1 - b1) * d;
      v[i] = T(b2) * v[i] + T(1 - b2) * (d * d);
      p[i] = q - T(lr) * (m[i] / a) / (std::sqrt(v[i] / b) + eps);
    }
  });
  return KEYDNN_OK;
}

// Philox4x32-10, see kernels/reference/random.py.
void philox(uint64_t block, uint64_t key, uint32_t out[4]) {
  uint32_t c0 = uint32_t(block), c1 = uint32_t(block >> 32), c2 = 0, c3 = 0, k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// places: key (int64), mask; integers: n; reals: p
template <class T>
int dropout_mask(const Call& call) {
  const uint64_t key = *at<uint64_t>(call, 0);
  T* y = at<T>(call, 1);
  const int64_t n = call.n[0];
  const double keep = 1.0 - call.f[0], bound = keep * 16777216.0;
  const T scale = T(1.0 / keep);
  parallel_ranges((n + 3) / 4, kGrain / 4, 5.0 * double(n), [=](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      uint32_t word[4];
      philox(uint64_t(b), key, word);
      for (int64_t j = 0; j < 4 && 4 * b + j < n; ++j) y[4 * b + j] = double(word[j] >> 8) < bound ? scale : T(0);
    }
  });
  return KEYDNN_OK;
}

}  // namespace

void add_update(Table& table) {
  KEYDNN_ENTER(table, sgd);
  KEYDNN_ENTER(table, adam);
  KEYDNN_ENTER(table, dropout_mask);
}

}  // namespace keydnn::plan
