#pragma once
// How packets for a guest come to be led to its new host while its uplink follows it there
// (relocation.hh): by the fabric's devices (nat_lead.hh).
//
//   stage ─▶ staged                                                ── undo ─▶ as before
//   guest_runs (it is about to; the uplink is held here): who can be told already is
//   lead (the uplink is held here) ─▶ forwarded: the source's host sends on what comes to it, or
//     does as its uplink stands
//     ─▶ uplink_stands (the source's) ─▶ uplink_is_here ─▶ flipped: all lead here
//     ─▶ settled: nothing is left where the guest was
//
// What fails is tried again by itself. A relocation looks at its lead after each call; what changes
// in between it is told. Control thread.
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/device_driver.hh"
#include "agent/network.hh"
#include "agent/relocation_record.hh"

namespace godwit::agent {

class Lead {
 public:
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Network& network;
    Peers& peers;
    DeviceDriver& device;
    Events& events;
  };
  // The relocation that it leads for, which outlives it.
  struct Owner {
    RelocationRecord& record;
    std::function<void()> save;  // the record, with reached()
    std::function<bool()> source_is_gone;
    std::function<void()> changed;  // what is told below; not from within a call
  };

  virtual ~Lead() = default;

  // All that can be known to fail, before the guest stands.
  virtual void stage() = 0;
  virtual void undo() = 0;     // what was staged: is_over() then, later
  virtual void restart() = 0;  // of the agent: goes on as the record says; lead() may come again
  // While it is staged: what comes from the source's host waits in the held uplink's TAP.
  virtual Result<> uplink_is_held() { return {}; }
  // Before anything that takes time here. What comes by it early finds its way as before.
  virtual void guest_runs() {}
  // What comes to this host waits in the uplink's TAP. From here on there is no way back.
  virtual void lead() = 0;
  virtual void abandon_source() = 0;  // it is gone, nobody waits for it; repeated while it is
  // The source's uplink stands; `told` is its answer to uplink.pause. Calls `done` when the uplink
  // may run here. Not of a source that was abandoned.
  virtual void uplink_stands(const nlohmann::json& told, std::function<void()> done) = 0;
  // It runs here, or did when the agent ended: what is left is to clean up, by itself.
  virtual void uplink_is_here() = 0;
  // Of a guest that is to be no more: whether it can do without what is left, which goes now.
  virtual bool give_up() { return false; }

  // The guest as its uplink has it here.
  virtual std::vector<GuestAddress> guest() const = 0;
  // By all who have a part in it.
  virtual translate::Phase reached() const = 0;
  bool is_staged() const { return is_between(translate::Phase::staged); }
  bool is_forwarded() const { return is_between(translate::Phase::forwarded); }
  bool is_led() const { return is_between(translate::Phase::flipped); }
  virtual bool is_over() const = 0;         // nothing is left to do: settled, or undone
  virtual std::string refusal() const = 0;  // why it cannot be staged; empty: nothing has refused
  virtual std::string missing() const = 0;  // whom it waits for, and why; empty: nobody
  // {addresses, rules, devices}: what the report begins with.
  virtual nlohmann::json describe() const = 0;

 private:
  bool is_between(translate::Phase least) const {
    return reached() >= least && reached() != translate::Phase::undone;
  }
};

}  // namespace godwit::agent
