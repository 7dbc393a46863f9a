#pragma once
// This host's ports and wires as the operator sees them: names, records, TAPs, the two-sided
// connect and disconnect. The packets run in the wire thread; here is only what configures it.
// Together with those of the peers this is the port directory: each agent is authoritative for its
// own ports, others are asked through sessions.
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/events.hh"
#include "agent/log_limit.hh"
#include "agent/peers.hh"
#include "agent/records.hh"
#include "agent/trusted_ports.hh"
#include "agent/wire_threads.hh"
#include "os/child.hh"
#include "os/masquerade.hh"
#include "os/tap.hh"
#include "store/store.hh"

namespace godwit::agent {

class Network final {
 public:
  using Done = std::move_only_function<void(Result<>)>;

  Network(os::Loop& loop, const Config& config, store::Store& store, WireThreads& wires,
          Events& events);
  ~Network();
  void use_peers(Peers& peers) { peers_ = &peers; }
  void use_trust(const TrustedPorts& trusted) { trusted_ = &trusted; }
  void on_wire_event(const wire::Event& event);
  // The path of wires to a host is another one.
  std::function<void(const std::string& host)> path_changed;
  // Opens the ports and wires that the store knows. Vms bring their own TAPs afterwards.
  void start();

  // API. With a `tenant` only its ports and wires exist; empty: all.
  Result<nlohmann::json> add_port(const nlohmann::json& request);
  Result<> remove_port(const std::string& name, const std::string& tenant);
  // For a component, which places it; and back.
  Result<PortRecord> add_component_port(const std::string& name, const std::string& tenant,
                                        const std::string& component, const std::string& topology);
  Result<> remove_component_port(const PortId& port);
  std::vector<PortId> component_ports() const;
  bool has_wire(const PortId& port) const { return wire_at(port) != nullptr; }
  void list_ports(const std::string& tenant, std::function<void(nlohmann::json)> done);
  struct Ends {
    std::string a, b;  // "NAME" or "HOST/NAME", HOST may be HOST@FLEET
    std::string tenant;
    std::string topology{};  // that wants the wire
  };
  void connect(const Ends& ends, Done done);
  void disconnect(const Ends& ends, Done done);
  void list_wires(const std::string& tenant, std::function<void(nlohmann::json)> done);
  // Of the host: "paths" of its wires' datagrams, what was "relayed", and "datagrams" that are no
  // wire's: strays, and what the sockets' buffers did not hold.
  void describe_datagrams(std::function<void(nlohmann::json)> done);

  // Peers.
  void on_request(PeerRequest request, const nlohmann::json& body);
  void on_session_up(const std::string& peer);  // also of another fleet
  // All that a host of another fleet may ask; network_foreign.cc.
  void on_foreign_request(PeerRequest request, const nlohmann::json& body);
  // Wires of this port, or of all ports, to that fleet.
  void cut_foreign(const std::string& fleet, const std::optional<std::string>& port);
  // Of the port that has this name; empty: there is none.
  std::string tenant_of(const std::string& port) const;
  const PortRecord* find(std::string_view name) const;  // null: it is not here

  // Vms. nic_for() makes the port when there is none of that name.
  Result<PortRecord> nic_for(const std::string& name, const std::string& tenant,
                             const std::string& vm, const std::string& topology);
  // A TAP pair for QEMU; the descriptor is borrowed until detach_nic().
  Result<const os::Fd*> attach_nic(PortId port, const std::string& vm);
  Result<> reattach_nic(PortId port, const os::Child& qemu);
  // After a restart, once vms and migrations have told what is here: lets go of the TAPs of guests
  // that have left or were refused, and of the rules of those that are gone.
  void sweep_nics();
  void detach_nic(PortId port);
  // The vm is gone for good: its port stays, free for another.
  void release_nic(PortId port);

  // Migrations, source side.
  // What the target must know of a port: record, wire, and the host of the wire's other end; of a
  // guest's uplink where the guest is there, if anybody has asked.
  Result<nlohmann::json> describe_nic(PortId port) const;
  std::vector<std::string> peers_of(PortId port) const;
  // Wires of these ports to other fleets, as the target is to be asked about them; one of them, as
  // the target answers.
  nlohmann::json foreign_wires(const std::vector<PortId>& ports) const;
  Result<> may_take_foreign(const nlohmann::json& wire) const;
  void offer_move(PortId port, const std::string& to_host, Epoch epoch);
  // See WireThread: arm before the vCPUs may stop, plug when they stand, pause after QEMU's main
  // loop went round.
  void arm(const std::vector<PortId>& ports, std::function<void()> done) {
    wires_.arm(ports, std::move(done));
  }
  void plug(const std::vector<PortId>& ports, std::function<void()> done);
  void pause(const std::vector<PortId>& ports, std::vector<Bytes> newest,
             std::function<void()> done);
  void resume(const std::vector<PortId>& ports);
  // Forwards for the lease, then `drained`. Leaves alone what has come back with `epoch` or later.
  void release(const std::vector<PortId>& ports, Epoch epoch, std::function<void()> drained);
  // Migrations, target side.
  bool has_other_port(const std::string& name, const PortId& port) const;
  // `described` by describe_nic() of the other agent; the id of the port that is HELD now.
  Result<PortId> prepare_held(const nlohmann::json& described, PortKind kind,
                              const std::string& from_host, Epoch epoch);
  // Calls back when all are HELD and their channels are up, or after `limit`.
  void when_prepared(const std::vector<PortId>& ports, Nanoseconds limit, Done done);
  struct Held {
    std::uint64_t frames = 0, dropped = 0;
  };
  // Calls back when the wire thread has counted what it delivers.
  void run(const std::vector<PortId>& ports, std::function<void(Held)> done);
  bool is_held(const PortId& port) const { return arriving_.contains(port); }
  // Of one that is held.
  const std::string& held_interface(const PortId& port) const {
    return arriving_.at(port).interface;
  }
  void discard_held(const std::vector<PortId>& ports);

  // Guests in a routed network, behind uplinks of their own; network_guests.cc. Those that these
  // NICs are wired to on this host.
  std::vector<PortId> guest_uplinks(const std::vector<PortId>& nics) const;
  const PortRecord* guest_uplink(const PortId& port) const;  // null: no such port here
  // Whose guest is reached by rules of devices, as it is not at home.
  std::optional<PortId> displaced_uplink(const std::string& name) const;
  std::set<Ip> locators() const;  // by which those here are reached, their new addresses too
  std::set<Ip> guests() const;    // their own addresses, also of those that are routed here already
  std::map<Ip, Ip> new_addresses() const;  // of those that have one
  struct GuestNic {
    PortId nic{};
    std::string vm{};      // that has it here; empty: it is elsewhere
    bool is_held = false;  // the uplink, still
    std::string interface{};
    std::vector<GuestAddress> guest{};
  };
  // What is wired to guests' uplinks here, and to those that are routed here already.
  std::vector<GuestNic> guest_nics() const;
  std::function<void()> guests_changed;  // any of these
  // These stay routed as they are when the uplinks of their guests go.
  void keep_routed(std::set<Ip> addresses) { kept_routed_ = std::move(addresses); }
  // The other end of its wire came here shortly before, which its host may not have heard yet.
  void correct_wire(nlohmann::json& described) const;
  // Likewise, of one that is held, as nobody else will tell it.
  void correct_held(const PortId& port);
  // An uplink that was held becomes the way to its guest, before it runs.
  Result<> route_guest(const PortId& port, const std::vector<GuestAddress>& guest);
  // As run(), of that uplink: what was for the guest meanwhile waits in its TAP. The kernel here
  // need not ask for whoever `described` tells of.
  void run_uplink(const PortId& port, const nlohmann::json& described);

 private:
  static nlohmann::json neighbours_of(const PortRecord& record);
  static void expect_neighbours(const PortRecord& record, const nlohmann::json& described);

  static constexpr Nanoseconds kForeignTimeout = seconds(5);

  struct Located {  // a port, wherever it is; of another fleet's the tenant is not known
    PortId id;
    std::string name, tenant, host;
    Epoch epoch = 1;
  };
  struct Parting {
    PortDevice device;
    os::Loop::Timer timer;
  };
  struct Waiting {  // when_prepared()
    std::vector<PortId> ports;
    Done done;
    os::Loop::Timer limit;
  };

  static bool is_of(const std::string& owner, const std::string& tenant) {
    return tenant.empty() || owner == tenant;
  }
  void open(PortRecord& record);
  Result<> add(PortRecord record);
  Result<> remove(const PortRecord& record);
  const PortRecord* find(const PortId& id) const;
  const WireRecord* wire_at(const PortId& port) const;
  std::string tenant_of(const PortId& port) const;  // empty: not here
  void save(const PortRecord& record);
  void save(const WireRecord& record);
  void forget_port(const PortId& port);
  void part_later(const PortId& port);
  void have_run(const std::vector<PortId>& ports, std::function<void(Held)> done);
  void unroute(const PortRecord& record);
  const PortRecord* uplink_of_guest(const Ip& address) const;
  Result<> may_have_guest(const PortRecord& record) const;
  void announce_guest(const PortRecord& record) const;
  void tell_of_guests(const PortRecord& record) const;
  std::string free_interface(const PortRecord& record) const;
  // Both ends of a local wire at once.
  void cut(const WireId& wire);
  wire::WireConfig config_of(const WireRecord& record) const;
  void locate(const std::string& name, const std::string& tenant,
              std::function<void(Result<Located>)> done);
  void locate_both(const Ends& ends, std::function<void(Result<std::pair<Located, Located>>)> done);
  void connect_located(const Located& a, const Located& b, const std::string& topology, Done done);
  void ask_attach(const WireRecord& record, const std::string& host, Done done);
  Result<> attach_wire(const WireRecord& record);
  bool cut_half(const std::string& end, const std::string& other, const std::string& tenant);
  void disconnect_located(const Located& a, const Located& b, Done done);
  void settle_waiting();
  void on_path_event(const wire::Event& event);
  void look_up_peer(const PortId& port);
  nlohmann::json describe(const PortRecord& record, const WireThreads::Stats& stats) const;
  nlohmann::json describe(const WireRecord& record, const WireThreads::Stats& stats) const;
  nlohmann::json answer_find(const nlohmann::json& body) const;
  Result<nlohmann::json> answer_attach(const std::string& peer, const nlohmann::json& body);
  void answer_connect(PeerRequest request, const nlohmann::json& body);
  // The port, if that fleet is trusted for it.
  const PortRecord* port_for(std::string_view fleet, const PortRecord* port) const;
  void cut_of(std::string_view fleet, const WireId& id);
  static bool is_of_fleet(const WireRecord& wire, std::string_view fleet);
  Result<> may_connect_abroad(const Located& ours, const std::string& foreign_host) const;
  nlohmann::json answer_foreign_find(const std::string& peer, const nlohmann::json& body) const;
  Result<nlohmann::json> answer_foreign_attach(const std::string& peer, const nlohmann::json& body);
  nlohmann::json answer_foreign_detach(const std::string& peer, const nlohmann::json& body);
  nlohmann::json answer_foreign_check(const std::string& peer, const nlohmann::json& body) const;

  os::Loop& loop_;
  const Config& config_;
  store::Store& store_;
  WireThreads& wires_;
  Events& events_;
  Peers* peers_ = nullptr;
  const TrustedPorts* trusted_ = nullptr;
  LogLimit foreign_refusals_;
  std::map<PortId, PortRecord> ports_;
  std::map<PortId, WireRecord> wires_of_;  // by local port
  std::map<PortId, PortDevice> devices_;
  std::map<PortId, Parting> parting_;  // of guests that have left
  std::map<PortId, os::Masquerade> masquerades_;
  std::map<std::string, std::string> paths_;     // by host, the one in use
  std::set<PortId> held_ready_;                  // HELD here, channels up
  std::set<PortId> held_routed_;                 // HELD here, the way to its guest
  std::map<PortId, PortRecord> arriving_;        // HELD here, not ours yet
  std::map<PortId, WireRecord> arriving_wires_;  // of those, by port
  std::map<PortId, std::function<void()>> leaving_;
  std::list<Waiting> waiting_;
  std::set<Ip> kept_routed_;
};

}  // namespace godwit::agent
