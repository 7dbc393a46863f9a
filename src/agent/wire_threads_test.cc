// Two hosts with several wire threads each, and real UDP between them, while ports and components
// go from thread to thread all the time.
#include "agent/wire_threads.hh"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>

#include "os/random.hh"
#include "wire/datagram.hh"

namespace godwit::agent {
namespace {

// Counts what it says and hears.
struct Tally {
  std::atomic<std::uint64_t> said = 0, heard = 0, out_of_order = 0;
};

Bytes numbered(std::uint64_t number) {
  Bytes frame(wire::kVnetBytes + 64);
  to_big_endian(number, &frame[wire::kVnetBytes + 14]);
  return frame;
}

std::uint64_t number_of(BytesView frame) {
  return from_big_endian<std::uint64_t>(&frame[wire::kVnetBytes + 14]);
}

// At each of its ports: speaks in bursts, as long as what it said before comes back.
class Talker final : public net::Component {
 public:
  Talker(std::vector<Tally>& tallies) : tallies_(tallies) {}

  void handle(net::PortIndex port, std::span<const MutableBytes> frames, Instant,
              net::Outlet&) override {
    Tally& tally = tallies_[port];
    for (const MutableBytes& frame : frames) {
      if (number_of(frame) != tally.heard) ++tally.out_of_order;
      ++tally.heard;
    }
  }
  Instant tick(Instant now, net::Outlet& out) override {
    for (net::PortIndex port = 0; port < tallies_.size(); ++port) {
      Tally& tally = tallies_[port];
      while (is_on && tally.said < tally.heard + kAhead) {
        const Bytes frame = numbered(tally.said++);
        const BytesView view(frame);
        out.send(port, {&view, 1});
      }
    }
    return is_on && is_tireless ? now : now + milliseconds(1);
  }
  std::vector<net::PortCounters> counters() const override { return {}; }
  void begin_state() override {}
  Bytes take_state(std::size_t, Instant) override { return {}; }
  std::size_t untold() const override { return 0; }
  void end_state() override {}
  Result<> load_state(BytesView, Instant) override { return {}; }

  inline static std::atomic<bool> is_on = false;
  // Speaks without a pause, which is too much to do however fast the machine is.
  inline static std::atomic<bool> is_tireless = false;

 private:
  static constexpr std::uint64_t kAhead = 64;
  std::vector<Tally>& tallies_;
};

// Sends back what comes, at each port.
class Echo final : public net::Component {
 public:
  void handle(net::PortIndex port, std::span<const MutableBytes> frames, Instant,
              net::Outlet& out) override {
    for (const MutableBytes& frame : frames) {
      const BytesView view(frame);
      out.send(port, {&view, 1});
    }
  }
  Instant tick(Instant, net::Outlet&) override { return Instant::max(); }
  std::vector<net::PortCounters> counters() const override { return {}; }
  void begin_state() override {}
  Bytes take_state(std::size_t, Instant) override { return {}; }
  std::size_t untold() const override { return 0; }
  void end_state() override {}
  Result<> load_state(BytesView, Instant) override { return {}; }
};

class Threads : public testing::Test {
 protected:
  static constexpr std::size_t kThreads = 3, kWires = 4;
  static constexpr Nanoseconds kPatience = seconds(60);

  struct Site {
    std::unique_ptr<WireThreads> wires{};
    std::map<net::PortIndex, PortId> ports{};
    std::shared_ptr<os::UdpSocket> socket{};
  };

  std::unique_ptr<WireThreads> make(const std::string& name, std::size_t threads,
                                    std::unique_ptr<WireThreads>& peer) {
    wire::Limits limits;
    limits.unkeyed_age = kPatience;  // the machine may be busy
    return std::make_unique<WireThreads>(
        control_, name, limits,
        WireThread::Handlers{.control =
                                 [name, &peer](const std::string&, const Bytes& message) {
                                   if (peer) peer->control(name, message);
                                 },
                             .event = [](auto&&...) {}},
        threads);
  }

  void fill(Site& site, std::unique_ptr<net::Component> component) {
    for (net::PortIndex i = 0; i < kWires; ++i) {
      site.ports[i] = os::random_id<PortId>();
      site.wires->add_port({.id = site.ports[i], .epoch = 1, .tenant = "t"});
      all_ports_.push_back(site.ports[i]);
    }
    site.wires->place(os::random_id<ComponentId>(), std::move(component), site.ports);
  }

  std::unique_ptr<WireThreads> host_with_both_ends() {
    Site a, b;
    a.wires = make("a", kThreads, nobody_);
    fill(a, std::make_unique<Talker>(tallies_));
    std::swap(a.wires, b.wires);
    fill(b, std::make_unique<Echo>());
    for (net::PortIndex i = 0; i < kWires; ++i) {
      const auto wire = os::random_id<WireId>();
      for (const auto& [here, there] :
           {std::pair(a.ports[i], b.ports[i]), {b.ports[i], a.ports[i]}}) {
        b.wires->connect(
            {.id = wire, .local = here, .remote = there, .remote_epoch = 1, .remote_host = "a"});
      }
    }
    return std::move(b.wires);
  }

  // CPU time of the busiest but for the first.
  static Nanoseconds others(const WireThreads& wires) {
    const auto times = wires.cpu_times();
    return *std::max_element(times.begin() + 1, times.end());
  }

  bool passes(const std::function<bool()>& condition) {
    const Instant deadline = control_.now() + kPatience;
    while (!condition() && control_.now() < deadline) control_.run_once(milliseconds(5));
    return condition();
  }

  std::uint64_t least_heard() const { return least(&Tally::heard); }
  std::uint64_t least(std::atomic<std::uint64_t> Tally::* what) const {
    std::uint64_t least = UINT64_MAX;
    for (const Tally& tally : tallies_) least = std::min(least, (tally.*what).load());
    return least;
  }

  // Asked of all threads, each of which has done then what it was told before.
  WireThread::Stats stats(WireThreads& wires) {
    const auto stats = std::make_shared<std::optional<WireThread::Stats>>();
    wires.stats([stats](const WireThread::Stats& all) { *stats = all; });
    EXPECT_TRUE(passes([&] { return stats->has_value(); }));
    return stats->value_or(WireThread::Stats());
  }

  // Not before all ends are connected: a port without a wire drops what comes.
  void let_talk(const std::vector<WireThreads*>& hosts) {
    for (WireThreads* host : hosts) {
      for (const wire::WireStats& wire : stats(*host).wires) connected_.insert(wire.local);
    }
    ASSERT_EQ(connected_.size(), 2 * kWires);
    Talker::is_on = true;
  }

  // Where frames went.
  std::string drops(const std::vector<WireThreads*>& hosts) {
    std::string text;
    for (WireThreads* host : hosts) {
      const auto all = stats(*host);
      for (const wire::WireStats& wire : all.wires) {
        text += fmt::format("{} sent {}, got {}", wire.state, wire.tx_frames, wire.rx_frames);
        for (const auto& [why, count] : wire.drops) text += fmt::format(", {} {}", why, count);
        text += '\n';
      }
      text +=
          fmt::format("strays {}, refused {}, looped {}, overflowed {}, unsent {}, crossing {}\n",
                      all.stray_datagrams, all.tap_refused, all.looped, all.udp_overflowed,
                      all.udp_dropped, all.crossing_dropped);
    }
    return text;
  }

  // Each has heard so much; then nothing is on its way any more, and nothing was lost or overtaken.
  void expect_all_to_pass(std::uint64_t frames, const std::vector<WireThreads*>& hosts) {
    EXPECT_TRUE(passes([&] { return least_heard() >= frames; })) << least_heard();
    Talker::is_on = false;
    const bool all_came = passes([&] {
      return std::ranges::all_of(tallies_,
                                 [](const Tally& tally) { return tally.heard == tally.said; });
    });
    EXPECT_TRUE(all_came) << drops(hosts);
    for (const Tally& tally : tallies_) EXPECT_EQ(tally.out_of_order, 0U);
  }

  os::Loop control_;
  std::unique_ptr<WireThreads> nobody_;
  std::vector<PortId> all_ports_;
  std::set<PortId> connected_;
  std::vector<Tally> tallies_ = std::vector<Tally>(kWires);
};

struct Storm : Threads {
  Storm() { ::setenv("GODWIT_WIRE_STORM", "1", 1); }
  ~Storm() override { ::unsetenv("GODWIT_WIRE_STORM"); }
};

TEST_F(Storm, NothingIsLostBetweenHosts) {
  Site a, b;
  a.wires = make("a", kThreads, b.wires);
  b.wires = make("b", 2, a.wires);
  for (Site* site : {&a, &b}) {
    site->socket = os::UdpSocket::bind(os::Endpoint::loopback(0));
    site->wires->use_socket(site->socket);
  }
  fill(a, std::make_unique<Talker>(tallies_));
  fill(b, std::make_unique<Echo>());
  for (net::PortIndex i = 0; i < kWires; ++i) {
    const auto wire = os::random_id<WireId>();
    a.wires->connect({.id = wire,
                      .local = a.ports[i],
                      .remote = b.ports[i],
                      .remote_epoch = 1,
                      .remote_host = "b"});
    b.wires->connect({.id = wire,
                      .local = b.ports[i],
                      .remote = a.ports[i],
                      .remote_epoch = 1,
                      .remote_host = "a"});
  }
  // The first burst waits for keys and for the way there, wherever its port goes meanwhile.
  const std::vector hosts{a.wires.get(), b.wires.get()};
  let_talk(hosts);
  EXPECT_TRUE(passes([&] { return least(&Tally::said) > 0; }));
  std::array<std::byte, 32> secret{};
  os::fill_random(secret);
  a.wires->session_up("b", secret, true, {to_peer_address(b.socket->local())}, kShardProtocol);
  b.wires->session_up("a", secret, false, {to_peer_address(a.socket->local())}, kShardProtocol);
  expect_all_to_pass(20'000, hosts);
}

TEST_F(Storm, NothingIsLostWithinAHost) {
  const auto wires = host_with_both_ends();
  let_talk({wires.get()});
  expect_all_to_pass(20'000, {wires.get()});
}

// All of them in one turn of one thread, wherever they were; a port that is gone is no matter.
TEST_F(Storm, WhatBeginsTogetherComesToOneThread) {
  const auto wires = host_with_both_ends();
  let_talk({wires.get()});
  all_ports_.push_back(os::random_id<PortId>());
  int armed = 0;
  for (int i = 1; i <= 200; ++i) {
    wires->arm(all_ports_, [&] { ++armed; });
    EXPECT_TRUE(passes([&] { return armed == i; }));
  }
  expect_all_to_pass(least_heard() + 1000, {wires.get()});
}

TEST_F(Threads, OneThatHasTooMuchToDoGivesAway) {
  const auto wires = host_with_both_ends();
  Talker::is_tireless = true;
  let_talk({wires.get()});
  EXPECT_TRUE(passes([&] { return others(*wires) > milliseconds(50); }));
  Talker::is_tireless = false;
  expect_all_to_pass(least_heard() + 1000, {wires.get()});
}

TEST_F(Storm, OnePeerOfAnOldVersionKeepsAllInOneThread) {
  const auto wires = host_with_both_ends();
  let_talk({wires.get()});
  EXPECT_TRUE(passes([&] { return others(*wires) > milliseconds(20); })) << "it is divided";
  wires->session_up("old", {}, true, {}, kShardProtocol - 1);
  const Nanoseconds before = others(*wires);
  expect_all_to_pass(least_heard() + 20'000, {wires.get()});
  EXPECT_LT(others(*wires) - before, milliseconds(10));
}

}  // namespace
}  // namespace godwit::agent
