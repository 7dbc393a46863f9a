#include "os/tap.hh"

#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "os/memory_tap.hh"
#include "os/netns.hh"
#include "os/nftables.hh"
#include "os/socket.hh"
#include "os/tap_pair.hh"
#include "os/test_wait.hh"
#include "os/udp.hh"

namespace godwit::os {
namespace {

constexpr std::size_t kHeaders = 14 + 20 + 20;  // Ethernet, IPv4, TCP

// A TCP segment of `payload` bytes with an unfinished checksum; cut by `mss` when that is not 0.
Bytes tcp_frame(std::size_t payload, std::uint8_t mark, std::uint16_t mss = 0) {
  Bytes frame(kVnetHeaderBytes + kHeaders, std::byte{0});
  const auto little = [&](std::size_t at, std::size_t value) {
    frame[at] = static_cast<std::byte>(value);
    frame[at + 1] = static_cast<std::byte>(value >> 8);
  };
  frame[0] = std::byte{1};                            // VIRTIO_NET_HDR_F_NEEDS_CSUM
  frame[1] = mss != 0 ? std::byte{1} : std::byte{0};  // VIRTIO_NET_HDR_GSO_TCPV4
  if (mss != 0) little(2, kHeaders);                  // hdr_len: the kernel keeps it only then
  little(4, mss);                                     // gso_size
  little(6, 34);                                      // csum_start: the TCP header
  little(8, 16);                                      // csum_offset
  std::byte* ethernet = frame.data() + kVnetHeaderBytes;
  const Bytes addresses = from_hex("52540000000252540000000108004500");
  std::copy(addresses.begin(), addresses.end(), ethernet);
  to_big_endian(static_cast<std::uint16_t>(40 + payload), ethernet + 16);  // IP length
  ethernet[22] = std::byte{64};                                            // TTL
  ethernet[23] = std::byte{6};                                             // TCP
  const Bytes ips = from_hex("0a0700010a070002");
  std::copy(ips.begin(), ips.end(), ethernet + 26);
  std::uint32_t sum = 0;
  for (std::size_t at = 14; at < 34; at += 2) sum += from_big_endian<std::uint16_t>(ethernet + at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  to_big_endian(static_cast<std::uint16_t>(~sum), ethernet + 24);
  ethernet[46] = std::byte{0x50};  // TCP header of 20 bytes
  ethernet[47] = std::byte{0x10};  // ACK
  frame.insert(frame.end(), payload, static_cast<std::byte>(mark));
  return frame;
}

// The next frame, waiting for it; empty when none comes.
Bytes next_frame(Tap& tap) {
  Bytes frame(kMaxFrameBytes);
  pollfd poll{.fd = tap.fd().number(), .events = POLLIN, .revents = 0};
  ::poll(&poll, 1, 5000);
  frame.resize(tap.read(frame));
  return frame;
}

BytesView payload_of(BytesView frame) { return frame.subspan(kVnetHeaderBytes + kHeaders); }

struct TapTest : testing::Test {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    if (::access("/dev/net/tun", R_OK) != 0) GTEST_SKIP() << "there is no /dev/net/tun";
    visit.emplace(NetNamespace::create());
  }
  std::optional<NetNamespace::Visit> visit;
};

bool has_table(const std::string& name) {
  return apply_nftables("list table netdev godwit_" + name).has_value();
}

TEST_F(TapTest, APairCarriesFramesAndSuperFramesBothWays) {
  TapPair pair = TapPair::create({.name = "nic0"});
  Tap guest = *Tap::adopt(pair.guest_fd().duplicate());  // as QEMU has it
  for (const std::uint16_t mss : {std::uint16_t{0}, std::uint16_t{1448}}) {
    const Bytes frame = tcp_frame(mss != 0 ? 60'000 : 1000, 'g', mss);
    ASSERT_EQ(guest.write(frame), FrameDevice::Written::kYes);
    EXPECT_EQ(next_frame(pair.agent_side()), frame);
    ASSERT_EQ(pair.agent_side().write(frame), FrameDevice::Written::kYes);
    EXPECT_EQ(next_frame(guest), frame);
  }
  EXPECT_EQ(pair.lost().to_agent, 0U);
}

TEST_F(TapTest, WhatTheGuestSentIsThereOnceItsWriteReturned) {
  TapPair pair = TapPair::create({.name = "nic0"});
  const Bytes frame = tcp_frame(100, 'x');
  ASSERT_EQ(::write(pair.guest_fd().number(), frame.data(), frame.size()),
            static_cast<ssize_t>(frame.size()));
  Bytes got(kMaxFrameBytes);
  EXPECT_EQ(pair.agent_side().read(got), frame.size()) << "without waiting";
}

TEST_F(TapTest, UntakenFramesAreReadInOrderWhateverHeaderQemuChose) {
  TapPair pair = TapPair::create({.name = "nic0"});
  for (std::uint8_t n = 0; n < 10; ++n) pair.agent_side().write(tcp_frame(200, n));
  int size = 12;  // QEMU, for virtio-net 1.0
  ASSERT_EQ(::ioctl(pair.guest_fd().number(), TUNSETVNETHDRSZ, &size), 0);
  Bytes frame(kMaxFrameBytes);
  for (std::uint8_t n = 0; n < 10; ++n) {
    const auto got = pair.read_untaken(frame);
    ASSERT_EQ(BytesView(frame).first(got).size(), tcp_frame(200, n).size());
    EXPECT_EQ(to_bytes(BytesView(frame).first(got)), tcp_frame(200, n));
  }
  EXPECT_EQ(pair.read_untaken(frame), 0U);
  // And the other way through the long header.
  Tap guest = *Tap::adopt(pair.guest_fd().duplicate());
  guest.write(tcp_frame(300, 7));
  EXPECT_EQ(next_frame(pair.agent_side()), tcp_frame(300, 7));
}

TEST_F(TapTest, TheHostsStackAddsNoFramesOfItsOwn) {
  TapPair pair = TapPair::create({.name = "nic0", .mtu = 1400});
  Netlink netlink;
  for (const auto& name : {pair.guest_interface(), pair.agent_interface()}) {
    EXPECT_TRUE(netlink.link(name).up);
    EXPECT_TRUE(netlink.link(name).carrier);
    EXPECT_EQ(netlink.link(name).mtu, 1400U);
  }
  pair.set_mtu(9000);
  EXPECT_EQ(netlink.link("nic0a").mtu, 9000U);
  std::ifstream addresses("/proc/thread-self/net/if_inet6");
  const std::string text{std::istreambuf_iterator<char>(addresses), {}};
  EXPECT_EQ(text.find("nic0"), std::string::npos) << text;
  Bytes frame(kMaxFrameBytes);
  EXPECT_EQ(pair.agent_side().read(frame), 0U);
  EXPECT_EQ(pair.read_untaken(frame), 0U);
}

TEST_F(TapTest, APairCleansUp) {
  {
    TapPair pair = TapPair::create({.name = "nic0"});
    const TapPair other = TapPair::create({.name = "nic1"});
    EXPECT_TRUE(has_table("nic0"));
    const TapPair moved = std::move(pair);
    EXPECT_TRUE(has_table("nic0"));
  }
  EXPECT_FALSE(has_table("nic0"));
  EXPECT_FALSE(has_table("nic1"));
  EXPECT_EQ(Netlink().names(), std::vector<std::string>{"lo"});
}

TEST_F(TapTest, MistakesAreNamed) {
  const TapPair pair = TapPair::create({.name = "nic0"});
  EXPECT_THROW(TapPair::create({.name = "nic0"}), SetupError) << "in use";
  EXPECT_TRUE(has_table("nic0")) << "the failure left the first one alone";
  EXPECT_THROW(TapPair::create({.name = "fifteen-letters"}), SetupError);
  EXPECT_THROW(TapPair::create({.name = "quo\"te"}), SetupError);
  EXPECT_THROW(TapPair::create({.name = ""}), SetupError);
  EXPECT_FALSE(Tap::adopt(Fd(::dup(0))));
  EXPECT_FALSE(apply_nftables("nonsense"));
  EXPECT_LE(TapPair::name_of(PortId{}).size() + 1, kInterfaceNameLimit);
}

TEST_F(TapTest, AFullQueueLosesAndCounts) {
  TapPair pair = TapPair::create({.name = "nic0"});
  const Bytes frame = tcp_frame(100, 'x');
  for (unsigned n = 0; n < kTapQueueFrames + 100; ++n) pair.agent_side().write(frame);
  EXPECT_EQ(pair.lost().to_guest, 100U);
  Bytes into(kMaxFrameBytes);
  unsigned count = 0;
  while (pair.read_untaken(into) > 0) ++count;
  EXPECT_EQ(count, kTapQueueFrames);
}

TEST_F(TapTest, ARestartedAgentReattaches) {
  Child qemu;  // holds the guest's descriptor and nothing else
  {
    const TapPair pair = TapPair::create({.name = "nic0"});
    Command command{.argv = {"sleep", "1000"}};
    command.fds = {{pair.guest_fd().number(), 17}};
    qemu = Child::spawn(command);
  }
  EXPECT_TRUE(Netlink().find("nic0g")) << "it lives by QEMU's descriptor";
  EXPECT_FALSE(Netlink().find("nic0a"));
  {
    TapPair pair = TapPair::reattach({.name = "nic0"}, qemu);
    Tap guest = *Tap::adopt(pair.guest_fd().duplicate());
    const Bytes frame = tcp_frame(60'000, 'r', 1448);
    guest.write(frame);
    EXPECT_EQ(next_frame(pair.agent_side()), frame);
    pair.agent_side().write(frame);
    EXPECT_EQ(next_frame(guest), frame);
    EXPECT_THROW(TapPair::reattach({.name = "nic0"}, qemu), SetupError) << "an agent has it";
    EXPECT_THROW(TapPair::reattach({.name = "nic1"}, qemu), SetupError) << "QEMU has no such";
  }
  ASSERT_TRUE(qemu.kill(SIGKILL));
  qemu.wait();
  EXPECT_FALSE(Netlink().find("nic0g"));
  EXPECT_THROW(TapPair::reattach({.name = "nic0"}, qemu), SetupError);
}

TEST_F(TapTest, ARealQemuInItsSandboxIsReattachedTo) {
  std::optional<TapPair> pair = TapPair::create({.name = "nic0"});
  Command command{
      .argv = {"qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "64", "-S", "-nodefaults",
               "-display", "none", "-netdev", "tap,id=n,fd=17", "-device",
               "virtio-net-pci,netdev=n,romfile=", "-qmp", "stdio", "-sandbox",
               "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}};
  command.fds = {{pair->guest_fd().number(), 17}};
  command.user = {.uid = 65534, .gid = 65534};
  const SocketPair qmp = make_socket_pair();
  command.stdin_fd = command.stdout_fd = qmp.theirs.number();
  if (!run({.argv = {"qemu-system-x86_64", "--version"}})) GTEST_SKIP() << "there is no QEMU";
  auto qemu = Child::spawn(command);
  std::array<char, 1> greeting{};
  ASSERT_EQ(::read(qmp.ours.number(), greeting.data(), 1), 1) << "it runs, with its devices made";
  pair.reset();
  pair.emplace(TapPair::reattach({.name = "nic0"}, qemu));
  // The guest does not run: what is sent to it stays until we take it, but for one frame that QEMU
  // may take and keep (qemu/trapped_frame.hh), whichever it is.
  std::vector<Bytes> untaken;
  for (const auto& frame : {tcp_frame(300, 'p'), tcp_frame(400, 'q'), tcp_frame(500, 'r')}) {
    pair->agent_side().write(frame);
  }
  for (Bytes frame(kMaxFrameBytes); const std::size_t size = pair->read_untaken(frame);) {
    untaken.emplace_back(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));
  }
  ASSERT_GE(untaken.size(), 2U);
  for (const Bytes& frame : untaken) {
    const std::uint8_t mark = frame.size() == tcp_frame(300, 'p').size()   ? 'p'
                              : frame.size() == tcp_frame(400, 'q').size() ? 'q'
                                                                           : 'r';
    const std::size_t payload = 300 + 100 * static_cast<std::size_t>(mark - 'p');
    // No driver has asked for offloads, so the kernel finished the checksum: no flag in the header.
    EXPECT_EQ(frame[0], std::byte{0});
    EXPECT_EQ(to_bytes(payload_of(frame)), to_bytes(payload_of(tcp_frame(payload, mark))));
  }
}

constexpr const char* kLeftBehind =
    "add table netdev godwit_nic0\nadd chain netdev godwit_nic0 old\n";

TEST_F(TapTest, AKilledAgentsRulesAreReplacedOrRemoved) {
  // As a killed agent leaves them: the interfaces are gone, the table is there.
  ASSERT_TRUE(apply_nftables(kLeftBehind));
  {
    const TapPair pair = TapPair::create({.name = "nic0"});
    EXPECT_FALSE(apply_nftables("list chain netdev godwit_nic0 old"));
    TapPair::remove_stale();
    EXPECT_TRUE(has_table("nic0")) << "it is in use";
  }
  ASSERT_TRUE(apply_nftables(kLeftBehind));
  TapPair::remove_stale();
  TapPair::remove_stale();
  EXPECT_FALSE(has_table("nic0"));
}

TEST_F(TapTest, TheCarrierIsSeen) {
  Tap tap = Tap::open({.name = "up0"});
  Netlink().set_up("up0");
  EXPECT_TRUE(Netlink().link("up0").carrier);
  tap.set_carrier(false);
  EXPECT_FALSE(Netlink().link("up0").carrier);
}

TEST_F(TapTest, AnUplinkIsAPortOfTheHostsStack) {
  std::optional<Tap> tap =
      open_uplink({.name = "up0", .mtu = 1380, .address = "10.9.0.1/24", .persistent = true});
  EXPECT_EQ(Netlink().link("up0").mtu, 1380U);
  const auto socket = UdpSocket::bind(*Endpoint::parse("10.9.0.1:0"));
  const Bytes bytes(10);
  const DatagramRun run{*Endpoint::parse("10.9.0.2:9"), bytes, 10};
  ASSERT_EQ(socket->send_batch({&run, 1}), 1U);
  const Bytes question = next_frame(*tap);  // who has 10.9.0.2?
  ASSERT_GE(question.size(), kVnetHeaderBytes + 42);
  EXPECT_EQ(from_big_endian<std::uint16_t>(&question[kVnetHeaderBytes + 12]), 0x0806);
  tap.reset();
  EXPECT_TRUE(Netlink().find("up0")) << "it is persistent";
  tap.emplace(open_uplink({.name = "up0", .address = "10.9.0.1/24", .persistent = true}));
  tap->set_persistent(false);
  tap.reset();
  EXPECT_FALSE(Netlink().find("up0"));
}

// Moves all frames that are there; returns the largest.
std::size_t pump(Tap& from, Tap& to) {
  Bytes frame(kMaxFrameBytes);
  std::size_t largest = 0;
  while (const auto size = from.read(frame)) {
    EXPECT_EQ(to.write(BytesView(frame).first(size)), FrameDevice::Written::kYes);
    largest = std::max(largest, size);
  }
  return largest;
}

TEST_F(TapTest, TwoUplinksJoinedFrameByFrameCarryTcpInSuperFrames) {
  //  here (10.9.0.1) up0 ===[ this test ]=== up0 (10.9.0.2) far
  const auto far = NetNamespace::create();
  Tap near_tap = open_uplink({.name = "up0", .address = "10.9.0.1/24"});
  Tap far_tap = far.run([] { return open_uplink({.name = "up0", .address = "10.9.0.2/24"}); });
  Loop loop;
  std::size_t largest = 0;
  const auto near_watch = loop.watch(
      near_tap.fd(), EPOLLIN, [&](auto) { largest = std::max(largest, pump(near_tap, far_tap)); });
  const auto far_watch = loop.watch(far_tap.fd(), EPOLLIN, [&](auto) { pump(far_tap, near_tap); });

  constexpr std::size_t kTotal = 4 * 1024 * 1024;
  std::size_t received = 0;
  std::unique_ptr<ByteStream> server;
  const auto listener = far.run([&] {
    return Listener::tcp(loop, *Endpoint::parse("10.9.0.2:4747"), [&](auto stream, const auto&) {
      server = std::move(stream);
      server->start({.readable =
                         [&] {
                           Bytes buffer(64 * 1024);
                           while (const auto got = server->read(buffer)) received += got;
                         },
                     .writable = {},
                     .closed = {}});
    });
  });
  const Bytes chunk(64 * 1024);
  std::size_t sent = 0;
  const auto client = tcp_connect(loop, *Endpoint::parse("10.9.0.2:4747"));
  const auto send = [&] {
    while (sent < kTotal) {
      const auto taken = client->write(chunk);
      sent += taken;
      if (taken < chunk.size()) return;
    }
  };
  client->start({.readable = {}, .writable = send, .closed = {}});
  EXPECT_TRUE(run_until(loop, [&] { return sent >= kTotal && received == sent; }));
  EXPECT_GT(largest, 16'000U);
}

TEST_F(TapTest, BridgePortsMeet) {
  Netlink netlink;
  netlink.add_bridge("br0");
  netlink.silence_ipv6("br0");
  netlink.set_up("br0");
  Tap left = open_bridge_port("left", "br0");
  Tap right = open_bridge_port("right", "br0");
  const Bytes frame = tcp_frame(500, 'b');
  // A port learns and forwards a moment after it came up (its carrier is noticed by a worker), and
  // the bridge has something to say itself: that it listens to 224.0.0.106, after up to a second.
  const MonotonicSystemClock clock;
  const Instant deadline = clock.now() + seconds(10);
  bool arrived = false;
  while (!arrived && clock.now() < deadline) {
    left.write(frame);
    pollfd poll{.fd = right.fd().number(), .events = POLLIN, .revents = 0};
    if (::poll(&poll, 1, 50) == 0) continue;
    const Bytes got = next_frame(right);
    arrived = got.size() == frame.size() && std::ranges::equal(payload_of(got), payload_of(frame));
  }
  EXPECT_TRUE(arrived);
}

TEST(MemoryTap, HasQueuesWithAnEnd) {
  MemoryTap tap(1);
  const Bytes frame = tcp_frame(10, 'm');
  EXPECT_TRUE(tap.put(frame));
  EXPECT_FALSE(tap.put(frame));
  Bytes into(kMaxFrameBytes);
  EXPECT_EQ(tap.read(into), frame.size());
  EXPECT_EQ(tap.read(into), 0U);
  EXPECT_EQ(tap.write(frame), FrameDevice::Written::kYes);
  EXPECT_EQ(tap.write(frame), FrameDevice::Written::kBusy);
  EXPECT_EQ(tap.take(), std::vector<Bytes>{frame});
  EXPECT_EQ(tap.write({}), FrameDevice::Written::kRefused);
}

}  // namespace
}  // namespace godwit::os
