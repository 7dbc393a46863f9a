#include "net/nat.hh"

#include <algorithm>

#include "net/mixed.hh"
#include "net/packet.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kMostTries = 256;  // ports that are looked at for a new flow

template <class T>
bool fits(const std::vector<T>& wanted, const T& value) {
  return wanted.empty() || std::ranges::find(wanted, value) != wanted.end();
}
bool fits(const std::vector<IpPrefix>& wanted, Ip ip) {
  return wanted.empty() ||
         std::ranges::any_of(wanted, [ip](const IpPrefix& each) { return each.contains(ip); });
}

bool has_ports(std::uint8_t protocol) { return protocol == kTcp || protocol == kUdp; }
bool is_icmp(std::uint8_t protocol) { return protocol == kIcmp || protocol == kIcmp6; }

std::uint64_t hash_of(Ip ip, std::uint64_t seed) { return mixed(mixed(ip.high ^ seed) ^ ip.low); }

// Of the same length: the bits behind it stay.
Ip moved(Ip ip, const IpPrefix& from, const IpPrefix& to) {
  return {to.address.high | (ip.high ^ from.address.high),
          to.address.low | (ip.low ^ from.address.low)};
}

Ip one_of(const IpRange& range, Ip inside, std::uint64_t seed) {
  const std::uint64_t more = range.last.low - range.first.low;
  const std::uint64_t hash = hash_of(inside, seed);
  return {range.first.high,
          range.first.low + (more == ~std::uint64_t{0} ? hash : hash % (more + 1))};
}

bool applies(const Masquerade& rule, const Tuple& arrived, PortIndex out) {
  return fits(rule.out, out) && fits(rule.from, arrived.source) &&
         (!rule.to || rule.to->first.is4() == arrived.source.is4());
}

bool applies(const Forward& rule, const Tuple& tuple, PortIndex in) {
  if (!fits(rule.in, in) || tuple.destination != rule.address) return false;
  if (!rule.protocol) return true;
  if (*rule.protocol == kIcmp) return is_icmp(tuple.protocol);
  return *rule.protocol == tuple.protocol &&
         (!has_ports(tuple.protocol) || rule.ports.contains(tuple.destination_port));
}

Result<> check(const Masquerade& rule) {
  if (rule.ports.first > rule.ports.last) return fail("masquerade: it has no ports");
  if (!rule.to) return {};
  const auto& [first, last] = *rule.to;
  if (first.is4() != last.is4() || first.high != last.high || first > last) {
    return fail("masquerade: {} to {} is no range of addresses", first.text(), last.text());
  }
  return {};
}

Result<> check(const Forward& rule) {
  if (rule.address.is_unspecified()) return fail("a forward is of one address: say which");
  if (rule.address.is4() != rule.to.is4()) {
    return fail("forward of {}: {} is of the other family", rule.address.text(), rule.to.text());
  }
  if (rule.to.is_unspecified()) return fail("forward of {}: to where?", rule.address.text());
  const bool names_ports = rule.ports != PortRange{} || rule.to_port != 0;
  if (names_ports && !has_ports(rule.protocol.value_or(0))) {
    return fail("forward of {}: ports are of TCP or UDP: say which", rule.address.text());
  }
  if (rule.ports.first > rule.ports.last || rule.to_port + rule.ports.size() - 1 > 65535) {
    return fail("forward of {}: {} ports from {} on go beyond the last", rule.address.text(),
                rule.ports.size(), rule.to_port);
  }
  return {};
}

Result<> check(const OneToOne& rule) {
  const auto& [outside, inside] = std::tie(rule.outside, rule.inside);
  if (outside.length != inside.length || outside.address.is4() != inside.address.is4() ||
      !outside.is_network() || !inside.is_network()) {
    return fail("one to one: {} and {} are not networks of one size", outside.text(),
                inside.text());
  }
  return {};
}

// For the port from which a flow is to leave.
class PortSearch final {
 public:
  PortSearch(const NatState& state, Flow& flow, const Tuple& leaving, const SourceChoice& choice,
             Instant now)
      : state_(state), flow_(flow), leaving_(leaving), choice_(choice), now_(now) {
    leaving_.source = choice.ip;
    if (has_ports(leaving.protocol)) ports_ = choice.ports;
    inside_ = state.claims.name_of(source_of(flow.tuples[0]), leaving.protocol);
  }

  // First one that was its own, then nobody's, then any.
  bool find() {
    const std::uint16_t wanted = flow_.tuples[0].source_port;
    const bool has_others = has_ports(leaving_.protocol) || is_icmp(leaving_.protocol);
    if (!choice_.may_change_port || !has_others) return is_free(wanted);
    for (std::size_t i = 0; choice_.is_shared && i < kMostOwn; ++i) {
      if (owner_of(candidate(i)) == PortClaims::Owner::self && is_free(candidate(i))) return take();
    }
    std::optional<std::uint16_t> of_another;
    for (std::size_t i = 0; i <= std::min(ports_.size(), kMostTries); ++i) {
      const std::uint16_t port = candidate(i);
      if (!is_free(port)) continue;
      if (owner_of(port) != PortClaims::Owner::another) return take();
      if (!of_another) of_another = port;
    }
    return of_another && is_free(*of_another);
  }

 private:
  static constexpr std::size_t kMostOwn = 4;  // of its candidates one of the first is it

  bool is_free(std::uint16_t port) {
    leaving_.source_port = port;
    flow_.tuples[1] = leaving_.inverse();
    return flow_.tuples[1] != flow_.tuples[0] && !state_.flows.find(flow_.tuples[1], now_);
  }
  std::uint64_t name_of(std::uint16_t port) const {
    return state_.claims.name_of({leaving_.source, port}, leaving_.protocol);
  }
  PortClaims::Owner owner_of(std::uint16_t port) const {
    if (!choice_.is_shared) return PortClaims::Owner::nobody;
    return state_.claims.owner_of(name_of(port), inside_, now_);
  }
  bool take() {
    if (choice_.is_shared) state_.claims.claim(name_of(leaving_.source_port), inside_, now_);
    return true;
  }
  // The one it has; then of few ports each, of many some, each as likely to be free as any.
  std::uint16_t candidate(std::size_t i) const {
    const std::uint16_t wanted = flow_.tuples[0].source_port;
    if (i == 0 && ports_.contains(wanted)) return wanted;
    const bool are_few = ports_.size() <= kMostTries;
    const std::uint64_t hash = are_few ? inside_ + i : mixed(inside_ + i);
    return static_cast<std::uint16_t>(ports_.first + hash % ports_.size());
  }

  const NatState& state_;
  Flow& flow_;
  Tuple leaving_;
  const SourceChoice& choice_;
  Instant now_;
  PortRange ports_{};
  std::uint64_t inside_ = 0;
};

}  // namespace

Result<> check(const NatConfig& config) {
  for (const auto& rule : config.masquerade) {
    if (auto done = check(rule); !done) return done;
  }
  for (const auto& rule : config.forward) {
    if (auto done = check(rule); !done) return done;
  }
  for (const auto& rule : config.one_to_one) {
    if (auto done = check(rule); !done) return done;
  }
  return {};
}

std::optional<Endpoint> forwarded(const NatConfig& config, const Tuple& tuple, PortIndex in) {
  for (const Forward& rule : config.forward) {
    if (!applies(rule, tuple, in)) continue;
    Endpoint to{rule.to, tuple.destination_port};
    if (rule.to_port != 0) {
      to.port = static_cast<std::uint16_t>(to.port - rule.ports.first + rule.to_port);
    }
    return to;
  }
  for (const OneToOne& rule : config.one_to_one) {
    if (!rule.outside.contains(tuple.destination)) continue;
    return Endpoint{moved(tuple.destination, rule.outside, rule.inside), tuple.destination_port};
  }
  return std::nullopt;
}

std::optional<SourceChoice> masqueraded(const NatConfig& config, const Tuple& arrived,
                                        const Tuple& leaving, const Crossing& crossing,
                                        std::uint64_t seed) {
  if (crossing.out == kItself) return std::nullopt;
  for (const OneToOne& rule : config.one_to_one) {
    if (!fits(rule.out, crossing.out) || !rule.inside.contains(arrived.source)) continue;
    return SourceChoice{.ip = moved(arrived.source, rule.inside, rule.outside),
                        .may_change_port = false};
  }
  for (const Masquerade& rule : config.masquerade) {
    if (!applies(rule, arrived, crossing.out)) continue;
    return SourceChoice{.ip = rule.to ? one_of(*rule.to, arrived.source, seed) : crossing.own,
                        .ports = rule.ports,
                        .is_shared = true};
  }
  const bool is_hairpin = crossing.in == crossing.out && leaving.destination != arrived.destination;
  if (!is_hairpin) return std::nullopt;
  return SourceChoice{.ip = crossing.own, .ports = Masquerade{}.ports, .is_shared = true};
}

bool choose_reply(const NatState& state, Flow& flow, const Tuple& leaving,
                  const SourceChoice& choice, Instant now) {
  return PortSearch(state, flow, leaving, choice, now).find();
}

void claim_again(const NatConfig& config, PortClaims& claims, const Flow& flow,
                 std::uint64_t seed) {
  if (config.is_empty() || !flow.is_translated) return;
  const Tuple& arrived = flow.tuples[0];
  const Tuple leaving = flow.leaving(Way::original);
  const auto choice = masqueraded(config, arrived, leaving, {.in = flow.in, .out = flow.out}, seed);
  if (!choice || !choice->is_shared) return;
  claims.claim(claims.name_of(source_of(leaving), leaving.protocol),
               claims.name_of(source_of(arrived), arrived.protocol), flow.began);
}

}  // namespace godwit::net
