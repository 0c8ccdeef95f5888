// The threads behind parallel_for.
//
// One word, (generation, chunks taken from the front, chunks taken from the back), is both the announcement of a job and
// the counter that chunks are claimed from.  A thread reads the word, then the job's fields, then claims by
// compare-and-swap: success proves that the job was still open, so the fields belonged to it.  (The caller closes the word
// before it changes the fields, and a thread that has read a new field cannot find an older word: release and acquire on
// the fields.)  Whoever runs claims; the caller waits only for chunks that others have claimed and not finished.  Idle
// workers spin for a moment (steps come in quick succession), then sleep.
//
// Half of the threads, the caller among them, claim from the front, the others from the back: so a thread mostly meets
// the chunks that it met the last time, and finds what it read and wrote there in its own cache.
//
// A job aside is a second word of the same kind.  Workers look at it only where they would spin otherwise, and are not woken
// for it; whoever began it does what is left in the end.
#include "parallel.h"

#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "aside.h"
#include "keydnn.h"

#ifndef _WIN32
#include <pthread.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace keydnn {
namespace {

using Body = void (*)(void*, int64_t);

int default_threads() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
  if (const char* wanted = getenv("KEYDNN_NUM_THREADS")) {
    const int asked = atoi(wanted);
    if (asked > 0) n = asked;
  }
  return n > 0 ? n : 1;
}

std::atomic<int> n_threads{0};  // 0: not yet asked

int threads() {
  int n = n_threads.load(std::memory_order_relaxed);
  if (n == 0) {
    n = default_threads();
    n_threads.store(n, std::memory_order_relaxed);
  }
  return n;
}

void walk(int64_t chunks, Body body, void* context) {
  for (int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk);
}

constexpr int kFrontBits = 20, kBackBits = 20, kGeneration = kFrontBits + kBackBits;
constexpr int64_t kMostChunks = (int64_t(1) << kFrontBits) - 1;  // of a job; more are joined to groups
constexpr uint64_t kFront = 1, kBack = uint64_t(1) << kFrontBits;  // one chunk taken

int64_t taken_from_front(uint64_t word) { return static_cast<int64_t>(word & kMostChunks); }
int64_t taken_from_back(uint64_t word) { return static_cast<int64_t>(word >> kFrontBits & kMostChunks); }

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// What is claimed from: the word, the fields that it announces, and how many chunks are done.
struct Job {
  alignas(64) std::atomic<uint64_t> word{0};
  std::atomic<int64_t> chunks{0};
  std::atomic<Body> body{nullptr};
  std::atomic<void*> context{nullptr};
  alignas(64) std::atomic<int64_t> done{0};

  void open(int64_t n, Body f, void* with) {
    const uint64_t generation = word.load(std::memory_order_relaxed) >> kGeneration;
    word.store(generation << kGeneration | kMostChunks, std::memory_order_relaxed);  // nothing to claim
    chunks.store(n, std::memory_order_release);
    body.store(f, std::memory_order_release);
    context.store(with, std::memory_order_release);
    done.store(0, std::memory_order_relaxed);
    word.store((generation + 1) << kGeneration, std::memory_order_seq_cst);
  }

  uint64_t generation() const { return word.load(std::memory_order_seq_cst) >> kGeneration; }

  bool is_open() const {
    const uint64_t now = word.load(std::memory_order_acquire);
    return taken_from_front(now) + taken_from_back(now) < chunks.load(std::memory_order_relaxed);
  }

  bool is_done() const { return done.load(std::memory_order_seq_cst) == chunks.load(std::memory_order_relaxed); }

  // Claims and runs one chunk, the first or the last that is left; false if there is none.  `last` is called after the last chunk.
  template <class Last>
  bool claim_one(bool from_back, Last last) {
    uint64_t now = word.load(std::memory_order_acquire);
    for (;;) {
      const int64_t n = chunks.load(std::memory_order_acquire);
      const Body f = body.load(std::memory_order_acquire);
      void* const with = context.load(std::memory_order_acquire);
      const int64_t front = taken_from_front(now), back = taken_from_back(now);
      if (front + back >= n) return false;
      const uint64_t next = now + (from_back ? kBack : kFront);
      if (!word.compare_exchange_weak(now, next, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      f(with, from_back ? n - 1 - back : front);
      if (done.fetch_add(1, std::memory_order_seq_cst) + 1 == n) last();
      return true;
    }
  }
};

struct Aside {
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  Job job;
};
Aside* aside = new Aside;  // never destroyed, as the pool; a forked child gets its own

#if defined(KEYDNN_PARALLEL_SERIAL)

const char* const kBackend = "serial";
void run(int64_t chunks, Body body, void* context) { walk(chunks, body, context); }
void resize(int n) { n_threads.store(n, std::memory_order_relaxed); }

#elif defined(KEYDNN_PARALLEL_OPENMP)

const char* const kBackend = "openmp";
std::atomic<bool> forked{false};  // libgomp's workers do not exist in a forked child, and it would wait for them
std::atomic_flag watching = ATOMIC_FLAG_INIT;

void run(int64_t chunks, Body body, void* context) {
#ifndef _WIN32
  if (!watching.test_and_set()) pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif
  if (forked) return walk(chunks, body, context);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads())
  for (int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk);
}
void resize(int n) { n_threads.store(n, std::memory_order_relaxed); }

#else

const char* const kBackend = "pool";
constexpr auto kWorkerSpin = std::chrono::microseconds(40);
constexpr auto kCallerSpin = std::chrono::microseconds(40);

// Spins until ready() or the time is over; reading the clock is slow, so it is read every 32 rounds.
template <class Ready>
bool spin(std::chrono::nanoseconds limit, Ready ready) {
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

class Pool {
 public:
  explicit Pool(int n_workers) {
    for (int i = 0; i < n_workers; ++i) workers_.emplace_back([this, i] { work(i % 2 == 0); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(int64_t chunks, Body body, void* context) {
    job_.open(chunks, body, context);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      { std::lock_guard<std::mutex> lock(mutex_); }  // a worker on its way to sleep is either asleep or sees the word
      wake_.notify_all();
    }
    while (claim_one(false)) {}
    auto finished = [&] { return job_.is_done(); };
    if (spin(kCallerSpin, finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    caller_sleeps_.store(true, std::memory_order_seq_cst);
    finished_.wait(lock, finished);
    caller_sleeps_.store(false, std::memory_order_relaxed);
  }

 private:
  // Claims and runs one chunk of the open job; false if there is none.
  bool claim_one(bool from_back) {
    return job_.claim_one(from_back, [this] {
      if (!caller_sleeps_.load(std::memory_order_seq_cst)) return;
      std::lock_guard<std::mutex> lock(mutex_);
      finished_.notify_one();
    });
  }

  void work(bool from_back) {
    uint64_t seen = 0;  // generation of the last job looked at
    auto news = [&] { return job_.generation() != seen || stop_.load(std::memory_order_relaxed); };
    for (;;) {
      if (!spin(kWorkerSpin, [&] { return news() || aside->job.is_open(); })) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, news);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      if (stop_.load()) return;
      if (news()) {
        seen = job_.generation();
        while (claim_one(from_back)) {}
      } else {
        aside->job.claim_one(false, [] {});
      }
    }
  }

  Job job_;
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::vector<std::thread> workers_;
};

// Made on first use, never destroyed at exit (workers may outlive static objects).  In a forked child the workers are
// gone: the child forgets the old pool and makes its own when it needs one.
struct Shared {
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  Pool* pool = nullptr;
};
Shared* shared = nullptr;

Shared* state() {
  static const bool once = [] {
    shared = new Shared;
#ifndef _WIN32
    pthread_atfork(nullptr, nullptr, [] { shared = new Shared, aside = new Aside; });
#endif
    return true;
  }();
  (void)once;
  return shared;
}

// More chunks than the word can count, several at a time.
struct Groups {
  int64_t chunks, size;
  Body body;
  void* context;
  static void run(void* groups, int64_t group) {
    const Groups& g = *static_cast<const Groups*>(groups);
    for (int64_t chunk = group * g.size; chunk < (group + 1) * g.size && chunk < g.chunks; ++chunk) g.body(g.context, chunk);
  }
};

void run(int64_t chunks, Body body, void* context) {
  if (chunks > kMostChunks) {
    Groups groups{chunks, (chunks + kMostChunks - 1) / kMostChunks, body, context};
    return run((chunks + groups.size - 1) / groups.size, Groups::run, &groups);
  }
  Shared* const s = state();
  if (threads() < 2 || s->busy.test_and_set(std::memory_order_acquire)) {
    return walk(chunks, body, context);
  }
  if (!s->pool) s->pool = new Pool(threads() - 1);
  s->pool->run(chunks, body, context);
  s->busy.clear(std::memory_order_release);
}

void resize(int n) {
  Shared* const s = state();
  while (s->busy.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
  delete s->pool;
  s->pool = nullptr;
  n_threads.store(n, std::memory_order_relaxed);
  s->busy.clear(std::memory_order_release);
}

#endif

}  // namespace

void parallel_run(int64_t chunks, void (*body)(void*, int64_t), void* context) { run(chunks, body, context); }

bool aside_begin(int64_t chunks, void (*body)(void*, int64_t), void* context) {
  if (aside->busy.test_and_set(std::memory_order_acquire)) return false;
  aside->job.open(chunks, body, context);
  return true;
}

void aside_finish() {
  while (aside->job.claim_one(true, [] {})) {}
  for (int i = 0; !aside->job.is_done(); ++i) {  // a chunk is short, unless the system does not run the thread that is in it
    if (i < 1000) pause();
    else std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  aside->busy.clear(std::memory_order_release);
}

}  // namespace keydnn

extern "C" int keydnn_get_threads(void) { return keydnn::threads(); }

extern "C" int keydnn_set_threads(int n) {
  if (n < 1) return KEYDNN_BAD_SHAPE;
  if (n != keydnn::threads()) keydnn::resize(n);
  return KEYDNN_OK;
}

extern "C" const char* keydnn_parallel_backend(void) { return keydnn::kBackend; }
