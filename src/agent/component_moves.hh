#pragma once
// All moves of components that this host takes part in: answered to peers, found again in the
// journal after a restart; begun by Migrations, alone or among vms. A part of Migrations. Control
// thread.
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/component_source.hh"
#include "agent/component_target.hh"
#include "agent/host_search.hh"
#include "http/caller.hh"

namespace godwit::agent {

class ComponentMoves final {
 public:
  explicit ComponentMoves(const SourceMove::Context& context) : context_(context) {}

  // Those that may run at another host by the journal's word.
  static std::set<ComponentId> left(store::Store& store);
  // Reads the journal and goes on where it ended. `found`: a move that left here, or was to.
  void start(const std::function<void(Move&)>& found);

  // API.
  static bool is_one(std::string_view name) { return name.starts_with(kComponentPrefix); }
  // How "component/NAME" would move.
  Result<SourceRecord> plan(const std::string& name, const nlohmann::json& request,
                            const http::Caller& caller) const;
  // The component as it is here now, its ports, and one epoch for all of them: above each of
  // theirs, and above those burned by an abort.
  Result<> refer_to(const fabric::ComponentRecord& component, SourceRecord& record) const;
  void preflight(const SourceRecord& record, const std::string& host, HostSearch::Checked done);
  Result<ComponentSource*> add(SourceRecord record);
  bool is_moving(const std::string& name) const;
  std::vector<nlohmann::json> list() const;
  std::vector<ComponentSource*> sources() const;
  ComponentSource* find_source(const MigrationId& id) const;
  ComponentTarget* find_target(const MigrationId& id) const;

  // Peers.
  void on_request(PeerRequest request, const nlohmann::json& body);
  void on_state(const std::string& peer, BytesView push);
  void on_session_up(const std::string& peer);

 private:
  void answer_preflight(const PeerRequest& request, const nlohmann::json& body) const;
  void prepare_target(PeerRequest request, const MigrationId& id, const nlohmann::json& body);

  const SourceMove::Context context_;
  std::map<MigrationId, std::unique_ptr<ComponentSource>> sources_;
  std::map<MigrationId, std::unique_ptr<ComponentTarget>> targets_;
};

}  // namespace godwit::agent
