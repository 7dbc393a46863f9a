// What a peer may do wrong, and what it costs: its own connection.
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <random>

#include "session/protocols.hh"
#include "session/test_host.hh"

namespace godwit::session {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Hostile : public testing::Test {
 protected:
  bool wait(std::move_only_function<bool()> done) { return os::run_until(loop_, done); }

  // A member of the fleet that speaks TLS and then whatever the test wants.
  std::unique_ptr<TlsStream> dial(const TestHost& host, const std::string& name) {
    const auto identity = crypto::Identity::make(ca_, name).value();
    network_ = std::make_unique<Network>(
        loop_, crypto::TlsContext(identity, server_protocols()),
        [this](const os::Endpoint& to) { return os::tcp_connect(loop_, to); });
    std::unique_ptr<TlsStream> stream;
    Dial attempt(*network_,
                 {.peer = host.name(),
                  .alpn = kSessionAlpn,
                  .addresses = {host.address},
                  .relays = {},
                  .call = {}},
                 [&](auto reached) { stream = std::move(reached.value().stream); });
    EXPECT_TRUE(wait([&] { return stream != nullptr; }));
    stream->start({.readable =
                       [raw = stream.get()] {
                         std::array<std::byte, 4096> chunk;
                         while (raw->read(chunk) > 0) {
                         }
                       },
                   .writable = {},
                   .closed = [this](const std::string&) { ended_ = true; }});
    return stream;
  }
  // Becomes the selected session of `host`, which must be the chooser.
  std::unique_ptr<TlsStream> enter(const TestHost& host, const std::string& name) {
    auto stream = dial(host, name);
    send(*stream, {FrameKind::push, 0, "session.hello", as_bytes(R"({"instance":"1"})")});
    EXPECT_TRUE(wait([&] { return host.has(name); }));
    return stream;
  }
  void send(TlsStream& stream, const Frame& frame) {
    Bytes out;
    encode(frame, out);
    EXPECT_EQ(stream.write(out), out.size());
  }

  os::Loop loop_;
  crypto::FleetCa ca_ = crypto::FleetCa::make("test");
  std::unique_ptr<Network> network_;
  bool ended_ = false;
};

TEST_F(Hostile, OversizedMessageEndsItsSessionOnly) {
  TestHost east(loop_, ca_, "east-1"), north(loop_, ca_, "north-1");
  east.sessions.want("north-1", {north.address});
  ASSERT_TRUE(wait([&] { return joined(east, north); }));
  const auto stream = enter(east, "west-1");
  Bytes huge;
  Writer(huge).u32(2'000'000);
  EXPECT_EQ(stream->write(huge), huge.size());
  ASSERT_TRUE(wait([&] { return ended_ && !east.has("west-1"); }));
  EXPECT_THAT(east.down, ElementsAre("west-1: message of 2000000 bytes; 1048576 is the most"));
  EXPECT_EQ(east.ask("north-1", "echo", 1), R"(["east-1",1])");
}

TEST_F(Hostile, MessagesBeforeTheSelectionAreRefused) {
  TestHost east(loop_, ca_, "east-1");
  const auto stream = dial(east, "west-1");
  send(*stream, {FrameKind::push, 0, "wire", as_bytes("x")});
  ASSERT_TRUE(wait([&] { return ended_; }));
  EXPECT_TRUE(east.up.empty());
  EXPECT_TRUE(east.pushed.empty());
}

TEST_F(Hostile, SilentPeerIsDropped) {
  LinkLimits limits;
  limits.session.keepalive = milliseconds(20);
  limits.session.dead_after = milliseconds(100);
  TestHost east(loop_, ca_, "east-1", limits);
  const auto stream = enter(east, "west-1");  // answers no ping
  ASSERT_TRUE(wait([&] { return !east.down.empty(); }));
  EXPECT_THAT(east.down.front(), HasSubstr("west-1: nothing heard from west-1 for"));
}

TEST_F(Hostile, TooManyRequestsAreAnsweredBusy) {
  LinkLimits limits;
  limits.session.max_inbound_requests = 10;
  TestHost east(loop_, ca_, "east-1", limits), west(loop_, ca_, "west-1");
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  int busy = 0;
  for (int i = 0; i < 15; ++i) {
    west.sessions.request(
        "east-1", "keep", i, [&](auto result) { busy += result ? 0 : 1; }, seconds(60));
  }
  ASSERT_TRUE(wait([&] { return busy == 5 && east.kept.size() == 10; }));
  east.kept.clear();
  ASSERT_TRUE(wait([&] { return busy == 15; }));
  EXPECT_EQ(west.ask("east-1", "echo", 1), R"(["west-1",1])");  // and serves again
}

TEST_F(Hostile, PeerThatDoesNotReadIsDropped) {
  LinkLimits limits;
  limits.session.max_outbound = 1024 * 1024;
  TestHost east(loop_, ca_, "east-1", limits);
  const auto stream = enter(east, "west-1");
  stream->start({});  // reads no more
  const Bytes large(kMaxBody);
  for (int i = 0; i < 64 && east.has("west-1"); ++i) {
    ASSERT_TRUE(east.sessions.find("west-1")->push_binary("wire", large));
    loop_.run_once(Nanoseconds(0));
  }
  ASSERT_TRUE(wait([&] { return !east.down.empty(); }));
  EXPECT_THAT(east.down.front(), HasSubstr("west-1 takes no data"));
}

TEST_F(Hostile, OurOwnOversizedMessagesAreRefusedHere) {
  TestHost east(loop_, ca_, "east-1"), west(loop_, ca_, "west-1");
  east.sessions.want("west-1", {west.address});
  ASSERT_TRUE(wait([&] { return joined(east, west); }));
  const std::string large(kMaxBody + 1, 'x');
  EXPECT_FALSE(east.sessions.find("west-1")->push("news", large));
  EXPECT_THAT(east.ask("west-1", "echo", large), HasSubstr("1048576 is the most"));
  // An answer may grow past the limit too: the requester hears of it.
  EXPECT_THAT(east.ask("west-1", "echo", std::string(kMaxBody - 4, 'x')),
              HasSubstr("error: echo: the answer has"));
  EXPECT_TRUE(joined(east, west));
}

TEST_F(Hostile, GarbageAtTheDoor) {
  TestHost east(loop_, ca_, "east-1");
  std::mt19937 random(5);
  constexpr int kVisitors = 50;
  std::vector<std::unique_ptr<os::SocketStream>> visitors;
  for (int i = 0; i < kVisitors; ++i) {
    auto& visitor = *visitors.emplace_back(os::tcp_connect(loop_, east.address));
    Bytes garbage(200);
    for (auto& byte : garbage) byte = static_cast<std::byte>(random());
    garbage[0] = std::byte{0x47};  // no TLS record begins like this
    visitor.start({.readable = {},
                   .writable = [&visitor, garbage] { visitor.write(garbage); },
                   .closed = {}});
  }
  ASSERT_TRUE(wait([&] { return east.acceptor.counters().refused == kVisitors; }));
  ASSERT_TRUE(wait([&] { return east.acceptor.half_open() == 0; }));  // after lingering
  TestHost west(loop_, ca_, "west-1");
  west.sessions.want("east-1", {east.address});
  EXPECT_TRUE(wait([&] { return joined(east, west); }));
}

TEST_F(Hostile, HalfOpenHandshakesAreBoundedAndTimedOut) {
  const auto identity = crypto::Identity::make(ca_, "east-1").value();
  int sessions = 0;
  Acceptor acceptor(loop_, identity,
                    {.session = [&](auto, auto) { ++sessions; },
                     .lane = {},
                     .relay = {},
                     .join = {},
                     .refused = {}},
                    {.half_open = 4, .handshake = milliseconds(100), .linger = milliseconds(10)});
  const os::Endpoint address = acceptor.listen(os::Endpoint::loopback(0));
  std::vector<std::unique_ptr<os::SocketStream>> silent;
  for (int i = 0; i < 10; ++i) {
    silent.push_back(os::tcp_connect(loop_, address));
    silent.back()->start({});
  }
  ASSERT_TRUE(wait([&] { return acceptor.counters().displaced == 6; }));
  EXPECT_LE(acceptor.half_open(), 4U);
  ASSERT_TRUE(wait([&] { return acceptor.counters().timed_out == 4; }));
  EXPECT_EQ(acceptor.half_open(), 0U);
}

// A silent connection from an address of loopback.
os::Fd connect_from(std::uint8_t last, const os::Endpoint& to) {
  os::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage raw{};
  os::Endpoint from = os::Endpoint::loopback(0);
  from.address[3] = last;
  socklen_t size = from.to_sockaddr(raw, AF_INET);
  EXPECT_EQ(::bind(fd.number(), reinterpret_cast<const sockaddr*>(&raw), size), 0);
  size = to.to_sockaddr(raw, AF_INET);
  EXPECT_EQ(::connect(fd.number(), reinterpret_cast<const sockaddr*>(&raw), size), 0);
  return fd;
}

TEST_F(Hostile, AFloodOfHalfOpenHandshakesDisplacesItsOwnOnly) {
  const auto identity = crypto::Identity::make(ca_, "east-1").value();
  Acceptor acceptor(loop_, identity,
                    {.session = {}, .lane = {}, .relay = {}, .join = {}, .refused = {}},
                    {.half_open = 8, .half_open_per_address = 4});
  const os::Endpoint address = acceptor.listen(os::Endpoint::loopback(0));
  const os::Fd patient = connect_from(2, address);
  ASSERT_TRUE(wait([&] { return acceptor.half_open() == 1; }));
  std::vector<os::Fd> flood;
  for (int i = 0; i < 20; ++i) flood.push_back(connect_from(3, address));
  ASSERT_TRUE(wait([&] { return acceptor.counters().displaced == 16; }));
  EXPECT_EQ(acceptor.half_open(), 5U);
  std::array<std::byte, 1> none;
  EXPECT_EQ(::recv(patient.number(), none.data(), 1, MSG_DONTWAIT), -1) << "not closed";
}

TEST_F(Hostile, RelayLegWithAnUnknownTicketEnds) {
  TestHost east(loop_, ca_, "east-1");
  const auto identity = crypto::Identity::make(ca_, "west-1").value();
  Network network{loop_, crypto::TlsContext(identity, server_protocols()),
                  [this](const os::Endpoint& to) { return os::tcp_connect(loop_, to); }};
  std::unique_ptr<TlsStream> leg;
  Dial attempt(
      network,
      {.peer = "east-1", .alpn = kRelayAlpn, .addresses = {east.address}, .relays = {}, .call = {}},
      [&](Result<Dial::Reached> reached) { leg = std::move(reached.value().stream); });
  ASSERT_TRUE(wait([&] { return leg != nullptr; }));
  leg->start({.readable =
                  [&] {
                    std::array<std::byte, 16> chunk;
                    leg->read(chunk);
                  },
              .writable = {},
              .closed = [this](const std::string&) { ended_ = true; }});
  send(*leg, {FrameKind::push, 0, "relay.leg",
              as_bytes(R"({"ticket":"00112233445566778899aabbccddeeff"})")});
  EXPECT_TRUE(wait([&] { return ended_; }));
}

}  // namespace
}  // namespace godwit::session
