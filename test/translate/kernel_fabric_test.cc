// Nobody loses a packet to a guest that moves about a data centre of 18 kernels and comes home,
// with what the plan says written device by device in any order. Needs root, or is skipped.
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
  struct Correspondent {
    std::string name;
    os::Fd socket;
    std::uint64_t sent = 0, twice = 0;
    std::set<std::uint64_t> answers{};
  };
  void run() {
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
      if (!from.answers.insert(number).second) ++from.twice;
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

struct KernelFabricTest : testing::TestWithParam<bool> {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    fabric.emplace(small_fabric());
    guest = address_at(fabric->fabric(), at("edge1"), is4(), 100);
    other = address_at(fabric->fabric(), at("edge2"), is4(), 100);
    host = at("ha1");
    fabric->put(host, guest);
    // Another displaced guest: it has moved from rack 2 to rack 4.
    fabric->put(at("hb4"), other);
    const Stay stay{at("hb4"), locator_at(fabric->fabric(), at("hb4"), is4(), 0)};
    others = rules_of(fabric->fabric(), other, stay, Detours::none);
    for (const auto& [device, rules] : others) fabric->write(device, rules);
  }
  bool is4() const { return GetParam(); }
  DeviceIndex at(std::string_view name) const { return fabric->at(name); }

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

  void move_to(std::string_view name) {
    SCOPED_TRACE(name);
    const DeviceIndex to = at(name);
    const GuestMove move{
        .from = host,
        .to = to,
        .addresses = {{guest, locator, locator_at(fabric->fabric(), to, is4(), 1)}},
        .detours = Detours::none};
    Talk talk;
    for (const DeviceIndex place : {host, to}) {
      talk.add_place(udp(fabric->netns(place), guest, is4()));
    }
    for (const char* from : {"hb1", "hb2", "hb3", "hb4"}) {
      const Ip own = fabric->own(at(from), is4());
      talk.add_correspondent(from, udp(fabric->netns(at(from)), own, is4()), guest);
    }
    talk.add_correspondent("the world", udp(fabric->world_netns(), std::nullopt, is4()), guest);
    talk.add_correspondent("displaced", udp(fabric->netns(at("hb4")), other, is4()), guest);
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

  std::optional<KernelFabric> fabric;
  std::mt19937 random{1};
  Ip guest{}, other{};
  DeviceIndex host = 0;
  std::optional<Ip> locator;
  Tables others;
};

INSTANTIATE_TEST_SUITE_P(Families, KernelFabricTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "IPv4" : "IPv6"; });

TEST_P(KernelFabricTest, NobodyLosesAPacketToAGuestThatGoesAboutAndComesHome) {
  move_to("ha3");  // another pod
  move_to("ha2");  // the first pod, another rack
  move_to("ha4");  // the rack where the other displaced guest is
  move_to("hb1");  // its rack, another host
  move_to("ha1");
  for (const auto& [device, rules] : others) fabric->write(device, {});
  for (DeviceIndex i = 0; i < fabric->fabric().devices.size(); ++i) {
    EXPECT_TRUE(fabric->is_clean(i)) << fabric->fabric().devices[i].name;
  }
}

}  // namespace
}  // namespace godwit::translate
