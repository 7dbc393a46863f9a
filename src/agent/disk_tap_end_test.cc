// How taps end, with a real QEMU whose guest is nothing but its firmware: its writes are ours.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "agent/disk_tap.hh"
#include "base/test_directory.hh"
#include "os/child.hh"
#include "os/socket.hh"
#include "os/test_wait.hh"
#include "qemu/argv.hh"
#include "qemu/block_jobs.hh"
#include "qemu/disk_nodes.hh"
#include "qemu/json.hh"
#include "qemu/make_disk.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kQmpFd = 3;
constexpr Nanoseconds kForcedEndTakesLess = milliseconds(100);

class DiskTapEnd : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::permissions(directory_.path(), std::filesystem::perms(0711));
    ASSERT_TRUE(qemu::make_disk(disk_, file_));
    start();
    tap_.emplace(loop_, directory_ / "tap.sock",
                 std::vector<nbd::Export>{{.name = qemu::disk_node(0), .size = disk_.size}},
                 DiskTap::Events{.write = [this](const DiskTap::Write& write) { written(write); },
                                 .lost = [this](const std::string&) { ++lost_; }});
    ASSERT_TRUE(wait(
        [&](auto done) { qemu::tap_disks(*qmp_, directory_ / "tap.sock", 1, std::move(done)); }));
  }
  ~DiskTapEnd() override {
    qmp_.reset();
    process_.kill(SIGKILL);
    process_.wait(os::kTestPatience);
  }

  void start() {
    os::SocketPair sockets = os::make_socket_pair();
    std::vector<std::string> argv{std::string(qemu::kQemuBinary),
                                  "-machine",
                                  "q35,accel=tcg",
                                  "-m",
                                  "32",
                                  "-nodefaults",
                                  "-display",
                                  "none"};
    argv.insert(argv.end(), {"-chardev", fmt::format("socket,id=qmp,fd={}", kQmpFd), "-mon",
                             "chardev=qmp,mode=control"});
    for (auto& node : qemu::disk_nodes(disk_, file_, qemu::disk_node(0))) {
      argv.insert(argv.end(), {"-blockdev", std::move(node)});
    }
    argv.insert(argv.end(), {"-device", "virtio-blk-pci,id=vda,drive=" + qemu::disk_node(0)});
    process_ = os::Child::spawn(
        {.argv = argv, .fds = {{sockets.theirs.number(), kQmpFd}}, .dies_with_us = true});
    qmp_ = std::make_unique<qemu::Qmp>(
        loop_, os::adopt_stream(loop_, std::move(sockets.ours), "qemu"), "web1",
        qemu::Qmp::Events{.ready = {},
                          .event =
                              [this](const qemu::QmpEvent& event) {
                                const bool is_about_guest =
                                    event.name == "STOP" || event.name == "RESUME";
                                if (is_about_guest) guest_.push_back(event.name);
                              },
                          .closed = {}});
  }

  void written(const DiskTap::Write& write) {
    if (holds_ && write.request.command == nbd::Command::kWrite) {
      held_ = write.number;
    } else {
      tap_->answer(write.number);
    }
  }
  // Goes on until the tap has it, and is in flight then.
  void write_that_is_held() {
    holds_ = true;
    ask("human-monitor-command",
        {{"command-line", "qemu-io -d /machine/peripheral/vda/virtio-backend \"aio_write 0 4k\""}});
    ASSERT_TRUE(os::run_until(loop_, [&] { return held_.has_value(); }));
  }

  Result<> wait(const std::function<void(qemu::Done)>& begin) {
    std::optional<Result<>> got;
    begin([&](Result<> result) { got = std::move(result); });
    if (!os::run_until(loop_, [&] { return got.has_value(); })) return fail("nothing came");
    return *got;
  }
  json ask(const std::string& command, const json& arguments = nullptr) {
    std::optional<Result<json>> got;
    qmp_->execute(command, arguments, [&](Result<json> result) { got = std::move(result); });
    EXPECT_TRUE(os::run_until(loop_, [&] { return got.has_value(); }));
    return got ? got->value_or(json("failed")) : json();
  }
  json jobs() { return ask("query-block-jobs"); }
  bool runs() { return qemu::flag_at(ask("query-status"), "running"); }

  os::Loop loop_;
  TestDirectory directory_;
  const qemu::DiskSpec disk_{.name = "root", .size = ByteCount{64 << 20}};
  const qemu::DiskPaths file_{.file = directory_ / "root.qcow2"};
  os::Child process_;
  std::unique_ptr<qemu::Qmp> qmp_;
  std::vector<std::string> guest_;  // its STOP and RESUME
  std::optional<DiskTap> tap_;
  bool holds_ = false;
  std::optional<std::uint64_t> held_;
  int lost_ = 0;
};

// QEMU would write to memory that it has freed.
TEST_F(DiskTapEnd, OneThatAnswersEndsAfterWhatIsInFlight) {
  write_that_is_held();
  std::optional<Result<>> ended;
  qemu::untap_disks(*qmp_, 1, [&](Result<> result) { ended = std::move(result); });
  // QEMU waits for the answer, and says nothing meanwhile.
  const Instant later = loop_.now() + kForcedEndTakesLess;
  while (loop_.now() < later && lost_ == 0) loop_.run_once(milliseconds(5));
  EXPECT_EQ(lost_, 0);
  EXPECT_FALSE(ended);

  holds_ = false;
  tap_->answer(*held_);
  ASSERT_TRUE(os::run_until(loop_, [&] { return ended.has_value(); }));
  EXPECT_TRUE(*ended) << ended->error().text;
  EXPECT_THAT(jobs(), IsEmpty());
  EXPECT_THAT(guest_, IsEmpty()) << "the guest does not stand for it";
}

TEST_F(DiskTapEnd, OneThatIsLostEndsWhileTheGuestStands) {
  write_that_is_held();
  tap_.reset();
  ASSERT_TRUE(os::run_until(loop_, [&] {
    const json all = jobs();
    return all.size() == 1 && qemu::flag_at(all[0], "paused");
  })) << "it would have ended by itself";
  EXPECT_THAT(guest_, IsEmpty());

  EXPECT_TRUE(wait([&](auto done) { qemu::end_lost_taps(*qmp_, 1, std::move(done)); }));
  EXPECT_THAT(jobs(), IsEmpty());
  EXPECT_THAT(guest_, ElementsAre("STOP", "RESUME"));
  EXPECT_TRUE(runs());
  EXPECT_TRUE(wait([&](auto done) { qemu::end_lost_taps(*qmp_, 1, std::move(done)); })) << "none";
  EXPECT_THAT(guest_, SizeIs(2)) << "for nothing it does not stand";
}

TEST_F(DiskTapEnd, AGuestThatStandsIsNotLetGo) {
  tap_.reset();
  ask("stop");
  EXPECT_TRUE(wait([&](auto done) { qemu::end_lost_taps(*qmp_, 1, std::move(done)); }));
  EXPECT_THAT(jobs(), IsEmpty());
  EXPECT_FALSE(runs());
}

// QEMU, and its guest, would wait for ever for one that is still there.
TEST_F(DiskTapEnd, ExportsEndAfterAClientThatLetsGoInItsHandshake) {
  const auto socket = directory_ / "blocks.sock";
  for (int round = 0; round < 10; ++round) {
    ASSERT_TRUE(wait([&](auto done) {
      qemu::export_nodes(*qmp_, socket, {qemu::disk_node(0)}, std::nullopt, std::move(done));
    }));
    bool greeted = false;
    auto client = os::unix_connect(loop_, socket.string());
    client->start({.readable = [&] { greeted = true; }, .writable = {}, .closed = {}});
    ASSERT_TRUE(os::run_until(loop_, [&] { return greeted; }));
    client.reset();
    ASSERT_TRUE(wait([&](auto done) { qemu::stop_exports(*qmp_, std::move(done)); }));
    ASSERT_TRUE(runs());
  }
}

}  // namespace
}  // namespace godwit::agent
