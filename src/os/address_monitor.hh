#pragma once
// Tells when the addresses or routes of this network namespace change (rtnetlink(7), multicast
// groups), and which address packets leave with.
#include <functional>
#include <optional>

#include "os/endpoint.hh"
#include "os/loop.hh"

namespace godwit::os {

// Calls back once per burst of changes, kSettle after its last one: a lease that is renewed takes
// an address away before it brings the next. Where the kernel grants no such socket it is silent.
class AddressMonitor final {
 public:
  static constexpr Nanoseconds kSettle = milliseconds(100);

  AddressMonitor(Loop& loop, std::function<void()> changed);

 private:
  void drain();

  Loop& loop_;
  std::function<void()> changed_;
  Fd socket_;
  Loop::Watch watch_;
  Loop::Timer settle_;
};

// The source address the kernel would choose towards `to` now; nothing without a route. The port
// is 0.
std::optional<Endpoint> source_towards(const Endpoint& to);

}  // namespace godwit::os
