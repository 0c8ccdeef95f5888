// The executor: resolves addresses, gathers the rows of a batch, calls the entries.
#include <string.h>

#include <chrono>
#include <new>

#include "aside.h"
#include "memory.h"
#include "parallel.h"
#include "keydnn.h"
#include "plan.h"

namespace keydnn::plan {
namespace {

constexpr int64_t kFewRows = 256;  // so many small rows stay in the nearest cache between two steps
constexpr int64_t kLeastAside = 64 << 10, kMostAside = 16 << 20;  // bytes of a batch whose rows are gathered one step ahead
constexpr int64_t kAsideChunk = 4 << 10;                          // bytes, about 1 us from memory

using Clock = std::chrono::steady_clock;

int64_t since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

// to[i] = from[index[i]], rows of a size known at compile time; and asks for the rows that `next` names, which the step after
// this one will copy, so that they arrive while this one computes.
template <int64_t kBytes>
void gather_small(const char* from, const int64_t* index, int64_t rows, const int64_t* next, char* to) {
  for (int64_t i = 0; i < rows; ++i) memcpy(to + i * kBytes, from + index[i] * kBytes, kBytes);
  for (int64_t i = 0; next && i < rows; ++i) {
    __builtin_prefetch(from + next[i] * kBytes);
    if (kBytes > 8) __builtin_prefetch(from + next[i] * kBytes + kBytes - 1);  // where a row crosses a line
  }
}

// The same for rows of any size; `next` may be nullptr.
void gather_rows(const char* from, const int64_t* index, int64_t rows, int64_t bytes, const int64_t* next, char* to) {
  if (rows <= kFewRows) {
    switch (bytes) {
      case 4: return gather_small<4>(from, index, rows, next, to);
      case 8: return gather_small<8>(from, index, rows, next, to);
      case 16: return gather_small<16>(from, index, rows, next, to);
      case 32: return gather_small<32>(from, index, rows, next, to);
      case 64: return gather_small<64>(from, index, rows, next, to);
    }
  }
  const int64_t grain = bytes > 0 ? (65536 + bytes - 1) / bytes : 1;
  parallel_ranges(rows, grain, 0.1 * double(rows) * double(bytes), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) memcpy(to + i * bytes, from + index[i] * bytes, static_cast<size_t>(bytes));
  });
}

// Steps until the clock is read again: reading it costs as much as a small op.  A sixteenth of what the budget has left passes until
// then, if steps go on as before.
int64_t next_look(int64_t taken, int64_t steps, int64_t budget) {
  const int64_t most = (budget - taken) / 16 * steps / (taken + 1);
  return most < 1 ? 1 : most > 64 ? 64 : most;
}

bool is_ahead(int64_t bytes) { return bytes >= kLeastAside && bytes <= kMostAside; }

// The large inputs of the next step, gathered by threads that have nothing else to do while this step runs.
class Ahead {
 public:
  ~Ahead() { finish(); }

  // Rows of input k go to `at[k]`; this step reads `now[k]`, which is equal for an input that is not gathered ahead.
  // False if nothing was begun.
  bool begin(const Request& request, const std::vector<Staging>& inputs, const std::vector<char*>& now, const std::vector<char*>& at,
             int64_t step) {
    chunks_.clear();
    const int64_t* const rows = request.index + step * request.batch;
    for (size_t k = 0; k < inputs.size(); ++k) {
      if (at[k] == now[k]) continue;
      const int64_t bytes = inputs[k].row_bytes, most = kAsideChunk / bytes > 1 ? kAsideChunk / bytes : 1;
      for (int64_t i = 0; i < request.batch; i += most)
        chunks_.push_back({request.sources[k], rows + i, at[k] + i * bytes, bytes, i + most < request.batch ? most : request.batch - i});
    }
    is_begun_ = !chunks_.empty() && aside_begin(static_cast<int64_t>(chunks_.size()), copy, chunks_.data());
    return is_begun_;
  }

  void finish() {
    if (is_begun_) aside_finish();
    is_begun_ = false;
  }

 private:
  struct Chunk {
    const char* from;
    const int64_t* index;
    char* to;
    int64_t bytes, rows;
  };

  static void copy(void* chunks, int64_t i) {
    const Chunk& c = static_cast<const Chunk*>(chunks)[i];
    for (int64_t r = 0; r < c.rows; ++r) memcpy(c.to + r * c.bytes, c.from + c.index[r] * c.bytes, static_cast<size_t>(c.bytes));
  }

  std::vector<Chunk> chunks_;
  bool is_begun_ = false;
};

}  // namespace

Plan::Plan(std::vector<Buffer> buffers, std::vector<Op> ops, std::vector<Staging> inputs, std::vector<Output> outputs,
           int64_t arena_bytes, int64_t n_keys)
    : buffers_(std::move(buffers)),
      ops_(std::move(ops)),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      arena_bytes_(arena_bytes),
      n_keys_(n_keys) {
  op_ns_.resize(ops_.size(), 0);
  for (const Buffer& buffer : buffers_) binds_each_step_ |= buffer.kind == Kind::output || buffer.kind == Kind::keys;
}

void Plan::make_arena() {
  arena_ = static_cast<char*>(allocate(static_cast<size_t>(arena_bytes_ > 0 ? arena_bytes_ : 64)));
  if (!arena_) throw std::bad_alloc();
  memset(arena_, 0, static_cast<size_t>(arena_bytes_));
  bases_.resize(buffers_.size(), nullptr);
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (buffers_[i].kind == Kind::arena) bases_[i] = arena_ + buffers_[i].where;
    if (buffers_[i].kind == Kind::outer) bases_[i] = reinterpret_cast<char*>(buffers_[i].where);
  }
  for (const Staging& input : inputs_) staged_[0].push_back(arena_ + input.offset);
  staged_[1] = staged_[0];
  for (const Op& op : ops_) {
    first_.push_back(pointers_.size());
    for (const Place& place : op.places) {
      const bool missing = place.buffer < 0;
      const Kind kind = missing ? Kind::arena : buffers_[static_cast<size_t>(place.buffer)].kind;
      if (kind == Kind::input || kind == Kind::output || kind == Kind::keys) {
        moving_.push_back(pointers_.size());
        moving_place_.push_back(place);
        pointers_.push_back(nullptr);
      } else {
        pointers_.push_back(missing ? nullptr : at(place));
      }
    }
  }
}

Plan::~Plan() {
  release_spare();
  release(arena_);
}

void Plan::make_spare(int64_t batch) {
  for (size_t k = 0; k < inputs_.size(); ++k) {
    const int64_t bytes = batch * inputs_[k].row_bytes;
    if (staged_[1][k] == staged_[0][k] && is_ahead(bytes))
      if (char* const spare = static_cast<char*>(allocate(static_cast<size_t>(bytes)))) staged_[1][k] = spare;
  }
}

void Plan::release_spare() {
  for (size_t k = 0; k < staged_[1].size(); ++k) {
    if (staged_[1][k] != staged_[0][k]) release(staged_[1][k]);
    staged_[1][k] = staged_[0][k];
  }
}

void Plan::bind(const Request& request, int64_t step) {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const Buffer& buffer = buffers_[i];
    if (buffer.kind == Kind::keys) {
      bases_[i] = reinterpret_cast<char*>(const_cast<int64_t*>(request.keys + step * n_keys_));
    } else if (buffer.kind == Kind::output) {
      const size_t k = static_cast<size_t>(buffer.where);
      bases_[i] = request.outputs[k] + step * outputs_[k].bytes;
    } else if (buffer.kind == Kind::input) {
      const size_t k = static_cast<size_t>(buffer.where);
      bases_[i] = request.index ? staged_[turn_][k] : const_cast<char*>(request.sources[k]);
    }
  }
  for (size_t i = 0; i < moving_.size(); ++i) pointers_[moving_[i]] = at(moving_place_[i]);
}

int Plan::step() {
  for (size_t i = 0; i < ops_.size(); ++i) {
    const Op& op = ops_[i];
    const int status = op.entry({pointers_.data() + first_[i], op.n.data(), op.f.data()});
    if (status != KEYDNN_OK) {
      failed_op_ = static_cast<int64_t>(i);
      return status;
    }
  }
  return KEYDNN_OK;
}

int Plan::step_timed() {
  for (size_t i = 0; i < ops_.size(); ++i) {
    const Op& op = ops_[i];
    const Clock::time_point start = Clock::now();
    const int status = op.entry({pointers_.data() + first_[i], op.n.data(), op.f.data()});
    op_ns_[i] += since(start);
    if (status != KEYDNN_OK) {
      failed_op_ = static_cast<int64_t>(i);
      return status;
    }
  }
  return KEYDNN_OK;
}

int Plan::run(const Request& request, int64_t* done) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!arena_) make_arena();
  const Clock::time_point start = Clock::now();
  *done = 0;
  if (request.index && request.steps > 1) make_spare(request.batch);
  Ahead ahead;
  int64_t look = 0;       // the step after which the clock is read
  bool is_there = false;  // whether the large inputs of this step have been gathered
  turn_ = 0;
  for (int64_t s = 0; s < request.steps; ++s) {
    if (is_there) {
      ahead.finish();
      turn_ = 1 - turn_;
    }
    if (s == 0 || binds_each_step_ || is_there) bind(request, s);
    if (request.index) {
      const bool is_last = s + 1 == request.steps;
      const int64_t* const rows = request.index + s * request.batch;
      const std::vector<char*>&now = staged_[turn_], &other = staged_[1 - turn_];
      for (size_t k = 0; k < inputs_.size(); ++k)
        if (!is_there || now[k] == other[k])
          gather_rows(request.sources[k], rows, request.batch, inputs_[k].row_bytes, is_last ? nullptr : rows + request.batch, now[k]);
      is_there = !is_last && ahead.begin(request, inputs_, now, other, s + 1);
    }
    const int status = profiled_ ? step_timed() : step();
    if (status != KEYDNN_OK) return status;
    for (size_t i = 0; i < outputs_.size(); ++i)
      if (request.outputs[i] && buffers_[static_cast<size_t>(outputs_[i].place.buffer)].kind != Kind::output)
        memcpy(request.outputs[i] + s * outputs_[i].bytes, at(outputs_[i].place), static_cast<size_t>(outputs_[i].bytes));
    ++*done;
    if (request.budget_ns > 0 && s >= look) {
      const int64_t taken = since(start);
      if (taken > request.budget_ns) break;
      look = s + next_look(taken, s + 1, request.budget_ns);
    }
  }
  return KEYDNN_OK;
}

void Plan::read(Place place, int64_t bytes, char* to) const {
  if (arena_) memcpy(to, at(place), static_cast<size_t>(bytes));
}

void Plan::discard() {
  std::lock_guard<std::mutex> lock(mutex_);
  release_spare();
  if (arena_) discard_pages(arena_, static_cast<size_t>(arena_bytes_));
}

void Plan::profile(bool on) {
  std::lock_guard<std::mutex> lock(mutex_);  // a step of another thread may be writing times
  profiled_ = on;
  if (on) op_ns_.assign(ops_.size(), 0);
}

}  // namespace keydnn::plan
