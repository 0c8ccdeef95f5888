// The softmax family over contiguous rows; integers: rows, n.
#include "entries.h"

namespace keydnn::plan {
namespace {

#define KEYDNN_ROWS_ENTRY(name)                                                                  \
  template <class T>                                                                             \
  int name(const Call& call) {                                                                   \
    return api::name(at<const T>(call, 0), at<T>(call, 1), call.n[0], call.n[1]);                \
  }
#define KEYDNN_ROW_PAIRS_ENTRY(name)                                                             \
  template <class T>                                                                             \
  int name(const Call& call) {                                                                   \
    return api::name(at<const T>(call, 0), at<const T>(call, 1), at<T>(call, 2), call.n[0], call.n[1]); \
  }
KEYDNN_ROWS_ENTRY(softmax)             // x, y
KEYDNN_ROWS_ENTRY(log_softmax)         // x, y
KEYDNN_ROW_PAIRS_ENTRY(softmax_grad)      // y, g, dx
KEYDNN_ROW_PAIRS_ENTRY(log_softmax_grad)  // y, g, dx

bool labels_fit(const int64_t* labels, int64_t rows, int64_t n) {
  bool fit = true;
  for (int64_t i = 0; i < rows; ++i) fit &= labels[i] >= 0 && labels[i] < n;
  return fit;
}

// places: logits, labels, loss, p
template <class T>
int cross_entropy(const Call& call) {
  const int64_t* labels = at<const int64_t>(call, 1);
  if (!labels_fit(labels, call.n[0], call.n[1])) return kBadLabel;
  return api::cross_entropy(at<const T>(call, 0), labels, at<T>(call, 2), at<T>(call, 3), call.n[0], call.n[1]);
}

// places: p, labels, g, dx
template <class T>
int cross_entropy_grad(const Call& call) {
  const int64_t* labels = at<const int64_t>(call, 1);
  if (!labels_fit(labels, call.n[0], call.n[1])) return kBadLabel;
  return api::cross_entropy_grad(at<const T>(call, 0), labels, at<const T>(call, 2), at<T>(call, 3), call.n[0], call.n[1]);
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
