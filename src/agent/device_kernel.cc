#include "agent/device_kernel.hh"

#include <algorithm>

#include "os/forwarding.hh"
#include "os/segment.hh"

namespace godwit::agent {
namespace {

using translate::Rule;
using translate::RuleKind;
using translate::Rules;

struct DeviceParts {
  os::Rewrites rewrites{};
  std::map<Ip, RuleKind> claims{};  // who claims answers, too
};

DeviceParts parts_of(const Rules& rules) {
  DeviceParts parts;
  for (const Rule& rule : rules) {
    if (rewrites(rule.kind)) {
      auto& map = !rule.is_active                 ? parts.rewrites.staged
                  : rule.kind == RuleKind::depart ? parts.rewrites.depart
                                                  : parts.rewrites.arrive;
      map[rule.match] = rule.becomes;
    } else if (rule.is_active) {
      const auto [at, is_new] = parts.claims.try_emplace(rule.match, rule.kind);
      if (!is_new && rule.kind == RuleKind::claim) at->second = RuleKind::claim;
    }
  }
  return parts;
}

Rules rules_of(const os::Rewrites& rewrites) {
  Rules rules;
  for (const auto& [from, to] : rewrites.depart) rules.push_back({RuleKind::depart, from, to});
  for (const auto& [from, to] : rewrites.arrive) rules.push_back({RuleKind::arrive, from, to});
  for (const auto& [from, to] : rewrites.staged) {
    rules.push_back({RuleKind::depart, from, to, false});
  }
  return rules;
}

bool has_family(const os::Rewrites& rewrites, bool is4) {
  return std::ranges::any_of(rules_of(rewrites),
                             [&](const Rule& rule) { return rule.match.is4() == is4; });
}

}  // namespace

Result<> DeviceKernel::check(const Rules& rules) {
  for (const Rule& rule : rules) {
    if (rule.kind == RuleKind::arrive) {
      if (!rule.is_active) return fail("'{}': what arrives is never staged", to_text(rule));
      continue;
    }
    if (os::is_own_address(rule.match)) {
      return fail(
          "'{}': {} is an address of this device's own, and what its guest sends would be dropped "
          "as martian here: remove the address from the device",
          to_text(rule), rule.match.text());
    }
    if (!rewrites(rule.kind) && !os::segment_of(rule.match)) {
      return fail(
          "'{}': no interface of this device that is up has a network with {}: give the one on "
          "that segment an address of it",
          to_text(rule), rule.match.text());
    }
  }
  return {};
}

Result<DeviceKernel::Unclaimed> DeviceKernel::write(const Rules& wanted) try {
  const DeviceParts parts = parts_of(wanted);
  for (const bool is4 : {true, false}) {
    if (has_family(parts.rewrites, is4)) os::have_host_forward(is4);
  }
  release_but(parts.claims);
  if (const auto done = write_rewrites(parts.rewrites); !done) {
    return std::unexpected(done.error());
  }
  return make(parts.claims);
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

Result<> DeviceKernel::write_rewrites(const os::Rewrites& rewrites) {
  if (rewrites != os::Rewrites{}) return rewriting_.set(rewrites);
  rewriting_ = {};
  return os::AddressRewriting::remove();  // no packet passes by its chains in vain
}

void DeviceKernel::release_but(const Kinds& wanted) {
  for (auto at = claims_.begin(); at != claims_.end();) {
    if (wanted.contains(at->first)) {
      ++at;
      continue;
    }
    os::unclaim(at->second.interface, at->first);
    at = claims_.erase(at);
  }
}

DeviceKernel::Unclaimed DeviceKernel::make(const Kinds& wanted) {
  Unclaimed unclaimed;
  for (const auto& [address, kind] : wanted) {
    const auto held = claims_.find(address);
    const bool is_claim = kind == RuleKind::claim;
    if (held != claims_.end() && (!is_claim || held->second.kind == kind)) continue;
    try {
      const auto interface = os::segment_of(address);
      if (!interface) fail_setup("no interface that is up has a network with {}", address.text());
      claims_[address] = {.kind = RuleKind::answer, .interface = *interface};  // even if in part
      (is_claim ? os::claim : os::answer_for)(*interface, address);
      claims_[address].kind = kind;
    } catch (const SetupError& error) {
      unclaimed[address] = error.what();
    }
  }
  return unclaimed;
}

// ---- what is there ----

std::string DeviceKernel::interface_for(const Ip& address) const {
  if (auto interface = os::segment_of(address)) return *std::move(interface);
  const auto held = claims_.find(address);
  return held == claims_.end() ? std::string() : held->second.interface;
}

Result<bool> DeviceKernel::has_rewrites(const os::Rewrites& rewrites) {
  if (rewrites != os::Rewrites{}) return rewriting_.is_as_set();
  const auto found = os::AddressRewriting::read();
  if (!found) return std::unexpected(found.error());
  return *found == rewrites;
}

void DeviceKernel::compare_claims(const Kinds& wanted, const os::Claims& found,
                                  Difference& difference) const {
  for (const auto& [address, kind] : wanted) {
    if (!found.has(interface_for(address), address)) {
      difference.claims_missing.push_back({.kind = kind, .match = address});
    }
  }
  for (const Ip& address : found.routes) {
    const auto proxies = found.proxies.find(address);
    const std::size_t by = proxies == found.proxies.end() ? 0 : proxies->second.size();
    if (wanted.contains(address) && by < 2) continue;  // good, or missing
    difference.foreign.push_back({.kind = RuleKind::claim, .match = address});
  }
}

Result<DeviceKernel::Difference> DeviceKernel::compare(const Rules& wanted) try {
  const DeviceParts parts = parts_of(wanted);
  const auto found = os::AddressRewriting::read();
  if (!found) return std::unexpected(found.error());
  const auto is_good = has_rewrites(parts.rewrites);
  if (!is_good) return std::unexpected(is_good.error());
  const auto rewritten = translate::compare(rules_of(parts.rewrites), rules_of(*found));
  Difference difference{.missing = rewritten.missing, .foreign = rewritten.foreign};
  if (!*is_good && rewritten.empty()) difference.missing = rules_of(parts.rewrites);
  compare_claims(parts.claims, os::read_claims(), difference);
  for (const bool is4 : {true, false}) {
    if (has_family(parts.rewrites, is4) && !os::forwards(is4)) {
      difference.forwarding_off.emplace_back(is4 ? "IPv4" : "IPv6");
    }
  }
  return difference;
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

Result<bool> DeviceKernel::is_as_wanted(const Rules& wanted) try {
  const DeviceParts parts = parts_of(wanted);
  for (const bool is4 : {true, false}) {
    if (has_family(parts.rewrites, is4) && !os::forwards(is4)) return false;
  }
  Difference difference;
  compare_claims(parts.claims, os::read_claims(), difference);
  return difference.empty() ? has_rewrites(parts.rewrites) : Result<bool>(false);
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

// Only those with our route: proxies alone may be an operator's.
void DeviceKernel::drop_foreign_claims(const Kinds& wanted) {
  const os::Claims found = os::read_claims();
  for (const Ip& address : found.routes) {
    const auto proxies = found.proxies.find(address);
    const auto by = proxies == found.proxies.end() ? std::set<std::string>() : proxies->second;
    if (wanted.contains(address) && by == std::set{interface_for(address)}) continue;
    for (const std::string& interface : by) os::unclaim(interface, address);
    os::unclaim({}, address);
    claims_.erase(address);
  }
}

Result<DeviceKernel::Unclaimed> DeviceKernel::repair(const Rules& wanted) try {
  const DeviceParts parts = parts_of(wanted);
  const auto is_good = has_rewrites(parts.rewrites);
  if (!is_good || !*is_good) rewriting_ = {};
  drop_foreign_claims(parts.claims);
  const os::Claims found = os::read_claims();
  for (const auto& [address, kind] : parts.claims) {
    const std::string interface = interface_for(address);
    if (!found.has(interface, address)) {
      claims_.erase(address);
    } else {
      claims_.try_emplace(address, Claim{.kind = kind, .interface = interface});
    }
  }
  return write(wanted);
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

}  // namespace godwit::agent
