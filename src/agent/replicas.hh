#pragma once
// Copies of vms' disks that are kept at other hosts, for the vms to move there quickly: run after
// run, each takes over what the guest wrote since the one before. Between two runs a replica is a
// mixture of moments, and no backup; a move compares it, as what a move that broke off left.
//
//   source:  Replicas --every--> ReplicaSource (dirty bitmaps, transfer)
//   target:  Replicas --replica.begin--> ReplicaTarget (storage daemon)
//
// Control thread. docs/protocol/disks.md, "Replicas".
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/disks.hh"
#include "agent/events.hh"
#include "agent/host_search.hh"
#include "agent/peers.hh"
#include "agent/replica_source.hh"
#include "agent/replica_target.hh"
#include "agent/vms.hh"
#include "http/responder.hh"
#include "store/store.hh"

namespace godwit::agent {

inline constexpr Nanoseconds kDefaultEvery = std::chrono::minutes(10);
inline constexpr Nanoseconds kLeastEvery = seconds(1);
inline constexpr Nanoseconds kMostEvery = std::chrono::hours(24 * 30);

// kind "replica", by "VM-ID HOST", at the vm's host.
struct ReplicaRecord {
  VmId vm_id;
  std::string vm, tenant, to;
  Nanoseconds every = kDefaultEvery;
  BitRate rate{};              // zero: no cap
  std::string synced;          // see ReplicaSource::Settings
  std::int64_t synced_at = 0;  // when that run began, since 1970; 0: none came whole yet
};

class Replicas final {
 public:
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Vms& vms;
    Disks& disks;
    Peers& peers;
    Events& events;
  };
  Replicas(const Context& context, HostSearch::HostsCalled hosts_called);

  void start();

  // {vm, to, every?, rate?}: a new one, or those settings of one that there is. Answers.
  void add(const nlohmann::json& request, const std::string& tenant, http::Responder responder);
  std::vector<nlohmann::json> list() const;
  std::optional<nlohmann::json> show(const std::string& vm, const std::string& to);
  // A run at once.
  Result<> sync(const std::string& vm, const std::string& to);
  // Nothing is left of it at either host. With `force` also where the other cannot be asked.
  void remove(const std::string& vm, const std::string& to, bool force,
              std::function<void(Result<>)> done);
  bool has(const std::string& vm) const;

  // The vm is about to move away: what is under way for it ends, and nothing begins while the word
  // is held.
  using Hold = std::shared_ptr<const bool>;
  [[nodiscard]] Hold hold(const VmId& vm);
  // What comes for it ends, as it is to come itself or to be removed.
  void make_way(const VmId& vm);
  void make_way(const std::string& vm, const std::string& tenant);

  void on_request(PeerRequest request, const nlohmann::json& body);
  void on_session_up(const std::string& peer);
  // False: it is for none of ours.
  bool use_lane(const std::string& peer, const stream::Hello& hello,
                std::unique_ptr<os::ByteStream>& lane, BytesView early);

 private:
  struct Replica {
    ReplicaRecord record;
    std::unique_ptr<ReplicaSource> run{};
    std::int64_t run_began = 0;
    Instant due{}, counted{}, began{};
    Instant ask_again{};   // its host, to remove it
    std::string reason{};  // why there is no run, or how the last failed
    std::optional<std::uint64_t> behind_bytes{};
    std::uint64_t runs = 0;         // that came whole, since the agent began
    nlohmann::json last = nullptr;  // of these
  };
  static std::string key_of(const VmId& vm, const std::string& to);
  Replica* find(const std::string& vm, const std::string& to);
  nlohmann::json describe(const Replica& replica) const;
  void save(const ReplicaRecord& record);
  void accept(ReplicaRecord wanted, const nlohmann::json& settings,
              const std::vector<Check>& checks, http::Responder& responder);
  void look();
  void look(const std::string& key, Replica& replica);
  std::string hindrance(const Replica& replica);
  void count(const std::string& key, Replica& replica, Vm& vm);
  void run(const std::string& key, Replica& replica, Vm& vm);
  void ended(const std::string& key, const Result<>& result);
  void forget(const std::string& key);
  void end_of_vm(const std::string& key, Replica& replica);
  void forget_bitmaps(const ReplicaRecord& record, std::function<void()> done);
  void take_in(PeerRequest request, const nlohmann::json& body);
  Result<std::vector<qemu::DiskPaths>> receive(ReplicaTarget::Run& run, const std::string& synced);
  void adopt(PeerRequest request, const nlohmann::json& body);
  void end(const stream::TransferId& id);
  bool is_held(const VmId& vm) const;

  Context context_;
  HostSearch search_;
  std::map<std::string, Replica> replicas_;
  std::map<VmId, std::weak_ptr<const bool>> held_;
  std::map<stream::TransferId, std::unique_ptr<ReplicaTarget>> coming_;
  std::map<stream::TransferId, std::string> failed_;  // some that were coming, and why
  os::Loop::Timer timer_;
};

}  // namespace godwit::agent
