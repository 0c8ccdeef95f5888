// The softmax family; integers: before, along, behind the axis.
#include <math.h>

#include "entries.h"

namespace keydnn::plan {
namespace {

template <class T, class F>
void along_axis(const Call& call, F f) {
  const int64_t before = call.n[0], along = call.n[1], behind = call.n[2];
  for (int64_t i = 0; i < before; ++i)
    for (int64_t k = 0; k < behind; ++k) f(i * along * behind + k, along, behind);
}

// places: x, y
template <class T>
int softmax(const Call& call) {
  const T* x = at<T>(call, 0);
  T* y = at<T>(call, 1);
  along_axis<T>(call, [=](int64_t start, int64_t n, int64_t step) {
    T top = x[start];
    for (int64_t j = 1; j < n; ++j) top = x[start + j * step] > top ? x[start + j * step] : top;
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += y[start + j * step] = std::exp(x[start + j * step] - top);
    for (int64_t j = 0; j < n; ++j) y[start + j * step] /= T(sum);
  });
  return KEYDNN_OK;
}
template <class T>
int log_softmax(const Call& call) {
  const T* x = at<T>(call, 0);
  T* y = at<T>(call, 1);
  along_axis<T>(call, [=](int64_t start, int64_t n, int64_t step) {
    T top = x[start];
    for (int64_t j = 1; j < n; ++j) top = x[start + j * step] > top ? x[start + j * step] : top;
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += std::exp(x[start + j * step] - top);
    for (int64_t j = 0; j < n; ++j) y[start + j * step] = x[start + j * step] - top - std::log(T(sum));
  });
  return KEYDNN_OK;
}

// places: y, g, dx
template <class T>
int softmax_grad(const Call& call) {
  const T *y = at<T>(call, 0), *g = at<T>(call, 1);
  T* dx = at<T>(call, 2);
  along_axis<T>(call, [=](int64_t start, int64_t n, int64_t step) {
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += y[start + j * step] * g[start + j * step];
    for (int64_t j = 0; j < n; ++j) dx[start + j * step] = y[start + j * step] * (g[start + j * step] - T(sum));
  });
  return KEYDNN_OK;
}
template <class T>
int log_softmax_grad(const Call& call) {
  const T *y = at<T>(call, 0), *g = at<T>(call, 1);
  T* dx = at<T>(call, 2);
  along_axis<T>(call, [=](int64_t start, int64_t n, int64_t step) {
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += g[start + j * step];
    for (int64_t j = 0; j < n; ++j) dx[start + j * step] = g[start + j * step] - std::exp(y[start + j * step]) * T(sum);
  });
  return KEYDNN_OK;
}

// places: logits, labels, loss, p; integers: rows, classes
template <class T>
int cross_entropy(const Call& call) {
  const int64_t rows = call.n[0], classes = call.n[1];
  const T* x = at<T>(call, 0);
  const int64_t* labels = at<int64_t>(call, 1);
  T *loss = at<T>(call, 2), *p = at<T>(call, 3);
  for (int64_t i = 0; i < rows; ++i) {
    if (labels[i] < 0 || labels[i] >= classes) return kBadLabel;
    const T* xi = x + i * classes;
    T* pi = p + i * classes;
    T top = xi[0];
    for (int64_t j = 1; j < classes; ++j) top = xi[j] > top ? xi[j] : top;
    double sum = 0;
    for (int64_t j = 0; j < classes; ++j) sum += pi[j] = std::exp(xi[j] - top);
    loss[i] = T(std::log(sum)) - (xi[labels[i]] - top);
    for (int64_t j = 0; j < classes; ++j) pi[j] /= T(sum);
  }
  return KEYDNN_OK;
}

// places: p, labels, g, dx; integers: rows, classes
template <class T>
int cross_entropy_grad(const Call& call) {
  const int64_t rows = call.n[0], classes = call.n[1];
  const T *p = at<T>(call, 0), *g = at<T>(call, 2);
  const int64_t* labels = at<int64_t>(call, 1);
  T* dx = at<T>(call, 3);
  for (int64_t i = 0; i < rows; ++i) {
    if (labels[i] < 0 || labels[i] >= classes) return kBadLabel;
    for (int64_t j = 0; j < classes; ++j) dx[i * classes + j] = (p[i * classes + j] - (j == labels[i] ? T(1) : T(0))) * g[i];
  }
  return KEYDNN_OK;
}

}  // namespace

void add_softmax(Table& table) {
  KEYDNN_ENTER(table, softmax);
  KEYDNN_ENTER(table, log_softmax);
  KEYDNN_ENTER(table, softmax_grad);
  KEYDNN_ENTER(table, log_softmax_grad);
  KEYDNN_ENTER(table, cross_entropy);
  KEYDNN_ENTER(table, cross_entropy_grad);
}

}  // namespace keydnn::plan
