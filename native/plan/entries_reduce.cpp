// Reductions; integers: k0, r0, k1, r1 as in keydnn/reduce.h.  places: x, y.
#include "entries.h"

namespace keydnn::plan {
namespace {

#define KEYDNN_REDUCTION_ENTRY(name)                                                                            \
  template <class T>                                                                                            \
  int name(const Call& call) {                                                                                  \
    const int64_t* n = call.n;                                                                                  \
    return api::name(static_cast<const T*>(at<T>(call, 0)), at<T>(call, 1), n[0], n[1], n[2], n[3]);            \
  }
KEYDNN_REDUCTION_ENTRY(sum)
KEYDNN_REDUCTION_ENTRY(mean)
KEYDNN_REDUCTION_ENTRY(max)
KEYDNN_REDUCTION_ENTRY(min)

// Index of the first best along the middle axis; NaN wins.  integers: before, along, behind.
template <class T, class Better>
int first_best(const Call& call, Better better) {
  const int64_t before = call.n[0], along = call.n[1], behind = call.n[2];
  const T* x = at<T>(call, 0);
  int64_t* y = at<int64_t>(call, 1);
  for (int64_t i = 0; i < before; ++i)
    for (int64_t k = 0; k < behind; ++k) {
      const T* column = x + i * along * behind + k;
      int64_t best = 0;
      for (int64_t j = 1; j < along; ++j) {
        const T value = column[j * behind], top = column[best * behind];
        if (top == top && (value != value || better(value, top))) best = j;
      }
      y[i * behind + k] = best;
    }
  return KEYDNN_OK;
}
template <class T>
int argmax(const Call& call) {
  return first_best<T>(call, [](T a, T b) { return a > b; });
}
template <class T>
int argmin(const Call& call) {
  return first_best<T>(call, [](T a, T b) { return a < b; });
}

}  // namespace

void add_reduce(Table& table) {
  KEYDNN_ENTER(table, sum);
  KEYDNN_ENTER(table, mean);
  KEYDNN_ENTER(table, max);
  KEYDNN_ENTER(table, min);
  KEYDNN_ENTER(table, argmax);
  KEYDNN_ENTER(table, argmin);
}

}  // namespace keydnn::plan
