// Memory that is kept for the next call: outputs of eager kernels and scratch space come from here.
//
// Blocks are 64-byte aligned and come in size classes (four per power of two).  A freed block waits in its class's list
// for the next request; when the lists would hold more than kCacheLimit bytes, blocks of the size that has been asked for
// least recently go back to the system.  Fresh pages cost more than most kernels do, so a training step must not get new
// ones each time.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace keydnn {

constexpr size_t kCacheLimit = size_t(512) << 20;

struct MemoryStats {
  int64_t cached_bytes;  // waiting in the lists
  int64_t live_bytes;    // handed out
  int64_t system_calls;  // blocks ever asked from the system
};

void* allocate(size_t bytes);  // nullptr when there is no memory
void release(void* block);     // a block of allocate, or nullptr
void trim_memory();            // gives every waiting block back to the system
MemoryStats memory_stats();

// Gives the whole pages inside [begin, begin + bytes) back to the system; the addresses stay taken, the contents become
// undefined.  Does nothing where the system cannot do that.
void discard_pages(void* begin, size_t bytes);

}  // namespace keydnn
