// permutation(key, n): numpy.random.Generator(numpy.random.Philox(key=key)).permutation(n), the same numbers in less time.
//
// Philox4x64-10 counts blocks of four words from 1; a word gives two halves, the low one first.  For i from n - 1 down to 1, element
// i changes places with element j, where j is the next half, cut to the bits of i, that is at most i.
// Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011); Fisher and Yates, as Knuth has it (3.4.2, P).
#include "array.h"

namespace keydnn {
namespace {

using Wide = unsigned __int128;

constexpr int kBlocks = 8;  // made together: a block's rounds wait for each other
constexpr int kHalves = 8 * kBlocks;

void philox(uint64_t low, uint64_t high, uint64_t first, uint32_t* halves) {
  uint64_t c[4][kBlocks] = {};
  for (int b = 0; b < kBlocks; ++b) c[0][b] = first + static_cast<uint64_t>(b);
  for (int round = 0; round < 10; ++round) {
    for (int b = 0; b < kBlocks; ++b) {
      const Wide x = Wide(0xD2E7470EE14C6C93) * c[0][b], y = Wide(0xCA5A826395121157) * c[2][b];
      c[0][b] = static_cast<uint64_t>(y >> 64) ^ c[1][b] ^ low;
      c[1][b] = static_cast<uint64_t>(y);
      c[2][b] = static_cast<uint64_t>(x >> 64) ^ c[3][b] ^ high;
      c[3][b] = static_cast<uint64_t>(x);
    }
    low += 0x9E3779B97F4A7C15;
    high += 0xBB67AE8584CAA73B;
  }
  for (int b = 0; b < kBlocks; ++b)
    for (int k = 0; k < 4; ++k) {
      halves[8 * b + 2 * k] = static_cast<uint32_t>(c[k][b]);
      halves[8 * b + 2 * k + 1] = static_cast<uint32_t>(c[k][b] >> 32);
    }
}

void permute(uint64_t low, uint64_t high, int64_t n, int64_t* order) {
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  uint32_t halves[kHalves];
  int64_t i = n - 1;
  for (uint64_t block = 1; i > 0; block += kBlocks) {
    philox(low, high, block, halves);
    for (int h = 0; h < kHalves && i > 0; ++h) {  // a half that is too large leaves element i where it is: no branch to guess
      const int64_t drawn = halves[h] & (0xffffffffu >> __builtin_clz(static_cast<uint32_t>(i)));
      const bool fits = drawn <= i;
      const int64_t j = fits ? drawn : i, here = order[i];
      order[i] = order[j];
      order[j] = here;
      i -= fits;
    }
  }
}

nb::object permutation(uint64_t low, uint64_t high, int64_t n) {
  if (n < 0 || n > int64_t(1) << 32) throw nb::value_error("permutation: n must be at least 0 and at most 2^32");
  const npy_intp shape[1] = {static_cast<npy_intp>(n)};
  nb::object order = empty(1, shape, NPY_INT64);
  int64_t* const to = Array(order).data<int64_t>();
  const nb::gil_scoped_release unlocked;
  permute(low, high, n, to);
  return order;
}

}  // namespace

void bind_permutation(nb::module_& m) { m.def("permutation", &permutation, nb::arg("low"), nb::arg("high"), nb::arg("n")); }

}  // namespace keydnn
