// Fetching ahead: what a pass over large arrays reads, and the lines that it will write.
//
// The processor's own prefetching hardly serves stores, each of which fetches the line that it changes, and stops at every page
// of 4 KiB.  In passes over memory these hints are worth a fifth of the time, in the caches they cost next to nothing.
#pragma once
#include "lanes.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kAheadBytes = 1024;
template <class T>
constexpr int64_t kLine = 64 / sizeof(T);

// The line that a pass at p will read soon, or (for T* that it will write) change.  The address may lie outside of the array.
template <class T>
KEYDNN_INLINE void fetch_ahead(const T* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + kAheadBytes, 0);
}
template <class T>
KEYDNN_INLINE void fetch_ahead(T* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + kAheadBytes, 1);
}

// step(i) for i in [begin, end), two lines at a time (GCC takes shorter runs apart), with the lines ahead of `arrays` fetched.
template <class T, class Step, class... Arrays>
KEYDNN_INLINE void each_ahead(int64_t begin, int64_t end, Step step, Arrays*... arrays) {
  constexpr int64_t kRun = 2 * kLine<T>;
  int64_t i = begin;
  for (; i + kRun <= end; i += kRun) {
    (fetch_ahead(arrays + i), ...);
    (fetch_ahead(arrays + i + kLine<T>), ...);
#pragma GCC ivdep
    for (int64_t j = i; j < i + kRun; ++j) step(j);
  }
  for (; i < end; ++i) step(i);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
