#include "stream/pacer.hh"

#include <algorithm>
#include <utility>

namespace godwit::stream {
namespace {

BitRate scaled(BitRate rate, double factor) {
  return {static_cast<std::uint64_t>(static_cast<double>(rate.bits_per_second) * factor)};
}

}  // namespace

BitRate Pacer::update(const PathSample& sample) {
  if (sample.rtt <= Nanoseconds(0)) return rate_;
  if (sample.at - memory_began_ > kMemory) {
    memory_began_ = sample.at;
    most_before_ = std::exchange(most_, BitRate{});
  }
  most_ = std::max(most_, sample.delivered);
  const BitRate most = std::max(most_, most_before_);
  if (ramping_ && sample.at - round_began_ >= sample.rtt) {
    round_began_ = sample.at;
    // Below the start rate the sender had nothing to send: that says nothing of the path.
    const bool used = most >= scaled(kStart, 0.8);
    const bool flat = used && most < scaled(last_round_, kStillGrows);
    flat_rounds_ = flat ? flat_rounds_ + 1 : 0;
    ramping_ = flat_rounds_ < kFlatRounds;
    last_round_ = most;
    if (ramping_)
      rate_ = std::max(kStart, scaled(most, kRamp));
    else
      drained_at_ = sample.at + kDrainRounds * sample.rtt;
  }
  if (!ramping_)
    rate_ = std::max(kStart, scaled(most, sample.at < drained_at_ ? kDrain : kHeadroom));
  return rate_;
}

}  // namespace godwit::stream
