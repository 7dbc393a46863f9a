#include "agent/move_groups.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace godwit::agent {

using migrate::SourceEvent;
using migrate::SourceState;

namespace {

// Of progress, and of the shares of the cap.
constexpr Nanoseconds kLookInterval = milliseconds(250);

}  // namespace

MoveGroups::MoveGroups(os::Loop& loop, Events& events, Find find)
    : loop_(loop), events_(events), find_(std::move(find)) {
  // Soon, not now: a move is in the middle of what it tells.
  events_.observe([this](std::string_view name, const nlohmann::json&) {
    if (name != "migration" || groups_.empty() || std::exchange(looks_soon_, true)) return;
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (alive.expired()) return;
      looks_soon_ = false;
      look();
    });
  });
}

void MoveGroups::add(Move& member) {
  const GroupPlace& place = *member.record().group;
  Group& group = groups_[place.id];
  group.place = place;
  group.members.resize(place.of);
  group.members[place.index] = {.move = member.record().id};
  group.is_live = true;
  if (!group.index) {
    group.index = std::make_shared<SharedIndex>(kMostShared.bytes / qemu::kPageBytes);
  }
  member.share(group.index);
  arm();
}

std::vector<Move*> MoveGroups::moves_of(const Group& group) const {
  std::vector<Move*> moves;
  for (const Member& member : group.members) {
    if (Move* move = find_(member.move)) moves.push_back(move);
  }
  return moves;
}

std::vector<migrate::GroupMember> MoveGroups::view_of(const Group& group) const {
  std::vector<migrate::GroupMember> view;
  for (const Member& member : group.members) {
    const Move* move = find_(member.move);
    if (move == nullptr) continue;
    view.push_back({.state = move->state(),
                    .cutover_told = member.cutover_told,
                    .remaining_bytes = move->remaining_bytes(),
                    .dirty_bytes_per_second = move->dirty_bytes_per_second()});
  }
  return view;
}

bool MoveGroups::is_over(const Group& group) const {
  return std::ranges::all_of(moves_of(group), [](const Move* move) {
    if (move->stuck()) return true;
    if (goes_on(move->record())) return false;
    const SourceState state = move->state();
    return migrate::is_final(state) || state == SourceState::committed ||
           state == SourceState::draining;
  });
}

void MoveGroups::arm() {
  const bool any = std::ranges::any_of(groups_, [](const auto& g) { return g.second.is_live; });
  if (any) timer_ = loop_.after(kLookInterval, [this] { look(); });
}

void MoveGroups::look() {
  std::erase_if(groups_, [this](const auto& group) { return moves_of(group.second).empty(); });
  for (auto& [id, group] : groups_) {
    if (group.is_live) look_at(id, group);
  }
  arm();
}

void MoveGroups::look_at(const MigrationId& id, Group& group) {
  if (moves_of(group).size() < group.members.size()) return;  // some are still to be added
  const auto verdict = migrate::judge(
      {.in_order = group.place.in_order, .hold = group.place.hold, .cap = group.place.cap},
      view_of(group));
  for (const std::size_t turn : verdict.cutover) group.members[turn].cutover_told = true;
  obey(group, verdict);
  events_.publish_progress(id, progress(group));
  if (!is_over(group)) return;
  group.is_live = false;
  group.index.reset();
  events_.close_followers(id, describe(id));
}

void MoveGroups::obey(const Group& group, const migrate::GroupVerdict& verdict) {
  for (const std::size_t turn : verdict.cutover) {
    find_(group.members[turn].move)->feed(SourceEvent::cutover);
  }
  for (std::size_t i = 0; i < verdict.caps.size(); ++i) {
    find_(group.members[i].move)->share_bandwidth(verdict.caps[i]);
  }
  if (!verdict.abort) return;
  const auto moves = moves_of(group);
  const auto failed = std::ranges::find_if(moves, [](const Move* move) {
    return move->state() == SourceState::aborting || move->state() == SourceState::aborted;
  });
  // Copied: the one that failed may be told, too.
  const std::string why = fmt::format("{} of the group does not move: {}",
                                      spoken_name((*failed)->record()), (*failed)->reason());
  const bool is_broken_off =
      std::ranges::any_of(moves, [](const Move* move) { return goes_on(move->record()); });
  for (Move* move : moves) {
    if (is_broken_off) move->break_off();  // what goes on is the whole group
    move->feed(SourceEvent::abort_requested, why);
  }
}

nlohmann::json MoveGroups::progress(const Group& group) const {
  nlohmann::json all = {{"phase", migrate::to_text(migrate::state_of(view_of(group)))},
                        {"members", nlohmann::json::array()}};
  for (const Move* move : moves_of(group)) {
    nlohmann::json one = move->progress();
    for (const char* sum : {"remaining_bytes", "total_bytes", "sent_bytes", "rate_bps",
                            "effective_rate_bps", "dirty_bps"}) {
      if (one.contains(sum)) all[sum] = all.value(sum, 0.0) + one[sum].get<double>();
    }
    for (const char* most : {"round", "eta_s", "predicted_pause_ms"}) {
      if (one.contains(most)) all[most] = std::max(all.value(most, 0.0), one[most].get<double>());
    }
    if (one.contains("divergence")) all["divergence"] = one["divergence"];
    all["lane_up"] = all.value("lane_up", true) && one.value("lane_up", true);
    one["vm"] = move->record().vm;
    all["members"].push_back(std::move(one));
  }
  return all;
}

nlohmann::json MoveGroups::describe(const MigrationId& id) {
  const Group& group = groups_.at(id);
  const auto moves = moves_of(group);
  nlohmann::json json = {{"id", id.text()},
                         {"state", migrate::to_text(migrate::state_of(view_of(group)))},
                         {"in_order", group.place.in_order},
                         {"members", nlohmann::json::array()}};
  std::int64_t first = INT64_MAX, last = 0;
  bool is_whole = true;
  for (const Move* move : moves) {
    nlohmann::json one = move->describe();
    if (one["state"] == "undecided" || move->stuck()) json["state"] = one["state"];
    is_whole = is_whole && move->state() != SourceState::aborted;
    for (const char* common : {"tenant", "from", "to", "started", "by"}) {
      if (!json.contains(common)) json[common] = one[common];
    }
    const std::int64_t at = move->record().handed_over_ms;
    if (at > 0) first = std::min(first, at), last = std::max(last, at);
    if (one.contains("goes_on")) json["goes_on"] = true;
    json["members"].push_back(std::move(one));
  }
  if (last > 0) json["spread_ms"] = last - first;
  if (last > 0 && !is_whole && is_over(group)) json["state"] = "partial";
  return json;
}

void MoveGroups::follow(const MigrationId& id, std::shared_ptr<http::EventStream> stream) {
  const Group& group = groups_.at(id);
  stream->push("progress", progress(group));
  if (group.is_live) return events_.follow(id, std::move(stream));
  stream->push("done", describe(id));
  stream->close();
}

Result<> MoveGroups::abort(const MigrationId& id) {
  const Group& group = groups_.at(id);
  if (is_over(group)) return fail("migration {} is over: migrate back instead", id.text());
  for (Move* move : moves_of(group)) move->give_up();
  return {};
}

Result<> MoveGroups::cutover(const MigrationId& id) {
  Group& group = groups_.at(id);
  if (is_over(group)) return fail("migration {} is over", id.text());
  group.place.hold = false;
  for (Move* move : moves_of(group)) move->regroup(group.place);
  look();
  return {};
}

Result<> MoveGroups::set(const MigrationId& id, const MoveChanges& changes) {
  Group& group = groups_.at(id);
  if (is_over(group)) return fail("migration {} is over", id.text());
  if (changes.bandwidth) group.place.cap = *changes.bandwidth;
  const auto moves = moves_of(group);
  // Limits are the vms', where there are some.
  const auto is_vm = [](const Move* move) { return move->record().component.is_zero(); };
  const bool has_vms = std::ranges::any_of(moves, is_vm);
  for (Move* move : moves) {
    const MoveChanges limits{.max_downtime = changes.max_downtime,
                             .bandwidth = std::nullopt,
                             .on_diverge = changes.on_diverge};
    const auto done = is_vm(move) || !has_vms ? move->set(limits) : Result<>{};
    if (!done) return done;  // the first's answer is that of all: they began alike
    move->regroup(group.place);
  }
  look();
  return {};
}

}  // namespace godwit::agent
