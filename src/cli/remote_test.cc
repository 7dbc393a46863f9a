#include "cli/remote.hh"

#include <gtest/gtest.h>

#include "cli/context.hh"

namespace godwit::cli {
namespace {

crypto::UserIdentity an_identity() {
  const auto ca = crypto::FleetCa::make("test");
  auto key = crypto::PrivateKey::make();
  auto certificate = ca.sign_user(crypto::CertificateRequest::make(key, "ann"),
                                  {.name = "ann", .role = crypto::UserRole::viewer, .tenant = {}},
                                  crypto::valid_from_now(crypto::kUserCertificateLife))
                         .value();
  return crypto::UserIdentity::make(std::move(key), std::move(certificate), ca.certificate(),
                                    {{"e1", {"192.0.2.1:4747", "[2001:db8::1]:4747"}}})
      .value();
}

// "NAME at ADDRESS,ADDRESS", or the error.
std::string parsed(const std::string& text) {
  try {
    const auto host = parse_remote_host(text, an_identity());
    std::string out = host.name + " at ";
    for (const auto& address : host.addresses) out += address + ",";
    return out;
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.status(), ExitStatus::usage);
    return failure.what();
  }
}

TEST(RemoteHost, IsANameThatMustBeProvenAndAddressesToTry) {
  EXPECT_EQ(parsed("e1"), "e1 at 192.0.2.1:4747,[2001:db8::1]:4747,");
  EXPECT_EQ(parsed("192.0.2.1"), "e1 at 192.0.2.1:4747,") << "known by the identity";
  EXPECT_EQ(parsed("2001:db8::1"), "e1 at [2001:db8::1]:4747,");
  EXPECT_EQ(parsed("w1@198.51.100.1"), "w1 at 198.51.100.1:4747,");
  EXPECT_EQ(parsed("w1@198.51.100.1:99"), "w1 at 198.51.100.1:99,");
  EXPECT_EQ(parsed("w1.example.org:99"), "w1 at w1.example.org:99,");
  EXPECT_EQ(parsed("w1"), "w1 at w1:4747,") << "by the network's names";
}

TEST(RemoteHost, AnAddressOfNobodyIsRefused) {
  EXPECT_TRUE(parsed("198.51.100.1").contains("write NAME@198.51.100.1")) << parsed("198.51.100.1");
  EXPECT_TRUE(parsed("Bad_Name@198.51.100.1").contains("not a host's name"));
}

}  // namespace
}  // namespace godwit::cli
