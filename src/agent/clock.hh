#pragma once
// What a pause cost a vm's clock, and its correction (qemu/guest_clock.hh).
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "agent/vm.hh"
#include "qemu/guest_clock.hh"

namespace godwit::agent {

struct ClockReport {
  Nanoseconds behind{};  // when it resumed: its pause
  bool corrected = false;
  Nanoseconds left{}, uncertainty{};  // once corrected
  std::string why;                    // else
};
// {behind_ms, corrected, left_ms?, uncertainty_ms?, why?}; from a peer, whatever it sent.
nlohmann::json to_json(const ClockReport& report);
ClockReport clock_report(const nlohmann::json& json);

// Asks the guest to step its clock. `told` is called once, from the loop, and may destroy what was
// returned; at once, with nothing returned, when the vm has no channel to an agent.
std::unique_ptr<qemu::GuestClock> correct_clock(os::Loop& loop, const Vm& vm, Nanoseconds behind,
                                                std::function<void(const ClockReport&)> told);

}  // namespace godwit::agent
