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
#include "agent/endpoint_relays.hh"

namespace godwit::agent {

class EndpointSource final {
 public:
  using Answer = std::function<void(Result<nlohmann::json>)>;
  struct Context {
    os::Loop& loop;
    const Config& config;
    Network& network;
    Peers& peers;
    Associations& associations;
    EndpointKernel& kernel;
    EndpointRelays& relays;
    const Fabrics& fabrics;
  };
  explicit EndpointSource(const Context& context) : context_(context) {}

  void on_request(PeerRequest request, const nlohmann::json& body);
  // Which of the guest's connections would be direct, by host, and how many the relay would serve:
  // {direct: [{host, connections}], relayed}; of one that goes home {at_home, relayed}. For who
  // considers a move.
  void survey(const PortId& uplink, bool goes_home, Answer answer);
  // What uplink.pause tells of an uplink that leaves so; else an empty object.
  nlohmann::json last_connections(const PortId& uplink);
  // An agent's answer to flow.*, this one's too.
  void ask(const std::string& agent, const std::string& method, const nlohmann::json& body,
           Answer answer);

 private:
  struct Survey {
    std::vector<os::Connection> connections{};  // whose peers know the guest by its own address
    std::vector<os::Connection> renamed{};
    std::map<std::string, std::set<Ip>> served{};  // correspondents, by host
  };

  void look_around(const std::set<Ip>& guests, std::function<void(Result<Survey>)> done);
  bool is_of_fabric(const Ip& address) const;
  bool may_serve(const std::string& host, const Ip& address) const;
  void stage(const std::string& peer, const nlohmann::json& body, Answer answer);
  void agree(std::shared_ptr<EndpointRelay> relay, const Survey& survey,
             const std::map<Ip, Ip>& on_the_way, Answer answer);
  Result<nlohmann::json> list(const EndpointRelay& relay);
  void undo(const PortId& uplink);
  void take_back(const EndpointRelay& relay);
  void take_back(const PortId& guest, const std::string& host, const std::string& with);

  Context context_;
};

}  // namespace godwit::agent
