#pragma once
// Guests that leave this host with the strategy endpoint, be their addresses at home here or not:
// which connections they have and who is at the other ends, what is agreed with the hosts of those,
// and the relay for all others. Asked by the host where the guest goes (endpoint_lead.hh):
//
//   endpoint.stage    agrees with the correspondents' hosts, makes this end of the relay
//   endpoint.end      the relay goes, and the addresses are nobody's here; what still had
//                     connections is refused for a while first, with resets
//   endpoint.undo     all is as before endpoint.stage
//   endpoint.home     it went home from the one that asks: its own address needs this host no more
//
// A guest that came by endpoint itself has connections whose peers know it by an address of this
// host, or of one where it was before: they go by the relay, and what led them here goes on.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

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

class EndpointSource final {
 public:
  using Answer = std::function<void(Result<nlohmann::json>)>;
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Network& network;
    Peers& peers;
    Associations& associations;
    EndpointKernel& kernel;
    DeviceDriver& device;
    const Fabrics& fabrics;
  };
  explicit EndpointSource(const Context& context) : context_(context), lent_(context.store) {}

  void start();  // after Network::start()
  void on_request(PeerRequest request, const nlohmann::json& body);
  // Which of the guest's connections would be direct, by host, and how many the relay would serve:
  // {direct: [{host, connections}], relayed}; of one that goes home {at_home, relayed}. For who
  // considers a move.
  void survey(const PortId& uplink, bool goes_home, Answer answer);
  // With uplink.pause: what comes to the guest's addresses goes by its relay, if it has one.
  Result<> forward(const PortId& uplink, const std::string& peer);
  // Whether it has one there.
  bool relays(const PortId& uplink, const std::string& to) const;
  // Not any more, though it was told so: the guest goes on here.
  void stay(const PortId& uplink);
  // What uplink.pause tells of an uplink that leaves so; else an empty object.
  nlohmann::json last_connections(const PortId& uplink);
  // Ends of relays here: [{port, to, addresses, forwards}]
  nlohmann::json describe() const;
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
  // An end of a relay with that host goes, also when the agent ends meanwhile.
  void part(const std::string& port, const std::string& other);
  // An agent's answer to flow.*, this one's too.
  void ask(const std::string& agent, const std::string& method, const nlohmann::json& body,
           Answer answer);

 private:
  struct Relay {  // kind "relay", by the guest's uplink
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
  struct Survey {
    std::vector<os::Connection> connections{};  // whose peers know the guest by its own address
    std::vector<os::Connection> renamed{};
    std::map<std::string, std::set<Ip>> served{};  // correspondents, by host
  };

  void look_around(const std::set<Ip>& guests, std::function<void(Result<Survey>)> done);
  bool is_of_fabric(const Ip& address) const;
  bool may_serve(const std::string& host, const Ip& address) const;
  void stage(const std::string& peer, const nlohmann::json& body, Answer answer);
  void agree(std::shared_ptr<Relay> relay, const Survey& survey, const std::map<Ip, Ip>& on_the_way,
             Answer answer);
  Result<nlohmann::json> list(const PortId& uplink);
  bool is_back(const Relay& relay) const;
  Result<nlohmann::json> end(const PortId& uplink, bool is_to_refuse);
  void serve(const Relay& relay);
  void undo(const PortId& uplink);
  void take_back(const Relay& relay);
  void take_back(const PortId& guest, const std::string& host, const std::string& with);
  void remove(const Relay& relay);
  void keep_routed();
  void sweep();
  void save(const Relay& relay);
  static void route(const Relay& relay);
  static nlohmann::json to_json(const Relay& relay);
  static Relay relay(const nlohmann::json& json);

  Context context_;
  LentAddresses lent_;
  std::map<PortId, Relay> relays_;
  std::map<PortId, EndpointStay*> stays_;
  os::Loop::Timer sweep_;
};

}  // namespace godwit::agent
