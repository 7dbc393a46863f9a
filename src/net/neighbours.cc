#include "net/neighbours.hh"

namespace godwit::net {
namespace {

constexpr Nanoseconds kReachable = seconds(30);  // RFC 4861, 10
constexpr Nanoseconds kRetry = seconds(1);
constexpr int kMostAsked = 3;
constexpr std::size_t kMostWaiting = 64;  // frames for one neighbour, as many as a batch

}  // namespace

std::optional<Mac> Neighbours::find(const Key& who) {
  const auto found = all_.find(who);
  if (found == all_.end()) return std::nullopt;
  found->second.is_used = true;
  return found->second.mac;
}

Neighbours::Waits Neighbours::wait(const Key& who, BytesView frame, Instant now) {
  auto found = all_.find(who);
  if (found == all_.end()) {
    if (all_.size() >= most_) return Waits::full;
    found = all_.emplace(who, State{.asked = 1, .due = now + kRetry}).first;
    found->second.waiting.push_back(to_bytes(frame));
    account_.changed(who);
    return Waits::ask;
  }
  auto& waiting = found->second.waiting;
  if (waiting.size() >= kMostWaiting) return Waits::full;
  waiting.push_back(to_bytes(frame));
  account_.changed(who);
  return Waits::waits;
}

std::vector<Bytes> Neighbours::learn(const Key& who, Mac mac, bool is_new, Instant now) {
  auto found = all_.find(who);
  if (found == all_.end()) {
    if (!is_new || all_.size() >= most_) return {};
    found = all_.emplace(who, State{}).first;
  }
  State& state = found->second;
  state.mac = mac;
  state.asked = 0;
  state.is_used = false;
  state.due = now + kReachable;
  std::vector<Bytes> frames(std::make_move_iterator(state.waiting.begin()),
                            std::make_move_iterator(state.waiting.end()));
  state.waiting.clear();
  state.told_waiting = 0;
  account_.changed(who);
  return frames;
}

std::vector<Neighbours::Question> Neighbours::tick(Instant now,
                                                   std::vector<std::pair<Key, Bytes>>& lost) {
  std::vector<Question> questions;
  for (auto each = all_.begin(); each != all_.end();) {
    auto& [who, state] = *each;
    const bool is_unused = state.mac && state.asked == 0 && !state.is_used;
    if (state.due > now) {
      ++each;
    } else if (is_unused || state.asked >= kMostAsked) {
      for (Bytes& frame : state.waiting) lost.emplace_back(who, std::move(frame));
      account_.removed(who);
      each = all_.erase(each);
    } else {
      questions.push_back({.who = who, .mac = state.mac});
      ++state.asked;
      state.due = now + kRetry;
      ++each;
    }
  }
  return questions;
}

void Neighbours::forget_port(PortIndex port) {
  std::erase_if(all_, [&](const auto& each) {
    if (each.first.port != port) return false;
    account_.removed(each.first);
    return true;
  });
}

std::vector<Neighbours::Entry> Neighbours::entries() const {
  std::vector<Entry> all;
  for (const auto& [who, state] : all_) all.push_back({.who = who, .mac = state.mac});
  return all;
}

void Neighbours::begin_account() {
  account_.begin();
  for (auto& [who, state] : all_) {
    state.told_waiting = 0;
    account_.changed(who);
  }
}

std::optional<Neighbours::Told> Neighbours::next_untold() {
  const auto who = account_.next_untold();
  if (!who) return std::nullopt;
  State& state = all_.at(*who);
  Told told{.entry = {.who = *who, .mac = state.mac},
            .is_used = state.is_used || state.asked > 0,
            .due = state.due};
  if (state.told_waiting < state.waiting.size()) told.frame = state.waiting[state.told_waiting++];
  if (state.told_waiting < state.waiting.size()) account_.changed(*who);
  return told;
}

void Neighbours::put(const Told& told, Instant now) {
  const auto& [who, mac] = told.entry;
  if (!all_.contains(who) && all_.size() >= most_) return;
  State& state = all_[who];
  state.mac = mac;
  state.is_used = told.is_used;
  state.asked = 0;
  state.due = mac ? told.due : now;
  if (mac) {
    state.waiting.clear();
    state.told_waiting = 0;
  } else if (told.frame && state.waiting.size() < kMostWaiting) {
    state.waiting.push_back(to_bytes(*told.frame));
  }
  account_.changed(who);
}

void Neighbours::remove(const Key& who) {
  if (all_.erase(who) != 0) account_.removed(who);
}

}  // namespace godwit::net
