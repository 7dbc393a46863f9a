// What is noted of disks that a vm leaves, or that come, with real files and qemu-img.
#include "agent/disks.hh"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "agent/records.hh"
#include "base/test_directory.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

using testing::HasSubstr;

constexpr std::uint64_t kMebibyte = 1 << 20;

class DisksTest : public testing::Test {
 protected:
  DisksTest() {
    config_.name = "w1";
    config_.disk_dir = directory_ / "disks";
    for (const auto& path : {directory_.path(), config_.disk_dir, config_.vm_disks()}) {
      fs::create_directories(path);
      fs::permissions(path, fs::perms(0711));  // QEMU's user passes through
    }
    spec_.id = VmId::from(Bytes(16, std::byte{7}));
    spec_.name = "web";
    spec_.disks = {{.name = "root", .size = {8 * kMebibyte}},
                   {.name = "data", .format = qemu::DiskFormat::raw, .size = {4 * kMebibyte}}};
  }

  fs::path file(std::size_t index) { return disks_.paths(spec_)[index].file; }
  void write(std::size_t index, std::uint64_t bytes) {
    std::ofstream(file(index), std::ios::binary | std::ios::in) << std::string(bytes, 'x');
  }
  // By disk: "moved to w2", "unfinished from e1", "replica from e1".
  std::map<std::string, std::string> left() {
    std::map<std::string, std::string> left;
    for (const auto& disk : disks_.list_left()) {
      for (const auto* what : {"moved to ", "unfinished from ", "replica from "}) {
        std::string key(what, std::strlen(what) - 1);
        std::ranges::replace(key, ' ', '_');
        if (disk.contains(key)) left[disk["name"]] = what + disk[key].get<std::string>();
      }
    }
    return left;
  }

  os::Loop loop_;
  TestDirectory directory_;
  Config config_;
  Events events_;
  std::unique_ptr<store::Store> store_ = store::make_memory_store();
  Images images_{loop_, config_, *store_, events_};
  Disks disks_{config_, *store_, images_};
  qemu::VmSpec spec_;
};

TEST_F(DisksTest, WhatCameOfAMoveThatBrokeOffIsThereForTheNext) {
  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  write(1, 2 * kMebibyte);
  disks_.break_off(spec_.id);
  EXPECT_EQ(left()["data"], "unfinished from e1");
  EXPECT_GE(disks_.there_already(spec_).bytes, 2 * kMebibyte);
  ASSERT_TRUE(disks_.receive(spec_, "e2"));
  EXPECT_EQ(std::ifstream(file(1)).get(), 'x');
  EXPECT_EQ(left()["root"], "unfinished from e2");
  disks_.arrived(spec_.id);
  EXPECT_TRUE(left().empty());
  EXPECT_TRUE(fs::exists(file(0)) && fs::exists(file(1)));
}

TEST_F(DisksTest, OfNothingNothingIsKept) {
  for (int i = 0; i < 6; ++i) {
    spec_.disks.push_back({.name = fmt::format("more{}", i), .size = {8 * kMebibyte}});
  }
  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  disks_.break_off(spec_.id);
  EXPECT_TRUE(left().empty());
  EXPECT_FALSE(fs::exists(file(0)));
}

TEST_F(DisksTest, WhatAVmLeftIsUnfinishedOnceItComesBack) {
  ASSERT_TRUE(disks_.make(spec_));
  disks_.leave(spec_, "w2");
  EXPECT_EQ(left()["data"], "moved to w2");
  disks_.break_off(spec_.id);  // of a move that did not come as far as here
  disks_.remove_unfinished(spec_.id);
  EXPECT_EQ(left()["data"], "moved to w2");
  write(1, 2 * kMebibyte);
  ASSERT_TRUE(disks_.receive(spec_, "w2"));
  disks_.break_off(spec_.id);
  EXPECT_EQ(left()["data"], "unfinished from w2");
  disks_.leave(spec_, "w3");
  EXPECT_EQ(left()["data"], "moved to w3");
  ASSERT_TRUE(disks_.receive(spec_, "w3"));
  disks_.remove_unfinished(spec_.id);
  EXPECT_TRUE(left().empty());
  EXPECT_FALSE(fs::exists(file(1)));
}

TEST_F(DisksTest, AnotherDiskOfTheSameNameIsMadeAnew) {
  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  write(1, 2 * kMebibyte);
  spec_.disks[1].size = {6 * kMebibyte};
  EXPECT_EQ(disks_.there_already(spec_).bytes / kMebibyte, 0u) << "of root, which is new";
  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  EXPECT_EQ(std::ifstream(file(1)).get(), '\0');
  EXPECT_EQ(fs::file_size(file(1)), 6 * kMebibyte);
}

TEST_F(DisksTest, AnotherTenantFindsNothing) {
  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  write(1, 2 * kMebibyte);
  spec_.tenant = "red";
  EXPECT_EQ(disks_.there_already(spec_).bytes, 0u);
  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  EXPECT_EQ(std::ifstream(file(1)).get(), '\0');
}

TEST_F(DisksTest, AReplicaIsAsTheLastRunLeftItIfNothingElseWroteIt) {
  EXPECT_EQ(disks_.receive_replica(spec_, "e1", "").value(), false);
  EXPECT_EQ(left()["data"], "replica from e1");
  EXPECT_EQ(disks_.receive_replica(spec_, "e1", "").value(), false) << "no run came whole";
  disks_.replica_synced(spec_.id, "run 1");
  EXPECT_EQ(disks_.receive_replica(spec_, "e1", "run 0").value(), false);
  disks_.replica_synced(spec_.id, "run 1");
  EXPECT_EQ(disks_.receive_replica(spec_, "e1", "run 1").value(), true);
  EXPECT_EQ(disks_.receive_replica(spec_, "e1", "run 1").value(), true) << "of one that broke off";

  fs::remove(file(0));
  EXPECT_EQ(disks_.receive_replica(spec_, "e1", "run 1").value(), false);
  disks_.replica_synced(spec_.id, "run 2");
  ASSERT_TRUE(disks_.receive(spec_, "e1")) << "the vm itself begins to come";
  write(1, 2 * kMebibyte);
  disks_.break_off(spec_.id);
  EXPECT_EQ(left()["data"], "unfinished from e1");
  EXPECT_EQ(disks_.receive_replica(spec_, "e1", "run 2").value(), false);
  EXPECT_EQ(std::ifstream(file(1)).get(), 'x') << "what came is compared";
}

TEST_F(DisksTest, AReplicaIsRemovedForWhoKeepsItUnlessTheVmHasCome) {
  ASSERT_TRUE(disks_.receive_replica(spec_, "e1", ""));
  disks_.remove_replica(spec_.id, "e2");
  EXPECT_EQ(left()["root"], "replica from e1");
  const VmRecord here{.spec = spec_, .process = {}, .stopped = {}, .arriving = {}};
  store_->put("vm", "web", to_json(here));
  disks_.remove_replica(spec_.id, "e1");
  EXPECT_TRUE(fs::exists(file(0)));
  store_->erase("vm", "web");
  disks_.remove_replica(spec_.id, "e1");
  EXPECT_FALSE(fs::exists(file(0)));
  EXPECT_TRUE(left().empty());

  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  write(1, 2 * kMebibyte);
  disks_.break_off(spec_.id);
  disks_.remove_replica(spec_.id, "e1");
  EXPECT_EQ(left()["data"], "unfinished from e1") << "a move's, which is no replica";
}

TEST_F(DisksTest, WhatAnotherHostHasOnTheSameStorageIsLeftAlone) {
  const auto other_store = store::make_memory_store();
  Config other_config = config_;
  other_config.name = "e1";
  Images other_images{loop_, other_config, *other_store, events_};
  Disks other{other_config, *other_store, other_images};
  ASSERT_TRUE(other.make(spec_));
  write(1, 2 * kMebibyte);

  const auto marker = other.mark(spec_);
  ASSERT_TRUE(marker);
  EXPECT_TRUE(disks_.sees(spec_.id, marker->id()));
  EXPECT_EQ(disks_.obstacle_to_sharing(spec_), "");

  const auto refused = disks_.receive(spec_, "e1");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("no record of what is in"));
  EXPECT_FALSE(disks_.receive_replica(spec_, "e1", ""));
  disks_.break_off(spec_.id);
  disks_.remove_unfinished(spec_.id);
  disks_.remove_replica(spec_.id, "e1");
  disks_.purge_left("web", spec_.tenant);
  EXPECT_EQ(std::ifstream(file(1)).get(), 'x');
  EXPECT_EQ(other.obstacle_to_receiving(VmId::from(Bytes(16, std::byte{9}))), "");
}

TEST_F(DisksTest, AMarkerIsThereAsLongAsItsHostWantsIt) {
  EXPECT_FALSE(disks_.mark(spec_)) << "there is no place for one yet";
  ASSERT_TRUE(disks_.make(spec_));
  auto marker = disks_.mark(spec_);
  const StorageMarkerId id = marker->id();
  EXPECT_TRUE(disks_.sees(spec_.id, id));
  marker.reset();
  EXPECT_FALSE(disks_.sees(spec_.id, id));
}

TEST_F(DisksTest, WhatIsOnItsWayIsNotPurged) {
  ASSERT_TRUE(disks_.receive(spec_, "e1"));
  write(1, 2 * kMebibyte);
  const VmRecord here{.spec = spec_, .process = {}, .stopped = {}, .arriving = {}};
  store_->put("vm", "web", to_json(here));
  disks_.purge_left("web", spec_.tenant);
  disks_.remove_unfinished(spec_.id);
  EXPECT_TRUE(left().empty()) << "it is the vm's";
  EXPECT_TRUE(fs::exists(file(1)));
  store_->erase("vm", "web");
  disks_.purge_left("web", spec_.tenant);
  EXPECT_FALSE(fs::exists(file(1)));
}

}  // namespace
}  // namespace godwit::agent
