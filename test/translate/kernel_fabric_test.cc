// Nobody loses a packet to a guest that moves about a data centre of kernels and comes home, with
// what the plan says written device by device in any order: the example of 18, and fabrics by
// chance. Needs root, or is skipped.
#include "kernel_fabric.hh"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "translate/move_tables.hh"
#include "translate/translate_testing.hh"

namespace godwit::translate {
namespace {

constexpr std::uint16_t kPort = 7007;
constexpr auto kInterval = std::chrono::milliseconds(1);

struct Address {
  explicit Address(const Ip& ip) {
    if (ip.is4()) {
      auto& at = reinterpret_cast<sockaddr_in&>(storage);
      at.sin_family = AF_INET;
      at.sin_port = htons(kPort);
      ip.write(reinterpret_cast<std::byte*>(&at.sin_addr));
    } else {
      auto& at = reinterpret_cast<sockaddr_in6&>(storage);
      at.sin6_family = AF_INET6;
      at.sin6_port = htons(kPort);
      ip.write(reinterpret_cast<std::byte*>(&at.sin6_addr));
    }
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  socklen_t size() const {
    return storage.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  }
  sockaddr_storage storage{};
};

// With the guest's address as its own, whether or not that is here.
os::Fd udp(const os::NetNamespace& at, const std::optional<Ip>& own, bool is4) {
  return at.run([&] {
    os::Fd fd(::socket(is4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int one = 1;
    ::setsockopt(fd.number(), is4 ? IPPROTO_IP : IPPROTO_IPV6,
                 is4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, &one, sizeof one);
    if (own) {
      EXPECT_EQ(::bind(fd.number(), Address(*own).get(), Address(*own).size()), 0);
    }
    return fd;
  });
}

// Datagrams to the guest each millisecond, from each correspondent; the guest's two places answer.
class Talk final {
 public:
  ~Talk() { stop(); }
  void add_place(os::Fd socket) { places_.push_back(std::move(socket)); }
  void add_correspondent(std::string name, os::Fd socket, const Ip& guest) {
    ASSERT_EQ(::connect(socket.number(), Address(guest).get(), Address(guest).size()), 0)
        << name << ": " << errno_text("connect");
    all_.push_back({.name = std::move(name), .socket = std::move(socket)});
  }
  void start() {
    thread_ = std::thread([this] { run(); });
  }
  // For those who read of a loss.
  void note(std::string_view phase) { phases_ += fmt::format(", {} from {}", phase, +rounds_); }
  void wait_for_rounds(std::uint64_t more) const {
    for (const auto until = rounds_ + more; rounds_ < until;) std::this_thread::yield();
  }
  void expect_all_answered() {
    is_over_ = true;
    thread_.join();
    for (const auto& each : all_) {
      std::string lost;
      for (std::uint64_t n = 0; n < each.sent; ++n) {
        if (!each.answers.contains(n)) lost += fmt::format(" {}", n);
      }
      EXPECT_EQ(lost, "") << each.name << " got no answer to these of " << each.sent << phases_;
      EXPECT_EQ(each.twice, 0U) << each.name;
    }
  }

 private:
  static constexpr std::uint64_t kWarmUp = ~std::uint64_t{0};
  struct Correspondent {
    std::string name;
    os::Fd socket;
    std::uint64_t sent = 0, twice = 0;
    bool is_warm = false;
    std::set<std::uint64_t> answers{};
  };
  // No answer is missed before the first: until then neighbours look for each other.
  void warm_up() {
    for (int i = 0; i < 5000; ++i) {
      bool all_are_warm = true;
      for (auto& each : all_) {
        if (each.is_warm) continue;
        all_are_warm = false;
        (void)::send(each.socket.number(), &kWarmUp, sizeof kWarmUp, 0);
      }
      if (all_are_warm) return;
      turn();
    }
  }
  void run() {
    warm_up();
    while (!is_over_) {
      for (auto& each : all_) {
        if (::send(each.socket.number(), &each.sent, sizeof each.sent, 0) > 0) ++each.sent;
      }
      turn();
      ++rounds_;
    }
    for (int i = 0; i < 2000 && !is_all_answered(); ++i) turn();
  }
  void turn() {
    const auto until = std::chrono::steady_clock::now() + kInterval;
    while (std::chrono::steady_clock::now() < until) {
      for (auto& place : places_) echo(place);
      for (auto& each : all_) hear(each);
    }
  }
  static void echo(const os::Fd& place) {
    std::uint64_t number = 0;
    sockaddr_storage who{};
    socklen_t size = sizeof who;
    auto* const peer = reinterpret_cast<sockaddr*>(&who);
    while (::recvfrom(place.number(), &number, sizeof number, 0, peer, &size) > 0) {
      ::sendto(place.number(), &number, sizeof number, 0, peer, size);
    }
  }
  static void hear(Correspondent& from) {
    std::uint64_t number = 0;
    while (::recv(from.socket.number(), &number, sizeof number, 0) > 0) {
      if (number == kWarmUp) {
        from.is_warm = true;
      } else if (!from.answers.insert(number).second) {
        ++from.twice;
      }
    }
  }
  bool is_all_answered() const {
    return std::ranges::all_of(all_,
                               [](const auto& each) { return each.answers.size() == each.sent; });
  }
  void stop() {
    is_over_ = true;
    if (thread_.joinable()) thread_.join();
  }

  std::vector<os::Fd> places_;
  std::vector<Correspondent> all_;
  std::string phases_;
  std::atomic<std::uint64_t> rounds_ = 0;
  std::atomic<bool> is_over_ = false;
  std::thread thread_;
};

// A guest that moves about a fabric of kernels.
struct KernelFabricTest : testing::Test {
  void have(Fabric described) { fabric.emplace(std::move(described)); }
  DeviceIndex at(std::string_view name) const { return fabric->at(name); }
  const std::string& name_of(DeviceIndex device) const {
    return fabric->fabric().devices[device].name;
  }
  void start_at(DeviceIndex where) {
    const DeviceIndex home = fabric->fabric().devices[where].neighbours.front();
    guest = address_at(fabric->fabric(), home, is4, 100);
    host = where;
    fabric->put(host, guest);
  }

  void write(DeviceIndex device, const Tables& tables) {
    Rules rules;
    for (const Tables* each : {&tables, static_cast<const Tables*>(&others)}) {
      const auto found = each->find(device);
      if (found != each->end()) {
        rules.insert(rules.end(), found->second.begin(), found->second.end());
      }
    }
    fabric->write(device, rules);
  }

  void move_to(DeviceIndex to) {
    SCOPED_TRACE(name_of(to));
    const GuestMove move{
        .from = host,
        .to = to,
        .addresses = {{guest, locator, locator_at(fabric->fabric(), to, is4, ++moves)}},
        .detours = Detours::none};
    Talk talk;
    for (const DeviceIndex place : {host, to}) {
      talk.add_place(udp(fabric->netns(place), guest, is4));
    }
    for (const DeviceIndex from : correspondents) {
      const Ip own = fabric->own(from, is4);
      talk.add_correspondent(name_of(from), udp(fabric->netns(from), own, is4), guest);
    }
    talk.add_correspondent("the world", udp(fabric->world_netns(), std::nullopt, is4), guest);
    if (other_host) {
      talk.add_correspondent("displaced", udp(fabric->netns(*other_host), other, is4), guest);
    }
    talk.start();
    talk.wait_for_rounds(20);
    take_phases(talk, move);
    talk.expect_all_answered();
    host = to;
    locator = fabric->fabric().is_home(to, guest)
                  ? std::nullopt
                  : std::optional(move.addresses.front().to_locator);
  }

  void take_phases(Talk& talk, const GuestMove& move) {
    for (const Phase phase :
         {Phase::staged, Phase::forwarded, Phase::flipped, Phase::drained, Phase::settled}) {
      talk.note(to_text(phase));
      const Tables tables = tables_at(fabric->fabric(), move, phase);
      auto devices = devices_of(fabric->fabric(), move);
      if (is_of_source(phase)) devices = {move.from};
      std::ranges::shuffle(devices, random);
      // It runs at the target from here on; what came to the source's host meanwhile is answered.
      if (phase == Phase::forwarded) fabric->put(move.to, guest);
      for (const DeviceIndex device : devices) write(device, tables);
      if (phase == Phase::forwarded) fabric->take(move.from, guest);
      talk.wait_for_rounds(20);
    }
  }

  void expect_clean() {
    for (DeviceIndex i = 0; i < fabric->fabric().devices.size(); ++i) {
      EXPECT_TRUE(fabric->is_clean(i)) << name_of(i);
    }
  }

  std::optional<KernelFabric> fabric;
  std::mt19937 random{1};
  bool is4 = true;
  Ip guest{}, other{};
  DeviceIndex host = 0;
  std::optional<DeviceIndex> other_host;
  std::optional<Ip> locator;
  unsigned moves = 0;  // each has another locator: that of another host of the edge, it may be
  std::vector<DeviceIndex> correspondents;
  Tables others;
};

struct TwoPodsTest : KernelFabricTest, testing::WithParamInterface<bool> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    is4 = GetParam();
    have(small_fabric());
    start_at(at("ha1"));
    for (const char* each : {"hb1", "hb2", "hb3", "hb4"}) correspondents.push_back(at(each));
    // Another displaced guest: it has moved from rack 2 to rack 4.
    other = address_at(fabric->fabric(), at("edge2"), is4, 100);
    other_host = at("hb4");
    fabric->put(*other_host, other);
    const Stay stay{*other_host, locator_at(fabric->fabric(), *other_host, is4, 0)};
    others = rules_of(fabric->fabric(), other, stay, Detours::none);
    for (const auto& [device, rules] : others) fabric->write(device, rules);
  }
};

INSTANTIATE_TEST_SUITE_P(Families, TwoPodsTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "IPv4" : "IPv6"; });

TEST_P(TwoPodsTest, NobodyLosesAPacketToAGuestThatGoesAboutAndComesHome) {
  move_to(at("ha3"));  // another pod
  move_to(at("ha2"));  // the first pod, another rack
  move_to(at("ha4"));  // the rack where the other displaced guest is
  move_to(at("hb1"));  // its rack, another host
  move_to(at("ha1"));
  for (const auto& [device, rules] : others) fabric->write(device, {});
  expect_clean();
}

// By seed: 2 to 4 tiers, 8 to 40 devices, and a way about them.
struct RandomFabricTest : KernelFabricTest, testing::WithParamInterface<unsigned> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    random.seed(GetParam());
    is4 = GetParam() % 2 == 0;
    have(random_fabric(random, Pairs::none));
    for (DeviceIndex i = 0; i < fabric->fabric().devices.size(); ++i) {
      if (fabric->fabric().devices[i].is_host()) hosts.push_back(i);
    }
    std::ranges::shuffle(hosts, random);
    start_at(hosts[0]);
    for (std::size_t i = kStops; i < std::min(kStops + kCorrespondents, hosts.size()); ++i) {
      correspondents.push_back(hosts[i]);
    }
  }
  static constexpr std::size_t kStops = 4, kCorrespondents = 5;
  std::vector<DeviceIndex> hosts;
};

INSTANTIATE_TEST_SUITE_P(Seeds, RandomFabricTest, testing::Range(1U, 5U));

TEST_P(RandomFabricTest, NobodyLosesAPacketToAGuestThatGoesAboutAndComesHome) {
  for (std::size_t i = 1; i < std::min(kStops, hosts.size()); ++i) move_to(hosts[i]);
  move_to(hosts[0]);
  expect_clean();
}

}  // namespace
}  // namespace godwit::translate
