#pragma once
// All migrations this host takes part in, as source or target: started by the API, answered to
// peers, found again in the journal after a restart.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/preflight.hh"
#include "agent/source_move.hh"
#include "agent/target_move.hh"
#include "http/caller.hh"
#include "http/responder.hh"

namespace godwit::agent {

class Migrations final {
 public:
  // hosts_of_site: for --to SITE.
  Migrations(SourceMove::Context context,
             std::function<std::vector<std::string>(const std::string& site)> hosts_of_site);

  // Reads the journal and goes on where it ended. After Vms::start() and Network::start().
  void start();

  // API.
  void add(const nlohmann::json& request, const http::Caller& caller, http::Responder responder);
  bool is_moving(const std::string& vm) const;
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

  // A move that was asked for, while preflight looks for a host that can take the vm.
  struct Wanted {
    SourceRecord record;
    bool dry_run = false;
    std::int64_t at = 0;
    std::vector<std::string> hosts;  // not asked yet, the next one last
    std::vector<Check> refused{};    // by those that were
    http::Responder responder;
  };

  Result<std::vector<std::string>> hosts_of(const std::string& to) const;
  Result<SourceRecord> plan(const nlohmann::json& request, const http::Caller& caller);

  Result<SourceMove*> find_source(const std::string& id);
  TargetMove* find_target(const std::string& id);
  void launch(SourceRecord record, std::int64_t at, http::Responder responder);
  void try_next_host(std::shared_ptr<Wanted> wanted);
  void conclude(Wanted& wanted, const std::vector<Check>& checks);
  void answer_dry_run(const SourceRecord& record, const std::vector<Check>& checks,
                      http::Responder& responder);
  void begin_at(MigrationId id, std::int64_t at);
  void read_lane(std::uint64_t key);
  void prepare_target(PeerRequest request, const nlohmann::json& body);

  SourceMove::Context context_;
  std::function<std::vector<std::string>(const std::string&)> hosts_of_site_;
  std::map<MigrationId, std::unique_ptr<SourceMove>> sources_;
  std::map<MigrationId, std::unique_ptr<TargetMove>> targets_;
  std::map<std::uint64_t, NewLane> new_lanes_;
  std::uint64_t next_lane_ = 1;
  std::map<MigrationId, os::Loop::Timer> scheduled_;
};

}  // namespace godwit::agent
