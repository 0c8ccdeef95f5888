// permutation(key, n): numpy.random.Generator(numpy.random.Philox(key=key)).permutation(n), the same numbers in less time.
//
// Philox4x64-10 counts blocks of four words from 1; a word gives two halves, the low one first.  For i from n - 1 down to 1, element
// i changes places with element j, where j is the next half, cut to the bits of i, that is at most i.
// Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011); Fisher and Yates, as Knuth has it (3.4.2, P).
#include "array.h"

namespace keydnn {
namespace {

using Wide = unsigned __int128;

constexpr int kBlocks = 8;  // made at a time
constexpr int kHalves = 8 * kBlocks;

void philox(uint64_t low, uint64_t high, uint64_t first, uint32_t* halves) {
#pragma GCC unroll 2
  for (uint64_t b = 0; b < kBlocks; ++b) {
    uint64_t c0 = first + b, c1 = 0, c2 = 0, c3 = 0, k0 = low, k1 = high;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Wide x = Wide(0xD2E7470EE14C6C93) * c0, y = Wide(0xCA5A826395121157) * c2;
      c0 = static_cast<uint64_t>(y >> 64) ^ c1 ^ k0;
      c1 = static_cast<uint64_t>(y);
      c2 = static_cast<uint64_t>(x >> 64) ^ c3 ^ k1;
      c3 = static_cast<uint64_t>(x);
      k0 += 0x9E3779B97F4A7C15;
      k1 += 0xBB67AE8584CAA73B;
    }
    const uint64_t words[4] = {c0, c1, c2, c3};
    for (int k = 0; k < 4; ++k) {
      *halves++ = static_cast<uint32_t>(words[k]);
      *halves++ = static_cast<uint32_t>(words[k] >> 32);
    }
  }
}

// Where elements first, first - 1, ... go: writes the numbers that fit, a half each, and returns how many there are.  A half that is too
// large is written over by the next: no branch to guess.  `mask` must be right for all elements that may be met.
int64_t choose(const uint32_t* halves, uint32_t mask, int64_t first, uint32_t* chosen) {
  const uint64_t all = static_cast<uint64_t>(first);
  uint64_t left = all;
  for (int h = 0; h < kHalves; ++h) {
    const uint64_t drawn = halves[h] & mask;
    chosen[all - left] = static_cast<uint32_t>(drawn);
    left = left - 1 + (left < drawn);  // a comparison whose carry is added: two cycles from one half to the next
  }
  return static_cast<int64_t>(all - left);
}

void permute(uint64_t low, uint64_t high, int64_t n, int64_t* order) {
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  uint32_t halves[kHalves], chosen[kHalves + 1];
  int64_t i = n - 1;
  for (uint64_t block = 1; i > 0; block += kBlocks) {
    philox(low, high, block, halves);
    const auto mask_of = [](int64_t k) { return 0xffffffffu >> __builtin_clz(static_cast<uint32_t>(k)); };
    const auto swap = [=](int64_t k, int64_t j) {
      const int64_t here = order[k];
      order[k] = order[j];
      order[j] = here;
    };
    if (i > kHalves && mask_of(i) == mask_of(i - kHalves)) {
      const int64_t count = choose(halves, mask_of(i), i, chosen);
      for (int64_t k = 0; k < count; ++k) swap(i - k, chosen[k]);
      i -= count;
    } else {  // the bits change on the way
      for (int h = 0; h < kHalves && i > 0; ++h) {
        const int64_t drawn = halves[h] & mask_of(i);
        if (drawn <= i) swap(i--, drawn);
      }
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
