#pragma once
// Ends here of the relays to guests that left with the strategy endpoint: what comes to a guest's
// addresses goes on to the host where it is, and what it sends to peers that know it by an address
// of this host leaves from here; until that host says that it is over. They are kept: an agent that
// starts again goes on with them. Control thread.
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/associations.hh"
#include "agent/device_driver.hh"
#include "agent/lent_addresses.hh"

namespace godwit::agent {

// What a host still does for a guest that came by endpoint and has gone on. Told at once.
class EndpointStay {
 public:
  virtual ~EndpointStay() = default;
  virtual void guest_left() = 0;   // all that comes for it goes by the next relay
  virtual void guest_stays() = 0;  // it did not leave after all
  virtual void relay_ended() = 0;  // and now nowhere
  // Whom that relay still has to serve, though the guest's host knows of nothing; empty: nobody.
  virtual std::string relay_needed_by() const = 0;
};

struct EndpointRelay {  // kind "relay", by the guest's uplink
  PortId guest;
  std::string name;  // of that uplink
  Epoch epoch = 0;
  std::string to;  // host
  std::set<Ip> addresses{};
  std::map<Ip, Ip> names{};           // that they have had for others since they left home
  bool goes_home = false;             // where they need no other
  std::string port{}, interface{};    // this end
  std::vector<std::string> agreed{};  // with these hosts
  bool forwards = false, refuses = false;
  std::int64_t limit_s = 0;  // of its service
  std::int64_t until = 0;    // seconds since 1970; the guest's host should have ended it before
};

class EndpointRelays final {
 public:
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Network& network;
    Associations& associations;
    EndpointKernel& kernel;
    DeviceDriver& device;
  };
  explicit EndpointRelays(const Context& context) : context_(context), lent_(context.store) {}

  void start();  // after Network::start()
  // The end of a relay by that port's name, for a guest that is about to leave.
  Result<> open(EndpointRelay& relay, const std::string& port, const std::string& tenant);
  const EndpointRelay* find(const PortId& uplink) const;  // null: none
  void save(const EndpointRelay& relay);
  // From here on what comes to the guest's addresses goes by its relay to that host, if it has one.
  Result<> forward(const PortId& uplink, const std::string& to);
  // Whether it has one there.
  bool leads(const PortId& uplink, const std::string& to) const;
  // Not any more, though it was told so: the guest goes on here. The relay itself goes when the
  // target says so; its addresses stay lent: some correspondent may have heard of the move.
  void stay(const PortId& uplink);
  // The guest's host needs it no more. What still has connections is refused for a while first.
  Result<> end(const PortId& uplink, bool is_to_refuse);
  void goes_home(const PortId& uplink);
  void remove(const PortId& uplink);
  // An end of a relay with that host goes, also when the agent ends meanwhile.
  void part(const std::string& port, const std::string& other);

  struct Gone {
    std::string to;  // host
    bool is_home = false;
  };
  // The guest, by the uplink that it had here, is here no more, but for its relay; else nothing.
  std::optional<Gone> gone(const PortId& uplink) const;
  // If it is here again, or about to be: what comes to it goes by no relay from here any more, and
  // is not refused.
  void guest_is_back(const PortId& uplink);
  // Addresses of this host that guests elsewhere are known by.
  std::set<Ip> names() const;
  // Those of guests that were at home here.
  std::set<Ip> lent() const { return lent_.now(); }
  void add(const PortId& uplink, EndpointStay& stay) { stays_[uplink] = &stay; }
  void remove(const PortId& uplink, const EndpointStay& stay);
  // [{guest, port, to, addresses, forwards}]
  nlohmann::json describe() const;

 private:
  static void route(const EndpointRelay& relay);
  bool is_back(const EndpointRelay& relay) const;
  void serve(const EndpointRelay& relay);
  EndpointStay* stay_of(const PortId& uplink) const;
  void keep_routed();
  void sweep();

  Context context_;
  LentAddresses lent_;
  std::map<PortId, EndpointRelay> relays_;
  std::map<PortId, EndpointStay*> stays_;
  os::Loop::Timer sweep_;
};

}  // namespace godwit::agent
