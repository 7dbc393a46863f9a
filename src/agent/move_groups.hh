#pragma once
// Groups of moves (migrate/group.hh): watches the members, tells them when it is their turn, shares
// the cap among them and what their memory has in common, and shows them as one migration to those
// who follow it. A group is what its members' records say; nothing else is kept of it. Control
// thread.
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "agent/events.hh"
#include "agent/move.hh"
#include "migrate/group.hh"

namespace godwit::agent {

class MoveGroups final {
 public:
  // `find`: the member's move; null when it is no longer known.
  using Find = std::function<Move*(const MigrationId&)>;
  MoveGroups(os::Loop& loop, Events& events, Find find);

  // A move whose record names its group. One with the place of another goes on with that.
  void add(Move& member);
  bool knows(const MigrationId& group) const { return groups_.contains(group); }

  nlohmann::json describe(const MigrationId& group);
  void follow(const MigrationId& group, std::shared_ptr<http::EventStream> stream);
  Result<> abort(const MigrationId& group);
  Result<> cutover(const MigrationId& group);
  Result<> set(const MigrationId& group, const MoveChanges& changes);

 private:
  struct Member {
    MigrationId move;
    bool cutover_told = false;
  };
  struct Group {
    GroupPlace place;  // of any member: what the group has in common
    std::vector<Member> members;
    std::shared_ptr<SharedIndex> index;  // of what their memory has in common
    bool is_live = true;
  };

  std::vector<Move*> moves_of(const Group& group) const;
  std::vector<migrate::GroupMember> view_of(const Group& group) const;
  void look();
  void look_at(const MigrationId& id, Group& group);
  void obey(const Group& group, const migrate::GroupVerdict& verdict);
  nlohmann::json progress(const Group& group) const;
  bool is_over(const Group& group) const;
  void arm();

  os::Loop& loop_;
  Events& events_;
  Find find_;
  std::map<MigrationId, Group> groups_;
  os::Loop::Timer timer_;
  bool looks_soon_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent
