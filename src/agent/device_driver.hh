#pragma once
// The agent as the driver of its own device: what displaced guests have here (strategy nat), as the
// agents of their moves say it, phase by phase.
//
//   rule.set ──▶ translate::DeviceRules ──▶ DeviceKernel ──▶ nftables, proxies, routes
//                     └──▶ store: kind "guest-rules", by guest
//
// What it answered that it has is in the kernel and in the store. A device that was rebooted writes
// everything anew, and what somebody else takes away is written again, at the next look. Control
// thread, in one network namespace. docs/protocol/session.md, "Rules of displaced guests".
#include <nlohmann/json_fwd.hpp>

#include "agent/config.hh"
#include "agent/device_kernel.hh"
#include "agent/events.hh"
#include "agent/peers.hh"
#include "os/loop.hh"
#include "store/store.hh"

namespace godwit::agent {

class DeviceDriver final {
 public:
  static constexpr Nanoseconds kLookInterval = seconds(10);
  static constexpr Nanoseconds kRetryInterval = seconds(3);  // while the kernel refuses

  DeviceDriver(os::Loop& loop, const Config& config, store::Store& store, Events& events);

  // Reads the store and writes all to the kernel, once more until that takes it. Throws SetupError
  // for a damaged record.
  void start();

  // The guest's rules here from now on; an older or equal version is had already. An error: all is
  // as before. `name` is for people.
  Result<> set(const std::string& guest, const std::string& name, const translate::Version& version,
               const translate::Rules& rules);
  // The guest's rules and their version; the answer is what it had.
  Result<translate::Rules> forget(const std::string& guest);
  // rule.*
  void on_request(PeerRequest request, const nlohmann::json& body);

  // [{guest, name, epoch, phase, kind, match, becomes?, staged?, packets?}]
  nlohmann::json describe() const;
  // {ok, missing, claims_missing, foreign, forwarding_off}, read back from the kernel.
  Result<nlohmann::json> verify();
  // {removed, written}: the kernel has what it shall have, and nothing else of ours.
  Result<nlohmann::json> repair();
  // What the timer does.
  void look();

 private:
  Result<nlohmann::json> forget_as_asked(const nlohmann::json& body);
  Result<nlohmann::json> departed(const nlohmann::json& body) const;
  Result<nlohmann::json> answer_to(const std::string& method, const nlohmann::json& body);
  Result<nlohmann::json> set_as_asked(const nlohmann::json& body);
  void load();
  Result<> write(const translate::DeviceRules& next, const translate::Rules& needed);
  void go_back();
  bool mend(bool is_start);
  void tell_trouble(const std::string& trouble);
  bool has_all(const Result<DeviceKernel::Unclaimed>& written);

  os::Loop& loop_;
  const Config& config_;
  store::Store& store_;
  Events& events_;
  translate::DeviceRules rules_;
  std::map<std::string, std::string> names_;  // of rules_' guests
  DeviceKernel kernel_;
  std::string trouble_;  // that was told
  os::Loop::Timer timer_;
};

}  // namespace godwit::agent
