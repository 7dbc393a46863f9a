#include "crypto/user.hh"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/test_directory.hh"
#include "crypto/revocations.hh"
#include "crypto/tls.hh"

namespace godwit::crypto {
namespace {

const User kAnn{"ann", UserRole::operator_, "red"};
const User kBob{"bob", UserRole::viewer, ""};

UserIdentity identity_of(const FleetCa& ca, const User& user,
                         Validity validity = valid_from_now(kUserCertificateLife)) {
  auto key = PrivateKey::make();
  auto certificate = ca.sign_user(CertificateRequest::make(key, user.name), user, validity).value();
  return UserIdentity::make(std::move(key), std::move(certificate), ca.certificate(),
                            {{"e1", {"192.0.2.1:4747", "[2001:db8::1]:4747"}}})
      .value();
}

TEST(User, UriIsReadBack) {
  EXPECT_EQ(user_uri(kAnn), "godwit:operator/red/ann");
  EXPECT_EQ(user_uri(kBob), "godwit:viewer/*/bob");
  EXPECT_EQ(parse_user_uri(user_uri(kAnn)), kAnn);
  EXPECT_EQ(parse_user_uri(user_uri(kBob)), kBob);
  for (const char* uri :
       {"", "godwit:", "godwit:host/e1", "godwit:root/*/ann", "godwit:operator/ann",
        "godwit:operator//ann", "godwit:operator/red/", "godwit:operator/red/a/b",
        "godwit:operator/RED/ann", "godwit:viewer/**/ann", "http:viewer/*/ann"}) {
    EXPECT_FALSE(parse_user_uri(uri)) << uri;
  }
}

TEST(User, CertificateIsNoHosts) {
  const FleetCa ca = FleetCa::make("test");
  const UserIdentity ann = identity_of(ca, kAnn);
  EXPECT_EQ(ann.certificate().user().value(), kAnn);
  EXPECT_FALSE(ann.certificate().host_name());
  EXPECT_FALSE(Identity::make(ca, "e1").value().certificate().user());
  EXPECT_FALSE(ca.certificate().user());
  EXPECT_FALSE(ca.sign_user(CertificateRequest::make(PrivateKey::make(), "x"),
                            {"not a name", UserRole::viewer, ""}, valid_from_now(kCaLife)));
  EXPECT_FALSE(ca.sign_user(CertificateRequest::make(PrivateKey::make(), "x"),
                            {"x", UserRole::viewer, "red/blue"}, valid_from_now(kCaLife)));
}

TEST(User, BundleIsReadBack) {
  const FleetCa ca = FleetCa::make("test");
  const UserIdentity ann = identity_of(ca, kAnn);
  const auto copy = UserIdentity::parse(ann.pem());
  ASSERT_TRUE(copy) << copy.error().text;
  EXPECT_EQ(copy->user(), kAnn);
  EXPECT_EQ(copy->hosts(), ann.hosts());
  EXPECT_EQ(copy->fleet(), "test");
  EXPECT_FALSE(UserIdentity::parse("# host e1 1.2.3.4"));
  // Somebody else's key, and another fleet's CA of the same name.
  const UserIdentity other = identity_of(FleetCa::make("test"), kAnn);
  EXPECT_FALSE(UserIdentity::parse(other.key().pem() + ann.certificate().pem() + ann.ca().pem()));
  EXPECT_FALSE(UserIdentity::parse(ann.key().pem() + ann.certificate().pem() + other.ca().pem()));
}

TEST(User, BundleThatOthersCanReadIsRefused) {
  const TestDirectory directory;
  const auto file = directory / "ann.pem";
  std::ofstream(file) << identity_of(FleetCa::make("test"), kAnn).pem();
  ASSERT_EQ(::chmod(file.c_str(), 0600), 0);
  EXPECT_TRUE(UserIdentity::load(file));
  ASSERT_EQ(::chmod(file.c_str(), 0640), 0);
  const auto loaded = UserIdentity::load(file);
  ASSERT_FALSE(loaded);
  EXPECT_TRUE(loaded.error().text.contains("mode 640")) << loaded.error().text;
}

// ---- who may speak what ----

constexpr auto kOpen = TlsEngine::State::open;

struct Meeting {
  TlsEngine client, server;
};

Meeting meet(const TlsContext& from, const TlsContext& to, const std::string& alpn,
             const std::string& expected = "e1") {
  Meeting met{TlsEngine::client(from, alpn, expected), TlsEngine::server(to)};
  for (bool moved = true; moved;) {
    moved = false;
    for (auto [a, b] : {std::pair(&met.client, &met.server), std::pair(&met.server, &met.client)}) {
      const auto size = a->ciphertext().size();
      moved = moved || size > 0;
      b->feed(a->ciphertext());
      a->consume_ciphertext(size);
    }
  }
  std::array<std::byte, 1> none;
  EXPECT_EQ(met.client.read(none), 0u);  // takes an alert
  return met;
}

struct UserTls : testing::Test {
  FleetCa ca = FleetCa::make("test");
  TlsContext host{Identity::make(ca, "e1").value(),
                  {{"host/1", Clients::hosts}, {"http/1.1", Clients::users}}};
};

TEST_F(UserTls, UsersSpeakTheApiAndNothingElse) {
  const TlsContext ann(identity_of(ca, kAnn));
  auto api = meet(ann, host, "http/1.1");
  ASSERT_EQ(api.server.state(), kOpen) << api.server.error();
  EXPECT_EQ(api.client.state(), kOpen);
  EXPECT_EQ(api.server.peer_user()->user().value(), kAnn);
  EXPECT_EQ(api.server.peer_name(), "") << "a user is no host";
  EXPECT_EQ(api.client.peer_name(), "e1");
  const auto session = meet(ann, host, "host/1");
  EXPECT_EQ(session.server.state(), TlsEngine::State::failed);
  EXPECT_TRUE(session.server.error().contains("'ann' is not a host's")) << session.server.error();
}

TEST_F(UserTls, HostsDoNotSpeakTheApi) {
  const TlsContext w1(Identity::make(ca, "w1").value(), {});
  const auto api = meet(w1, host, "http/1.1");
  EXPECT_EQ(api.server.state(), TlsEngine::State::failed);
  EXPECT_TRUE(api.server.error().contains("w1 is not a user's")) << api.server.error();
  EXPECT_EQ(meet(w1, host, "host/1").server.state(), kOpen);
}

TEST_F(UserTls, StrangersAndTheExpiredAreRefused) {
  const TlsContext stranger(identity_of(FleetCa::make("test"), kAnn));
  EXPECT_NE(meet(stranger, host, "http/1.1").server.state(), kOpen);
  const auto then = wall_now() - std::chrono::days(2);
  const TlsContext late(identity_of(ca, kAnn, {then, then + std::chrono::days(1)}));
  const auto met = meet(late, host, "http/1.1");
  EXPECT_TRUE(met.server.error().contains("ann expired on")) << met.server.error();
}

TEST_F(UserTls, TheHostMustBeTheOneThatWasMeant) {
  const TlsContext ann(identity_of(ca, kAnn));
  const auto met = meet(ann, host, "http/1.1", "w1");
  EXPECT_EQ(met.client.state(), TlsEngine::State::failed);
  EXPECT_TRUE(met.client.error().contains("answered is e1, not w1")) << met.client.error();
  // A user cannot pose as a host either.
  const TlsContext impostor(identity_of(ca, {"e1", UserRole::operator_, ""}));
  EXPECT_NE(meet(ann, impostor, "http/1.1").client.state(), kOpen);
}

TEST(Revocations, AreSignedAndNumbered) {
  const FleetCa ca = FleetCa::make("test");
  const std::string ann = identity_of(ca, kAnn).certificate().serial();
  const std::string bob = identity_of(ca, kBob).certificate().serial();
  const auto list = Revocations::from_pem(ca.revoke({ann}, 7), ca.certificate());
  ASSERT_TRUE(list) << list.error().text;
  EXPECT_EQ(list->number(), 7u);
  EXPECT_TRUE(list->has(ann));
  EXPECT_FALSE(list->has(bob));
  EXPECT_TRUE(Revocations::from_pem(ca.revoke({}, 8), ca.certificate())->serials().empty());
  const FleetCa other = FleetCa::make("test");
  EXPECT_FALSE(Revocations::from_pem(other.revoke({ann}, 9), ca.certificate()));
  EXPECT_FALSE(Revocations::from_pem("garbage", ca.certificate()));
}

}  // namespace
}  // namespace godwit::crypto
