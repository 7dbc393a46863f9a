#pragma once
// A migration at its source, as those have it who list, steer and group migrations; what moves is a
// vm (SourceMove) or a component (ComponentSource). Control thread.
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "agent/group_pages.hh"
#include "agent/move_options.hh"
#include "migrate/source.hh"

namespace godwit::agent {

class Move {
 public:
  virtual ~Move() = default;

  // Recorded: from now on it is known, also after a restart.
  virtual Result<> accept() = 0;
  virtual void begin() = 0;
  // The agent was restarted, and has read it in the journal.
  virtual void restart() = 0;
  virtual void feed(migrate::SourceEvent event, std::string text) = 0;
  void feed(migrate::SourceEvent event) { feed(event, {}); }
  virtual void give_up() = 0;  // as an operator wants it
  virtual Result<> set(const MoveChanges& changes) = 0;

  // An agent's restart is about to end it: another is to go on with it, if that is wished and it is
  // not too late. Then: as which one, or none does after all.
  virtual void break_off() = 0;
  virtual void went_on(const std::optional<MigrationId>& as) = 0;

  // A group's member. Before begin(): its memory is sent as one of a group's. Then: its part of the
  // group's cap, which is not its own wish; what changed for all.
  virtual void share(const std::shared_ptr<SharedIndex>& index) = 0;
  virtual void share_bandwidth(BitRate cap) = 0;
  virtual void regroup(const GroupPlace& place) = 0;
  virtual double remaining_bytes() const = 0;
  virtual double dirty_bytes_per_second() const = 0;

  virtual const SourceRecord& record() const = 0;
  virtual migrate::SourceState state() const = 0;
  virtual const std::string& reason() const = 0;
  // What the API shows: the state in design 9's words, progress, report.
  virtual nlohmann::json describe() const = 0;
  // The event "progress": phase, and once it is copied round, remaining_bytes, rate_bps, ...
  virtual nlohmann::json progress() const = 0;
  virtual bool over() const = 0;
  // Nothing is to follow.
  virtual bool handed_over() const = 0;
  // But how its network fared is about to be told.
  virtual bool network_follows() const { return false; }
  // It aborts, and QEMU does not give the guest back: nobody waits for that any longer.
  virtual bool stuck() const { return false; }
};

}  // namespace godwit::agent
