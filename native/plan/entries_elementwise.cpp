// fused: a program of elementwise steps, see keydnn/fused.h.
#include "entries.h"
#include "fused_codes.h"
#include "fused_names.h"

namespace keydnn::plan {
namespace {

constexpr int kMost = 64;

// places: inputs, then outputs
// integers: n, inputs, outputs, steps, registers; div, mod per input; a register per output; code, to, a, b, c per step
// reals: nanoseconds; u, v per step
template <class T>
int fused(const Call& call) {
  const int64_t* n = call.n;
  const int inputs = static_cast<int>(n[1]), outputs = static_cast<int>(n[2]), steps = static_cast<int>(n[3]);
  if (inputs > kMost || outputs > kMost || steps > kMost) return KEYDNN_BAD_SHAPE;
  const int64_t* at = n + 5;
  int64_t div[kMost], mod[kMost];
  int32_t stored[kMost];
  keydnn_fused_step step[kMost];
  const T* in[kMost];
  T* out[kMost];
  for (int k = 0; k < inputs; ++k, at += 2) {
    div[k] = at[0];
    mod[k] = at[1];
    in[k] = static_cast<const T*>(call.p[k]);
  }
  for (int k = 0; k < outputs; ++k, ++at) {
    stored[k] = static_cast<int32_t>(at[0]);
    out[k] = static_cast<T*>(call.p[inputs + k]);
  }
  for (int s = 0; s < steps; ++s, at += 5)
    step[s] = {static_cast<int32_t>(at[0]), static_cast<int32_t>(at[1]), static_cast<int32_t>(at[2]),
               static_cast<int32_t>(at[3]), static_cast<int32_t>(at[4]), call.f[1 + 2 * s], call.f[2 + 2 * s]};
  const keydnn_fused_program program = {n[0], inputs, outputs, steps, static_cast<int32_t>(n[4]), div, mod, stored, step, call.f[0]};
  return api::fused(in, out, &program);
}

struct Row {
  const char* name;
  int operands;
  double cost;
};
constexpr Row kRows[] = {
#define KEYDNN_ROW(name, operands, cost) {#name, operands, cost},
    KEYDNN_FUSED_CODES(KEYDNN_ROW)
#undef KEYDNN_ROW
};

}  // namespace

std::vector<FusedName> fused_names() {
  std::vector<FusedName> names;
  for (const Row& row : kRows) names.push_back({row.name, row.operands, row.cost});
  return names;
}

void add_elementwise(Table& table) { KEYDNN_ENTER(table, fused); }

}  // namespace keydnn::plan
