#include "agent/wire_thread.hh"

#include <gtest/gtest.h>

namespace godwit::agent {
namespace {

os::Endpoint endpoint(const char* text) { return os::Endpoint::parse(text).value(); }

TEST(WireThread, AddressesKeepTheirMeaningBothWays) {
  for (const char* text : {"192.0.2.1:4747", "[2001:db8::1]:1", "[::1]:65535", "255.255.255.255:0",
                           "[fe80::1]:4747"}) {
    os::Endpoint there = endpoint(text);
    if (there.is_ipv6) there.scope = 3;
    EXPECT_EQ(to_endpoint(to_peer_address(there)), there) << text;
  }
}

TEST(WireThread, Ipv4IsMapped) {
  const wire::PeerAddress address = to_peer_address(endpoint("192.0.2.1:4747"));
  EXPECT_EQ(to_hex(address.address), "00000000000000000000ffffc0000201");
  EXPECT_EQ(address.port, 4747);
}

TEST(WireThread, AnswersAndEndsWithoutPortsOrSocket) {
  os::Loop control;
  WireThread wires(control, "e1", {}, {.control = [](auto&&...) {}, .event = [](auto&&...) {}});
  bool answered = false;
  wires.detach(PortId{});
  wires.stats([&](const WireThread::Stats& stats) { answered = stats.wires.empty(); });
  const Instant deadline = control.now() + seconds(20);
  while (!answered && control.now() < deadline) control.run_once(milliseconds(20));
  EXPECT_TRUE(answered);
}

}  // namespace
}  // namespace godwit::agent
