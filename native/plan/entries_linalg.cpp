// Matrix products, through the packed micro-kernel.
#include "entries.h"

namespace keydnn::plan {
namespace {

// c = a b per item; places: a, b, bias or null, c
// integers: batch, m, n, k, row and column strides of a, of b; then, if batch > 1, an offset per item for a, then for b
template <class T>
int gemm(const Call& call) {
  const int64_t* n = call.n;
  const int64_t batch = n[0];
  return api::gemm(static_cast<const T*>(at<T>(call, 0)), n[4], n[5], batch > 1 ? n + 8 : nullptr,
                   static_cast<const T*>(at<T>(call, 1)), n[6], n[7], batch > 1 ? n + 8 + batch : nullptr,
                   static_cast<const T*>(at<T>(call, 2)), at<T>(call, 3), batch, n[1], n[2], n[3]);
}

// places: x, w, bias or null, y; integers: m, n, k
template <class T>
int linear_relu(const Call& call) {
  const int64_t* n = call.n;
  return api::linear_relu(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<T>(call, 3), n[0], n[1], n[2]);
}

// places: a, b, y, c; integers: m, n, k, row and column strides of a, of b
template <class T>
int gemm_relu_grad(const Call& call) {
  const int64_t* n = call.n;
  return api::gemm_relu_grad(at<const T>(call, 0), n[3], n[4], at<const T>(call, 1), n[5], n[6], at<const T>(call, 2), at<T>(call, 3), n[0],
                             n[1], n[2]);
}

// c = a^T b, and the sums of a's columns; places: a, b, c, sums; integers: m, n, k
template <class T>
int gemm_sums(const Call& call) {
  const int64_t* n = call.n;
  return api::gemm_sums(at<const T>(call, 0), n[0], at<const T>(call, 1), n[1], 1, at<T>(call, 2), at<T>(call, 3), n[0], n[1], n[2]);
}

}  // namespace

void add_linalg(Table& table) {
  KEYDNN_ENTER(table, gemm);
  KEYDNN_ENTER(table, gemm_relu_grad);
  KEYDNN_ENTER(table, gemm_sums);
  KEYDNN_ENTER(table, linear_relu);
}

}  // namespace keydnn::plan
