#include "net/filter.hh"

#include <algorithm>

#include "base/check.hh"
#include "net/packet.hh"

namespace godwit::net {
namespace {

template <class T>
bool fits(const std::vector<T>& wanted, const T& value) {
  return wanted.empty() || std::ranges::find(wanted, value) != wanted.end();
}
bool fits(const std::vector<IpPrefix>& wanted, Ip ip) {
  return wanted.empty() ||
         std::ranges::any_of(wanted, [ip](const IpPrefix& each) { return each.contains(ip); });
}
bool fits(const std::vector<PortRange>& wanted, std::uint16_t port) {
  return wanted.empty() ||
         std::ranges::any_of(wanted, [port](PortRange each) { return each.contains(port); });
}

bool is_of(std::uint8_t wanted, std::uint8_t protocol) {
  return wanted == protocol || (wanted == kIcmp && protocol == kIcmp6);
}
bool has_ports(std::uint8_t protocol) { return protocol == kTcp || protocol == kUdp; }
bool has_types(std::uint8_t protocol) { return protocol == kIcmp || protocol == kIcmp6; }

bool fits(const FilterRule& rule, const FilterSubject& subject) {
  const Tuple& tuple = subject.tuple;
  const std::uint8_t states = rule.states != 0 ? rule.states : std::uint8_t{kNew};
  return (states & subject.state) != 0 &&
         (!rule.protocol || is_of(*rule.protocol, tuple.protocol)) && fits(rule.in, subject.in) &&
         fits(rule.out, subject.out) && fits(rule.from, tuple.source) &&
         fits(rule.to, tuple.destination) && fits(rule.source_ports, tuple.source_port) &&
         fits(rule.destination_ports, tuple.destination_port) &&
         fits(rule.icmp_types, subject.icmp_type);
}

// "rule 3: ..."
Result<> check(const FilterRule& rule, std::size_t number) {
  const bool names_ports = !rule.source_ports.empty() || !rule.destination_ports.empty();
  if (names_ports && !has_ports(rule.protocol.value_or(0))) {
    return fail("rule {}: ports are of TCP or UDP: say which protocol", number);
  }
  if (!rule.icmp_types.empty() && !has_types(rule.protocol.value_or(0))) {
    return fail("rule {}: types are of ICMP: say that protocol", number);
  }
  for (const auto* ranges : {&rule.source_ports, &rule.destination_ports}) {
    for (const PortRange each : *ranges) {
      if (each.first <= each.last) continue;
      return fail("rule {}: ports {} to {} are none", number, each.first, each.last);
    }
  }
  for (const auto* prefixes : {&rule.from, &rule.to}) {
    for (const IpPrefix& each : *prefixes) {
      if (each.is_network()) continue;
      return fail("rule {}: {} has bits behind its length: {} is the network", number, each.text(),
                  each.network().text());
    }
  }
  if (rule.states > (kNew | kEstablished | kRelated)) return fail("rule {}: no such state", number);
  return {};
}

}  // namespace

Result<> check(const FilterConfig& config) {
  for (std::size_t i = 0; i < config.rules.size(); ++i) {
    if (auto done = check(config.rules[i], i + 1); !done) return done;
  }
  return {};
}

void Filter::configure(FilterConfig config) {
  CHECK(check(config), "a configuration that was not checked");
  std::vector<RuleCounters> counters(config.rules.size());
  asked_ = kNew;
  for (std::size_t i = 0; i < config.rules.size(); ++i) {
    const auto same = std::ranges::find(config_.rules, config.rules[i]);
    const auto at = static_cast<std::size_t>(same - config_.rules.begin());
    if (at < counters_.size()) counters[i] = counters_[at];
    asked_ = static_cast<std::uint8_t>(asked_ | config.rules[i].states);
  }
  config_ = std::move(config);
  counters_ = std::move(counters);
}

std::size_t Filter::find(const FilterSubject& subject) const {
  const auto found = std::ranges::find_if(
      config_.rules, [&subject](const FilterRule& rule) { return fits(rule, subject); });
  return found == config_.rules.end() ? kNoRule
                                      : static_cast<std::size_t>(found - config_.rules.begin());
}

std::string_view Filter::judge(const FilterSubject& subject) {
  const std::size_t number = find(subject);
  Action action = subject.state == kNew ? config_.otherwise : Action::allow;
  if (number != kNoRule) {
    const FilterRule& rule = config_.rules[number];
    RuleCounters& counters = counters_[number];
    action = rule.action;
    ++counters.packets;
    counters.bytes += subject.bytes;
    if (rule.log) ++counters.logged;
  }
  if (action == Action::allow) return {};
  if (action == Action::reject) return "reject";
  return number == kNoRule ? "policy" : "rule";
}

bool Filter::refuses(const FilterSubject& subject) const {
  const std::size_t number = find(subject);
  return (number == kNoRule ? config_.otherwise : config_.rules[number].action) != Action::allow;
}

}  // namespace godwit::net
