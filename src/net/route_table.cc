#include "net/route_table.hh"

#include <algorithm>
#include <map>
#include <optional>

namespace godwit::net {
namespace {

constexpr std::size_t kIndexed = 64;  // ranges, from which on an index pays

Ip last_of(const IpPrefix& prefix) {
  const unsigned bits = prefix.length + (prefix.address.is4() ? 96U : 0U);
  const auto behind = [](unsigned count) {  // of 64 bits, those behind the first `count`
    return count >= 64 ? 0 : ~std::uint64_t{0} >> count;
  };
  return {prefix.address.high | (bits < 64 ? behind(bits) : 0),
          prefix.address.low | (bits < 64 ? ~std::uint64_t{0} : behind(bits - 64))};
}

// Empty: it is the last of all.
std::optional<Ip> after(Ip ip) {
  if (++ip.low == 0 && ++ip.high == 0) return std::nullopt;
  return ip;
}

struct Range {
  Ip begin{};
  RouteTable::Value value = RouteTable::kNone;
};

// A wider prefix comes before those in it; where one ends, the one around it goes on.
class Sweep final {
 public:
  void open(const IpPrefix& prefix, RouteTable::Value value) {
    close_before(prefix.address);
    add(prefix.address, value);
    open_.push_back({last_of(prefix), value});
  }
  std::vector<Range> finish() {
    while (!open_.empty()) close();
    return std::move(ranges_);
  }

 private:
  void close_before(Ip begin) {
    while (!open_.empty() && open_.back().first < begin) close();
  }
  void close() {
    const auto next = after(open_.back().first);
    open_.pop_back();
    if (next) add(*next, open_.empty() ? RouteTable::kNone : open_.back().second);
  }
  void add(Ip begin, RouteTable::Value value) {
    if (!ranges_.empty() && ranges_.back().begin == begin) ranges_.pop_back();
    ranges_.push_back({begin, value});
  }

  std::vector<std::pair<Ip, RouteTable::Value>> open_;  // where each ends
  std::vector<Range> ranges_;
};

}  // namespace

RouteTable::RouteTable(const std::vector<std::pair<IpPrefix, Value>>& routes) {
  std::map<IpPrefix, Value> in_order;  // wider ones first
  for (const auto& [prefix, value] : routes) in_order[prefix.network()] = value;
  Sweep sweep4, sweep6;
  for (const auto& [prefix, value] : in_order) {
    (prefix.address.is4() ? sweep4 : sweep6).open(prefix, value);
  }
  for (const Range& range : sweep4.finish()) {
    if (!range.begin.is4()) continue;  // behind the last of IPv4
    if (range.begin.as4() == 0) begins4_.clear(), values4_.clear();
    begins4_.push_back(range.begin.as4());
    values4_.push_back(range.value);
  }
  for (const Range& range : sweep6.finish()) {
    if (range.begin == Ip{}) begins6_.clear(), values6_.clear();
    begins6_.push_back(range.begin);
    values6_.push_back(range.value);
  }
  if (begins4_.size() < kIndexed) return;
  index4_.resize(65537);
  for (std::uint32_t high = 0; high < 65536; ++high) {
    const auto end = std::ranges::upper_bound(begins4_, high << 16);
    index4_[high] = static_cast<std::uint32_t>(end - begins4_.begin());
  }
  index4_[65536] = static_cast<std::uint32_t>(begins4_.size());
}

RouteTable::Value RouteTable::find4(std::uint32_t destination) const {
  auto first = begins4_.begin(), last = begins4_.end();
  if (!index4_.empty()) {
    first += index4_[destination >> 16] - 1;
    last = begins4_.begin() + index4_[(destination >> 16) + 1];
  }
  const auto found = std::upper_bound(first, last, destination);
  return values4_[static_cast<std::size_t>(found - begins4_.begin()) - 1];
}

RouteTable::Value RouteTable::find6(Ip destination) const {
  const auto found = std::ranges::upper_bound(begins6_, destination);
  return values6_[static_cast<std::size_t>(found - begins6_.begin()) - 1];
}

}  // namespace godwit::net
