#include "net/switch.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::net {
namespace {

// IEEE 802.1Q-2022, table 8-1: for the bridge itself, never forwarded.
constexpr Mac kReserved = 0x0180c2000000;
constexpr Mac kReservedBits = 0xfffffffffff0;
// A limit of floods may be used up at once for so long.
constexpr double kFloodBurst = 0.1;  // seconds
constexpr double kLeastBurst = 16;   // frames
constexpr int kLooksPerAge = 10;     // for what is too old

std::bitset<4096> carried_by(const SwitchPort& port) {
  std::bitset<4096> vlans;
  if (port.access) return vlans.set(*port.access);
  if (port.trunk.empty()) vlans.set().reset(kUntagged).reset(kMostVlan + 1);
  for (const Vlan vlan : port.trunk) vlans.set(vlan);
  return vlans.set(port.native);
}

bool has_tag_for(const SwitchPort& port, Vlan vlan) { return !port.access && vlan != port.native; }

Result<> check_vlan(Vlan vlan, Vlan least) {
  if (vlan >= least && vlan <= kMostVlan) return {};
  return fail("{} is no VLAN: use {} to {}", vlan, least, kMostVlan);
}

}  // namespace

Result<> check(const SwitchConfig& config) {
  for (const auto& [index, port] : config.ports) {
    if (index >= kMostPorts) return fail("a switch has at most {} ports", kMostPorts);
    if (port.access && (!port.trunk.empty() || port.native != kUntagged)) {
      return fail("a port is of one VLAN (access), or a trunk of several");
    }
    if (auto done = check_vlan(port.access.value_or(1), 1); !done) return done;
    if (auto done = check_vlan(port.native, kUntagged); !done) return done;
    for (const Vlan vlan : port.trunk) {
      if (auto done = check_vlan(vlan, 1); !done) return done;
    }
  }
  for (const StaticMac& each : config.macs) {
    if (!config.ports.contains(each.port)) return fail("{} is at no port", to_text(each.mac));
    if (is_group(each.mac)) return fail("{} is a group, not a station", to_text(each.mac));
    if (auto done = check_vlan(each.vlan, kUntagged); !done) return done;
  }
  if (config.mirror && !config.ports.contains(*config.mirror)) return fail("the mirror is no port");
  if (config.most_macs == 0) return fail("a switch learns at least one address");
  return {};
}

Switch::Switch(SwitchConfig config, std::uint64_t seed)
    : macs_(config.most_macs, config.ageing, seed) {
  configure(std::move(config));
}

void Switch::configure(SwitchConfig config) {
  CHECK(check(config), "a configuration that was not checked");
  config_ = std::move(config);
  ports_.resize(config_.ports.empty() ? 0 : config_.ports.rbegin()->first + std::size_t{1});
  for (PortIndex i = 0; i < ports_.size(); ++i) {
    const auto settings = config_.ports.find(i);
    Port& port = ports_[i];
    if (settings == config_.ports.end()) {
      port = {};
      groups_.forget_port(i);
      continue;
    }
    port.exists = true;
    port.settings = settings->second;
    port.carries = carried_by(port.settings);
  }
  macs_.limit(config_.most_macs, config_.ageing);
  macs_.forget_if([this](const MacTable::Entry& entry) {
    return entry.is_static || entry.port >= ports_.size() ||
           !ports_[entry.port].carries.test(entry.vlan);
  });
  for (const StaticMac& each : config_.macs) macs_.pin(each.vlan, each.mac, each.port);
}

void Switch::handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
                    Outlet& out) {
  if (from >= ports_.size() || !ports_[from].exists) return;
  changed_count_ = 0;
  for (const BytesView frame : frames) {
    PortCounters& counters = ports_[from].counters;
    ++counters.rx_frames;
    if (frame.size() >= wire::kMinFrameBytes) counters.rx_bytes += frame.size() - wire::kVnetBytes;
    if (const auto cause = forward(from, frame, now); !cause.empty()) ++counters.drops[cause];
  }
  for (const PortIndex to : touched_) {
    Port& port = ports_[to];
    out.send(to, port.outgoing);
    port.outgoing.clear();
  }
  touched_.clear();
}

// Why it goes nowhere; empty: it does.
std::string_view Switch::forward(PortIndex from, BytesView frame, Instant now) {
  Port& in = ports_[from];
  if (frame.size() < wire::kMinFrameBytes) return "short";
  if (config_.mirror == from) return "mirror";
  if (in.settings.mirrored && config_.mirror) add(*config_.mirror, frame);
  Forms forms{.original = frame, .tag = vlan_of(frame)};
  forms.vlan = forms.tag.value_or(kUntagged);
  if (forms.vlan == kUntagged) forms.vlan = in.settings.access.value_or(in.settings.native);
  if (!in.carries.test(forms.vlan)) return "vlan";
  const std::byte* ethernet = frame.data() + wire::kVnetBytes;
  const Mac destination = mac_at(ethernet), source = mac_at(ethernet + 6);
  if (is_group(source) || source == 0) return "source";
  switch (macs_.learn(forms.vlan, source, from, now)) {
    case MacTable::Learned::full:
      ++not_learned_;
      break;
    case MacTable::Learned::moved:
      ++moved_;
      break;
    case MacTable::Learned::known:
      break;
  }
  if ((destination & kReservedBits) == kReserved) return "reserved";
  if (is_group(destination))
    return flood(from, forms, audience(from, forms, destination, now), now);
  const auto known = macs_.find(forms.vlan, destination, now);
  if (!known) return flood(from, forms, {}, now);
  if (*known == from) return "same-port";
  const auto why = why_not(in, ports_[*known], forms.vlan);
  if (why.empty()) emit(*known, forms);
  return why;
}

std::string_view Switch::why_not(const Port& from, const Port& to, Vlan vlan) const {
  if (!to.carries.test(vlan)) return "vlan";
  if (from.settings.isolated && to.settings.isolated) return "isolated";
  if (from.settings.stretched && to.settings.stretched) return "split-horizon";
  return {};
}

// Reports are for who asks: a host that hears another's would keep its own to itself (RFC 2236, 3).
Switch::Audience Switch::audience(PortIndex from, const Forms& forms, Mac group, Instant now) {
  if (!config_.snooping) return {};
  const auto said = membership_of(forms.original);
  if (said) groups_.heard(forms.vlan, from, *said, now);
  if (said && !said->groups.empty()) {
    return {.kind = groups_.is_asked(forms.vlan, now) ? Audience::askers : Audience::all};
  }
  if (is_for_all(group) || !groups_.knows(forms.vlan, group, now)) return {};
  return {.kind = Audience::listeners, .group = group};
}

bool Switch::hears(const Audience& audience, PortIndex port, Vlan vlan, Instant now) const {
  if (audience.kind == Audience::all || ports_[port].settings.stretched) return true;
  if (groups_.asks(vlan, port, now)) return true;
  return audience.kind == Audience::listeners && groups_.is_wanted(vlan, audience.group, port, now);
}

// As many as the limit lets, in a token bucket.
std::string_view Switch::flood(PortIndex from, Forms& forms, Audience audience, Instant now) {
  Port& in = ports_[from];
  if (const double rate = in.settings.flooded_per_s; rate > 0) {
    const double passed = std::chrono::duration<double>(now - in.flood_refilled).count();
    in.flood_tokens =
        std::min(in.flood_tokens + passed * rate, std::max(rate * kFloodBurst, kLeastBurst));
    in.flood_refilled = now;
    if (in.flood_tokens < 1) return "storm";
    in.flood_tokens -= 1;
  }
  for (PortIndex to = 0; to < ports_.size(); ++to) {
    if (to == from || config_.mirror == to || !ports_[to].exists) continue;
    if (!hears(audience, to, forms.vlan, now)) continue;
    if (why_not(in, ports_[to], forms.vlan).empty()) emit(to, forms);
  }
  return {};
}

void Switch::emit(PortIndex to, Forms& forms) {
  Port& port = ports_[to];
  const BytesView frame = has_tag_for(port.settings, forms.vlan) ? tagged(forms) : bare(forms);
  if (frame.size() > wire::kMaxFrameBytes) {  // it had another's tag, and was as long as can be
    ++port.counters.drops["too-long"];
    return;
  }
  add(to, frame);
  if (port.settings.mirrored && config_.mirror) add(*config_.mirror, frame);
}

void Switch::add(PortIndex to, BytesView frame) {
  Port& port = ports_[to];
  if (port.outgoing.empty()) touched_.push_back(to);
  port.outgoing.push_back(frame);
  ++port.counters.tx_frames;
  port.counters.tx_bytes += frame.size() - wire::kVnetBytes;
}

BytesView Switch::bare(Forms& forms) {
  if (!forms.tag) return forms.original;
  if (forms.bare.empty()) {
    Bytes& changed = scratch();
    pop_tag(forms.original, changed);
    forms.bare = changed;
  }
  return forms.bare;
}

BytesView Switch::tagged(Forms& forms) {
  if (forms.tag == forms.vlan) return forms.original;
  if (forms.tagged.empty()) {
    const BytesView without = bare(forms);
    Bytes& changed = scratch();
    push_tag(without, forms.vlan, changed);
    forms.tagged = changed;
  }
  return forms.tagged;
}

// Until the call ends: the bytes stay where they are when more are wanted.
Bytes& Switch::scratch() {
  if (changed_count_ == changed_.size()) changed_.emplace_back();
  return changed_[changed_count_++];
}

Instant Switch::tick(Instant now, Outlet& /*out*/) {
  macs_.forget_old(now);
  groups_.forget_old(now);
  return now + config_.ageing / kLooksPerAge;
}

std::vector<PortCounters> Switch::counters() const {
  std::vector<PortCounters> all;
  for (const Port& port : ports_) all.push_back(port.counters);
  return all;
}

}  // namespace godwit::net
