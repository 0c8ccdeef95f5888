// Batch and layer normalisation.
#include <math.h>

#include "entries.h"

namespace keydnn::plan {
namespace {

// places: x, gamma, beta, y, mean, var, inv; integers: images, channels, plane; reals: eps
template <class T>
int batch_norm(const Call& call) {
  const int64_t N = call.n[0], C = call.n[1], P = call.n[2];
  const T *x = at<T>(call, 0), *gamma = at<T>(call, 1), *beta = at<T>(call, 2);
  T *y = at<T>(call, 3), *mean = at<T>(call, 4), *var = at<T>(call, 5), *inv = at<T>(call, 6);
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0, square = 0;
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < P; ++i) sum += x[(n * C + c) * P + i];
    const T mu = T(sum / double(N * P));
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < P; ++i) square += double(x[(n * C + c) * P + i] - mu) * double(x[(n * C + c) * P + i] - mu);
    mean[c] = mu;
    var[c] = T(square / double(N * P));
    inv[c] = T(1) / std::sqrt(var[c] + T(call.f[0]));
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < P; ++i) {
        const T hat = (x[(n * C + c) * P + i] - mu) * inv[c];
        y[(n * C + c) * P + i] = gamma ? gamma[c] * hat + beta[c] : hat;
      }
  }
  return KEYDNN_OK;
}

// places: g, x, gamma, mean, inv, dx, dgamma, dbeta; integers: images, channels, plane
template <class T>
int batch_norm_grad(const Call& call) {
  const int64_t N = call.n[0], C = call.n[1], P = call.n[2];
  const T *g = at<T>(call, 0), *x = at<T>(call, 1), *gamma = at<T>(call, 2), *mean = at<T>(call, 3), *inv = at<T>(call, 4);
  T *dx = at<T>(call, 5), *dgamma = at<T>(call, 6), *dbeta = at<T>(call, 7);
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0, dot = 0;
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < P; ++i) {
        const int64_t k = (n * C + c) * P + i;
        sum += g[k];
        dot += double(g[k]) * double((x[k] - mean[c]) * inv[c]);
      }
    dgamma[c] = T(dot);
    dbeta[c] = T(sum);
    const T scale = (gamma ? gamma[c] : T(1)) * inv[c], a = T(sum / double(N * P)), b = T(dot / double(N * P));
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < P; ++i) {
        const int64_t k = (n * C + c) * P + i;
        dx[k] = scale * (g[k] - a - (x[k] - mean[c]) * inv[c] * b);
      }
  }
  return KEYDNN_OK;
}

// places: x, gamma, beta, y, mean, inv; integers: rows, features; reals: eps
template <class T>
int layer_norm(const Call& call) {
  const int64_t N = call.n[0], D = call.n[1];
  const T *x = at<T>(call, 0), *gamma = at<T>(call, 1), *beta = at<T>(call, 2);
  T *y = at<T>(call, 3), *mean = at<T>(call, 4), *inv = at<T>(call, 5);
  for (int64_t n = 0; n < N; ++n) {
    const T* xi = x + n * D;
    double sum = 0, square = 0;
    for (int64_t i = 0; i < D; ++i) sum += xi[i];
    const T mu = T(sum / double(D));
    for (int64_t i = 0; i < D; ++i) square += double(xi[i] - mu) * double(xi[i] - mu);
    mean[n] = mu;
    inv[n] = T(1) / std::sqrt(T(square / double(D)) + T(call.f[0]));
    for (int64_t i = 0; i < D; ++i) {
      const T hat = (xi[i] - mu) * inv[n];
      y[n * D + i] = gamma ? gamma[i] * hat + beta[i] : hat;
    }
  }
  return KEYDNN_OK;
}

// places: g, x, gamma, mean, inv, dx, dgamma, dbeta; integers: rows, features
template <class T>
int layer_norm_grad(const Call& call) {
  const int64_t N = call.n[0], D = call.n[1];
  const T *g = at<T>(call, 0), *x = at<T>(call, 1), *gamma = at<T>(call, 2), *mean = at<T>(call, 3), *inv = at<T>(call, 4);
  T *dx = at<T>(call, 5), *dgamma = at<T>(call, 6), *dbeta = at<T>(call, 7);
  for (int64_t i = 0; i < D; ++i) {
    double a = 0, b = 0;
    for (int64_t n = 0; n < N; ++n) {
      a += double(g[n * D + i]) * double((x[n * D + i] - mean[n]) * inv[n]);
      b += g[n * D + i];
    }
    dgamma[i] = T(a);
    dbeta[i] = T(b);
  }
  for (int64_t n = 0; n < N; ++n) {
    double a = 0, b = 0;
    for (int64_t i = 0; i < D; ++i) {
      const double d = gamma ? g[n * D + i] * gamma[i] : g[n * D + i];
      a += d;
      b += d * double((x[n * D + i] - mean[n]) * inv[n]);
    }
    for (int64_t i = 0; i < D; ++i) {
      const T d = gamma ? g[n * D + i] * gamma[i] : g[n * D + i];
      dx[n * D + i] = inv[n] * (d - T(a / double(D)) - (x[n * D + i] - mean[n]) * inv[n] * T(b / double(D)));
    }
  }
  return KEYDNN_OK;
}

}  // namespace

void add_norm(Table& table) {
  KEYDNN_ENTER(table, batch_norm);
  KEYDNN_ENTER(table, batch_norm_grad);
  KEYDNN_ENTER(table, layer_norm);
  KEYDNN_ENTER(table, layer_norm_grad);
}

}  // namespace keydnn::plan
