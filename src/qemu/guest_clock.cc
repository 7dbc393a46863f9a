#include "qemu/guest_clock.hh"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostTime = 1LL << 62;  // ns since 1970: the year 2116
constexpr int kMostSettings = 3;

// Zero: it does not tell.
Nanoseconds time_of(const Result<json>& reply) {
  const auto told = reply && reply->is_number_unsigned() ? reply->get<std::uint64_t>() : 0;
  return Nanoseconds(static_cast<std::int64_t>(std::min<std::uint64_t>(told, kMostTime)));
}

}  // namespace

GuestClock::GuestClock(os::Loop& loop, std::unique_ptr<os::ByteStream> stream, Nanoseconds behind,
                       Done done)
    : agent_(std::in_place, loop, std::move(stream)), behind_(behind), done_(std::move(done)) {
  before();
}

void GuestClock::before() {
  agent_->execute("guest-get-time", nullptr, [this](const Result<json>& reply) {
    if (!reply) return finish(std::unexpected(reply.error()));
    const Nanoseconds guest = time_of(reply);
    if (guest == Nanoseconds(0)) return finish(fail("the guest's agent does not tell the time"));
    const Instant now = agent_->loop().now();
    before_ = now - agent_->asked();
    right_ = guest + behind_ - middle(now);
    lead_ = before_ / 2;
    set();
  });
}

// An error may be of the RTC only (no hwclock in the guest): the clock itself tells.
void GuestClock::set() {
  ++settings_;
  const Nanoseconds time = right_ + agent_->loop().now().time_since_epoch() + lead_;
  agent_->execute("guest-set-time", {{"time", time.count()}},
                  [this](const Result<json>&) { after(); });
}

void GuestClock::after() {
  agent_->execute("guest-get-time", nullptr, [this](const Result<json>& reply) {
    if (!reply) return finish(std::unexpected(reply.error()));
    const Instant now = agent_->loop().now();
    const Outcome outcome{.left = right_ + middle(now) - time_of(reply),
                          .uncertainty = (before_ + (now - agent_->asked())) / 2};
    if (abs(outcome.left) <= outcome.uncertainty || settings_ == kMostSettings) {
      return finish(outcome);
    }
    lead_ += outcome.left;
    set();
  });
}

Nanoseconds GuestClock::middle(Instant now) const {
  return (agent_->asked() + (now - agent_->asked()) / 2).time_since_epoch();
}

// Others may ask the guest's agent from now on.
void GuestClock::finish(Result<Outcome> result) {
  agent_.reset();
  if (auto done = std::exchange(done_, nullptr)) done(std::move(result));
}

}  // namespace godwit::qemu
