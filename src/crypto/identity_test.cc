#include "crypto/identity.hh"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/bytes.hh"
#include "base/test_directory.hh"

namespace godwit::crypto {
namespace {

class IdentityFiles : public testing::Test {
 protected:
  const TestDirectory made_;
  const std::filesystem::path& directory_ = made_.path();
};

TEST(Certificate, NamesItsHostTwice) {
  const FleetCa ca = FleetCa::make("test");
  const Identity identity = Identity::make(ca, "east-1").value();
  EXPECT_EQ(identity.host_name(), "east-1");
  EXPECT_EQ(identity.fleet(), "test");
  EXPECT_EQ(identity.certificate().host_name(), "east-1");
  const auto life = identity.certificate().not_after() - wall_now();
  EXPECT_GT(life, std::chrono::days(364));
  EXPECT_LE(life, std::chrono::days(365));
}

TEST(Certificate, OfTheCaIsNotAHosts) {
  // A fleet may be called like a host; its CA certificate must still not pass for that host's.
  const FleetCa ca = FleetCa::make("east-1");
  EXPECT_FALSE(ca.certificate().host_name());
}

TEST(Certificate, IsAFleetsCaOrNot) {
  const FleetCa ca = FleetCa::make("test");
  EXPECT_TRUE(ca.certificate().is_fleet_ca());
  EXPECT_FALSE(Identity::make(ca, "east-1").value().certificate().is_fleet_ca());
  const auto hour = std::chrono::hours(1);
  const FleetCa ended = FleetCa::make("test", {wall_now() - 2 * hour, wall_now() - hour});
  EXPECT_NE(ended.certificate().is_fleet_ca().error().text.find("expired"), std::string::npos);
}

TEST(Certificate, SurvivesPem) {
  const FleetCa ca = FleetCa::make("test");
  const auto copy = Certificate::from_pem(ca.certificate().pem());
  ASSERT_TRUE(copy);
  EXPECT_EQ(copy->fingerprint(), ca.certificate().fingerprint());
  EXPECT_FALSE(Certificate::from_pem("garbage"));
  EXPECT_FALSE(PrivateKey::from_pem(ca.certificate().pem()));
}

TEST(CertificateRequest, MustBeSignedByItsOwnKey) {
  const auto request = CertificateRequest::make(PrivateKey::make(), "east-1");
  ASSERT_TRUE(CertificateRequest::from_pem(request.pem()));
  std::string damaged = request.pem();
  const std::size_t at = damaged.find("-----END") - 10;  // inside the signature
  damaged[at] = damaged[at] == 'A' ? 'B' : 'A';
  EXPECT_FALSE(CertificateRequest::from_pem(damaged));
}

TEST(FleetCa, NamesTheHostItself) {
  // The request asks for another name than the one that the signer grants.
  const FleetCa ca = FleetCa::make("test");
  const auto request = CertificateRequest::make(PrivateKey::make(), "founder");
  const auto certificate = ca.sign(request, "guest");
  ASSERT_TRUE(certificate);
  EXPECT_EQ(certificate->host_name(), "guest");
  EXPECT_FALSE(ca.sign(request, "Not a name"));
}

TEST(Identity, RefusesPartsThatDoNotBelongTogether) {
  const FleetCa ca = FleetCa::make("test");
  const FleetCa other = FleetCa::make("test");
  const Identity east = Identity::make(ca, "east-1").value();
  EXPECT_FALSE(Identity::make(PrivateKey::make(), east.certificate(), ca.certificate()));
  EXPECT_FALSE(Identity::make(east.key(), east.certificate(), other.certificate()));
  EXPECT_TRUE(Identity::make(east.key(), east.certificate(), ca.certificate()));
}

TEST_F(IdentityFiles, AreReadBack) {
  const FleetCa ca = FleetCa::make("test");
  ASSERT_TRUE(ca.save(directory_));
  ASSERT_TRUE(Identity::make(ca, "east-1").value().save(directory_));
  EXPECT_EQ(FleetCa::load(directory_).value().fleet(), "test");
  EXPECT_EQ(Identity::load(directory_).value().host_name(), "east-1");
  struct stat status{};
  for (const char* name : {"ca.key", "host.key"}) {
    ASSERT_EQ(::stat((directory_ / name).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U) << name;
  }
}

TEST_F(IdentityFiles, KeyThatOthersCanReadIsRefused) {
  ASSERT_TRUE(Identity::make(FleetCa::make("test"), "east-1").value().save(directory_));
  ASSERT_EQ(::chmod((directory_ / "host.key").c_str(), 0644), 0);
  const auto loaded = Identity::load(directory_);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().text.find("host.key has mode 644"), std::string::npos)
      << loaded.error().text;
}

TEST_F(IdentityFiles, MissingOrDamagedFilesAreNamed) {
  EXPECT_NE(Identity::load(directory_).error().text.find("host.key"), std::string::npos);
  ASSERT_TRUE(Identity::make(FleetCa::make("test"), "east-1").value().save(directory_));
  std::ofstream(directory_ / "host.pem") << "garbage";
  EXPECT_NE(Identity::load(directory_).error().text.find("host.pem"), std::string::npos);
}

}  // namespace
}  // namespace godwit::crypto
