#include "agent/lent_addresses.hh"

#include <nlohmann/json.hpp>

#include "os/wall_clock.hh"

namespace godwit::agent {
namespace {

constexpr const char* kKind = "lent address";
// As long as a connection that says nothing is known (docs/protocol/endpoint.md).
constexpr std::int64_t kOutlives = 10LL * 24 * 3600;

}  // namespace

void LentAddresses::start() {
  for (const auto& document : store_.list(kKind)) {
    const auto address = parse_ip(document.key);
    if (address) until_[*address] = document.body.value("until", std::int64_t{0});
  }
  forget_old();
}

void LentAddresses::lend(const Ip& address, std::int64_t relayed_until) {
  forget_old();
  const std::int64_t until = relayed_until + kOutlives;
  until_[address] = until;
  store_.put(kKind, address.text(), {{"until", until}});
}

std::set<Ip> LentAddresses::now() const {
  std::set<Ip> lent;
  for (const auto& [address, until] : until_) {
    if (os::wall_clock_seconds() < until) lent.insert(address);
  }
  return lent;
}

void LentAddresses::forget_old() {
  const std::set<Ip> lent = now();
  std::erase_if(until_, [&](const auto& each) {
    if (lent.contains(each.first)) return false;
    store_.erase(kKind, each.first.text());
    return true;
  });
}

}  // namespace godwit::agent
