// Which copy of the kernels runs: the best instruction set this machine has, or the one KEYDNN_ISA names.
// A name that the machine does not have is ignored here; the Python side compares and refuses.
#include <stdlib.h>
#include <string.h>

#include "keydnn.h"

namespace keydnn {
extern const int64_t kAheadBytes, kPastBytes;  // see ahead.h

namespace {

const char* const kNames[] = {"baseline", "avx2", "avx512"};

int best_level() {
#ifdef KEYDNN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

int chosen_level() {
  const int best = best_level();
  const char* wanted = getenv("KEYDNN_ISA");
  for (int level = 0; wanted && level <= best; ++level)
    if (strcmp(wanted, kNames[level]) == 0) return level;
  return best;
}

const int level = chosen_level();

bool is_amd() {
#ifdef KEYDNN_X86
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace

// Measured on a Zen 4 and a Cascade Lake; see docs/design/0003.  Bits do not depend on them.
const int64_t kAheadBytes = is_amd() ? 0 : 1024;
const int64_t kPastBytes = is_amd() ? int64_t(16) << 20 : INT64_MAX;

int isa_level() { return level; }

}  // namespace keydnn

extern "C" const char* keydnn_isa(void) { return keydnn::kNames[keydnn::level]; }

extern "C" int keydnn_isa_available(const char* name) {
  for (int i = 0; i <= keydnn::best_level(); ++i)
    if (strcmp(name, keydnn::kNames[i]) == 0) return 1;
  return 0;
}
