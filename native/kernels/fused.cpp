// Chains of elementwise operations in one pass: a small interpreter over blocks of kBlock elements.
// Meaning: each step is the kernel of its name in kernels/reference (elementwise.py, activation.py); see keydnn/fused.h for programs.
// Numerics: every step rounds to T as the kernel of its name does, so a chain has the bits of its parts.
#include <math.h>

#include "fused_codes.h"
#include "activations.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kGrain = 16384;

enum Code : int32_t {
#define KEYDNN_CODE(name, operands, cost) k_##name,
  KEYDNN_FUSED_CODES(KEYDNN_CODE)
#undef KEYDNN_CODE
};

// Whether every block of a chunk holds the same part of an input, since chunks begin at whole blocks.
bool stays(int64_t div, int64_t mod) { return mod == 1 || (div == 1 && kBlock % mod == 0); }

// The part of an input that belongs to [begin, begin + count): in place where it lies as the result does, else spread out.
template <class T>
const T* block_of(const T* in, int64_t div, int64_t mod, int64_t n, int64_t begin, int64_t count, T* room) {
  if (div == 1 && mod == n) return in + begin;
  if (mod == 1) {
    for (int64_t i = 0; i < kBlock; ++i) room[i] = in[0];  // serves the whole chunk
    return room;
  }
  int64_t row = begin / div, left = div - begin % div;
  int64_t at = row % mod;
  if (div == 1) {
    const int64_t wanted = stays(div, mod) ? kBlock : count;
    const int64_t head = lesser(mod - at, wanted);
    memcpy(room, in + at, sizeof(T) * static_cast<size_t>(head));
    if (head < wanted) memcpy(room + head, in, sizeof(T) * static_cast<size_t>(lesser(mod, wanted - head)));
    for (int64_t done = mod; head + done < wanted; done *= 2)  // whole periods, twice as many each time
      memcpy(room + head + done, room + head, sizeof(T) * static_cast<size_t>(lesser(done, wanted - head - done)));
    return room;
  }
  for (int64_t i = 0; i < count;) {
    const int64_t run = lesser(left, count - i);
    const T value = in[at];
    for (int64_t j = 0; j < run; ++j) room[i + j] = value;
    i += run;
    left = div;
    if (++at == mod) at = 0;
  }
  return room;
}

// The remainder with the sign of z, and the quotient that belongs to it; as NumPy has them.
template <class T>
T floored_mod(T x, T z) {
  const T rest = T(fmod(x, z));
  if (rest == 0) return T(copysign(T(0), z));
  return (z < 0) != (rest < 0) ? rest + z : rest;
}
template <class T>
T floored_div(T x, T z) {
  if (z == 0) return x / z;
  const T rest = T(fmod(x, z));
  T quotient = (x - rest) / z;
  if (rest != 0 && (z < 0) != (rest < 0)) quotient -= T(1);
  if (quotient == 0) return T(copysign(T(0), x / z));
  const T whole = T(floor(quotient));
  return quotient - whole > T(0.5) ? whole + T(1) : whole;
}

#define KEYDNN_MAP1(expression)                              \
  each_ahead<T>(0, n, [=](int64_t i) {                       \
    const T x = a[i];                                        \
    y[i] = (expression);                                     \
  }, a, y);                                                  \
  break
#define KEYDNN_MAP2(expression)                              \
  each_ahead<T>(0, n, [=](int64_t i) {                       \
    const T x = a[i], z = b[i];                              \
    y[i] = (expression);                                     \
  }, a, b, y);                                               \
  break
#define KEYDNN_VMAP(function) \
  map_range<T>(a, y, 0, n, [](Vec<T> x) { return function<T>(x); }); \
  break

#define KEYDNN_VMAP2(function) \
  map_range2<T>(a, b, y, 0, n, [](Vec<T> x, Vec<T> z) { return function<T>(x, z); }); \
  break

// y = step(a, b, c) over n elements.
template <class T>
void run_step(const keydnn_fused_step& step, const T* a, const T* b, const T* c, T* y, int64_t n) {
  const T u = T(step.u), v = T(step.v);
  switch (step.code) {
    case k_constant:
      for (int64_t i = 0; i < n; ++i) y[i] = u;
      break;
    case k_copy:
      memcpy(y, a, sizeof(T) * static_cast<size_t>(n));
      break;
    case k_neg: KEYDNN_MAP1(-x);
    case k_abs: KEYDNN_MAP1(size_of(x));
    case k_sign: KEYDNN_MAP1(x > 0 ? T(1) : x < 0 ? T(-1) : x);
    case k_exp: KEYDNN_VMAP(vexp);
    case k_expm1: KEYDNN_VMAP(vexpm1);
    case k_log: KEYDNN_VMAP(vlog);
    case k_log1p: KEYDNN_VMAP(vlog1p);
    case k_sqrt: KEYDNN_MAP1(root(x));
    case k_rsqrt: KEYDNN_MAP1(T(1) / root(x));
    case k_reciprocal: KEYDNN_MAP1(T(1) / x);
    case k_square: KEYDNN_MAP1(x * x);
    case k_tanh: KEYDNN_VMAP(vtanh);
    case k_sigmoid: KEYDNN_VMAP(vsigmoid);
    case k_erf: KEYDNN_VMAP(verf);
    case k_relu: KEYDNN_MAP1(x <= 0 ? T(0) : x);
    case k_floor: KEYDNN_MAP1(T(floor(x)));
    case k_ceil: KEYDNN_MAP1(T(ceil(x)));
    case k_round: KEYDNN_MAP1(T(rint(x)));
    case k_clamp: KEYDNN_MAP1(x < u ? u : x > v ? v : x);
    case k_clamp_low: KEYDNN_MAP1(x < u ? u : x);
    case k_clamp_high: KEYDNN_MAP1(x > v ? v : x);
    case k_leaky_relu: KEYDNN_MAP1(x > 0 ? x : u * x);
    case k_add: KEYDNN_MAP2(x + z);
    case k_sub: KEYDNN_MAP2(x - z);
    case k_mul: KEYDNN_MAP2(x * z);
    case k_div: KEYDNN_MAP2(x / z);
    case k_maximum: KEYDNN_MAP2(x > z || x != x ? x : z);
    case k_minimum: KEYDNN_MAP2(x < z || x != x ? x : z);
    case k_gt: KEYDNN_MAP2(x > z ? T(1) : T(0));
    case k_ge: KEYDNN_MAP2(x >= z ? T(1) : T(0));
    case k_lt: KEYDNN_MAP2(x < z ? T(1) : T(0));
    case k_le: KEYDNN_MAP2(x <= z ? T(1) : T(0));
    case k_eq: KEYDNN_MAP2(x == z ? T(1) : T(0));
    case k_ne: KEYDNN_MAP2(x != z ? T(1) : T(0));
    case k_relu_grad: KEYDNN_MAP2(x > 0 ? z : T(0));
    case k_leaky_relu_grad: KEYDNN_MAP2(x > 0 ? z : u * z);
    case k_tanh_grad: KEYDNN_MAP2(z * (T(1) - x * x));
    case k_sigmoid_grad: KEYDNN_MAP2(z * x * (T(1) - x));
    case k_gelu: KEYDNN_VMAP(vgelu);
    case k_silu: KEYDNN_VMAP(vsilu);
    case k_softplus: KEYDNN_VMAP(vsoftplus);
    case k_elu:
      map_range<T>(a, y, 0, n, [=](Vec<T> x) { return velu<T>(x, u); });
      break;
    case k_gelu_grad: KEYDNN_VMAP2(vgelu_grad);
    case k_silu_grad: KEYDNN_VMAP2(vsilu_grad);
    case k_softplus_grad: KEYDNN_VMAP2(vsoftplus_grad);
    case k_elu_grad:
      map_range2<T>(a, b, y, 0, n, [=](Vec<T> x, Vec<T> g) { return velu_grad<T>(x, g, u); });
      break;
    case k_sin: KEYDNN_MAP1(T(sin(x)));
    case k_cos: KEYDNN_MAP1(T(cos(x)));
    case k_pow: KEYDNN_MAP2(T(pow(x, z)));
    case k_mod: KEYDNN_MAP2(floored_mod(x, z));
    case k_floordiv: KEYDNN_MAP2(floored_div(x, z));
    case k_where:
      for (int64_t i = 0; i < n; ++i) y[i] = a[i] != 0 ? b[i] : c[i];
      break;
    default: break;
  }
}

constexpr int kRegisters = 32, kInputs = 32, kOutputs = 32;
constexpr int kStackBlocks = 12;

// One chunk; `room` has a block per register and per input.
template <class T>
void run_chunk(const keydnn_fused_program& p, const T* const* in, T* const* out, int64_t first, int64_t last, T* room) {
  T* place[kRegisters];
  const T* source[kInputs];
  bool stored[kRegisters] = {};
  for (int k = 0; k < p.outputs; ++k) stored[p.stored[k]] = true;
  T* const spread = room + kBlock * p.registers;
  for (int64_t begin = first; begin < last; begin += kBlock) {
    const int64_t n = lesser(kBlock, last - begin);
    for (int r = 0; r < p.registers; ++r) place[r] = room + kBlock * r;
    for (int k = 0; k < p.outputs; ++k) place[p.stored[k]] = out[k] + begin;  // written where it belongs, read from there too
    for (int k = 0; k < p.inputs; ++k)
      if (begin == first || !stays(p.div[k], p.mod[k]) || p.mod[k] == p.n) source[k] = block_of(in[k], p.div[k], p.mod[k], p.n, begin, n, spread + k * kBlock);
    for (int s = 0; s < p.steps; ++s) {
      const keydnn_fused_step& step = p.step[s];
      if (step.code == k_constant && begin != first && !stored[step.to]) continue;  // there since the first block
      auto operand = [&](int32_t which) -> const T* { return which < 0 ? source[-1 - which] : place[which]; };
      run_step<T>(step, operand(step.a), operand(step.b), operand(step.c), place[step.to], n);
    }
  }
}

// ---- chains in registers -----------------------------------------------------------------------------------------
// relu(a x + b) c and the like: each step takes the step before it, and perhaps a number.  Through blocks in the cache such a
// chain takes a third longer than its reads and writes do; here it hides behind them.

constexpr int kVectors = 8;

// A step without its places; z is its number.
template <class T>
struct ChainStep {
  int32_t code;
  T z;
};

// The steps of a program that is such a chain of one array, else -1 of them.
template <class T>
int chain_of(const keydnn_fused_program& p, ChainStep<T>* chain) {
  if (p.inputs != 1 || p.outputs != 1 || p.div[0] != 1 || p.mod[0] != p.n || p.steps > kRegisters) return -1;
  T number[kRegisters];
  bool constant[kRegisters] = {};
  int32_t value = -1;  // the operand that the next step must take
  int steps = 0;
  for (int s = 0; s < p.steps; ++s) {
    const keydnn_fused_step& step = p.step[s];
    if (step.code == k_constant) {
      if (step.to == value) return -1;
      number[step.to] = T(step.u), constant[step.to] = true;
      continue;
    }
    const bool one = step.code == k_neg || step.code == k_abs || step.code == k_square || step.code == k_relu;
    const bool two = step.code == k_add || step.code == k_sub || step.code == k_mul || step.code == k_div;
    if (step.a != value || !(one || (two && step.b >= 0 && constant[step.b]))) return -1;
    chain[steps++] = {step.code, two ? number[step.b] : T(0)};
    value = step.to;
    constant[value] = false;
  }
  return steps > 0 && value == p.stored[0] ? steps : -1;
}

// Whole groups of kVectors registers from x on; returns where the rest begins.
template <class T>
int64_t run_chain(const ChainStep<T>* chain, int steps, const T* x, T* y, int64_t begin, int64_t end, bool past) {
  constexpr int64_t kGroup = kVectors * kLanes<T>;
  for (; begin + kGroup <= end; begin += kGroup) {
    Vec<T> v[kVectors];
#pragma GCC unroll 8
    for (int k = 0; k < kVectors; ++k) {
      fetch_ahead(x + begin + k * kLanes<T>);
      v[k] = load(x + begin + k * kLanes<T>);
    }
#define KEYDNN_EACH(expression)                                         \
  _Pragma("GCC unroll 8") for (int k = 0; k < kVectors; ++k) v[k] = (expression); \
  break
    for (int s = 0; s < steps; ++s) {
      const Vec<T> z = splat<T>(chain[s].z);
      switch (chain[s].code) {
        case k_neg: KEYDNN_EACH(-v[k]);
        case k_abs: KEYDNN_EACH(absolute<T>(v[k]));
        case k_square: KEYDNN_EACH(v[k] * v[k]);
        case k_relu: KEYDNN_EACH(v[k] <= T(0) ? splat<T>(T(0)) : v[k]);
        case k_add: KEYDNN_EACH(v[k] + z);
        case k_sub: KEYDNN_EACH(v[k] - z);
        case k_mul: KEYDNN_EACH(v[k] * z);
        case k_div: KEYDNN_EACH(v[k] / z);
        default: break;
      }
    }
#pragma GCC unroll 8
    for (int k = 0; k < kVectors; ++k) put(y + begin + k * kLanes<T>, v[k], past);
  }
  if (past) ends_past();
  return begin;
}

template <class T>
int fused(const T* const* in, T* const* out, const keydnn_fused_program* program) {
  const keydnn_fused_program& p = *program;
  if (p.registers > kRegisters || p.inputs > kInputs || p.outputs > kOutputs) return KEYDNN_BAD_SHAPE;
  int failed = 0;
  ChainStep<T> chain[kRegisters];
  const int steps = chain_of<T>(p, chain);
  const bool past = steps > 0 && goes_past(p.n, in[0], out[0]);
  parallel_for(ceil_div(p.n, kGrain), p.cost_ns, [&](int64_t chunk) {
    int64_t first = chunk * kGrain;
    const int64_t last = lesser(p.n, first + kGrain);
    if (steps > 0) first = run_chain<T>(chain, steps, in[0], out[0], first, last, past);
    if (first == last) return;
    if (p.registers + p.inputs <= kStackBlocks) {
      alignas(64) T room[kBlock * kStackBlocks];
      run_chunk<T>(p, in, out, first, last, room);
      return;
    }
    const Scratch<T> room(kBlock * (p.registers + p.inputs));
    if (room) run_chunk<T>(p, in, out, first, last, room.data);
    else failed = 1;
  });
  return failed ? KEYDNN_NO_MEMORY : KEYDNN_OK;
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_FUSED)
