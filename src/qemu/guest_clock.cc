#include "qemu/guest_clock.hh"

#include <array>
#include <nlohmann/json.hpp>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

// 0xff is in no JSON: the agent's parser drops what came before, and so do we
// (guest-sync-delimited).
constexpr char kDelimiter = '\xff';
constexpr std::uint64_t kSyncId = 4747;
constexpr std::uint64_t kMostTime = 1ULL << 62;  // ns since 1970: the year 2116

constexpr int kMostSettings = 3;

const json kGetTime = {{"execute", "guest-get-time"}};

}  // namespace

GuestClock::GuestClock(os::Loop& loop, std::unique_ptr<os::ByteStream> stream, Nanoseconds behind,
                       Done done)
    : loop_(loop), stream_(std::move(stream)), behind_(behind), done_(std::move(done)) {
  stream_->start({.readable = [this] { read(); },
                  .writable = [this] { flush(); },
                  .closed =
                      [this](const std::string& reason) {
                        finish(fail("the channel to the guest's agent closed: {}", reason));
                      }});
  ask(Step::sync, {{"execute", "guest-sync-delimited"}, {"arguments", {{"id", kSyncId}}}});
}

void GuestClock::ask(Step step, const json& request) {
  step_ = step;
  asked_ = loop_.now();
  if (step == Step::sync) output_ += kDelimiter;
  output_ += request.dump() + "\n";
  timer_ = loop_.after(kGuestAgentTimeout, [this] {
    finish(fail("no answer of qemu-guest-agent within {}: does it run in the guest?",
                to_text(kGuestAgentTimeout)));
  });
  flush();
}

void GuestClock::set() {
  ++settings_;
  const Nanoseconds time = right_ + loop_.now().time_since_epoch() + lead_;
  ask(Step::set, {{"execute", "guest-set-time"}, {"arguments", {{"time", time.count()}}}});
}

void GuestClock::flush() {
  const std::size_t taken = stream_->write(as_bytes(output_));
  output_.erase(0, taken);
}

void GuestClock::read() {
  if (!done_) return;
  const std::weak_ptr<bool> alive = alive_;
  std::array<std::byte, 4096> chunk;
  while (const std::size_t count = stream_->read(chunk)) {
    input_ += as_text(BytesView(chunk).first(count));
    if (const std::size_t at = input_.rfind(kDelimiter); at != std::string::npos) {
      input_.erase(0, at + 1);
    }
    for (std::size_t end = 0; (end = input_.find('\n')) != std::string::npos;) {
      const std::string line = input_.substr(0, end);
      input_.erase(0, end + 1);
      take_line(line);
      if (alive.expired() || !done_) return;
    }
    if (input_.size() > kMaxGuestAnswer) {
      return finish(
          fail("the guest's agent answers with more than {}", to_text(ByteCount{kMaxGuestAnswer})));
    }
  }
}

void GuestClock::take_line(std::string_view line) {
  const json answer = json::parse(line, nullptr, false);
  if (!answer.is_object()) {
    if (step_ == Step::sync) return;  // of an earlier conversation
    return finish(fail("the guest's agent answers with what is no JSON object"));
  }
  answered(answer);
}

void GuestClock::answered(const json& answer) {
  const Instant now = loop_.now();
  const auto guest =
      Nanoseconds(static_cast<std::int64_t>(std::min(unsigned_at(answer, "return"), kMostTime)));
  switch (step_) {
    case Step::sync:
      if (unsigned_at(answer, "return") == kSyncId) ask(Step::before, kGetTime);
      return;
    case Step::before: {
      if (guest == Nanoseconds(0)) return finish(fail("the guest's agent does not tell the time"));
      before_ = now - asked_;
      right_ = guest + behind_ - middle(now).time_since_epoch();
      lead_ = before_ / 2;
      return set();
    }
    // An error may be of the RTC only (no hwclock in the guest): the clock itself tells.
    case Step::set:
      return ask(Step::after, kGetTime);
    case Step::after: {
      const Outcome outcome{.left = right_ + middle(now).time_since_epoch() - guest,
                            .uncertainty = (before_ + (now - asked_)) / 2};
      if (abs(outcome.left) <= outcome.uncertainty || settings_ == kMostSettings) {
        return finish(outcome);
      }
      lead_ += outcome.left;
      return set();
    }
  }
}

void GuestClock::finish(Result<Outcome> result) {
  timer_.reset();
  if (auto done = std::exchange(done_, nullptr)) done(std::move(result));
}

}  // namespace godwit::qemu
