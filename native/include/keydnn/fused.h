/* Chains of elementwise operations, run over blocks that stay in the first-level cache: one pass over memory.
 *
 * A program reads inputs, writes registers of one block each, and stores some registers.  Element i of the result reads
 * element (i / div) % mod of an input: div 1 and mod n is the array itself, mod 1 a scalar, (h*w, c) a value per channel.
 * An operand is a register (>= 0) or input k (as -1 - k).
 */
typedef struct {
  int32_t code;              /* keydnn_fused_code(name) */
  int32_t to;                /* register written */
  int32_t a, b, c;           /* operands; unused ones are 0 */
  double u, v;               /* numbers: the constant of `const`, alpha, the bounds of clamp */
} keydnn_fused_step;

typedef struct {
  int64_t n;                 /* elements of every result */
  int32_t inputs, outputs, steps, registers;
  const int64_t* div;        /* per input */
  const int64_t* mod;
  const int32_t* stored;     /* per output: the register it takes */
  const keydnn_fused_step* step;
  double cost_ns;            /* estimate of all the work on one thread */
} keydnn_fused_program;

#define KEYDNN_FUSED(K, T, S) \
  K(T, S, fused, (const T* const* in, T* const* out, const keydnn_fused_program* program), (in, out, program))
