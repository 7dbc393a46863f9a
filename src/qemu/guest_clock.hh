#pragma once
// Puts right what a pause has cost a guest's clock. While its vCPUs stand, all clocks that a guest
// sees stand too, but for the RTC, which nobody reads again: afterwards its wall clock is behind by
// the pause. Only the guest can step it: qemu-guest-agent does, if it runs there.
//
//   guest-sync-delimited ──▶ guest-get-time ──▶ guest-set-time ──▶ guest-get-time
//                                                      ▲    if still off    │
//                                                      └────────────────────┘
// A busy guest comes to the setting late: what is then left shows by how much, and the next one is
// that much ahead.
//
// It is stepped by what the pause took, not set to this host's time: the guest may have a better
// one. The guest is not trusted: what it sends is bounded and waited for with a limit (QEMU,
// docs/interop/qemu-ga-ref).
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "base/units.hh"
#include "os/byte_stream.hh"
#include "os/loop.hh"

namespace godwit::qemu {

// Of each answer. An agent that sets the clock also writes the RTC, which waits for its next
// second.
inline constexpr Nanoseconds kGuestAgentTimeout = seconds(5);
inline constexpr std::size_t kMaxGuestAnswer = 16 << 10;  // bytes; those of interest have fifty

class GuestClock final {
 public:
  struct Outcome {
    Nanoseconds left{};         // what it is still behind (or ahead: negative)
    Nanoseconds uncertainty{};  // half the round trips of asking
  };
  using Done = std::move_only_function<void(Result<Outcome>)>;

  // `behind`: what its clock lost. `done` is called once, from the loop; it may destroy this.
  GuestClock(os::Loop& loop, std::unique_ptr<os::ByteStream> stream, Nanoseconds behind, Done done);

 private:
  enum class Step { sync, before, set, after };

  void read();
  void take_line(std::string_view line);
  void answered(const nlohmann::json& answer);
  void ask(Step step, const nlohmann::json& request);
  void set();
  void flush();
  void finish(Result<Outcome> result);
  Instant middle(Instant now) const { return asked_ + (now - asked_) / 2; }

  os::Loop& loop_;
  std::unique_ptr<os::ByteStream> stream_;
  Nanoseconds behind_;
  Done done_;
  Step step_ = Step::sync;
  std::string input_, output_;
  Instant asked_{};
  // What the guest's clock would show at an instant of ours had there been no pause: right_ + it.
  Nanoseconds right_{};
  Nanoseconds before_{};  // the round trip of asking for it
  Nanoseconds lead_{};    // from our asking to the guest's setting
  int settings_ = 0;
  os::Loop::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::qemu
