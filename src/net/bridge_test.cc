// The kernel's bridge with VLANs as the reference: the same frames at the same ports come out of
// both alike. In a network namespace of the test's own; needs root, or is skipped.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "net/net_testing.hh"
#include "net/switch.hh"

namespace godwit::net {
namespace {

constexpr PortIndex kPorts = 6;
constexpr int kFrames = 3000;
constexpr int kMostWaits = 5000;
constexpr Vlan kHelloVlan = 100;

enum class Tags { none, vlans };

class Bridge final {
 public:
  // False: there is none here.
  bool make(const SwitchConfig& config, Tags tags) {
    const bool has_vlans = tags == Tags::vlans;
    if (!run(fmt::format("ip link add br0 type bridge mcast_snooping 0 stp_state 0 {} 2>/dev/null "
                         "&& sysctl -qw net.ipv6.conf.all.disable_ipv6=1 "
                         "net.ipv6.conf.default.disable_ipv6=1 && ip link set br0 up",
                         has_vlans ? "vlan_filtering 1 vlan_default_pvid 0" : ""))) {
      return false;
    }
    for (const auto& [index, port] : config.ports) {
      const int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
      ifreq request{};
      fmt::format_to_n(request.ifr_name, IFNAMSIZ, "p{}", index);
      request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
      if (ioctl(tap, TUNSETIFF, &request) != 0) return false;
      taps_.push_back(tap);
      std::string script = fmt::format("ip link set p{0} master br0 up", index);
      const auto carry = [&](Vlan vlan, const char* how) {
        script += fmt::format(" && bridge vlan add dev p{} vid {} {}", index, vlan, how);
      };
      for (const Vlan vlan : port.trunk) carry(vlan, "");
      if (has_vlans) carry(port.access.value_or(port.native), "pvid untagged");
      if (has_vlans) carry(kHelloVlan, "");
      if (!run(script)) return false;
    }
    if (!forwards(has_vlans)) return false;
    for (const auto& [index, port] : config.ports) {
      if (port.isolated && !run(fmt::format("bridge link set dev p{} isolated on", index))) {
        return false;
      }
    }
    return true;
  }
  ~Bridge() {
    for (const int tap : taps_) close(tap);
  }
  void send(PortIndex from, const Bytes& frame) {
    EXPECT_EQ(write(taps_[from], frame.data(), frame.size()), ssize_t(frame.size()));
    drain();
  }
  // All that came out, by port, once each has as many as these.
  std::map<PortIndex, std::vector<Bytes>> received(
      const std::map<PortIndex, std::vector<Bytes>>& expected, int most_waits = kMostWaits) {
    const auto has_all = [&] {
      return std::ranges::all_of(expected, [this](const auto& each) {
        return received_[each.first].size() >= each.second.size();
      });
    };
    for (int waits = 0; waits < most_waits && !has_all(); ++waits) {
      std::vector<pollfd> polled;
      for (const int tap : taps_) polled.push_back({.fd = tap, .events = POLLIN, .revents = 0});
      poll(polled.data(), polled.size(), 1);
      drain();
    }
    return received_;
  }

 private:
  static bool run(const std::string& script) { return std::system(script.c_str()) == 0; }
  // A port begins to some time after it is up.
  bool forwards(bool has_vlans) {
    const auto takes_all = [this, has_vlans](PortIndex from) {
      received_.clear();
      const auto tag = has_vlans ? std::optional(kHelloVlan) : std::nullopt;
      const Bytes hello = frame(0x02000000ff00, 0xffffffffffff, tag);
      send(from, hello);
      std::map<PortIndex, std::vector<Bytes>> expected;
      for (PortIndex port = 0; port < taps_.size(); ++port) {
        if (port != from) expected[port] = {hello};
      }
      received(expected, 20);
      return received_ == expected;
    };
    for (int tries = 0; tries < 100; ++tries) {
      bool all = true;
      for (PortIndex port = 0; port < taps_.size(); ++port) all = takes_all(port) && all;
      received_.clear();
      if (all) return true;
    }
    return false;
  }
  void drain() {
    Bytes got(wire::kMaxFrameBytes);
    for (PortIndex port = 0; port < taps_.size(); ++port) {
      for (ssize_t size = 0; (size = read(taps_[port], got.data(), got.size())) > 0;) {
        received_[port].emplace_back(got.begin(), got.begin() + size);
      }
    }
  }
  std::vector<int> taps_;
  std::map<PortIndex, std::vector<Bytes>> received_;
};

// The kernel forwards later, in the order of one CPU's queue.
bool stay_on_this_cpu() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(sched_getcpu(), &cpus);
  return sched_setaffinity(0, sizeof cpus, &cpus) == 0;
}

SwitchPort some_port(wire::testing::Random& random, Tags tags) {
  SwitchPort port{.isolated = random() % 3 == 0};
  if (tags == Tags::none) return port;
  const auto vlan = static_cast<Vlan>(1 + random() % 3);
  if (random() % 2 == 0) {
    port.access = vlan;
    return port;
  }
  port.native = vlan;
  port.trunk = {4};
  for (Vlan other = 1; other <= 3; ++other) {
    if (other != port.native && random() % 3 != 0) port.trunk.push_back(other);
  }
  return port;
}

Bytes some_frame(wire::testing::Random& random, Tags tags) {
  const auto station = [&] { return Mac{0x020000000000} | random() % 12; };
  constexpr Mac kGroups[] = {0xffffffffffff, 0x01005e000001, 0x333300000001, 0x0180c200000e,
                             0x0180c2000010};
  const Mac source = random() % 50 == 0 ? kGroups[random() % 2] : station();
  const Mac destination = random() % 4 == 0 ? kGroups[random() % std::size(kGroups)] : station();
  std::optional<Vlan> tag;
  if (tags == Tags::vlans && random() % 2 == 0) tag = static_cast<Vlan>(random() % 6);
  return frame(source, destination, tag);
}

// False: there is no such bridge here.
bool compare(unsigned seed, Tags tags) {
  if (unshare(CLONE_NEWNET) != 0 || !stay_on_this_cpu()) return false;
  wire::testing::Random random(seed);
  SwitchConfig config;
  for (PortIndex i = 0; i < kPorts; ++i) config.ports[i] = some_port(random, tags);
  Switch sw(config, seed);
  Bridge bridge;
  if (!bridge.make(config, tags)) return false;
  Received out;
  for (int i = 0; i < kFrames; ++i) {
    const auto from = static_cast<PortIndex>(random() % kPorts);
    const Bytes bytes = some_frame(random, tags);
    give(sw, from, bytes, Instant{} + seconds(1), out);
    bridge.send(from, bytes);
  }
  const auto expected = bridge.received(out.frames);
  for (PortIndex port = 0; port < kPorts; ++port) {
    const auto& [ours, theirs] = std::pair(out.frames[port], expected.at(port));
    const auto differ = std::ranges::mismatch(ours, theirs);
    EXPECT_TRUE(ours == theirs) << "seed " << seed << ", port " << port << ", its frame "
                                << differ.in1 - ours.begin() << ": " << ours.size() << ", "
                                << theirs.size();
  }
  return true;
}

class SwitchAndBridge : public testing::TestWithParam<Tags> {};

TEST_P(SwitchAndBridge, ForwardAlike) {
  bool was_made = true;
  std::thread([&] {
    for (unsigned seed = 1; was_made && seed <= 4; ++seed) was_made = compare(seed, GetParam());
  }).join();
  const bool may_lack = GetParam() == Tags::vlans || geteuid() != 0;
  if (!was_made && may_lack) GTEST_SKIP() << "no bridge with VLANs in this kernel, or not root";
  EXPECT_TRUE(was_made);
}

INSTANTIATE_TEST_SUITE_P(, SwitchAndBridge, testing::Values(Tags::none, Tags::vlans),
                         [](const auto& each) {
                           return each.param == Tags::none ? "Plain" : "WithVlans";
                         });

}  // namespace
}  // namespace godwit::net
