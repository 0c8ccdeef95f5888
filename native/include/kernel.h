// What a kernel file needs: vectors of this instruction set, parallel_for, scratch memory, and KEYDNN_EXPORT.
// See keydnn.h for how a family is made.  Everything here has internal linkage, see there why.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "keydnn.h"
#include "memory.h"
#include "parallel.h"

#if defined(KEYDNN_IS_avx512)
#define KEYDNN_VECTOR_BYTES 64
#elif defined(KEYDNN_IS_avx2)
#define KEYDNN_VECTOR_BYTES 32
#else
#define KEYDNN_VECTOR_BYTES 16
#endif

#define KEYDNN_INLINE inline __attribute__((always_inline))
#define KEYDNN_NOINLINE __attribute__((noinline))  // on the body of a parallel_for: one copy for its two paths

namespace keydnn::KEYDNN_NS {
namespace {

// Vec<T>: a register of T.  Arithmetic, comparisons and ?: work lane by lane; v[i] is a lane.
template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(KEYDNN_VECTOR_BYTES)));
  typedef float loose __attribute__((vector_size(KEYDNN_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(KEYDNN_VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(KEYDNN_VECTOR_BYTES), aligned(8), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
constexpr int64_t kLanes = KEYDNN_VECTOR_BYTES / sizeof(T);

template <class T>
KEYDNN_INLINE Vec<T> load(const T* p) {  // any alignment
  return *reinterpret_cast<const typename VecOf<T>::loose*>(p);
}
template <class T>
KEYDNN_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::loose*>(p) = v;
}
template <class T>
KEYDNN_INLINE Vec<T> splat(T value) {
  return value - Vec<T>{};
}

template <class T>
KEYDNN_INLINE constexpr T lesser(T a, T b) {
  return b < a ? b : a;
}
template <class T>
KEYDNN_INLINE constexpr T greater(T a, T b) {
  return a < b ? b : a;
}
KEYDNN_INLINE float size_of(float x) { return __builtin_fabsf(x); }
KEYDNN_INLINE double size_of(double x) { return __builtin_fabs(x); }
KEYDNN_INLINE float root(float x) { return __builtin_sqrtf(x); }
KEYDNN_INLINE double root(double x) { return __builtin_sqrt(x); }
KEYDNN_INLINE int64_t ceil_div(int64_t a, int64_t b) {  // a >= 0; the usual strides do without a slow division
  return b == 1 ? a : b == 2 ? (a + 1) >> 1 : (a + b - 1) / b;
}
KEYDNN_INLINE int64_t floor_div(int64_t a, int64_t b) { return b == 1 ? a : b == 2 ? a >> 1 : a / b; }  // a >= 0
KEYDNN_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A number known at compile time, as an argument of a generic lambda.
template <int N>
struct Const {
  static constexpr int value = N;
};

// Scratch memory for the length of a scope; 64-byte aligned, not cleared.
template <class T>
struct Scratch {
  T* data;
  explicit Scratch(int64_t count) : data(count ? static_cast<T*>(allocate(sizeof(T) * static_cast<size_t>(count))) : nullptr) {}
  ~Scratch() { release(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace
}  // namespace keydnn::KEYDNN_NS

namespace keydnn {
int isa_level();  // 0 baseline, 1 avx2, 2 avx512
}

// In each copy of the file: KEYDNN_NS::relu_f32(...) around the template; in the baseline copy also the C entry point.
#define KEYDNN_DEFINE(T, S, name, params, args) \
  namespace keydnn::KEYDNN_NS { int name##_##S params { return name<T> args; } }
#if defined(KEYDNN_IS_baseline) && defined(KEYDNN_X86)
#define KEYDNN_ENTRY(T, S, name, params, args)                    \
  namespace keydnn::avx2 { int name##_##S params; }               \
  namespace keydnn::avx512 { int name##_##S params; }             \
  extern "C" int keydnn_##name##_##S params {                     \
    const int level = keydnn::isa_level();                        \
    if (level == 2) return keydnn::avx512::name##_##S args;       \
    if (level == 1) return keydnn::avx2::name##_##S args;         \
    return keydnn::baseline::name##_##S args;                     \
  }
#elif defined(KEYDNN_IS_baseline)
#define KEYDNN_ENTRY(T, S, name, params, args) \
  extern "C" int keydnn_##name##_##S params { return keydnn::baseline::name##_##S args; }
#else
#define KEYDNN_ENTRY(T, S, name, params, args)
#endif
#define KEYDNN_EXPORT(FAMILY)                                                \
  FAMILY(KEYDNN_DEFINE, float, f32) FAMILY(KEYDNN_DEFINE, double, f64)       \
  FAMILY(KEYDNN_ENTRY, float, f32) FAMILY(KEYDNN_ENTRY, double, f64)
