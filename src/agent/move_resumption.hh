#pragma once
// Moves that an agent's restart broke off before their hand-over: each is over at both ends, and
// another goes on with it, for which the target of a vm still has what came (KnownMemory). What is
// to go on is in the moves' records (SourceRecord::broken_off); a group goes on whole or not at
// all. Control thread.
#include <functional>
#include <map>
#include <vector>

#include "agent/events.hh"
#include "agent/move.hh"
#include "agent/peers.hh"
#include "os/loop.hh"

namespace godwit::agent {

class MoveResumption final {
 public:
  // `all`: those that this host is the source of. `again`: begins another like it, which may cost
  // the journal's oldest its place.
  using All = std::function<std::vector<Move*>()>;
  using Again = std::function<Result<Move*>(const Move& old)>;
  MoveResumption(os::Loop& loop, const Peers& peers, Events& events, All all, Again again);
  // Also those of the journal.
  void start() { look_soon(); }

 private:
  void look_soon();
  void look();
  static std::vector<const Move*> others_of(const Move& move, const std::vector<Move*>& all);
  static bool is_alone(const std::vector<const Move*>& others);
  bool is_through(const Move* move) const;
  void go_on(const MigrationId& id);
  Move* find(const MigrationId& id) const;

  os::Loop& loop_;
  const Peers& peers_;
  All all_;
  Again again_;
  std::map<MigrationId, Instant> waiting_;  // since when
  os::Loop::Timer timer_;
};

}  // namespace godwit::agent
