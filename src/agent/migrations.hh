#pragma once
// All migrations this host takes part in, as source or target: started by the API, answered to
// peers, found again in the journal after a restart.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/component_moves.hh"
#include "agent/host_search.hh"
#include "agent/libvirt_moves.hh"
#include "agent/move_groups.hh"
#include "agent/move_resumption.hh"
#include "agent/source_move.hh"
#include "agent/target_move.hh"
#include "http/caller.hh"
#include "http/responder.hh"

namespace godwit::agent {

inline constexpr std::size_t kKeptMigrations = 200;  // finished ones that stay listed

class Migrations final {
 public:
  // hosts_called: see HostSearch.
  Migrations(SourceMove::Context context,
             std::function<std::vector<std::string>(const std::string& name)> hosts_called);

  // Reads the journal and goes on where it ended. After Vms::start() and Network::start().
  void start();

  // API.
  void add(const nlohmann::json& request, const http::Caller& caller, http::Responder responder);
  bool is_moving(const std::string& vm) const;  // or "component/NAME"
  std::vector<nlohmann::json> list();
  std::optional<nlohmann::json> show(const std::string& id);
  Result<> follow(const std::string& id, std::shared_ptr<http::EventStream> stream);
  Result<> cutover(const std::string& id);
  Result<> abort(const std::string& id);
  Result<> set(const std::string& id, const nlohmann::json& request);
  // Whose end is destroyed, by the operator's word, if that is what decides.
  enum class Destroyed : std::uint8_t { none, source, target };
  Result<> resolve(const std::string& id, Destroyed destroyed);

  // Peers.
  void on_request(PeerRequest request, const nlohmann::json& body);
  void on_state(const std::string& peer, BytesView push) { components_.on_state(peer, push); }
  void on_session_up(const std::string& peer);
  // The path to a peer changed: lanes of moves there may be dead.
  void doubt_lanes(const std::string& peer);
  // A lane that a peer opened, before anything was read from it.
  void on_lane(const std::string& peer, std::unique_ptr<os::ByteStream> lane);

 private:
  // A lane whose transfer is not known yet: its first frame names it.
  struct NewLane {
    std::unique_ptr<os::ByteStream> stream;
    std::string peer;
    Bytes early;
    os::Loop::Timer timeout;
  };

  // What a request asks for, on its way to be begun.
  struct Wanted {
    std::vector<SourceRecord> moves;
    std::string to;
    bool dry_run = false;
    std::vector<Findings> findings{};  // of the moves whose host is known
  };

  Result<Wanted> want(const nlohmann::json& request, const http::Caller& caller);
  Result<SourceRecord> plan_vm(const std::string& name, const nlohmann::json& request,
                               const http::Caller& caller);
  void find_host(std::shared_ptr<Wanted> wanted, std::shared_ptr<http::Responder> responder);
  // The id of a group that a text names.
  std::optional<MigrationId> group_of(const std::string& text) const;

  LibvirtSource* find_libvirt(const std::string& id) const;
  Move* find_move(const MigrationId& id) const;
  Result<Move*> find_source(const std::string& id);
  TargetMove* find_target(const std::string& id);
  ComponentTarget* find_component_target(const std::string& id) const;
  Result<> refer_to(Vm& vm, SourceRecord& record);
  Result<Move*> begin(SourceRecord record);
  std::vector<Move*> sources() const;
  void found_again(Move& move);
  Result<Move*> begin_again(const Move& old);
  void target_failed(PeerRequest request, const nlohmann::json& body);
  void launch(Wanted& wanted, http::Responder& responder);
  void conclude(Wanted& wanted, http::Responder& responder);
  void choose_strategy(SourceRecord& record, const Findings& findings) const;
  void answer_dry_run(const Wanted& wanted, http::Responder& responder);
  nlohmann::json estimate(const SourceRecord& record, const Findings& findings);
  void begin_in_time(const Move& move);
  void read_lane(std::uint64_t key);
  void prepare_target(PeerRequest request, const nlohmann::json& body);
  std::shared_ptr<SharedReader> group_reader(const std::string& peer, const SharedPlace& place);

  SourceMove::Context context_;
  HostSearch search_;
  LibvirtMoves libvirt_;
  ComponentMoves components_;
  std::map<MigrationId, std::unique_ptr<SourceMove>> sources_;
  std::map<MigrationId, std::unique_ptr<TargetMove>> targets_;
  // Of the groups on their way to here, by the peer and the id that it gave.
  std::map<std::pair<std::string, MigrationId>, std::weak_ptr<SharedPages>> group_pages_;
  std::map<std::uint64_t, NewLane> new_lanes_;
  std::uint64_t next_lane_ = 1;
  MoveGroups groups_;
  MoveResumption resumption_;
  std::map<MigrationId, os::Loop::Timer> scheduled_;
};

}  // namespace godwit::agent
