#include "memory.h"

#include <stdlib.h>

#include <mutex>

#ifndef _WIN32
#include <pthread.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace keydnn {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kSmallest = 1024;
constexpr int kClasses = 4 * 40;

// Stands in the 64 bytes before each block.
struct Header {
  Header* next;
  size_t bytes;  // of the block itself
  int size_class;
};
static_assert(sizeof(Header) <= kAlign, "the header must fit before an aligned block");

// Classes are 1, 1.25, 1.5 and 1.75 times a power of two; steps of octave o are kSmallest / 4 * 2^o.
int class_of(size_t bytes, size_t* rounded) {
  const int octave = bytes <= 2 * kSmallest ? 0 : 64 - __builtin_clzll((bytes - 1) / (2 * kSmallest));
  const size_t step = kSmallest / 4 << octave;
  size_t quarters = (bytes + step - 1) / step;  // 5 .. 8, fewer in octave 0
  if (quarters < 4) quarters = 4;
  *rounded = quarters * step;
  return 4 * octave + static_cast<int>(quarters) - 4;
}

void* system_allocate(size_t bytes) {
#ifdef _WIN32
  return _aligned_malloc(bytes, kAlign);
#else
  void* p = nullptr;
  return posix_memalign(&p, kAlign, bytes) == 0 ? p : nullptr;
#endif
}

void system_release(void* p) {
#ifdef _WIN32
  _aligned_free(p);
#else
  free(p);
#endif
}

struct Cache {
  std::mutex mutex;
  Header* lists[kClasses] = {};
  int64_t served[kClasses] = {};  // when each list last served a request, on this clock
  int64_t clock = 0;
  MemoryStats stats = {0, 0, 0};

  Header* pop(int size_class) {
    Header* header = lists[size_class];
    lists[size_class] = header->next;
    stats.cached_bytes -= static_cast<int64_t>(header->bytes);
    return header;
  }
  void push(Header* header) {
    header->next = lists[header->size_class];
    lists[header->size_class] = header;
    stats.cached_bytes += static_cast<int64_t>(header->bytes);
  }
  // Gives back blocks until `bytes` more may wait, from the list first that has not served for the longest time.
  void make_room(int64_t bytes) {
    while (stats.cached_bytes > 0 && stats.cached_bytes + bytes > static_cast<int64_t>(kCacheLimit)) {
      int oldest = -1;
      for (int i = 0; i < kClasses; ++i)
        if (lists[i] && (oldest < 0 || served[i] < served[oldest])) oldest = i;
      system_release(pop(oldest));
    }
  }
};

Cache& cache() {
  static Cache* const instance = [] {
    Cache* made = new Cache;  // never destroyed: arrays may be freed after static destructors have run
#ifndef _WIN32
    // A child of fork() must not inherit a mutex that another thread held.
    pthread_atfork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); }, [] { cache().mutex.unlock(); });
#endif
    return made;
  }();
  return *instance;
}

}  // namespace

void* allocate(size_t bytes) {
  size_t rounded;
  const int size_class = class_of(bytes, &rounded);
  if (size_class >= kClasses || bytes > SIZE_MAX / 2) return nullptr;
  Cache& c = cache();
  {
    std::lock_guard<std::mutex> lock(c.mutex);
    c.stats.live_bytes += static_cast<int64_t>(rounded);
    c.served[size_class] = ++c.clock;
    if (c.lists[size_class]) return reinterpret_cast<char*>(c.pop(size_class)) + kAlign;
    ++c.stats.system_calls;
  }
  char* raw = static_cast<char*>(system_allocate(rounded + kAlign));
  if (!raw) {
    trim_memory();
    raw = static_cast<char*>(system_allocate(rounded + kAlign));
  }
  if (!raw) {
    std::lock_guard<std::mutex> lock(c.mutex);
    c.stats.live_bytes -= static_cast<int64_t>(rounded);
    return nullptr;
  }
  Header* header = reinterpret_cast<Header*>(raw);
  header->bytes = rounded;
  header->size_class = size_class;
  return raw + kAlign;
}

void release(void* block) {
  if (!block) return;
  Header* header = reinterpret_cast<Header*>(static_cast<char*>(block) - kAlign);
  Cache& c = cache();
  {
    std::lock_guard<std::mutex> lock(c.mutex);
    const int64_t bytes = static_cast<int64_t>(header->bytes);
    c.stats.live_bytes -= bytes;
    if (bytes <= static_cast<int64_t>(kCacheLimit)) {
      c.make_room(bytes);
      return c.push(header);
    }
  }
  system_release(header);
}

void trim_memory() {
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  for (int i = 0; i < kClasses; ++i)
    while (c.lists[i]) system_release(c.pop(i));
#ifdef __GLIBC__
  malloc_trim(0);  // after large blocks were freed once, free() keeps the next ones
#endif
}

void discard_pages(void* begin, size_t bytes) {
#ifdef __linux__
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(begin) + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#else
  (void)begin, (void)bytes;
#endif
}

MemoryStats memory_stats() {
  std::lock_guard<std::mutex> lock(cache().mutex);
  return cache().stats;
}

}  // namespace keydnn
