/* KeyDNN's kernels: the flat C interface.
 *
 * Every kernel is `int keydnn_<name>_<f32|f64>(...)`: arrays are C-contiguous, outputs are written, never allocated;
 * the result is KEYDNN_OK or one of the codes below.  Nothing here knows Python, so ctypes or C can call it.
 * What each kernel means stands in src/keydnn/kernels/reference/; its operands in src/keydnn/kernels/contract.py.
 *
 * How to add a kernel family, say "norm":
 *
 *   1. native/include/keydnn/norm.h: one macro that lists the family, T is float or double, S is f32 or f64:
 *
 *          #define KEYDNN_NORM(K, T, S) \
 *            K(T, S, layer_norm, (const T* x, T* y, int64_t rows, int64_t n), (x, y, rows, n)) \
 *            K(T, S, ...)
 *
 *      Include it below, and add the family to KEYDNN_FAMILIES.
 *   2. native/kernels/norm.cpp: a template per row, then one line that makes all entry points:
 *
 *          #include "kernel.h"
 *          namespace keydnn::KEYDNN_NS { namespace {
 *          template <class T> int layer_norm(const T* x, T* y, int64_t rows, int64_t n) { ...; return KEYDNN_OK; }
 *          } }
 *          KEYDNN_EXPORT(KEYDNN_NORM)
 *
 *      CMake compiles the file once per instruction set, each time into another namespace KEYDNN_NS; the entry point
 *      keydnn_layer_norm_f32 picks one at run time.  Everything in the file must stand in that namespace, inside an
 *      unnamed one: an inline function or template shared between the copies (std::max, std::vector, ...) could be
 *      linked in its AVX-512 form on a machine without it.  kernel.h has lesser(), greater(), Scratch and parallel_for.
 *      Write plain loops (the compiler vectorises them) or Vec<T> (GCC vector extensions) where tiles need registers.
 *      Sums: partial results per chunk, combined by chunk index, so that bits do not depend on the threads.
 *   3. native/bindings/norm.cpp: `void bind_norm(nb::module_& m)`, called in module.cpp: unpacks ndarrays, returns
 *      None for operands it does not take (another dtype, strided, ...).  From C++ the kernel is api::layer_norm(...),
 *      overloaded for float and double.
 *   4. src/keydnn/kernels/native/__init__.py: the row's name in GUARDED, which falls back to the reference on None.
 *      Where a small call must be cheap, steps 3 and 4 are done in C++: Kernels in native/bindings/operand.h makes
 *      functions that call the reference themselves, and native/direct.py has the family's name.
 */
#ifndef KEYDNN_H
#define KEYDNN_H

#include <stdint.h>

#include "keydnn/attention.h"
#include "keydnn/conv.h"
#include "keydnn/elementwise.h"
#include "keydnn/fused.h"
#include "keydnn/gemm.h"
#include "keydnn/lookup.h"
#include "keydnn/norm.h"
#include "keydnn/pool.h"
#include "keydnn/quantize.h"
#include "keydnn/random.h"
#include "keydnn/recurrent.h"
#include "keydnn/reduce.h"
#include "keydnn/relu_pool.h"
#include "keydnn/softmax.h"
#include "keydnn/update.h"

#define KEYDNN_FAMILIES(X) \
  X(KEYDNN_ATTENTION)      \
  X(KEYDNN_BINARY)         \
  X(KEYDNN_CONV)           \
  X(KEYDNN_CONV_GRAD_W)    \
  X(KEYDNN_ELEMENTWISE)    \
  X(KEYDNN_FUSED)          \
  X(KEYDNN_GEMM)           \
  X(KEYDNN_LOOKUP)         \
  X(KEYDNN_NORM)           \
  X(KEYDNN_POOL)           \
  X(KEYDNN_QUANTIZE)       \
  X(KEYDNN_RANDOM)         \
  X(KEYDNN_RECURRENT)      \
  X(KEYDNN_REDUCE)         \
  X(KEYDNN_RELU_POOL)      \
  X(KEYDNN_SOFTMAX)        \
  X(KEYDNN_UPDATE)

#define KEYDNN_OK 0
#define KEYDNN_BAD_SHAPE 1  /* sizes that contradict each other */
#define KEYDNN_NO_MEMORY 2  /* scratch memory was refused */
#define KEYDNN_BAD_INDEX 3  /* a number outside its table */

#if defined(_WIN32)
#define KEYDNN_API __declspec(dllexport)
#else
#define KEYDNN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Threads of parallel_for, the caller included; at least 1. */
KEYDNN_API int keydnn_set_threads(int n);
KEYDNN_API int keydnn_get_threads(void);
/* "pool", "openmp" or "serial". */
KEYDNN_API const char* keydnn_parallel_backend(void);
/* "baseline", "avx2" or "avx512"; the best one of this machine unless the environment variable KEYDNN_ISA names one. */
KEYDNN_API const char* keydnn_isa(void);
/* Whether this machine and this build have the named instruction set. */
KEYDNN_API int keydnn_isa_available(const char* name);

#define KEYDNN_DECLARE_C(T, S, name, params, args) KEYDNN_API int keydnn_##name##_##S params;
#define KEYDNN_DECLARE_FAMILY(FAMILY) FAMILY(KEYDNN_DECLARE_C, float, f32) FAMILY(KEYDNN_DECLARE_C, double, f64)

KEYDNN_FAMILIES(KEYDNN_DECLARE_FAMILY)

#ifdef __cplusplus
}

/* The same kernels, overloaded for float and double. */
#define KEYDNN_DECLARE_CPP(T, S, name, params, args) \
  [[maybe_unused]] static inline int name params { return keydnn_##name##_##S args; }
#define KEYDNN_OVERLOAD_FAMILY(FAMILY) \
  namespace keydnn::api { FAMILY(KEYDNN_DECLARE_CPP, float, f32) FAMILY(KEYDNN_DECLARE_CPP, double, f64) }

KEYDNN_FAMILIES(KEYDNN_OVERLOAD_FAMILY)
#endif

#endif
