// Uniform numbers and dropout masks by Philox4x32-10, groups of kBlocks blocks side by side.
// Meaning: kernels/reference/random.py; the integers are the same, so are the bits of the results.
#include "kernel.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kBlocks = 64;       // blocks made at once
constexpr int64_t kChunk = 16 * 256;  // blocks in a chunk of parallel work

// Words of blocks [first, first + kBlocks), in the order of the stream.
void philox(uint64_t key, int64_t first, uint32_t* words) {
  uint32_t w[4][kBlocks];
  for (int64_t b = 0; b < kBlocks; ++b) {
    const uint64_t counter = static_cast<uint64_t>(first + b);
    w[0][b] = static_cast<uint32_t>(counter);
    w[1][b] = static_cast<uint32_t>(counter >> 32);
    w[2][b] = w[3][b] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int64_t b = 0; b < kBlocks; ++b) {
      const uint64_t p0 = uint64_t(0xD2511F53) * w[0][b], p1 = uint64_t(0xCD9E8D57) * w[2][b];
      w[0][b] = static_cast<uint32_t>(p1 >> 32) ^ w[1][b] ^ k0;
      w[1][b] = static_cast<uint32_t>(p1);
      w[2][b] = static_cast<uint32_t>(p0 >> 32) ^ w[3][b] ^ k1;
      w[3][b] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (int64_t b = 0; b < kBlocks; ++b)
    for (int k = 0; k < 4; ++k) words[4 * b + k] = w[k][b];
}

// out[i] = make(words, i) for i in [0, n), where words are those of the group that i is in and i counts from its start;
// a block gives kPer elements.
template <int kPer, class T, class Make>
KEYDNN_INLINE int stream(uint64_t key, T* out, int64_t n, Make make) {
  parallel_ranges(ceil_div(n, kPer), kChunk, 1.0 * n, [=](int64_t begin, int64_t end) KEYDNN_NOINLINE {
    alignas(64) uint32_t words[4 * kBlocks];
    for (int64_t first = begin; first < end; first += kBlocks) {
      philox(key, first, words);
      const int64_t count = lesser(lesser(kBlocks, end - first) * kPer, n - first * kPer);
      T* const to = out + first * kPer;
      for (int64_t i = 0; i < count; ++i) to[i] = make(words, i);
    }
  });
  return KEYDNN_OK;
}

template <class T>
int uniform(uint64_t key, T* u, int64_t n) {
  if constexpr (sizeof(T) == 4) {
    return stream<4>(key, u, n, [](const uint32_t* words, int64_t i) {
      return static_cast<T>(static_cast<int32_t>(words[i] >> 8)) * T(0x1p-24);
    });
  } else {
    return stream<2>(key, u, n, [](const uint32_t* words, int64_t i) {
      const int32_t high = static_cast<int32_t>(words[2 * i] >> 5), low = static_cast<int32_t>(words[2 * i + 1] >> 6);
      return (static_cast<T>(high) * T(0x1p26) + static_cast<T>(low)) * T(0x1p-53);
    });
  }
}

template <class T>
int dropout_mask(uint64_t key, T* m, int64_t n, double p) {
  const double keep = 1.0 - p;
  const T scale = static_cast<T>(1.0 / keep);
  const int32_t bound = static_cast<int32_t>(__builtin_ceil(keep * 0x1p24));  // r < keep 2^24 for whole r
  return stream<4>(key, m, n, [=](const uint32_t* words, int64_t i) {
    return static_cast<T>(static_cast<int32_t>(words[i] >> 8) < bound ? 1 : 0) * scale;  // no branch
  });
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS

KEYDNN_EXPORT(KEYDNN_RANDOM)
