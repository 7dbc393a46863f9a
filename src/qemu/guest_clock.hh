#pragma once
// Puts right what a pause has cost a guest's clock. While its vCPUs stand, all clocks that a guest
// sees stand too, but for the RTC, which nobody reads again: afterwards its wall clock is behind by
// the pause. Only the guest can step it: qemu-guest-agent does, if it runs there.
//
//   guest-get-time ──▶ guest-set-time ──▶ guest-get-time
//                           ▲    if still off    │
//                           └────────────────────┘
// A busy guest comes to the setting late: what is then left shows by how much, and the next one is
// that much ahead.
//
// It is stepped by what the pause took, not set to this host's time: the guest may have a better
// one.
#include <functional>
#include <memory>
#include <optional>

#include "base/result.hh"
#include "base/units.hh"
#include "qemu/guest_agent.hh"

namespace godwit::qemu {

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
  void before();
  void set();
  void after();
  void finish(Result<Outcome> result);
  // Half way between the request that is answered now and its answer.
  Nanoseconds middle(Instant now) const;

  std::optional<GuestAgent> agent_;  // until `done`
  Nanoseconds behind_;
  Done done_;
  // What the guest's clock would show at an instant of ours had there been no pause: right_ + it.
  Nanoseconds right_{};
  Nanoseconds before_{};  // the round trip of asking for it
  Nanoseconds lead_{};    // from our asking to the guest's setting
  int settings_ = 0;
};

}  // namespace godwit::qemu
