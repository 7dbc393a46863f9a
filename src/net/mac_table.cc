#include "net/mac_table.hh"

#include "net/mixed.hh"

#include <fmt/format.h>

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>

namespace godwit::net {
namespace {

constexpr int kMacBits = 48;

std::uint64_t key_of(Vlan vlan, Mac mac) { return std::uint64_t{vlan} << kMacBits | mac; }

struct Value {
  PortIndex port = 0;
  bool is_static = false;
  Instant seen{};
};

MacTable::Entry entry_of(std::uint64_t key, const Value& value) {
  return {.vlan = static_cast<Vlan>(key >> kMacBits),
          .mac = key & ((std::uint64_t{1} << kMacBits) - 1),
          .port = value.port,
          .is_static = value.is_static};
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
    map_->of.emplace(key, Value{.port = port, .seen = now});
    return Learned::known;
  }
  Value& value = found->second;
  if (value.is_static) return Learned::known;
  value.seen = now;
  return std::exchange(value.port, port) == port ? Learned::known : Learned::moved;
}

void MacTable::limit(std::size_t most, Nanoseconds ageing) {
  most_ = most;
  ageing_ = ageing;
  map_->of.reserve(most);
}

void MacTable::pin(Vlan vlan, Mac mac, PortIndex port) {
  map_->of[key_of(vlan, mac)] = {.port = port, .is_static = true};
}

std::optional<PortIndex> MacTable::find(Vlan vlan, Mac mac, Instant now) const {
  const auto found = map_->of.find(key_of(vlan, mac));
  if (found == map_->of.end()) return std::nullopt;
  const Value& value = found->second;
  if (!value.is_static && now - value.seen > ageing_) return std::nullopt;
  return value.port;
}

void MacTable::forget_if(const std::function<bool(const Entry&)>& is_wrong) {
  boost::unordered::erase_if(
      map_->of, [&](const auto& each) { return is_wrong(entry_of(each.first, each.second)); });
}

void MacTable::forget_old(Instant now) {
  boost::unordered::erase_if(map_->of, [&](const auto& each) {
    return !each.second.is_static && now - each.second.seen > ageing_;
  });
}

std::size_t MacTable::size() const { return map_->of.size(); }

std::vector<MacTable::Entry> MacTable::entries() const {
  std::vector<Entry> all;
  for (const auto& [key, value] : map_->of) all.push_back(entry_of(key, value));
  std::ranges::sort(all, {}, [](const Entry& each) { return key_of(each.vlan, each.mac); });
  return all;
}

}  // namespace godwit::net
