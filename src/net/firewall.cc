#include "net/firewall.hh"

#include <algorithm>

#include "base/check.hh"
#include "net/refusal.hh"

namespace godwit::net {
namespace {

constexpr std::uint16_t kTypeVlan = 0x8100;
constexpr std::uint16_t kVlanBits = 0xfff;
constexpr std::uint32_t kMostAnswers = 1000;  // to what is rejected, in a second (RFC 4443, 2.4 f)

TrackerConfig tracker_config(const FirewallConfig& config) {
  return {.filter = config.filter,
          .pick_up = config.pick_up,
          .timeouts = config.timeouts,
          .most_flows = config.most_flows};
}

// What a frame carries, behind one tag if it has one.
struct Carried {
  std::uint16_t type = 0;
  std::uint16_t vlan = kUntagged;
  std::size_t at = kPayloadAt;
};
Carried carried_by(BytesView frame) {
  Carried carried{.type = from_big_endian<std::uint16_t>(&frame[kTypeAt])};
  if (carried.type != kTypeVlan || frame.size() < kPayloadAt + kTagBytes) return carried;
  carried.vlan = from_big_endian<std::uint16_t>(&frame[kPayloadAt]) & kVlanBits;
  carried.type = from_big_endian<std::uint16_t>(&frame[kTypeAt + kTagBytes]);
  carried.at += kTagBytes;
  return carried;
}

}  // namespace

Result<> check(const FirewallConfig& config) {
  if (config.ports.size() != 2 || config.ports[0] == config.ports[1]) {
    return fail("a firewall has two ports: what comes in at one leaves at the other");
  }
  if (std::ranges::max(config.ports) >= kMostPorts) {
    return fail("a component has at most {} ports", kMostPorts);
  }
  for (const FilterRule& rule : config.filter.rules) {
    for (const auto* ports : {&rule.in, &rule.out}) {
      for (const PortIndex port : *ports) {
        if (std::ranges::find(config.ports, port) != config.ports.end()) continue;
        return fail("a rule is about port {}, which this firewall has not", port);
      }
    }
  }
  return check(tracker_config(config));
}

Firewall::Firewall(FirewallConfig config, std::uint64_t seed)
    : config_(std::move(config)), tracker_(tracker_config(config_), seed) {
  CHECK(check(config_), "a configuration that was not checked");
  counters_.resize(std::ranges::max(config_.ports) + std::size_t{1});
}

void Firewall::configure(FirewallConfig config) {
  CHECK(check(config), "a configuration that was not checked");
  config_ = std::move(config);
  counters_.resize(std::ranges::max(config_.ports) + std::size_t{1});
  for (PortIndex i = 0; i < counters_.size(); ++i) {
    if (std::ranges::find(config_.ports, i) == config_.ports.end()) counters_[i] = {};
  }
  tracker_.configure(tracker_config(config_));
}

void Firewall::handle(PortIndex from, std::span<const MutableBytes> frames, Instant now,
                      Outlet& out) {
  const auto port = std::ranges::find(config_.ports, from);
  if (port == config_.ports.end()) return;
  const PortIndex to = config_.ports[port == config_.ports.begin() ? 1 : 0];
  PortCounters& counters = counters_[from];
  passed_.clear();
  answer_count_ = 0;
  for (const BytesView frame : frames) {
    ++counters.rx_frames;
    if (frame.size() >= wire::kMinFrameBytes) counters.rx_bytes += frame.size() - wire::kVnetBytes;
    const auto cause = judge(from, to, frame, now);
    if (cause.empty()) {
      passed_.push_back(frame);
    } else {
      ++counters.drops[cause];
    }
  }
  send(to, passed_, out);
  passed_.clear();
  for (std::size_t i = 0; i < answer_count_; ++i) passed_.emplace_back(answers_[i]);
  send(from, passed_, out);
}

// Why it goes nowhere; empty: it does.
std::string_view Firewall::judge(PortIndex from, PortIndex to, BytesView frame, Instant now) {
  if (frame.size() < wire::kMinFrameBytes) return "short";
  const Carried carried = carried_by(frame);
  if (std::ranges::find(config_.pass, carried.type) != config_.pass.end()) return {};
  if (carried.type != kTypeIp4 && carried.type != kTypeIp6) return "type";
  const auto packet = read_ip(frame, carried.at);
  if (!packet || packet->is_ip4 != (carried.type == kTypeIp4)) return "malformed";
  const auto cause = tracker_.judge(frame, *packet, carried.vlan, {.in = from, .out = to}, now);
  if (cause == "reject") answer(frame, *packet, now);
  return cause;
}

void Firewall::answer(BytesView frame, const IpPacket& packet, Instant now) {
  if (now - second_ >= seconds(1)) second_ = now, answered_ = 0;
  if (answered_ >= kMostAnswers) return;
  if (answer_count_ == answers_.size()) answers_.emplace_back();
  if (!refuse(frame, packet, {}, answers_[answer_count_])) return;
  ++answer_count_;
  ++answered_;
}

void Firewall::send(PortIndex to, std::span<const BytesView> frames, Outlet& out) {
  if (frames.empty()) return;
  PortCounters& counters = counters_[to];
  for (const BytesView frame : frames) {
    ++counters.tx_frames;
    counters.tx_bytes += frame.size() - wire::kVnetBytes;
  }
  out.send(to, frames);
}

Instant Firewall::tick(Instant now, Outlet& /*out*/) { return tracker_.tick(now); }

std::vector<PortCounters> Firewall::counters() const { return counters_; }

}  // namespace godwit::net
