// parallel_for: the one way to use more than one thread.
//
//   parallel_for(chunks, cost_ns, [&](int64_t chunk) { ... });
//
// Calls body(0) ... body(chunks - 1), each once, in any order, perhaps on several threads, and returns when all are done.
// The caller cuts the work into chunks that depend on the kernel, the shapes and the dtype alone (never on the number of
// threads) and combines partial results by chunk index, so bits do not depend on who computed what.  Make more chunks
// than threads, of 10 us or more each: they are claimed one by one, and a thread that the system does not run holds
// up nobody.  cost_ns is a rough estimate of all the work on one thread; below kParallelThreshold the caller walks the
// chunks alone.  A call from inside a body, or while another thread's call is under way, also runs on its caller alone.
// Bodies must not throw.
#pragma once
#include <stdint.h>

namespace keydnn {

constexpr double kParallelThreshold = 20000.0;  // ns; waking and joining a thread costs about half of it

void parallel_run(int64_t chunks, void (*body)(void* context, int64_t chunk), void* context);

namespace {

template <class Body>
inline void parallel_for(int64_t chunks, double cost_ns, Body&& body) {
  if (chunks < 2 || cost_ns < kParallelThreshold) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk);
    return;
  }
  auto call = [](void* context, int64_t chunk) { (*static_cast<Body*>(context))(chunk); };
  parallel_run(chunks, call, const_cast<void*>(static_cast<const void*>(&body)));
}

// body(begin, end) over [0, n) in pieces of `grain` (the last may be shorter).
template <class Body>
inline void parallel_ranges(int64_t n, int64_t grain, double cost_ns, Body&& body) {
  const int64_t chunks = (n + grain - 1) / grain;
  parallel_for(chunks, cost_ns, [&](int64_t chunk) {
    const int64_t begin = chunk * grain;
    body(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace
}  // namespace keydnn
