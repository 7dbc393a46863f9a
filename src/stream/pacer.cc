#include "stream/pacer.hh"

#include <algorithm>
#include <utility>

namespace godwit::stream {
namespace {

BitRate scaled(BitRate rate, double factor) {
  return {static_cast<std::uint64_t>(static_cast<double>(rate.bits_per_second) * factor)};
}

}  // namespace

bool Pacer::ramp_ends(const PathSample& sample, BitRate most) {
  // Below the start rate the sender had nothing to send: that says nothing of the path.
  const bool used = most >= scaled(kStart, 0.8);
  if (sample.at - round_began_ >= sample.rtt) {
    round_began_ = sample.at;
    flat_rounds_ = used && most < scaled(last_round_, kStillGrows) ? flat_rounds_ + 1 : 0;
    last_round_ = most;
  }
  const Nanoseconds queue = sample.smoothed_rtt - sample.rtt;
  return flat_rounds_ >= kFlatRounds ||
         (used && queue > std::max(sample.rtt / kQueueShare, kHostNoise));
}

BitRate Pacer::update(const PathSample& sample) {
  if (sample.rtt <= Nanoseconds(0)) return rate_;
  if (sample.at - memory_began_ > kMemory) {
    memory_began_ = sample.at;
    most_before_ = std::exchange(most_, BitRate{});
  }
  most_ = std::max(most_, sample.delivered);
  const BitRate most = std::max(most_, most_before_);
  if (ramping_ && ramp_ends(sample, most)) {
    ramping_ = false;
    draining_ = true;
    drained_at_ = sample.at + kDrainRounds * sample.rtt;
  }
  draining_ = draining_ && (sample.starting_up || sample.at < drained_at_);
  const double factor = ramping_ ? kRamp : draining_ ? kDrain : kHeadroom;
  return rate_ = std::max(kStart, scaled(most, factor));
}

}  // namespace godwit::stream
