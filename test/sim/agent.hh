#pragma once
// An agent as far as moves are concerned: the real machines, queues, bounds and store of src/, and
// of what src/agent does around them the order of things, on engines and processes that are played.
// It knows what its store says, like one that was just started.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "migrate/bounds.hh"
#include "migrate/event_queue.hh"
#include "migrate/points.hh"
#include "migrate/source.hh"
#include "migrate/target.hh"
#include "store/store.hh"
#include "wire/engine.hh"

namespace godwit::sim {

class Cloud;

// Thrown at a point of a hand-over at which the agent is killed; whoever called the agent ends it.
struct Killed {};

struct Reply {
  enum class Kind { ok, owns, refuses, error };
  Kind kind = Kind::ok;
  std::string text{};
  nlohmann::json body{};
};

class Agent final {
 public:
  using Answer = std::function<void(const Reply&)>;

  // Call start() next.
  Agent(Cloud& cloud, std::string host);
  void start();

  // Runs what may kill the agent, which then is no more.
  void guarded(const std::function<void()>& work);

  // ---- from outside ----
  // Whether the move was accepted.
  bool migrate(const std::string& guest, const std::string& to, migrate::SourceOptions options,
               bool postcopy = false);
  void cutover(const std::string& guest);
  void abort(const std::string& guest);  // at either end
  void resolve_target_destroyed(const std::string& guest);
  void resolve_source_destroyed(const std::string& guest);
  void session_up(const std::string& peer);
  void request(const std::string& from, const std::string& method, const nlohmann::json& body,
               const Answer& answer);
  void wire_event(const wire::Event& event);
  void process_ended(std::uint64_t number);
  void process_loaded(std::uint64_t number, const std::string& migration);
  void stream_verified(const std::string& migration);
  bool takes_stream(const std::string& migration) const;

  // ---- what it knows ----
  bool is_alive() const { return *alive_; }
  void die() { *alive_ = false; }
  store::Store& store() { return *store_; }
  std::optional<migrate::SourceState> source_state(const std::string& guest) const;
  std::optional<migrate::TargetState> target_state(const std::string& guest) const;
  bool undecided(const std::string& guest) const;
  bool is_moving(const std::string& guest) const;
  bool has_vm(const std::string& guest);
  // All moves are over and told, or wait for what cannot come.
  bool is_idle() const;
  std::string describe() const;

 private:
  struct SourceMove;
  struct TargetMove;
  // A timer is for the last thing that was armed on it.
  using Timer = std::uint64_t;

  void after(Nanoseconds delay, std::function<void()> work);
  void arm(Timer& timer, Nanoseconds delay, std::function<void()> work);
  void ask(const std::string& peer, const std::string& method, nlohmann::json body,
           Nanoseconds timeout, Answer answer);
  template <class Call>
  void at_engine(Call call);
  Nanoseconds moment(Nanoseconds most);

  // moves
  SourceMove& make_source(const nlohmann::json& record);
  TargetMove& make_target(const nlohmann::json& record);
  Result<> perform(SourceMove& move, migrate::SourceEffect effect);
  Result<> perform(TargetMove& move, migrate::TargetEffect effect);
  void resume_guest(SourceMove& move);
  void release_ports(SourceMove& move);
  void forget_guest(const SourceMove& move);
  void commit_target(SourceMove& move);
  void allow_switchover(SourceMove& move);
  void pump(SourceMove& move);
  void stage_over(SourceMove& move);
  void package_over(SourceMove& move);
  void recover_memory(SourceMove& move);
  void tell_lost(SourceMove& move);
  void prepare_guest(TargetMove& move);
  bool hold_port(TargetMove& move);
  void look_at_guest(TargetMove& move);
  void maybe_loaded(TargetMove& move);
  void run_guest(TargetMove& move);
  void discard_guest(TargetMove& move);
  void run_ports(TargetMove& move);
  void restart(TargetMove& move);
  std::optional<std::uint64_t> arriving(const TargetMove& move);
  void reply(TargetMove& move, const Reply& reply);
  SourceMove* source(const std::string& id);
  TargetMove* target(const std::string& id);
  SourceMove* source_of(const std::string& guest) const;
  TargetMove* target_of(const std::string& guest) const;

  // ports
  void open_ports();
  wire::WireConfig wire_of(const nlohmann::json& record) const;
  void look_up_peer(const PortId& port);

  Cloud& cloud_;
  const std::string host_;
  std::unique_ptr<store::Store> store_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Timer last_timer_ = 0;
  std::map<std::string, std::shared_ptr<SourceMove>> sources_;
  std::map<std::string, std::shared_ptr<TargetMove>> targets_;
  std::map<std::string, nlohmann::json> arriving_ports_, arriving_wires_;  // by port
  std::set<std::string> held_ready_;
  std::map<std::string, std::function<void()>> leaving_;
};

}  // namespace godwit::sim
