#include "stream/pacer.hh"

#include <algorithm>

namespace godwit::stream {
namespace {

BitRate scaled(BitRate rate, double factor) {
  return {static_cast<std::uint64_t>(static_cast<double>(rate.bits_per_second) * factor)};
}

}  // namespace

BitRate Pacer::update(const PathSample& sample) {
  if (sample.min_rtt <= Nanoseconds(0)) return rate_;
  const Nanoseconds since = sample.at - changed_;
  if (sample.rtt - sample.min_rtt > kQueueShows) {
    // Once draining, the effect shows one round trip later.
    if (phase_ == Phase::drain && since < sample.rtt) return rate_;
    const BitRate most = phase_ == Phase::drain ? held_ : scaled(rate_, kHold);
    held_ = std::max(kFloor, std::min(most, scaled(sample.delivered, kHold)));
    phase_ = Phase::drain;
    changed_ = sample.at;
    return rate_ = std::max(kFloor, scaled(held_, kDrain));
  }
  if (phase_ == Phase::drain) {
    phase_ = Phase::hold;
    changed_ = sample.at;
    return rate_ = held_;
  }
  const bool ramp = phase_ == Phase::ramp;
  if (since < (ramp ? sample.rtt : std::max(kProbeInterval, sample.rtt))) return rate_;
  changed_ = sample.at;
  // No higher than what the sender makes use of: an idle lane learns nothing of its path.
  const bool used = scaled(sample.delivered, 2 * kRampFactor) >= rate_;
  if (used || rate_ <= kStart) rate_ = scaled(rate_, ramp ? kRampFactor : kProbeFactor);
  return rate_;
}

}  // namespace godwit::stream
