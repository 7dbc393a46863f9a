#include "os/udp.hh"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "os/memory_network.hh"
#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/test_wait.hh"

namespace godwit::os {
namespace {

// Datagram number n of `size` bytes: all its bytes tell n.
Bytes pattern(std::size_t count, std::size_t size) {
  Bytes bytes;
  for (std::size_t n = 0; n < count; ++n)
    bytes.insert(bytes.end(), size, static_cast<std::byte>(n));
  return bytes;
}

// Receives until `count` datagrams are there, cut by the runs' segment sizes.
std::vector<Bytes> receive(UdpSocket& socket, std::size_t count) {
  std::vector<Bytes> datagrams;
  while (datagrams.size() < count) {
    pollfd poll{.fd = socket.fd().number(), .events = POLLIN, .revents = 0};
    if (::poll(&poll, 1, 5000) <= 0) return datagrams;
    for (const ReceivedRun& run : socket.receive_batch()) {
      for (MutableBytes rest = run.bytes; !rest.empty();) {
        const auto size = std::min<std::size_t>(run.segment_size, rest.size());
        datagrams.push_back(to_bytes(rest.first(size)));
        rest = rest.subspan(size);
      }
    }
  }
  return datagrams;
}

class Udp : public testing::TestWithParam<bool> {
 protected:
  Udp() : options_{.segmentation = GetParam()} {}
  UdpSocket::Options options_;
};

TEST_P(Udp, AnotherThreadSendsFromTheSameAddress) {
  const auto a = UdpSocket::bind(Endpoint::loopback(0), options_);
  const auto b = UdpSocket::bind(Endpoint::loopback(0), options_);
  const auto other = a->for_another_thread();
  const Bytes bytes = pattern(3, 700);
  const DatagramRun run{b->local(), bytes, 700};
  ASSERT_EQ(other->send_batch({&run, 1}), 1U);
  EXPECT_EQ(receive(*b, 3).size(), 3U);
  EXPECT_EQ(other->local(), a->local());
  EXPECT_EQ(a->counters().sent_datagrams, 0U);
  EXPECT_EQ(other->counters().sent_datagrams, 3U);
}

TEST_P(Udp, ARunArrivesAsTheSameDatagrams) {
  const auto a = UdpSocket::bind(Endpoint::loopback(0), options_);
  const auto b = UdpSocket::bind(Endpoint::loopback(0), options_);
  Bytes bytes = pattern(40, 1400);
  append(bytes, pattern(1, 99));  // the last of a run may be shorter
  const Bytes small = pattern(1, 7);
  const DatagramRun runs[]{{b->local(), bytes, 1400}, {b->local(), small, 7}};
  ASSERT_EQ(a->send_batch(runs), 2U);
  const auto got = receive(*b, 42);
  ASSERT_EQ(got.size(), 42U);
  for (std::size_t n = 0; n < 40; ++n) EXPECT_EQ(got[n], Bytes(1400, static_cast<std::byte>(n)));
  EXPECT_EQ(got[40].size(), 99U);
  EXPECT_EQ(got[41].size(), 7U);
  EXPECT_EQ(a->counters().sent_datagrams, 42U);
  EXPECT_EQ(b->counters().received_bytes, bytes.size() + 7);
}

TEST_P(Udp, TheWildcardSpeaksBothFamilies) {
  const auto server = UdpSocket::bind(Endpoint::any_ipv6(0), options_);
  const auto client = UdpSocket::bind(Endpoint::loopback(0), options_);
  const Bytes bytes = pattern(3, 100);
  const DatagramRun there{Endpoint::loopback(server->local().port), bytes, 100};
  ASSERT_EQ(client->send_batch({&there, 1}), 1U);
  pollfd poll{.fd = server->fd().number(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&poll, 1, 5000), 1);
  const auto runs = server->receive_batch();
  ASSERT_FALSE(runs.empty());
  EXPECT_EQ(runs[0].from, client->local()) << "IPv4, not mapped into IPv6";
  const DatagramRun back{runs[0].from, bytes, 100};
  ASSERT_EQ(server->send_batch({&back, 1}), 1U);
  EXPECT_EQ(receive(*client, 3).size(), 3U);
}

TEST_P(Udp, WhatCannotBeSentIsCountedAndTheRestGoes) {
  const auto a = UdpSocket::bind(Endpoint::loopback(0), options_);
  const auto b = UdpSocket::bind(Endpoint::loopback(0), options_);
  const Bytes bytes = pattern(2, 50);
  // IPv6 over an IPv4 socket, and an address nothing is routed to from loopback.
  const DatagramRun runs[]{{*Endpoint::parse("[::1]:9"), bytes, 50},
                           {*Endpoint::parse("192.0.2.1:9"), bytes, 50},
                           {b->local(), bytes, 50}};
  ASSERT_EQ(a->send_batch(runs), 3U);
  EXPECT_EQ(receive(*b, 2).size(), 2U);
  EXPECT_EQ(a->counters().unreachable, 2U);
}

TEST_P(Udp, OverAVethTheMtuIsRespectedAndNothingIsFragmented) {
  if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
  //  near (10.7.0.1, mtu 1500) ---veth--- far (10.7.0.2)
  const auto near = NetNamespace::create();
  const auto far = NetNamespace::create();
  near.run([&] {
    Netlink link;
    link.add_veth("near", "far");
    link.move_to("far", far.fd());
    link.add_address("near", "10.7.0.1/24");
    link.set_up("near");
  });
  far.run([&] {
    Netlink link;
    link.add_address("far", "10.7.0.2/24");
    link.set_up("far");
  });
  const auto a =
      near.run([&] { return UdpSocket::bind(*Endpoint::parse("10.7.0.1:0"), options_); });
  const auto b = far.run([&] { return UdpSocket::bind(*Endpoint::parse("10.7.0.2:0"), options_); });
  const Bytes fits = pattern(44, 1472);  // 1500 less the headers
  const Bytes too_big = pattern(2, 1473);
  const DatagramRun runs[]{{b->local(), too_big, 1473}, {b->local(), fits, 1472}};
  ASSERT_EQ(a->send_batch(runs), 2U);
  EXPECT_EQ(receive(*b, 44).size(), 44U);
  EXPECT_EQ(a->counters().too_big, 1U);
  EXPECT_EQ(a->segments(), options_.segmentation);
}

TEST_P(Udp, AFullBufferIsSaidAndWhatWasTakenArrivesWhole) {
  if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
  // Until the far end has its address, datagrams wait for the neighbour and hold the send buffer.
  const auto near = NetNamespace::create();
  const auto far = NetNamespace::create();
  near.run([&] {
    Netlink link;
    link.add_veth("near", "far");
    link.move_to("far", far.fd());
    link.add_address("near", "10.7.0.1/24");
    link.set_up("near");
  });
  far.run([&] { Netlink().set_up("far"); });
  auto options = options_;
  options.send_buffer = {16 * 1024};
  const auto a = near.run([&] { return UdpSocket::bind(*Endpoint::parse("10.7.0.1:0"), options); });
  const auto b = far.run([&] { return UdpSocket::bind(Endpoint::any_ipv4(0), options_); });
  const Bytes bytes = pattern(10, 1000);
  const DatagramRun run{*Endpoint::parse(fmt::format("10.7.0.2:{}", b->local().port)), bytes, 1000};
  std::size_t taken = 0;
  while (a->send_batch({&run, 1}) == 1) ASSERT_LT(++taken, 1000U) << "the buffer never filled";
  EXPECT_GT(taken, 0U);
  far.run([&] { Netlink().add_address("far", "10.7.0.2/24"); });  // the next ARP request succeeds
  std::vector<Bytes> got;
  for (int tries = 0; got.size() < taken * 10 && tries < 100; ++tries) {
    for (auto& one : receive(*b, 1)) got.push_back(std::move(one));
    a->flush();
  }
  ASSERT_EQ(got.size(), taken * 10);
  for (std::size_t n = 0; n < got.size(); ++n) {
    EXPECT_EQ(got[n], Bytes(1000, static_cast<std::byte>(n % 10))) << n;
  }
}

TEST_P(Udp, WhatTheBufferCouldNotHoldIsCounted) {
  const auto receiver =
      UdpSocket::bind(Endpoint::loopback(0), {.receive_buffer = ByteCount{64 << 10},
                                              .send_buffer = ByteCount{4 << 20},
                                              .segmentation = GetParam()});
  const auto sender = UdpSocket::bind(Endpoint::loopback(0));
  const Bytes one(1000);
  std::size_t sent = 0;
  const auto send = [&] {
    const DatagramRun run{receiver->local(), one, 1000};
    sent += sender->send_batch({&run, 1});
  };
  for (int i = 0; i < 1000; ++i) send();
  std::size_t came = 0;
  while (!receiver->receive_batch().empty()) {
    came = receiver->counters().received_bytes / one.size();
  }
  EXPECT_LT(came, 1000U);
  send();  // which brings the kernel's count
  EXPECT_EQ(receive(*receiver, 1).size(), 1U);
  EXPECT_EQ(receiver->counters().overflowed, sent - came - 1);
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutSegmentation, Udp, testing::Bool(),
                         [](const auto& run) { return run.param ? "Segmented" : "Single"; });

TEST(MemoryNetwork, PathsDelayLoseAndBound) {
  MemoryNetwork network(7);
  const auto a = network.attach(Endpoint::loopback(1));
  const auto b = network.attach(Endpoint::loopback(2));
  network.set(a->local(), b->local(), {.delay = milliseconds(10), .loss = 0.5, .mtu = 1000});
  const Bytes bytes = pattern(60, 100);
  const Bytes big = pattern(1, 973);
  const DatagramRun runs[]{{b->local(), bytes, 100}, {b->local(), big, 973}};
  EXPECT_EQ(a->send_batch(runs), 2U);
  network.advance(Instant(milliseconds(9)));
  EXPECT_TRUE(b->receive_batch().empty());
  EXPECT_EQ(network.next_due(), Instant(milliseconds(10)));
  network.advance(Instant(milliseconds(10)));
  const auto got = b->receive_batch();
  EXPECT_GT(got.size(), 15U);
  EXPECT_LT(got.size(), 45U);
  for (const auto& run : got) {
    EXPECT_EQ(run.bytes.size(), 100U) << "the big one exceeds the mtu";
    EXPECT_EQ(run.from, a->local());
  }
}

TEST(MemoryNetwork, JitterReordersDoublingDoublesAndAFilterDrops) {
  MemoryNetwork network(7);
  const auto a = network.attach(Endpoint::loopback(1));
  const auto b = network.attach(Endpoint::loopback(2));
  network.set_all({.jitter = milliseconds(5), .doubling = 0.5});
  network.set_filter(
      [](const auto&, const auto&, BytesView datagram) { return datagram[0] != std::byte{3}; });
  const Bytes bytes = pattern(20, 10);
  const DatagramRun run{b->local(), bytes, 10};
  a->send_batch({&run, 1});
  network.advance(Instant(milliseconds(5)));
  std::vector<int> order;
  for (const auto& got : b->receive_batch()) order.push_back(std::to_integer<int>(got.bytes[0]));
  EXPECT_GT(order.size(), 20U);
  EXPECT_EQ(std::set<int>(order.begin(), order.end()).size(), 19U);
  EXPECT_EQ(std::ranges::count(order, 3), 0);
  EXPECT_FALSE(std::ranges::is_sorted(order));
}

}  // namespace
}  // namespace godwit::os
