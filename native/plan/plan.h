// A plan: kernel calls over numbered buffers, run many steps at a time without Python.
//
// A plan is data.  A buffer is a place whose address may change between runs (an array of Python, a batch) or stays (the
// arena).  An op is an entry of the table in entries.h with its operands (buffer and byte offset), integers and reals.
// run() executes the ops in order, step after step, and allocates nothing; scratch space comes from the kernels' cache.
#pragma once
#include <stdint.h>

#include <mutex>
#include <string>
#include <vector>

namespace keydnn::plan {

// What an entry sees: operands then results, its integers, its reals.
struct Call {
  void* const* p;
  const int64_t* n;
  const double* f;
};
using Entry = int (*)(const Call&);

// The entry of a name such as "relu:f32"; nullptr if there is none.
Entry find(const std::string& name);

constexpr int kBadLabel = 101;  // a class label outside its range

enum class Kind { arena, outer, input, output, keys };

struct Buffer {
  Kind kind;
  int64_t where;  // arena: byte offset; outer: address; input, output: number
};

struct Place {
  int32_t buffer;
  int64_t offset;
};

struct Op {
  Entry entry;
  std::vector<Place> places;
  std::vector<int64_t> n;
  std::vector<double> f;
};

// Where the rows of an input are gathered to, when a run is given row numbers.
struct Staging {
  int64_t offset;     // in the arena
  int64_t row_bytes;
};

// One value handed out per step: `bytes` from `place`; nothing is copied if the ops write to where it is handed out.
struct Output {
  Place place;
  int64_t bytes;
};

struct Request {
  int64_t steps = 1;
  int64_t batch = 0;                 // rows per step, with index
  const int64_t* index = nullptr;    // steps * batch row numbers, or nullptr: the sources are the batch itself
  std::vector<const char*> sources;  // per input: the batch, or row 0 of the data set
  const int64_t* keys = nullptr;     // steps * n_keys
  std::vector<char*> outputs;        // per output: steps * bytes, or nullptr if nobody wants it (not for a buffer that is an output)
  int64_t budget_ns = 0;             // stop after the step that exceeds it; 0: never
};

class Plan {
 public:
  Plan(std::vector<Buffer> buffers, std::vector<Op> ops, std::vector<Staging> inputs, std::vector<Output> outputs, int64_t arena_bytes,
       int64_t n_keys);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // Runs steps; `done` counts the finished ones.  Returns a status; after an error failed_op() names the op.
  int run(const Request& request, int64_t* done);
  void read(Place place, int64_t bytes, char* to) const;
  void discard();  // gives the arena's memory back until the next run; what the last step left there is lost
  void profile(bool on);
  const std::vector<int64_t>& op_ns() const { return op_ns_; }
  int64_t failed_op() const { return failed_op_; }
  int64_t arena_bytes() const { return arena_bytes_; }
  int64_t n_outputs() const { return static_cast<int64_t>(outputs_.size()); }
  int64_t n_inputs() const { return static_cast<int64_t>(inputs_.size()); }
  int64_t n_keys() const { return n_keys_; }
  bool is_direct(int64_t i) const {  // whether the ops write output i where it is handed out
    return buffers_[static_cast<size_t>(outputs_[static_cast<size_t>(i)].place.buffer)].kind == Kind::output;
  }
  int64_t output_bytes(int64_t i) const { return outputs_[static_cast<size_t>(i)].bytes; }

 private:
  char* at(const Place& place) const { return bases_[static_cast<size_t>(place.buffer)] + place.offset; }
  void make_arena();  // at the first run, and resolves the addresses
  void make_spare(int64_t batch);
  void release_spare();
  void bind(const Request& request, int64_t step);
  int step();
  int step_timed();

  std::vector<Buffer> buffers_;
  std::vector<Op> ops_;
  std::vector<Staging> inputs_;
  std::vector<Output> outputs_;
  std::vector<char*> bases_;
  std::vector<void*> pointers_;       // of all ops, resolved
  std::vector<size_t> moving_;        // positions in pointers_ that depend on the step
  std::vector<Place> moving_place_;
  std::vector<size_t> first_;         // per op: its first pointer
  std::vector<char*> staged_[2];      // per input: where its rows are gathered to, in turns if it is large, else twice the same place
  int turn_ = 0;                      // which of the two this step reads
  char* arena_ = nullptr;
  int64_t arena_bytes_;
  int64_t n_keys_;
  bool binds_each_step_ = false;  // some address depends on the step
  int64_t failed_op_ = -1;
  bool profiled_ = false;
  std::vector<int64_t> op_ns_;
  std::mutex mutex_;
};

}  // namespace keydnn::plan
