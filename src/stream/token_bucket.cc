#include "stream/token_bucket.hh"

#include <algorithm>

namespace godwit::stream {
namespace {

double in_seconds(Nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

void TokenBucket::set_rate(std::optional<BitRate> rate, Instant now) {
  if (rate_) refill(now);
  const bool was_capped = rate_.has_value();
  rate_ = rate;
  filled_ = now;
  if (!rate_) return;
  const auto most = static_cast<double>(burst());
  tokens_ = was_capped ? std::min(tokens_, most) : most;
}

std::size_t TokenBucket::allowance(std::size_t wanted, Instant now) {
  if (!rate_) return wanted;
  refill(now);
  const auto needed = std::min<std::size_t>(wanted, kPacingQuantum);
  if (tokens_ < static_cast<double>(needed)) return 0;
  return std::min(wanted, static_cast<std::size_t>(tokens_));
}

void TokenBucket::spend(std::size_t bytes) {
  if (rate_) tokens_ -= static_cast<double>(bytes);
}

Instant TokenBucket::ready_at() const {
  if (!rate_) return filled_;
  const double missing = static_cast<double>(kPacingQuantum) - tokens_;
  if (missing <= 0) return filled_;
  if (rate_->bits_per_second == 0) return Instant::max();
  const double wait = missing / rate_->bytes_per_second();
  // A wake-up just before the quantum is full would spin: round up by a microsecond.
  return filled_ + duration_cast<Nanoseconds>(std::chrono::duration<double>(wait)) +
         std::chrono::microseconds(1);
}

void TokenBucket::refill(Instant now) {
  if (now <= filled_) return;
  const double gained = in_seconds(now - filled_) * rate_->bytes_per_second();
  tokens_ = std::min(tokens_ + gained, static_cast<double>(burst()));
  filled_ = now;
}

std::int64_t TokenBucket::burst() const {
  const double by_rate = rate_->bytes_per_second() * in_seconds(kPacingBurst);
  return std::max(kMinPacingBurst, static_cast<std::int64_t>(by_rate));
}

}  // namespace godwit::stream
