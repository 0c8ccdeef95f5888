// Sums of the rows of a transposed left operand, beside its product: what a layer's bias gradient is to its weight gradient.
// Numerics: those of sum over columns in reduce.cpp, in the same parts and the same order, so the bits are its bits.
#pragma once
#include "matrix.h"
#include "sums.h"

namespace keydnn::KEYDNN_NS {
namespace {

// Sums of rows [first, first + count) of a (m, k), taken over columns block after block, written when the last is taken.
template <class T>
class RowSums {
 public:
  RowSums(int64_t count, int64_t first, int64_t m, int64_t k, T* to)
      : count_(count), first_(first), k_(k), step_(greater(int64_t(1), kPart / lesser(m, kColumns))), to_(to), room_(2 * count) {
    for (int64_t i = 0; room_ && i < 2 * count; ++i) room_.data[i] = -0.0;  // adding to it keeps every bit
  }
  explicit operator bool() const { return bool(room_); }

  // Takes columns [k0, k0 + n_k); rows lie as they are or in strips.
  KEYDNN_NOINLINE void add(const Matrix<T>& a, int64_t k0, int64_t n_k) {
    for (int64_t k = k0, end; k < k0 + n_k; k = end) {
      end = lesser(k0 + n_k, k - k % step_ + step_);
      add_part(a, k, end);
      if (end % step_ == 0 || end == k_) close(end == k_);
    }
  }

 private:
  static constexpr int64_t kPart = 32768, kColumns = 256;  // see reduce.cpp

  void add_part(const Matrix<T>& a, int64_t k0, int64_t k1) {
    int64_t i = 0;
    auto rows = [&](auto registers) {
      constexpr int n = registers.value;
      for (; i + n * kWide <= count_; i += n * kWide) {
        Vec<double> part[n];
        const T* from[n];
#pragma GCC unroll 8
        for (int r = 0; r < n; ++r) {
          part[r] = load(room_.data + i + r * kWide);
          from[r] = a.at(first_ + i + r * kWide, k0);
        }
        for (int64_t k = 0; k < k1 - k0; ++k)
#pragma GCC unroll 8
          for (int r = 0; r < n; ++r) part[r] += load_wide(from[r] + k * a.col);
#pragma GCC unroll 8
        for (int r = 0; r < n; ++r) store(room_.data + i + r * kWide, part[r]);
      }
    };
    rows(Const<8>{});
    rows(Const<1>{});
    for (; i < count_; ++i)
      for (int64_t k = k0; k < k1; ++k) room_.data[i] += static_cast<double>(*a.at(first_ + i, k));
  }
  void close(bool last) {
    double *const part = room_.data, *const total = part + count_;
    for (int64_t i = 0; i < count_; ++i) {
      total[i] += part[i];
      part[i] = -0.0;
      if (last) to_[first_ + i] = static_cast<T>(total[i]);
    }
  }

  int64_t count_, first_, k_, step_;
  T* to_;
  Room<double> room_;
};

}  // namespace
}  // namespace keydnn::KEYDNN_NS
