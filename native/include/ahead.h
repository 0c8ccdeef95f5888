// Passes over large arrays: what they read is fetched ahead, and large results are written past the caches, each where it gains.
//
// On Intel's cores the processor's own prefetching hardly serves stores, each of which fetches the line that it changes, and stops
// at every page of 4 KiB.  In passes over memory these hints are worth a fifth of the time there, in the caches they cost next to
// nothing.  AMD's cores do this better alone, and have the buffers to write whole lines that nobody fetched.
#pragma once
#include "lanes.h"

namespace keydnn {
extern const int64_t kAheadBytes;  // how far ahead; 0 asks for the line at hand
extern const int64_t kPastBytes;   // results from this size on are written past the caches
}  // namespace keydnn

namespace keydnn::KEYDNN_NS {
namespace {

template <class T>
constexpr int64_t kLine = 64 / sizeof(T);
constexpr int64_t kBusyBytes = 1024;  // how far ahead a pass reads that computes so much that no processor looks far ahead

// The line that a pass at p will read soon, or (for T* that it will write) change.  The address may lie outside of the array.
template <class T>
KEYDNN_INLINE void fetch_ahead(const T* p, int64_t bytes = kAheadBytes) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + bytes, 0);
}
template <class T>
KEYDNN_INLINE void fetch_ahead(T* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + kAheadBytes, 1);
}

// Whether a result of n elements is written past the caches, where `arrays` are all that a pass reads and writes: between such
// stores a Zen 4 takes four times as long over registers that lie across two lines.
template <class... Arrays>
KEYDNN_INLINE bool goes_past(int64_t n, Arrays*... arrays) {
  constexpr int64_t kSize = (sizeof(Arrays) + ...) / sizeof...(Arrays);
  return n >= kPastBytes / kSize && ((reinterpret_cast<uintptr_t>(arrays) % 64 == 0) && ...);
}

// Stores past the caches, p aligned as a register is; ends_past() comes before others are told of them.
template <class T>
KEYDNN_INLINE void store_past(T* p, Vec<T> v) {
#if defined(KEYDNN_IS_avx512)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#elif defined(KEYDNN_IS_avx2)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(KEYDNN_X86)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
  store(p, v);
#endif
}
KEYDNN_INLINE void ends_past() {
#if defined(KEYDNN_X86)
  _mm_sfence();
#endif
}

// A register of results to p, whose lines are fetched ahead unless it goes past the caches.
template <class T>
KEYDNN_INLINE void put(T* p, Vec<T> v, bool past) {
  if (past) return store_past(p, v);
  fetch_ahead(p);
  store(p, v);
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

// y[i] = f(i) for i in [begin, end), which reads `arrays` there.
template <class T, class F, class... Arrays>
KEYDNN_INLINE void fill_ahead(T* y, int64_t begin, int64_t end, bool past, F f, const Arrays*... arrays) {
  constexpr int64_t kRun = 2 * kLine<T>;
  int64_t i = begin;
  if (past) {
    for (; i + kRun <= end; i += kRun) {
      (fetch_ahead(arrays + i), ...);
      (fetch_ahead(arrays + i + kLine<T>), ...);
      T run[kRun];
      for (int64_t j = 0; j < kRun; ++j) run[j] = f(i + j);
      for (int64_t j = 0; j < kRun; j += kLanes<T>) store_past(y + i + j, load(run + j));
    }
    ends_past();
  }
  each_ahead<T>(i, end, [=](int64_t j) { y[j] = f(j); }, arrays..., y);
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
