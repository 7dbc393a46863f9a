// With libvirt's own test driver, whose host is made up: it has a domain "test" that runs
// (libvirt.org/drvtest.html).
#include "libvirt/connection.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::libvirt {
namespace {

using testing::HasSubstr;

constexpr const char* kUuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";

class ConnectionTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(connection_) << connection_.error().text; }
  Result<Connection> connection_ = Connection::open("test:///default");
};

TEST_F(ConnectionTest, ADomainByItsNameOrItsUuid) {
  for (const char* known : {"test", kUuid}) {
    const auto found = connection_->find(known);
    ASSERT_TRUE(found && *found) << known;
    EXPECT_STREQ(virDomainGetName(found->get()), "test");
  }
}

// Whether it is there decides where it runs: only libvirt's word that it is not counts.
TEST_F(ConnectionTest, OneThatIsNotThereIsNoError) {
  for (const char* unknown : {"nobody", "00000000-0000-0000-0000-000000000000", "-"}) {
    const auto found = connection_->find(unknown);
    ASSERT_TRUE(found) << unknown << ": " << found.error().text;
    EXPECT_EQ(*found, nullptr);
  }
}

TEST_F(ConnectionTest, WhatCannotBeAskedIsAnError) {
  const auto found = connection_->find(std::string(36, '-'));  // no UUID, though it looks like one
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().text, HasSubstr("cannot look for domain"));
  EXPECT_FALSE(Connection::open("nosuch:///system"));
}

TEST_F(ConnectionTest, WhatADomainDoes) {
  const auto domain = connection_->find("test");
  ASSERT_TRUE(domain && *domain);
  const auto runs = state_of(**domain);
  ASSERT_TRUE(runs);
  EXPECT_TRUE(runs->is_active && !runs->is_paused);
  EXPECT_TRUE(runs->has_job) << "this driver does not tell";
  ASSERT_EQ(virDomainSuspend(domain->get()), 0);
  EXPECT_TRUE(state_of(**domain)->is_paused);
  ASSERT_TRUE(resume(**domain));
  EXPECT_FALSE(state_of(**domain)->is_paused);
  EXPECT_FALSE(resume(**domain)) << "it runs";
}

// This driver looks for no pool by its directory: which says nothing of what is there.
TEST_F(ConnectionTest, WhereADiskMayBeIsNotGuessed) {
  EXPECT_FALSE(connection_->place_of("/default-pool/disk.qcow2"));
  EXPECT_FALSE(connection_->remove_disk("/default-pool/disk.qcow2"));
}

}  // namespace
}  // namespace godwit::libvirt
