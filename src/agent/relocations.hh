#pragma once
// Guests' uplinks that come to this host, or leave it (relocation.hh); and what a move to here with
// the strategies nat and endpoint would do, or why it cannot be.
#include <map>

#include "agent/endpoint_parts.hh"
#include "agent/fabrics.hh"
#include "agent/relocation.hh"

namespace godwit::agent {

class Relocations final {
 public:
  Relocations(const Relocation::Context& context, const Fabrics& fabrics, EndpointParts& endpoint);

  // After Network::start(); those that are only staged wait for their moves.
  void start();
  // After all moves were found again: what is staged for none of those under way is undone.
  void undo_strays(const std::set<PortId>& awaited);

  // `uplinks`: as Network::describe_nic() of the source tells of each.
  // The plan of each (translate/plan_json.hh; endpoint: {port, strategy, addresses}), or what is in
  // the way.
  Result<nlohmann::json> plan(const nlohmann::json& uplinks, const std::string& from, Epoch epoch,
                              const Leading& leading) const;
  // At the source: such plans of endpoint with what becomes of the guests' connections,
  // EndpointSource::survey().
  void survey(nlohmann::json plans, std::function<void(nlohmann::json)> done);
  void stage(const nlohmann::json& uplinks, const std::string& from, Epoch epoch,
             const Leading& leading, Relocation::Done done);
  // All of these uplinks; harmless if there is none, or if repeated.
  void follow(const std::vector<PortId>& uplinks, Relocation::Done done);
  void undo(const std::vector<PortId>& uplinks);

  // For a guest that is to have one of its own here, of this one's family.
  Result<Ip> free_address(const Ip& like) const;

  bool is_on_its_way(const std::string& port) const;
  // Of a port that is to go: whether its relocation can end now.
  bool give_up(const std::string& port);
  nlohmann::json describe() const;
  // At the source, as it hands the guest over: of what leaves by endpoint it stands at once, and
  // the target hears so before it asks.
  void leave(const std::vector<PortId>& uplinks, const std::string& to, Epoch epoch);
  // The target did not take the guest; harmless if they were not about to leave.
  void stay(const std::vector<PortId>& uplinks);
  // uplink.*
  void on_request(PeerRequest request, const nlohmann::json& body);

 private:
  struct Offer {     // of an uplink here
    std::string to;  // host
    Epoch epoch = 0;
    bool operator==(const Offer&) const = default;
  };

  Result<RelocationRecord> record_of(const nlohmann::json& described, const nlohmann::json& uplinks,
                                     const std::string& from, Epoch epoch,
                                     const Leading& leading) const;
  Result<> leave_address(const translate::Fabric& fabric, const Leading& leading,
                         translate::DeviceIndex to, const char* remedy, std::set<Ip>& used,
                         RelocationRecord& record) const;
  Result<translate::AddressMove> address_move(const translate::Fabric& fabric,
                                              const GuestAddress& guest, Strategy strategy,
                                              translate::DeviceIndex from,
                                              translate::DeviceIndex to, std::set<Ip>& used) const;
  Result<> may_come(const translate::Fabric& fabric, const PortRecord& port,
                    const std::string& from, translate::DeviceIndex here) const;
  Result<> reaches(const translate::Fabric& fabric, const translate::GuestMove& move) const;
  std::set<Ip> used_addresses() const;
  // Throws SetupError.
  void begin(const RelocationRecord& record);
  bool is_offered(const PortId& port, const Offer& offer) const;
  void offer(const PortId& port, const Offer& offer);
  void withdraw(const PortId& port);
  void pause_uplink(const PortId& port, const Offer& asked, EndpointSource::Answer told);
  Relocation* find(const PortId& port) const;
  void sweep();

  Relocation::Context context_;
  const Fabrics& fabrics_;
  EndpointParts& endpoint_;
  std::map<PortId, std::unique_ptr<Relocation>> relocations_;
  std::map<PortId, Offer> offers_;  // that wires know of, since this agent has run
};

}  // namespace godwit::agent
