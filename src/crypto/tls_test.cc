#include "crypto/tls.hh"

#include <gtest/gtest.h>

#include <random>

#include "crypto/openssl.hh"

namespace godwit::crypto {
namespace {

using State = TlsEngine::State;

const std::vector<ServerProtocol> kProtocols{
    {"test/1"}, {"join/1", Clients::anyone}, {"trust/1", Clients::foreign}};

Identity identity(const FleetCa& ca, std::string_view host) {
  return Identity::make(ca, host).value();
}

// Moves ciphertext both ways until both are silent; `step` bytes at a time.
void exchange(TlsEngine& a, TlsEngine& b, std::size_t step = 1 << 20) {
  const auto move = [step](TlsEngine& from, TlsEngine& to) {
    const BytesView all = from.ciphertext();
    const BytesView some = all.first(std::min(step, all.size()));
    to.feed(some);
    from.consume_ciphertext(some.size());
    return !some.empty();
  };
  bool moved = true;
  while (moved) {
    const bool there = move(a, b);
    moved = move(b, a) || there;
  }
}

std::string read_text(TlsEngine& engine) {
  std::string text(1 << 16, '\0');
  text.resize(engine.read(std::as_writable_bytes(std::span(text))));
  return text;
}

// The dialling side's view and the answering side's view after a handshake and one read each.
struct Met {
  TlsEngine client;
  TlsEngine server;
};
Met meet(const TlsContext& client, const TlsContext& server, const std::string& alpn = "test/1",
         const std::string& expected = "") {
  Met met{TlsEngine::client(client, alpn, expected), TlsEngine::server(server)};
  exchange(met.client, met.server);
  read_text(met.client);
  read_text(met.server);
  return met;
}

TEST(Tls, MembersOfAFleetMeet) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext east(identity(ca, "east-1"), kProtocols);
  const TlsContext west(identity(ca, "west-1"), kProtocols);
  Met met = meet(east, west, "test/1", "west-1");
  ASSERT_EQ(met.client.state(), State::open) << met.client.error();
  ASSERT_EQ(met.server.state(), State::open) << met.server.error();
  EXPECT_EQ(met.client.peer_name(), "west-1");
  EXPECT_EQ(met.server.peer_name(), "east-1");
  EXPECT_EQ(met.server.alpn(), "test/1");
  const auto secret = met.client.export_secret("EXPORTER-test", {});
  EXPECT_EQ(secret, met.server.export_secret("EXPORTER-test", {}));
  EXPECT_NE(secret, met.client.export_secret("EXPORTER-other", {}));
  Met again = meet(east, west);
  EXPECT_NE(secret, again.client.export_secret("EXPORTER-test", {}));
}

TEST(Tls, BytesArriveWhateverTheCuts) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext context(identity(ca, "east-1"), kProtocols);
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    Met met{TlsEngine::client(context, "test/1", ""), TlsEngine::server(context)};
    exchange(met.client, met.server, 1 + random() % 100);
    std::string sent(random() % 100'000, 'x');
    for (char& c : sent) c = static_cast<char>(random());
    std::string got;
    for (std::size_t at = 0; at < sent.size();) {
      const std::size_t size = std::min<std::size_t>(1 + random() % 40'000, sent.size() - at);
      at += met.client.write(as_bytes(std::string_view(sent).substr(at, size)));
      exchange(met.client, met.server, 1 + random() % 5000);
      got += read_text(met.server);
    }
    met.client.finish();
    exchange(met.client, met.server);
    got += read_text(met.server);
    EXPECT_TRUE(got == sent);
    EXPECT_EQ(met.server.state(), State::ended);
    EXPECT_EQ(met.server.write(as_bytes("still")), 5U);  // half closed
  }
}

TEST(Tls, TakesNoMoreThanItsBound) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext context(identity(ca, "east-1"), kProtocols);
  Met met = meet(context, context);
  const Bytes large(4 * TlsEngine::kMaxPendingCiphertext);
  const std::size_t took = met.client.write(large);
  EXPECT_LT(took, TlsEngine::kMaxPendingCiphertext + 32 * 1024);
  EXPECT_EQ(met.client.write(large), 0U);
  // Partly taken for ever: what waits stays bounded and in order.
  for (int i = 0; i < 100; ++i) {
    const BytesView all = met.client.ciphertext();
    const BytesView some = all.first(std::min<std::size_t>(all.size(), 20'000));
    met.server.feed(some);
    met.client.consume_ciphertext(some.size());
    met.client.write(BytesView(large).first(16 * 1024));
    read_text(met.server);
    ASSERT_EQ(met.server.state(), State::open) << met.server.error();
  }
}

TEST(Tls, ForeignFleetIsRefusedOnBothSides) {
  // The same names: only the signature tells them apart.
  const FleetCa ours = FleetCa::make("test");
  const FleetCa theirs = FleetCa::make("test");
  const TlsContext east(identity(ours, "east-1"), kProtocols);
  const TlsContext stranger(identity(theirs, "west-1"), kProtocols);
  const Met dialled = meet(east, stranger);
  EXPECT_EQ(dialled.client.state(), State::failed);
  EXPECT_EQ(dialled.client.error(), "certificate of west-1 is of another fleet (foreign CA)");
  EXPECT_EQ(dialled.server.state(), State::failed);
  EXPECT_NE(dialled.server.error().find("foreign CA"), std::string::npos) << dialled.server.error();
}

// Two fleets that trust each other, and a third. All have hosts of the same names.
class TrustTls : public testing::Test {
 protected:
  TlsContext server_of(const FleetCa& ca, std::vector<TrustedFleet> trusted) const {
    return {identity(ca, "h1"), kProtocols, std::move(trusted)};
  }
  static TlsContext client_of(const FleetCa& ca, const FleetCa& peers, const std::string& name) {
    return {identity(ca, "h1"), TrustedFleet{name, peers.certificate()}};
  }

  const FleetCa ours_ = FleetCa::make("test");
  const FleetCa theirs_ = FleetCa::make("test");  // the same name: it proves nothing
  const FleetCa third_ = FleetCa::make("test");
  const TlsContext server_ =
      server_of(ours_, {{"beta", theirs_.certificate()}, {"gamma", third_.certificate()}});
};

TEST_F(TrustTls, HostsOfTwoFleetsMeetAndAreQualified) {
  const Met met = meet(client_of(theirs_, ours_, "alpha"), server_, "trust/1", "h1@alpha");
  ASSERT_EQ(met.client.state(), State::open) << met.client.error();
  ASSERT_EQ(met.server.state(), State::open) << met.server.error();
  EXPECT_EQ(met.client.peer_name(), "h1@alpha");
  EXPECT_EQ(met.server.peer_name(), "h1@beta");
  EXPECT_EQ(met.server.peer_ca().fingerprint(), theirs_.certificate().fingerprint());
  // Whatever it certifies is one of its own.
  const Met third = meet(client_of(third_, ours_, "alpha"), server_, "trust/1");
  EXPECT_EQ(third.server.peer_name(), "h1@gamma");
}

TEST_F(TrustTls, AForeignHostSpeaksNoProtocolOfOurs) {
  const Met met = meet(client_of(theirs_, ours_, "alpha"), server_, "test/1");
  EXPECT_EQ(met.server.state(), State::failed);
  EXPECT_EQ(met.server.error(), "certificate of h1 is of another fleet (foreign CA)");
}

TEST_F(TrustTls, OurOwnHostsAreNoForeignOnes) {
  const Met met = meet(TlsContext(identity(ours_, "h2"), kProtocols), server_, "trust/1");
  EXPECT_EQ(met.server.state(), State::failed);
  EXPECT_EQ(met.server.error(), "certificate of h2 is of a fleet that this host does not trust");
}

TEST_F(TrustTls, AnUntrustedFleetIsRefused) {
  const FleetCa forged = FleetCa::make("test");
  const Met met = meet(client_of(forged, ours_, "alpha"), server_, "trust/1");
  EXPECT_EQ(met.server.state(), State::failed);
  EXPECT_EQ(met.server.error(), "certificate of h1 is of a fleet that this host does not trust");
  EXPECT_EQ(met.client.error(),
            "the peer refused our certificate: it is of another fleet (foreign CA)");
  // No fleet is trusted at all.
  const TlsContext alone(identity(ours_, "h1"), kProtocols);
  EXPECT_EQ(meet(client_of(theirs_, ours_, "alpha"), alone, "trust/1").server.state(),
            State::failed);
}

// A CA that a stranger made: beta's name, serial number and key id, with a key of its own.
TEST_F(TrustTls, ACaThatLooksLikeAnotherIsNotTakenForIt) {
  const PrivateKey key = PrivateKey::make();
  const X509Ptr copy(X509_dup(theirs_.certificate().native()));
  ASSERT_EQ(X509_set_pubkey(copy.get(), key.native()), 1);
  ASSERT_GT(X509_sign(copy.get(), key.native(), nullptr), 0);
  const Certificate alike = Certificate::from_native(copy.get());
  ASSERT_TRUE(alike.is_fleet_ca());
  const TlsContext server = server_of(ours_, {{"alike", alike}, {"beta", theirs_.certificate()}});
  const Met met = meet(client_of(theirs_, ours_, "alpha"), server, "trust/1");
  ASSERT_EQ(met.server.state(), State::open) << met.server.error();
  EXPECT_EQ(met.server.peer_name(), "h1@beta");
  const TlsContext fooled = server_of(ours_, {{"alike", alike}});
  EXPECT_EQ(meet(client_of(theirs_, ours_, "alpha"), fooled, "trust/1").server.state(),
            State::failed);
}

TEST_F(TrustTls, ADialledFleetAnswersForItself) {
  // Who dials beta meets a host of gamma, of our own fleet, or another of beta.
  const TlsContext dials_beta = client_of(ours_, theirs_, "beta");
  const std::vector<TrustedFleet> all = {{"alpha", ours_.certificate()}};
  for (const FleetCa* wrong : {&third_, &ours_}) {
    const Met met = meet(dials_beta, server_of(*wrong, all), "trust/1", "h1@beta");
    EXPECT_EQ(met.client.state(), State::failed);
    EXPECT_EQ(met.client.error(), "certificate of h1 is of another fleet (foreign CA)");
  }
  const Met other = meet(dials_beta, server_of(theirs_, all), "trust/1", "h2@beta");
  EXPECT_EQ(other.client.error(),
            "the host that answered is h1@beta, not h2@beta; check the address");
}

TEST_F(TrustTls, AnEndedCertificateIsRefused) {
  const auto hour = std::chrono::hours(1);
  const TlsContext ended(
      Identity::make(theirs_, "h1", {wall_now() - 2 * hour, wall_now() - hour}).value(),
      TrustedFleet{"alpha", ours_.certificate()});
  EXPECT_NE(meet(ended, server_, "trust/1").server.error().find("expired on"), std::string::npos);
}

TEST(Tls, ExpiredAndFutureCertificatesAreRefused) {
  const FleetCa ca = FleetCa::make("test");
  const WallTime now = wall_now();
  const auto hour = std::chrono::hours(1);
  const TlsContext server(identity(ca, "west-1"), kProtocols);
  const auto east = [&](Validity validity) {
    return TlsContext(Identity::make(ca, "east-1", validity).value(), kProtocols);
  };
  const TlsContext expired = east({now - 2 * hour, now - hour});
  const TlsContext future = east({now + hour, now + 2 * hour});

  const Met late = meet(expired, server);
  EXPECT_EQ(late.server.error(), "certificate of east-1 expired on " + to_text(now - hour));
  EXPECT_EQ(late.client.error(), "the peer refused our certificate: expired or not yet valid");
  const Met early = meet(future, server);
  EXPECT_EQ(early.server.error(), "certificate of east-1 is not valid before " +
                                      to_text(now + hour) + "; check the clocks");
  // And as servers.
  EXPECT_NE(meet(server, expired).client.error().find("expired on"), std::string::npos);
}

TEST(Tls, WrongNameIsRefused) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext context(identity(ca, "west-2"), kProtocols);
  const Met met = meet(context, context, "test/1", "west-1");
  EXPECT_EQ(met.client.error(), "the host that answered is west-2, not west-1; check the address");
  EXPECT_EQ(met.server.state(), State::failed);
}

TEST(Tls, OnlyTheUncertifiedProtocolTakesStrangers) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext server(identity(ca, "west-1"), kProtocols);
  const TlsContext stranger = TlsContext::joining(ca.certificate().fingerprint());

  Met join = meet(stranger, server, "join/1");
  ASSERT_EQ(join.server.state(), State::open) << join.server.error();
  EXPECT_EQ(join.server.peer_name(), "");
  EXPECT_EQ(join.client.peer_name(), "west-1");
  EXPECT_EQ(join.client.peer_ca().fingerprint(), ca.certificate().fingerprint());

  const Met session = meet(stranger, server, "test/1");
  EXPECT_EQ(session.server.state(), State::failed);
  EXPECT_EQ(session.server.error(), "the peer showed no certificate");
  EXPECT_EQ(session.client.error(), "the peer asks for a certificate and we have none");
}

TEST(Tls, JoiningHostTrustsOnlyTheInvitedCa) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext server(identity(FleetCa::make("test"), "west-1"), kProtocols);
  const Met met = meet(TlsContext::joining(ca.certificate().fingerprint()), server, "join/1");
  EXPECT_EQ(met.client.state(), State::failed);
  EXPECT_NE(met.client.error().find("not of the fleet that made this invitation"),
            std::string::npos);
  EXPECT_NE(met.server.state(), State::open);
}

TEST(Tls, UnknownProtocolIsRefused) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext context(identity(ca, "west-1"), kProtocols);
  const Met met = meet(context, context, "other/1");
  EXPECT_EQ(met.server.state(), State::failed);
  EXPECT_NE(met.client.error().find("does not speak this protocol"), std::string::npos);
}

TEST(Tls, GarbageFailsTheConnectionOnly) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext context(identity(ca, "west-1"), kProtocols);
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    TlsEngine server = TlsEngine::server(context);
    Bytes garbage(1 + random() % 3000);
    for (auto& byte : garbage) byte = static_cast<std::byte>(random());
    server.feed(garbage);
    EXPECT_NE(server.state(), State::open);
  }
  TlsEngine http = TlsEngine::server(context);
  http.feed(as_bytes("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_EQ(http.error(), "the peer does not speak TLS");
}

TEST(Tls, DamagedRecordIsNotDelivered) {
  const FleetCa ca = FleetCa::make("test");
  const TlsContext context(identity(ca, "west-1"), kProtocols);
  Met met = meet(context, context);
  ASSERT_EQ(met.client.write(as_bytes("secret")), 6U);
  Bytes record = to_bytes(met.client.ciphertext());
  record.back() ^= std::byte{1};
  met.server.feed(record);
  EXPECT_EQ(read_text(met.server), "");
  EXPECT_EQ(met.server.state(), State::failed);
}

}  // namespace
}  // namespace godwit::crypto
