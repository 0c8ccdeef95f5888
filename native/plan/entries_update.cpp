// Running averages, optimizer updates, and random numbers.  The rate is read when the op runs.
#include "entries.h"

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

}  // namespace

void add_update(Table& table) {
  KEYDNN_ENTER(table, ema);
  KEYDNN_ENTER(table, sgd);
  KEYDNN_ENTER(table, adam);
  KEYDNN_ENTER(table, dropout_mask);
  KEYDNN_ENTER(table, uniform);
}

}  // namespace keydnn::plan
