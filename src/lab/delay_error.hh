#pragma once
// How late frames left the emulated link, against the time computed for them: the figure that tells
// whether a measurement made on this lab can be believed. A histogram in constant memory: buckets
// of 1/8 of a power of two (at most 12.5 % wide), 1 ns to about 18 s.
#include <array>
#include <cstdint>

#include "base/units.hh"

namespace godwit::lab {

class DelayError final {
 public:
  void record(Nanoseconds late);
  std::uint64_t count() const { return count_; }
  // The smallest bound that `share` (0..1) of the frames kept; zero when nothing was recorded.
  Nanoseconds quantile(double share) const;
  Nanoseconds worst() const { return worst_; }

 private:
  static constexpr std::size_t kStepsPerOctave = 8;
  static constexpr std::size_t kBuckets = 35 * kStepsPerOctave;

  static std::size_t bucket_of(std::uint64_t nanoseconds);
  static std::uint64_t upper_bound_of(std::size_t bucket);

  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
  Nanoseconds worst_{0};
};

}  // namespace godwit::lab
