// Planes with their channels last, and back: [channel][position] <-> [position][channel], a register of channels wide.
#pragma once
#include "sums.h"
#include "tile.h"

namespace keydnn::KEYDNN_NS {
namespace {

constexpr int64_t kBlockVecs = 2;  // registers of a block of channels; the last block may have one

// Whether enough lanes of the registers of a block would be used.
template <class T>
bool fills_registers(int64_t channels) {
  return 3 * channels >= 2 * round_up(channels, kLanes<T>);
}

// A group's channels as lanes, in blocks of kBlockVecs registers.
template <class T>
struct LaneBlocks {
  int64_t channels, lanes, count;
  explicit LaneBlocks(int64_t n)
      : channels(n), lanes(round_up(n, kLanes<T>)), count(ceil_div(lanes, kBlockVecs * kLanes<T>)) {}
  int64_t first(int64_t block) const { return block * kBlockVecs * kLanes<T>; }
  int64_t vecs(int64_t block) const { return lesser(kBlockVecs, (lanes - first(block)) / kLanes<T>); }
  int64_t size(int64_t block) const { return lesser(kBlockVecs * kLanes<T>, channels - first(block)); }  // channels that exist
};

// sums[0 .. kLanes<T>) += v, in double.
template <class T>
KEYDNN_INLINE void add_wide(const Vec<T>& v, double* sums) {
  T lanes[kLanes<T>];
  store(lanes, v);
#pragma GCC unroll 2
  for (int64_t i = 0; i < kLanes<T>; i += kWide) store(sums + i, load(sums + i) + load_wide(lanes + i));
}

// Element i of planes from[0], from[size], ..., as many as a register has lanes, goes to at(i); only `planes` exist, the others
// are 0.  Adds the elements of plane o to sums[o], in order, unless sums is null; it has room for all lanes.
template <class T, class At>
KEYDNN_INLINE void pack_register(const T* from, int64_t size, int64_t planes, int64_t n, At at, double* sums) {
  constexpr int64_t L = kLanes<T>;
  double total[L] = {};
  for (int64_t i = 0; i < n; i += L) {
    Vec<T> v[L];
    const int64_t width = lesser(L, n - i);
    for (int64_t l = 0; l < L; ++l) {
      const T* const p = from + l * size + i;
      v[l] = l >= planes ? Vec<T>{} : width == L ? load(p) : load_part(p, width, T(0));
    }
    transpose<T>(v);
    for (int64_t l = 0; l < width; ++l) store(at(i + l), v[l]);
    if (sums)
#pragma GCC unroll 16
      for (int64_t l = 0; l < L; ++l) add_wide<T>(v[l], total);
  }
  for (int64_t l = 0; sums && l < L; ++l) sums[l] += total[l];
}

// to[i][0 .. vecs): registers of element i of planes from[0], from[size], ...; sums as above.
template <class T>
void pack_planes(const T* from, int64_t size, int64_t planes, int64_t n, int64_t vecs, T* to, double* sums) {
  constexpr int64_t L = kLanes<T>;
  for (int64_t vec = 0; vec < vecs; ++vec) {
    auto at = [=](int64_t i) { return to + (i * vecs + vec) * L; };
    pack_register(from + vec * L * size, size, planes - vec * L, n, at, sums ? sums + vec * L : nullptr);
  }
}

// planes[o][i] = from[i][o], o < channels, i < n; planes are `size` elements apart.
template <class T>
void unpack_planes(const T* from, int64_t vecs, int64_t channels, int64_t n, T* planes, int64_t size) {
  constexpr int64_t L = kLanes<T>;
  for (int64_t i = 0; i < n; i += L)
    for (int64_t vec = 0; vec < vecs; ++vec) {
      const int64_t width = lesser(L, n - i), count = lesser(L, channels - vec * L);
      Vec<T> v[L];
      for (int64_t l = 0; l < L; ++l) v[l] = l < width ? load(from + ((i + l) * vecs + vec) * L) : Vec<T>{};
      transpose<T>(v);
      T* const to = planes + vec * L * size + i;
      for (int64_t l = 0; l < count; ++l) width == L ? store(to + l * size, v[l]) : store_part(to + l * size, v[l], width);
    }
}

}  // namespace
}  // namespace keydnn::KEYDNN_NS
