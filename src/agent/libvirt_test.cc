#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "agent/libvirt_target.hh"
#include "base/test_directory.hh"
#include "os/random.hh"

namespace godwit::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

libvirt::Domain domain() {
  return {.name = "web1",
          .uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f",
          .memory = {256 << 20},
          .disks = {{.target = "vda",
                     .alias = "virtio-disk0",
                     .path = "/pool/web1.qcow2",
                     .format = "qcow2",
                     .size = {1 << 30},
                     .used = {1 << 20}}}};
}

TEST(LibvirtTest, RecordsThereAndBack) {
  LibvirtSourceRecord source{.move = {}, .domain = domain()};
  source.move.id = os::random_id<MigrationId>();
  source.move.vm = "libvirt:web1";
  EXPECT_EQ(to_json(libvirt_source_record(to_json(source))), to_json(source));
  const LibvirtTargetRecord target{.id = os::random_id<MigrationId>(),
                                   .from = "e1",
                                   .domain = domain(),
                                   .state = migrate::TargetState::owner,
                                   .reason = "why",
                                   .started = 7,
                                   .by = "ann",
                                   .new_disks = {"/pool/web1.qcow2"}};
  EXPECT_EQ(to_json(libvirt_target_record(to_json(target))), to_json(target));
  EXPECT_THROW(libvirt_target_record({{"id", "none"}}), SetupError);
}

TEST(LibvirtTest, ADiskThatIsThereIsTakenOnlyWhereTheDomainLeftIt) {
  const auto store = store::make_memory_store();
  const nlohmann::json free = {{"obstacles", nlohmann::json::array()},
                               {"there", nlohmann::json::array()}};
  const nlohmann::json taken = {{"there", {"/pool/web1.qcow2"}}};
  EXPECT_THAT(obstacles_here(*store, domain(), free), IsEmpty());
  EXPECT_THAT(obstacles_here(*store, domain(), taken),
              ElementsAre(HasSubstr("/pool/web1.qcow2 is there already")));
  store->put("libvirt-left", domain().uuid, {{"disks", {"/pool/other.qcow2"}}});
  EXPECT_THAT(obstacles_here(*store, domain(), taken), ElementsAre(HasSubstr("is there already")));
  store->put("libvirt-left", domain().uuid, {{"disks", {"/pool/web1.qcow2"}}});
  EXPECT_THAT(obstacles_here(*store, domain(), taken), IsEmpty());
}

TEST(LibvirtTest, WhatADomainNeedsHasToBeThere) {
  const auto store = store::make_memory_store();
  auto needs = domain();
  needs.bridges = {"no-such-bridge"};
  needs.disks.push_back({.target = "sda",
                         .alias = "sata0-0-0",
                         .path = "/nowhere/seed.iso",
                         .format = "raw",
                         .is_read_only = true});
  EXPECT_THAT(obstacles_here(*store, needs, {{"obstacles", {"what libvirt says"}}}),
              ElementsAre("what libvirt says", HasSubstr("/nowhere/seed.iso"),
                          HasSubstr("no bridge no-such-bridge")));
}

// Another user's, which QEMU of libvirt's is.
TEST(LibvirtTest, WhatIsMadeBesideASocketIsOpenToWhoKnowsItsName) {
  const TestDirectory run;
  const LibvirtSockets sockets(run.path(), os::random_id<MigrationId>());
  ASSERT_TRUE(make_directory(sockets));
  struct stat seen{};
  ASSERT_EQ(::stat(sockets.directory.c_str(), &seen), 0);
  EXPECT_EQ(seen.st_mode & 07777, S_ISVTX | 0733U) << "its names cannot be read";
  EXPECT_FALSE(make_directory(sockets)) << "it is another move's";
  if (::getxattr(sockets.directory.c_str(), "system.posix_acl_default", nullptr, 0) <= 0) {
    ASSERT_EQ(errno, EOPNOTSUPP) << "only where there are no ACLs none is set";
    return;
  }
  const mode_t before = ::umask(0077);
  const os::Fd made(::open(sockets.memory.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0777));
  ::umask(before);
  ASSERT_EQ(::fstat(made.number(), &seen), 0);
  EXPECT_EQ(seen.st_mode & 0777, 0777U);
  EXPECT_FALSE(make_directory(LibvirtSockets("/nowhere", os::random_id<MigrationId>())));
}

TEST(LibvirtTest, TheTunnelIsNotTheTransfer) {
  const auto id = os::random_id<MigrationId>();
  EXPECT_NE(tunnel_of(id), stream::TransferId::from(id.bytes));
  EXPECT_EQ(tunnel_of(id), tunnel_of(id));
}

}  // namespace
}  // namespace godwit::agent
