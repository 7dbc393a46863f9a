#include "agent/move_resumption.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "stream/transfer.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kResumeLook = milliseconds(200);
constexpr Nanoseconds kPatience = stream::kLanePatience;  // for a target that does not come back

}  // namespace

MoveResumption::MoveResumption(os::Loop& loop, const Peers& peers, Events& events, All all,
                               Again again)
    : loop_(loop), peers_(peers), all_(std::move(all)), again_(std::move(again)) {
  events.observe([this](std::string_view name, const nlohmann::json&) {
    if (name == "migration") look_soon();
  });
}

// Not now: a move is in the middle of what it tells.
void MoveResumption::look_soon() {
  if (!timer_) timer_ = loop_.after(Nanoseconds(0), [this] { look(); });
}

// First who is ready, then all at once: one of a group that goes on is not over any more.
void MoveResumption::look() {
  timer_.reset();
  const auto all = all_();
  std::map<MigrationId, Instant> waiting;
  std::vector<MigrationId> ready;
  for (Move* move : all) {
    const MigrationId id = move->record().id;
    if (!goes_on(move->record())) continue;
    const auto known = waiting_.find(id);
    const Instant since = known == waiting_.end() ? loop_.now() : known->second;
    const auto others = others_of(*move, all);
    if (is_alone(others) || loop_.now() - since > kPatience) {
      move->went_on(std::nullopt);
    } else if (is_through(move) &&
               std::ranges::all_of(others, [this](const Move* each) { return is_through(each); })) {
      ready.push_back(id);
    } else {
      waiting[id] = since;
    }
  }
  waiting_ = std::move(waiting);
  for (const MigrationId& id : ready) go_on(id);
  if (!waiting_.empty()) timer_ = loop_.after(kResumeLook, [this] { look(); });
}

// Of its group, as they are now.
std::vector<const Move*> MoveResumption::others_of(const Move& move,
                                                   const std::vector<Move*>& all) {
  std::vector<const Move*> others;
  for (const Move* each : all) {
    const auto& group = each->record().group;
    const bool is_other = group && move.record().group && group->id == move.record().group->id &&
                          each != &move && each->record().resumed_as.empty();
    if (is_other && !each->handed_over()) others.push_back(each);
  }
  return others;
}

bool MoveResumption::is_through(const Move* move) const {
  return move->over() && peers_.is_up(move->record().to);
}

// One of the others has ended, and will not go on.
bool MoveResumption::is_alone(const std::vector<const Move*>& others) {
  return std::ranges::any_of(others, [](const Move* each) {
    return each->state() == migrate::SourceState::aborted && !goes_on(each->record());
  });
}

void MoveResumption::go_on(const MigrationId& id) {
  const Move* known = find(id);
  if (known == nullptr) return;  // it has made room for another
  const auto next = again_(*known);
  if (!next) {
    spdlog::warn("migration {} does not go on: {}", id.text(), next.error().text);
  } else {
    spdlog::info("{}: migration {} goes on as {}", spoken_name((*next)->record()), id.text(),
                 (*next)->record().id.text());
  }
  Move* const old = find(id);
  if (old == nullptr) return;
  old->went_on(next ? std::optional((*next)->record().id) : std::nullopt);
}

Move* MoveResumption::find(const MigrationId& id) const {
  const auto all = all_();
  const auto found = std::ranges::find(all, id, [](const Move* each) { return each->record().id; });
  return found == all.end() ? nullptr : *found;
}

}  // namespace godwit::agent
