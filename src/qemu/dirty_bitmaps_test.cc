// With a real QEMU, that has two disks and no machine.
#include "qemu/dirty_bitmaps.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "base/test_directory.hh"
#include "os/child.hh"
#include "os/socket.hh"
#include "os/test_wait.hh"
#include "qemu/argv.hh"
#include "qemu/disk_nodes.hh"
#include "qemu/json.hh"
#include "qemu/make_disk.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

constexpr int kQmpFd = 3;
constexpr std::uint64_t kBlock = 64 << 10;  // bytes
const std::string kName = "replica";

class DirtyBitmapsTest : public testing::Test {
 protected:
  DirtyBitmapsTest() {
    std::filesystem::permissions(directory_.path(), std::filesystem::perms(0711));
    for (std::size_t i = 0; i < disks_.size(); ++i) EXPECT_TRUE(make_disk(disks_[i], paths_[i]));
    start();
  }

  void start() {
    os::SocketPair sockets = os::make_socket_pair();
    std::vector<std::string> argv{std::string(kQemuBinary),
                                  "-machine",
                                  "none",
                                  "-nodefaults",
                                  "-display",
                                  "none",
                                  "-chardev",
                                  fmt::format("socket,id=qmp,fd={}", kQmpFd),
                                  "-mon",
                                  "chardev=qmp,mode=control"};
    for (std::size_t i = 0; i < disks_.size(); ++i) {
      for (auto& node : disk_nodes(disks_[i], paths_[i], disk_node(i))) {
        argv.insert(argv.end(), {"-blockdev", std::move(node)});
      }
    }
    process_ = os::Child::spawn(
        {.argv = argv, .fds = {{sockets.theirs.number(), kQmpFd}}, .dies_with_us = true});
    qmp_ = std::make_unique<Qmp>(loop_, os::adopt_stream(loop_, std::move(sockets.ours), "qemu"),
                                 "web1", Qmp::Events{});
  }
  void end(int signal) {
    qmp_.reset();
    EXPECT_TRUE(process_.kill(signal));
    EXPECT_TRUE(process_.wait(os::kTestPatience));
  }

  template <class T>
  Result<T> wait_for(const std::function<void(std::function<void(Result<T>)>)>& begin) {
    std::optional<Result<T>> got;
    begin([&](Result<T> result) { got = std::move(result); });
    if (!os::run_until(loop_, [&] { return got.has_value(); })) return fail("nothing came");
    return *got;
  }
  void write(std::size_t disk, std::uint64_t block) {
    const std::string command =
        fmt::format("qemu-io {} \"write {} {}\"", disk_node(disk), block * kBlock, kBlock);
    const auto said = wait_for<json>([&](auto done) {
      qmp_->execute("human-monitor-command", {{"command-line", command}}, std::move(done));
    });
    ASSERT_TRUE(said);
    ASSERT_EQ(*said, "");
  }
  Result<Changes> take() {
    return wait_for<Changes>([&](auto done) {
      take_changes(
          *qmp_, disks_, kName,
          [this] {
            ++lost_;
            return true;
          },
          std::move(done));
    });
  }
  Result<std::optional<std::uint64_t>> count(const std::string& name = kName) {
    return wait_for<std::optional<std::uint64_t>>(
        [&](auto done) { count_changes(*qmp_, disks_.size(), name, std::move(done)); });
  }
  std::uint64_t taken() { return count(taken_bitmap(kName)).value().value_or(0); }
  Result<> drop() {
    return wait_for<void>(
        [&](auto done) { drop_changes(*qmp_, disks_.size(), kName, std::move(done)); });
  }
  // Their names, all disks'.
  std::vector<std::string> bitmaps() {
    std::vector<std::string> names;
    const auto nodes = wait_for<json>([&](auto done) {
      qmp_->execute("query-named-block-nodes", {{"flat", true}}, std::move(done));
    });
    for (const json& node : nodes.value()) {
      for (const json& bitmap : member(node, "dirty-bitmaps")) {
        names.push_back(text_at(bitmap, "name"));
      }
    }
    return names;
  }

  os::Loop loop_;
  TestDirectory directory_;
  const std::vector<DiskSpec> disks_{{.name = "root", .size = ByteCount{64 << 20}},
                                     {.name = "data", .size = ByteCount{64 << 20}}};
  const std::vector<DiskPaths> paths_{{.file = directory_ / "root.qcow2"},
                                      {.file = directory_ / "data.qcow2"}};
  os::Child process_;
  std::unique_ptr<Qmp> qmp_;
  int lost_ = 0;
};

TEST_F(DirtyBitmapsTest, WhatIsWrittenBetweenTwoTakesIsTakenOnce) {
  EXPECT_EQ(take(), Changes::unknown);  // nothing was noted before
  EXPECT_EQ(lost_, 1);
  write(0, 3);
  write(1, 7);
  write(1, 7);
  EXPECT_EQ(count(), 2 * kBlock);
  EXPECT_EQ(take(), Changes::known);
  EXPECT_EQ(taken(), 2 * kBlock);
  write(0, 9);
  EXPECT_EQ(count(), 3 * kBlock) << "what was taken is not at the copy yet";
  EXPECT_TRUE(drop());
  EXPECT_EQ(count(), kBlock);
  EXPECT_EQ(take(), Changes::known);
  EXPECT_EQ(taken(), kBlock);
  EXPECT_EQ(lost_, 1);
}

TEST_F(DirtyBitmapsTest, WhatWasTakenAndNotDroppedIsTakenAgain) {
  (void)take();
  write(0, 3);
  EXPECT_EQ(take(), Changes::known);
  write(0, 4);
  EXPECT_EQ(take(), Changes::known);
  EXPECT_EQ(taken(), 2 * kBlock);
}

// So it is told before: else new ones would be taken for all that has changed if we ended between
// the two.
TEST_F(DirtyBitmapsTest, NothingIsChangedWhereNobodyIsLeftToBeTold) {
  take_changes(
      *qmp_, disks_, kName, [this] { return ++lost_ == 0; },
      [](const Result<Changes>&) { FAIL() << "nobody is left"; });
  ASSERT_TRUE(os::run_until(loop_, [&] { return lost_ == 1; }));
  EXPECT_THAT(bitmaps(), ElementsAre());
}

TEST_F(DirtyBitmapsTest, TheyOutliveAQemuThatEnds) {
  (void)take();
  write(0, 3);
  write(1, 3);
  (void)take();
  write(1, 5);
  end(SIGTERM);
  start();
  EXPECT_EQ(count(), 3 * kBlock);
  EXPECT_EQ(take(), Changes::known);
  EXPECT_EQ(taken(), 3 * kBlock);
  EXPECT_EQ(lost_, 1);
}

TEST_F(DirtyBitmapsTest, ThoseOfAQemuThatWasKilledAreNotBelieved) {
  (void)take();
  end(SIGTERM);
  start();  // now they are in the files, and in use
  write(0, 3);
  end(SIGKILL);
  start();
  EXPECT_EQ(count(), std::nullopt);
  EXPECT_EQ(take(), Changes::unknown);
  EXPECT_EQ(lost_, 2);
  write(0, 4);
  EXPECT_EQ(take(), Changes::known);
  EXPECT_EQ(taken(), kBlock);
}

TEST_F(DirtyBitmapsTest, ADiskWithoutOneMakesAllUnknown) {
  (void)take();
  EXPECT_TRUE(wait_for<json>([&](auto done) {
    qmp_->execute("block-dirty-bitmap-remove", {{"node", disk_node(1)}, {"name", kName}},
                  std::move(done));
  }));
  EXPECT_EQ(count(), std::nullopt);
  EXPECT_EQ(take(), Changes::unknown);
  EXPECT_EQ(lost_, 2);
  EXPECT_THAT(bitmaps(), ElementsAre(kName, kName));
}

TEST_F(DirtyBitmapsTest, NoneAreLeftOfWhatIsForgotten) {
  (void)take();
  write(0, 3);
  (void)take();
  const auto forget = [this] {
    return wait_for<void>(
        [&](auto done) { forget_changes(*qmp_, disks_.size(), kName, std::move(done)); });
  };
  EXPECT_TRUE(forget());
  EXPECT_THAT(bitmaps(), ElementsAre());
  EXPECT_TRUE(forget());  // twice is no error
}

}  // namespace
}  // namespace godwit::qemu
