#include "os/socket.hh"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/test_directory.hh"
#include "os/tcp.hh"
#include "os/test_wait.hh"

namespace godwit::os {
namespace {

// Reads everything, remembers everything, and stops reading when told.
struct Peer {
  explicit Peer(std::unique_ptr<SocketStream> a_stream) : stream(std::move(a_stream)) {
    stream->start({.readable = [this] { drain(); },
                   .writable = [this] { ++writable, flush(); },
                   .closed = [this](std::string why) { reason = std::move(why), ++closed; }});
  }
  void drain() {
    std::array<std::byte, 1000> buffer;
    while (reading) {
      const auto got = stream->read(buffer);
      if (got == 0) return;
      append(received, BytesView(buffer).first(got));
    }
  }
  void send(BytesView bytes) { append(backlog, bytes), flush(); }
  void flush() {
    const auto taken = stream->write(backlog);
    backlog.erase(backlog.begin(), backlog.begin() + static_cast<std::ptrdiff_t>(taken));
  }
  std::string text() const { return std::string(as_text(received)); }

  std::unique_ptr<SocketStream> stream;
  Bytes received, backlog;
  bool reading = true;
  int closed = 0, writable = 0;
  std::string reason;
};

struct Sockets : testing::Test {
  Sockets() {
    listener = Listener::tcp(loop, Endpoint::loopback(0), [this](auto stream, const Accepted& who) {
      accepted = who;
      server = std::make_unique<Peer>(std::move(stream));
    });
  }
  void connect() {
    client = std::make_unique<Peer>(tcp_connect(loop, listener->local()));
    ASSERT_TRUE(run_until(loop, [&] { return server != nullptr && client->writable > 0; }));
  }

  Loop loop;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Peer> client, server;
  Accepted accepted;
};

TEST_F(Sockets, BytesCrossBothWaysAndTheEndArrives) {
  connect();
  EXPECT_EQ(accepted.local, listener->local());
  EXPECT_EQ(accepted.peer.address, Endpoint::loopback(0).address);
  client->send(as_bytes("question"));
  client->stream->finish();
  ASSERT_TRUE(run_until(loop, [&] { return server->closed > 0; }));
  EXPECT_EQ(server->text(), "question");
  EXPECT_EQ(server->reason, "");
  server->send(as_bytes("answer"));  // the other direction is still open
  server = nullptr;
  ASSERT_TRUE(run_until(loop, [&] { return client->closed > 0; }));
  EXPECT_EQ(client->text(), "answer");
  EXPECT_EQ(client->closed, 1);
}

TEST_F(Sockets, ARefusedConnectArrivesAsClosed) {
  const Endpoint gone = listener->local();
  listener = nullptr;
  client = std::make_unique<Peer>(tcp_connect(loop, gone));
  EXPECT_EQ(client->stream->write(as_bytes("x")), 0U);
  ASSERT_TRUE(run_until(loop, [&] { return client->closed > 0; }));
  EXPECT_NE(client->reason.find("refused"), std::string::npos) << client->reason;
  EXPECT_EQ(client->stream->write(as_bytes("x")), 1U) << "swallowed after a failure";
}

TEST_F(Sockets, AReaderThatStopsHoldsTheWriterBackWithoutSpinning) {
  connect();
  server->reading = false;
  client->send(Bytes(16 * 1024 * 1024, std::byte{7}));
  // Until nothing moves any more: a round of the loop that waits in full.
  const auto idle = [&] {
    const Instant before = loop.now();
    loop.run_once(milliseconds(50));
    return loop.now() - before >= milliseconds(50);
  };
  int rounds = 0;
  while (!idle()) ASSERT_LT(++rounds, 10'000) << "the loop spins";
  EXPECT_GT(client->backlog.size(), 0U);
  server->reading = true;
  server->drain();
  ASSERT_TRUE(run_until(loop, [&] { return server->received.size() == 16 * 1024 * 1024; }));
  EXPECT_TRUE(client->backlog.empty());
}

TEST_F(Sockets, AHangUpWhileNobodyReadsLosesNothingAndDoesNotSpin) {
  connect();
  server->reading = false;
  client->send(as_bytes("last words"));
  server->send(as_bytes("x"));
  client = nullptr;
  int rounds = 0;
  for (Instant before = loop.now(); loop.now() - before < milliseconds(30); ++rounds) {
    before = loop.now();
    loop.run_once(milliseconds(30));
    ASSERT_LT(rounds, 100) << "the loop spins";
  }
  EXPECT_EQ(server->closed, 0);
  server->reading = true;
  server->drain();
  ASSERT_TRUE(run_until(loop, [&] { return server->closed > 0; }));
  EXPECT_EQ(server->text(), "last words");
}

TEST_F(Sockets, EachCallbackMayDestroyItsStream) {
  connect();
  auto doomed = adopt_stream(loop, client->stream->fd().duplicate(), "doomed");
  auto* raw = doomed.get();
  raw->start({.readable = [&] { doomed = nullptr; }, .writable = {}, .closed = {}});
  server->send(as_bytes("x"));
  ASSERT_TRUE(run_until(loop, [&] { return doomed == nullptr; }));

  auto closing = tcp_connect(loop, listener->local());
  closing->start({.readable = {}, .writable = [&] { closing = nullptr; }, .closed = {}});
  ASSERT_TRUE(run_until(loop, [&] { return closing == nullptr; }));

  auto failing = unix_connect(loop, "/nonexistent/socket");
  std::string reason;
  failing->start({.readable = {}, .writable = {}, .closed = [&](std::string why) {
                    failing = nullptr;
                    reason = why;
                  }});
  ASSERT_TRUE(run_until(loop, [&] { return !reason.empty(); }));
}

TEST_F(Sockets, AcceptingMayDestroyTheListener) {
  bool done = false;
  auto other = Listener::tcp(loop, Endpoint::loopback(0), {});
  const Endpoint at = other->local();
  other = nullptr;
  other = Listener::tcp(loop, at, [&](auto, const Accepted&) {
    other = nullptr;
    done = true;
  });
  const auto dial = tcp_connect(loop, at);
  EXPECT_TRUE(run_until(loop, [&] { return done; }));
}

TEST_F(Sockets, OutOfDescriptorsTheListenerWaitsInsteadOfSpinning) {
  client = std::make_unique<Peer>(tcp_connect(loop, listener->local()));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::dup(0);  // the lowest free number
  ::close(next);
  const rlimit none{.rlim_cur = static_cast<rlim_t>(next), .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  int rounds = 0;
  for (const Instant start = loop.now(); loop.now() - start < milliseconds(250); ++rounds) {
    loop.run_once(milliseconds(250));
  }
  EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_LT(rounds, 20);
  EXPECT_EQ(server, nullptr);
  EXPECT_TRUE(run_until(loop, [&] { return server != nullptr; }));
}

TEST_F(Sockets, TcpIsTunedAndMeasured) {
  connect();
  const Fd& fd = client->stream->fd();
  EXPECT_TRUE(set_congestion_control(fd, "reno"));
  EXPECT_EQ(congestion_control(fd), "reno");
  EXPECT_FALSE(set_congestion_control(fd, "no-such-thing"));
  EXPECT_TRUE(set_pacing_rate(fd, {8'000'000}));
  EXPECT_TRUE(set_pacing_rate(fd, {}));
  EXPECT_TRUE(set_not_sent_low_water(fd, {128 * 1024}));
  EXPECT_TRUE(set_send_buffer(fd, {1 << 20}));
  int room = 0;
  socklen_t size = sizeof room;
  ASSERT_EQ(::getsockopt(fd.number(), SOL_SOCKET, SO_SNDBUF, &room, &size), 0);
  EXPECT_EQ(room, 2 << 20);  // the kernel doubles it, socket(7)
  EXPECT_TRUE(set_user_timeout(fd, seconds(30)));
  client->send(Bytes(1000));
  ASSERT_TRUE(run_until(loop, [&] { return server->received.size() == 1000; }));
  ASSERT_TRUE(run_until(loop, [&] { return tcp_status(fd).acknowledged.bytes >= 1000; }));
  EXPECT_GT(tcp_status(fd).rtt, Nanoseconds(0));
  EXPECT_FALSE(tcp_status(fd).starting_up) << "reno does not tell";
  if (set_congestion_control(fd, "bbr")) {  // it chooses its gain at the next acknowledgement
    client->send(Bytes(1000));
    EXPECT_TRUE(run_until(loop, [&] { return tcp_status(fd).starting_up; }));
  }
}

TEST_F(Sockets, TheWildcardTakesBothFamilies) {
  int count = 0;
  const auto both =
      Listener::tcp(loop, Endpoint::any_ipv6(0), [&](auto stream, const Accepted& who) {
        ++count;
        EXPECT_EQ(who.peer.text(), stream->peer());
        EXPECT_FALSE(who.peer.is_ipv6);
      });
  const auto dial = tcp_connect(loop, Endpoint::loopback(both->local().port));
  EXPECT_TRUE(run_until(loop, [&] { return count == 1; }));
}

struct UnixSockets : testing::Test {
  Loop loop;
  const TestDirectory directory;
  const std::string path = (directory / "socket").string();
};

TEST_F(UnixSockets, CredentialsModeAndCleanUp) {
  std::unique_ptr<Peer> server;
  Accepted accepted;
  auto listener = Listener::unix_(loop, path, 0660, [&](auto stream, const Accepted& who) {
    accepted = who;
    server = std::make_unique<Peer>(std::move(stream));
  });
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0660U);
  Peer client(unix_connect(loop, path));
  client.send(as_bytes("hello"));
  ASSERT_TRUE(run_until(loop, [&] { return server && server->text() == "hello"; }));
  EXPECT_EQ(accepted.credentials->pid, ::getpid());
  EXPECT_EQ(server->stream->peer(), "unix:" + path);
  EXPECT_THROW(Listener::unix_(loop, path, 0600, {}), SetupError) << "a live one is there";
  listener = nullptr;
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(UnixSockets, AStaleSocketIsReplacedAndAFileIsNot) {
  auto listener = Listener::unix_(loop, path, 0600, {});
  std::filesystem::rename(path, path + ".kept");  // so that its end does not remove it
  listener = nullptr;
  std::filesystem::rename(path + ".kept", path);
  EXPECT_NO_THROW(Listener::unix_(loop, path, 0600, {}));
  std::filesystem::create_directory(path);
  EXPECT_THROW(Listener::unix_(loop, path, 0600, {}), SetupError);
  EXPECT_THROW(Listener::unix_(loop, path + std::string(200, 'x'), 0600, {}), SetupError);
}

TEST_F(UnixSockets, AnAdoptedPairTalks) {
  auto [ours, theirs] = make_socket_pair();
  Peer a(adopt_stream(loop, std::move(ours), "child"));
  Peer b(adopt_stream(loop, std::move(theirs), "parent"));
  a.send(as_bytes("ping"));
  ASSERT_TRUE(run_until(loop, [&] { return b.text() == "ping"; }));
}

}  // namespace
}  // namespace godwit::os
