// Batch and layer normalisation.
#include "entries.h"

namespace keydnn::plan {
namespace {

// places: x, gamma, beta, y, mean, var, inv; integers: images, channels, plane; reals: eps
template <class T>
int batch_norm(const Call& call) {
  return api::batch_norm(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), call.f[0], at<T>(call, 3), at<T>(call, 4),
                         at<T>(call, 5), at<T>(call, 6), call.n[0], call.n[1], call.n[2]);
}

// places: g, x, gamma, mean, inv, dx, dgamma, dbeta; integers: images, channels, plane
template <class T>
int batch_norm_grad(const Call& call) {
  return api::batch_norm_grad(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                              at<T>(call, 5), at<T>(call, 6), at<T>(call, 7), call.n[0], call.n[1], call.n[2]);
}

// places: x, gamma, beta, y, mean, var, inv, line; integers: images, channels, plane; reals: eps
template <class T>
int batch_norm_relu(const Call& call) {
  return api::batch_norm_relu(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), call.f[0], at<T>(call, 3), at<T>(call, 4),
                              at<T>(call, 5), at<T>(call, 6), at<T>(call, 7), call.n[0], call.n[1], call.n[2]);
}

// places: g, x, gamma, mean, inv, line, dx, dgamma, dbeta; integers: images, channels, plane
template <class T>
int batch_norm_relu_grad(const Call& call) {
  return api::batch_norm_relu_grad(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3),
                                   at<const T>(call, 4), at<const T>(call, 5), at<T>(call, 6), at<T>(call, 7), at<T>(call, 8), call.n[0],
                                   call.n[1], call.n[2]);
}

// places: x, gamma, beta, y, mean, inv; integers: rows, features; reals: eps
template <class T>
int layer_norm(const Call& call) {
  return api::layer_norm(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), call.f[0], at<T>(call, 3), at<T>(call, 4),
                         at<T>(call, 5), call.n[0], call.n[1]);
}

// places: g, x, gamma, mean, inv, dx, dgamma, dbeta; integers: rows, features
template <class T>
int layer_norm_grad(const Call& call) {
  return api::layer_norm_grad(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                              at<T>(call, 5), at<T>(call, 6), at<T>(call, 7), call.n[0], call.n[1]);
}

}  // namespace

void add_norm(Table& table) {
  KEYDNN_ENTER(table, batch_norm);
  KEYDNN_ENTER(table, batch_norm_grad);
  KEYDNN_ENTER(table, batch_norm_relu);
  KEYDNN_ENTER(table, batch_norm_relu_grad);
  KEYDNN_ENTER(table, layer_norm);
  KEYDNN_ENTER(table, layer_norm_grad);
}

}  // namespace keydnn::plan
