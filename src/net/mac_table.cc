#include "net/mac_table.hh"

#include <fmt/format.h>

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <deque>

#include "net/mixed.hh"

namespace godwit::net {
namespace {

constexpr int kMacBits = 48;
// An address that goes on being seen is told so often while it would age.
constexpr int kToldPerAge = 16;

std::uint64_t key_of(Vlan vlan, Mac mac) { return std::uint64_t{vlan} << kMacBits | mac; }

struct Value {
  PortIndex port = 0;
  bool is_static = false;
  bool is_untold = false, is_told = false;  // may both be: it has changed since
  Instant seen{};
};

MacTable::Entry entry_of(std::uint64_t key, const Value& value) {
  return {.vlan = static_cast<Vlan>(key >> kMacBits),
          .mac = key & ((std::uint64_t{1} << kMacBits) - 1),
          .port = value.port,
          .is_static = value.is_static,
          .seen = value.seen};
}

// That it was seen since is told only where a part of its age ends: not of each frame.
bool is_told_late(Instant seen, Instant now, Nanoseconds ageing) {
  const Nanoseconds part = std::max<Nanoseconds>(ageing / kToldPerAge, milliseconds(1));
  return seen.time_since_epoch() / part != now.time_since_epoch() / part;
}

struct SeededHash {
  using is_avalanching = void;
  std::uint64_t seed = 0;
  std::size_t operator()(std::uint64_t key) const noexcept { return mixed(key ^ seed); }
};

}  // namespace

std::string to_text(Mac mac) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac >> 40 & 0xff,
                     mac >> 32 & 0xff, mac >> 24 & 0xff, mac >> 16 & 0xff, mac >> 8 & 0xff,
                     mac & 0xff);
}

struct MacTable::Map {
  boost::unordered_flat_map<std::uint64_t, Value, SeededHash> of;
  // The account.
  bool is_kept = false;
  std::deque<std::uint64_t> untold;  // each once, and in the map
  std::vector<std::uint64_t> gone;

  void changed(std::uint64_t key, Value& value) {
    if (!is_kept || value.is_untold) return;
    value.is_untold = true;
    untold.push_back(key);
  }
};

MacTable::MacTable(std::size_t most, Nanoseconds ageing, std::uint64_t seed)
    : most_(most), ageing_(ageing), map_(std::make_unique<Map>()) {
  map_->of = decltype(map_->of)(most, SeededHash{seed});
}

MacTable::~MacTable() = default;

MacTable::Learned MacTable::learn(Vlan vlan, Mac mac, PortIndex port, Instant now) {
  const std::uint64_t key = key_of(vlan, mac);
  const auto found = map_->of.find(key);
  if (found == map_->of.end()) {
    if (map_->of.size() >= most_) return Learned::full;
    map_->changed(key, map_->of.emplace(key, Value{.port = port, .seen = now}).first->second);
    return Learned::known;
  }
  Value& value = found->second;
  if (value.is_static) return Learned::known;
  const bool has_moved = value.port != port;
  if (map_->is_kept && (has_moved || is_told_late(value.seen, now, ageing_))) {
    map_->changed(key, value);
  }
  value.seen = now;
  value.port = port;
  return has_moved ? Learned::moved : Learned::known;
}

void MacTable::limit(std::size_t most, Nanoseconds ageing) {
  most_ = most;
  ageing_ = ageing;
  map_->of.reserve(most);
}

void MacTable::pin(Vlan vlan, Mac mac, PortIndex port) {
  remove(vlan, mac);
  map_->of[key_of(vlan, mac)] = {.port = port, .is_static = true};
}

std::optional<PortIndex> MacTable::find(Vlan vlan, Mac mac, Instant now) const {
  const auto found = map_->of.find(key_of(vlan, mac));
  if (found == map_->of.end()) return std::nullopt;
  const Value& value = found->second;
  if (!value.is_static && now - value.seen > ageing_) return std::nullopt;
  return value.port;
}

template <class IsWrong>
void MacTable::erase_if(IsWrong is_wrong) {
  const auto erased = boost::unordered::erase_if(map_->of, [&](const auto& each) {
    if (!is_wrong(entry_of(each.first, each.second))) return false;
    if (map_->is_kept && each.second.is_told) map_->gone.push_back(each.first);
    return true;
  });
  if (erased == 0) return;
  std::erase_if(map_->untold, [&](std::uint64_t key) { return !map_->of.contains(key); });
}

void MacTable::forget_if(const std::function<bool(const Entry&)>& is_wrong) { erase_if(is_wrong); }

void MacTable::forget_old(Instant now) {
  erase_if([&](const Entry& each) { return !each.is_static && now - each.seen > ageing_; });
}

void MacTable::begin_account() {
  end_account();
  map_->is_kept = true;
  for (auto& [key, value] : map_->of) {
    value.is_told = value.is_untold = false;
    if (!value.is_static) map_->changed(key, value);
  }
}

void MacTable::end_account() {
  map_->is_kept = false;
  map_->untold = {};
  map_->gone = {};
}

std::size_t MacTable::untold() const { return map_->untold.size() + map_->gone.size(); }

std::optional<MacTable::Entry> MacTable::next_gone() {
  if (map_->gone.empty()) return std::nullopt;
  const std::uint64_t key = map_->gone.back();
  map_->gone.pop_back();
  return entry_of(key, {});
}

std::optional<MacTable::Entry> MacTable::next_untold() {
  if (map_->untold.empty()) return std::nullopt;
  const std::uint64_t key = map_->untold.front();
  map_->untold.pop_front();
  Value& value = map_->of.at(key);
  value.is_untold = false;
  value.is_told = true;
  return entry_of(key, value);
}

void MacTable::put(const Entry& entry) {
  const std::uint64_t key = key_of(entry.vlan, entry.mac);
  if (!map_->of.contains(key) && map_->of.size() >= most_) return;
  Value& value = map_->of[key];
  if (value.is_static) return;
  value.port = entry.port;
  value.seen = entry.seen;
  map_->changed(key, value);
}

void MacTable::remove(Vlan vlan, Mac mac) {
  const auto found = map_->of.find(key_of(vlan, mac));
  if (found == map_->of.end() || found->second.is_static) return;
  const auto& [key, value] = *found;
  if (map_->is_kept && value.is_told) map_->gone.push_back(key);
  if (value.is_untold) std::erase(map_->untold, key);
  map_->of.erase(found);
}

std::size_t MacTable::size() const { return map_->of.size(); }

std::vector<MacTable::Entry> MacTable::entries() const {
  std::vector<Entry> all;
  for (const auto& [key, value] : map_->of) all.push_back(entry_of(key, value));
  std::ranges::sort(all, {}, [](const Entry& each) { return key_of(each.vlan, each.mac); });
  return all;
}

}  // namespace godwit::net
