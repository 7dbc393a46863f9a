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

void Pacer::watch_the_queue(const PathSample& sample) {
  const bool begins = span_.began == Instant{};
  if (!begins) span_.least_rtt = std::min(span_.least_rtt, sample.smoothed_rtt);
  ++span_.samples;
  if (sample.waiting) ++span_.waiting;
  const Nanoseconds length = sample.at - span_.began;
  if (!begins && length < std::max(kSpanRounds * sample.rtt, kLeastSpan)) return;
  const Span over = std::exchange(
      span_,
      {.began = sample.at, .acknowledged = sample.acknowledged, .least_rtt = sample.smoothed_rtt});
  if (begins || ramping_ || draining_) return;

  const Nanoseconds queue = over.least_rtt - sample.rtt;
  const Nanoseconds standing = std::max(sample.rtt / kStandingShare, kStandingNoise);
  const bool busy = over.waiting >= kBusyShare * over.samples;
  if (relief_.bits_per_second > 0) {
    if (queue > standing / 2 && ++relief_spans_ < kReliefSpans) return;
    relief_ = {};
    rested_at_ = sample.at + kRest;
  } else if (queue > standing && busy && sample.at >= rested_at_) {
    const double bits =
        8.0 * static_cast<double>(sample.acknowledged.bytes - over.acknowledged.bytes);
    relief_ = {
        static_cast<std::uint64_t>(kRelief * bits / (static_cast<double>(length.count()) / 1e9))};
    relief_spans_ = 0;
  }
}

BitRate Pacer::update(const PathSample& sample) {
  if (sample.rtt <= Nanoseconds(0)) return rate_;
  delivered_.see(sample.at, sample.delivered);
  const BitRate most = delivered_.most();
  if (ramping_ && ramp_ends(sample, most)) {
    ramping_ = false;
    draining_ = true;
    drained_at_ = sample.at + kDrainRounds * sample.rtt;
  }
  watch_the_queue(sample);
  draining_ = draining_ && (sample.starting_up || sample.at < drained_at_);
  const double factor = ramping_ ? kRamp : draining_ ? kDrain : kHeadroom;
  rate_ = std::max(kStart, scaled(most, factor));
  if (relief_.bits_per_second > 0) rate_ = std::min(rate_, relief_);
  return rate_;
}

}  // namespace godwit::stream
