// With real disks, made by qemu-img.
#include "qemu/storage_daemon.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/test_directory.hh"
#include "os/test_wait.hh"
#include "qemu/block_client.hh"
#include "qemu/make_disk.hh"

namespace godwit::qemu {
namespace {

using testing::HasSubstr;

class StorageDaemonTest : public testing::Test {
 protected:
  StorageDaemonTest() {
    std::filesystem::permissions(directory_.path(), std::filesystem::perms(0711));
    EXPECT_TRUE(make_disk(disks_[0], paths_[0]));
  }

  void start() {
    is_ready_ = false;
    daemon_.reset();
    daemon_ = std::make_unique<StorageDaemon>(loop_, disks_, paths_, socket_,
                                              [this](std::string why) { ended_ = std::move(why); });
    client_ = std::make_unique<BlockClient>(loop_, socket_, disk_node(0),
                                            [this](const Result<>& done) { is_ready_ = !!done; });
  }
  // Why it failed, or nothing.
  std::string wait_for(const std::function<void(BlockClient::Done)>& begin) {
    std::optional<std::string> said;
    begin([&](const Result<>& done) { said = done ? "" : done.error().text; });
    return os::run_until(loop_, [&] { return said.has_value(); }) ? *said : "nothing came";
  }
  std::string stop() {
    client_.reset();
    return wait_for([this](auto done) {
      daemon_->stop([done = std::make_shared<BlockClient::Done>(std::move(done))](
                        const Result<>& ended) { (*done)(ended); });
    });
  }

  os::Loop loop_;
  TestDirectory directory_;
  const std::string socket_ = directory_ / "socket";
  const std::vector<DiskSpec> disks_{{.name = "root", .size = ByteCount{64 << 20}}};
  const std::vector<DiskPaths> paths_{{.file = directory_ / "root.qcow2"}};
  std::unique_ptr<StorageDaemon> daemon_;
  std::unique_ptr<BlockClient> client_;
  bool is_ready_ = false;
  std::string ended_;
};

TEST_F(StorageDaemonTest, WhatIsWrittenIsThereOnceItHasStopped) {
  const Bytes written(64 << 10, std::byte{7});
  start();
  ASSERT_TRUE(os::run_until(loop_, [&] { return is_ready_; }));
  EXPECT_EQ(client_->size(), disks_[0].size);
  EXPECT_EQ(wait_for([&](auto done) { client_->write(1 << 20, written, std::move(done)); }), "");
  EXPECT_EQ(stop(), "");

  start();
  ASSERT_TRUE(os::run_until(loop_, [&] { return is_ready_; }));
  Bytes read(written.size());
  EXPECT_EQ(wait_for([&](auto done) { client_->read(1 << 20, read, std::move(done)); }), "");
  EXPECT_EQ(read, written);
  EXPECT_EQ(stop(), "");
  EXPECT_EQ(ended_, "");
}

TEST_F(StorageDaemonTest, SaysWhyItCannotOpenADisk) {
  std::ofstream(paths_[0].file, std::ios::binary) << "this is no qcow2";
  start();
  ASSERT_TRUE(os::run_until(loop_, [&] { return !ended_.empty(); }));
  EXPECT_THAT(ended_, HasSubstr("qcow2"));
}

TEST_F(StorageDaemonTest, NoneIsLeftOfOneThatIsDestroyed) {
  start();
  ASSERT_TRUE(os::run_until(loop_, [&] { return is_ready_; }));
  daemon_.reset();
  EXPECT_FALSE(std::filesystem::exists(socket_));
  start();  // which could not lock the file if the first had it still
  EXPECT_TRUE(os::run_until(loop_, [&] { return is_ready_; }));
}

}  // namespace
}  // namespace godwit::qemu
