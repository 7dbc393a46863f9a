#include "session/tls_stream.hh"

#include <gtest/gtest.h>

#include "crypto/identity.hh"
#include "os/memory_stream.hh"
#include "os/test_wait.hh"
#include "session/protocols.hh"

namespace godwit::session {
namespace {

class TlsStreamTest : public testing::Test {
 protected:
  TlsStreamTest() {
    int done = 0;
    for (TlsStream* each : {&client_, &server_}) {
      each->handshake([&](const Result<>& result) { done += result ? 1 : 0; });
    }
    link_.settle();
    EXPECT_EQ(done, 2);
  }
  static crypto::TlsContext context(const crypto::FleetCa& ca, const std::string& host) {
    return {crypto::Identity::make(ca, host).value(), server_protocols()};
  }
  static void read_all(TlsStream& stream) {
    Bytes buffer(64 << 10);
    while (stream.read(buffer) > 0) {
    }
  }

  os::Loop loop_;
  os::MemoryLink link_{20'000};
  crypto::FleetCa ca_ = crypto::FleetCa::make("test");
  crypto::TlsContext east_ = context(ca_, "east-1"), west_ = context(ca_, "west-1");
  TlsStream client_{loop_, link_.take_a(), crypto::TlsEngine::client(east_, kLaneAlpn, "west-1")};
  TlsStream server_{loop_, link_.take_b(), crypto::TlsEngine::server(west_)};
};

// What a short write left over goes out while the stream is read: nobody below has to say more.
TEST_F(TlsStreamTest, AfterAShortWriteWritableFollowsHoweverTheRestGoesOut) {
  int writable = 0;
  client_.start({.readable = {}, .writable = [&] { ++writable; }, .closed = {}});
  server_.start({.readable = {}, .writable = {}, .closed = {}});
  ASSERT_TRUE(os::run_until(loop_, [&] { return writable == 1; }));
  const Bytes much(100'000);
  while (client_.write(much) == much.size()) {
  }
  for (int i = 0; i < 100; ++i) read_all(server_), read_all(client_);
  EXPECT_TRUE(os::run_until(loop_, [&] { return link_.step(), writable == 2; }));
}

}  // namespace
}  // namespace godwit::session
