#include "lab/delay_error.hh"

#include <algorithm>
#include <bit>
#include <cmath>

namespace godwit::lab {

// Below 8 each value has its own bucket; above, the three bits after the leading one choose it.
std::size_t DelayError::bucket_of(std::uint64_t value) {
  if (value < kStepsPerOctave) return static_cast<std::size_t>(value);
  const auto octave = static_cast<std::size_t>(std::bit_width(value)) - 4;
  const std::size_t bucket = (octave + 1) * kStepsPerOctave + ((value >> octave) - kStepsPerOctave);
  return std::min(bucket, kBuckets - 1);
}

std::uint64_t DelayError::upper_bound_of(std::size_t bucket) {
  if (bucket < kStepsPerOctave) return bucket;
  const std::size_t octave = bucket / kStepsPerOctave - 1;
  return ((kStepsPerOctave + bucket % kStepsPerOctave + 1) << octave) - 1;
}

void DelayError::record(Nanoseconds late) {
  late = std::max(late, Nanoseconds(0));
  ++buckets_[bucket_of(static_cast<std::uint64_t>(late.count()))];
  ++count_;
  worst_ = std::max(worst_, late);
}

Nanoseconds DelayError::quantile(double share) const {
  const auto wanted = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < kBuckets && count_ > 0; ++bucket) {
    seen += buckets_[bucket];
    if (seen >= std::max<std::uint64_t>(wanted, 1)) {
      return std::min(worst_, Nanoseconds(upper_bound_of(bucket)));
    }
  }
  return worst_;
}

}  // namespace godwit::lab
