// How a move ends at its source, whatever its QEMU says or does not.
#include "agent/source_move.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/host_testing.hh"
#include "agent/played_qemu_testing.hh"
#include "base/test_directory.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using Json = nlohmann::json;
using migrate::SourceState;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr Nanoseconds kSoon = milliseconds(300);

// A vm with a disk, whose move an agent began that is no more; QEMU is as it was left.
class SourceMoveTest : public HostTest {
 protected:
  SourceMoveTest() : HostTest(directory().path()) {
    spec_.id = an_id<VmId>(1);
    spec_.name = "web";
    spec_.machine = "pc-q35-7.2";
    spec_.kernel = "/boot/vmlinuz";
    spec_.disks.push_back({.name = "root", .size = ByteCount{64 << 20}});
    std::filesystem::create_directories(config_.vm_dir("web"));
    qemu_.emplace(loop_, (config_.vm_dir("web") / "qmp.sock").string(),
                  [this](const std::string& command, const Json&) { return answer(command); });
    store_->put(
        "vm", "web",
        to_json(VmRecord{
            .spec = spec_, .process = qemu_->process().identity(), .stopped = {}, .arriving = {}}));
    host_.vms.start();
  }
  static const TestDirectory& directory() {
    static const TestDirectory directory;
    return directory;
  }

  std::optional<Json> answer(const std::string& command) {
    if (is_silent_) return std::nullopt;
    if (command == breaks_at_) {
      breaks_at_.clear();
      qemu_->hang_up();
      return std::nullopt;
    }
    Json said = Json::object();
    if (command == "stop") runs_ = false;
    if (command == "cont" && !runs_ && refusals_-- > 0) return Json{{"error", {{"desc", "busy"}}}};
    if (command == "cont") runs_ = true;
    if (command == "block-job-cancel") has_tap_ = false;
    if (command == "query-status") {
      said = {{"running", runs_}, {"status", runs_ ? "running" : "paused"}};
    }
    if (command == "query-block-jobs") {
      said = Json::array();
      if (has_tap_) said.push_back({{"device", "godwit-tap0"}});
    }
    return Json{{"return", said}};
  }

  void restart() {
    SourceRecord record;
    record.id = an_id<MigrationId>(8);
    record.vm = "web";
    record.to = "e1";
    record.epoch = 2;
    record.process = qemu_->process().identity();
    record.state = SourceState::aborting;
    auto short_of_patience = host_.of_moves;
    short_of_patience.give_back_bound = kSoon;
    move_.emplace(short_of_patience, record);
    move_->restart();
  }
  bool comes(const std::string& state) {
    return os::run_until(loop_, [&] { return move_->describe().at("state") == state; });
  }

  qemu::VmSpec spec_;
  std::optional<PlayedQemu> qemu_;
  bool runs_ = true, has_tap_ = true, is_silent_ = false;
  int refusals_ = 0;
  std::string breaks_at_;
  std::optional<SourceMove> move_;
};

TEST_F(SourceMoveTest, AnAbortLetsGoOfTheDisksAndThenTheGuestRuns) {
  restart();
  ASSERT_TRUE(comes("aborted"));
  EXPECT_TRUE(runs_);
  EXPECT_FALSE(has_tap_);
}

// It stands for the end of its taps, and QEMU does not let it go on at once.
TEST_F(SourceMoveTest, AGuestThatStoodForItsDisksIsSeenToRun) {
  refusals_ = 3;
  restart();
  ASSERT_TRUE(comes("aborted"));
  EXPECT_LT(refusals_, 0);
  EXPECT_TRUE(runs_);
}

class BrokenConnection : public SourceMoveTest, public testing::WithParamInterface<const char*> {};

TEST_P(BrokenConnection, IsNoReasonForAMoveNotToEnd) {
  runs_ = false;
  breaks_at_ = GetParam();
  restart();
  ASSERT_TRUE(comes("aborted"));
  EXPECT_EQ(breaks_at_, "");
  EXPECT_TRUE(runs_);
  EXPECT_FALSE(has_tap_);
}

INSTANTIATE_TEST_SUITE_P(At, BrokenConnection,
                         testing::Values("query-migrate", "cont", "block-job-cancel"));

TEST_F(SourceMoveTest, WhatQemuHoldsUpIsToldAndEndsWhenItAnswers) {
  is_silent_ = true;
  restart();
  ASSERT_TRUE(comes("stuck"));
  EXPECT_EQ(move_->state(), SourceState::aborting) << "the guest may stand";
  EXPECT_TRUE(move_->stuck());
  const std::string reason = move_->describe().at("reason");
  EXPECT_THAT(reason, HasSubstr("QEMU of vm web has not given its guest back within 300 ms (it "
                                "does not answer)"));
  EXPECT_THAT(reason, HasSubstr("godwit vm stop web --force"));

  is_silent_ = false;
  qemu_->wake();
  ASSERT_TRUE(comes("aborted"));
  EXPECT_FALSE(move_->stuck());
  EXPECT_FALSE(has_tap_);
}

TEST_F(SourceMoveTest, WhatQemuHoldsUpEndsWithIt) {
  is_silent_ = true;
  restart();
  ASSERT_TRUE(comes("stuck"));
  ASSERT_TRUE(qemu_->process().kill(SIGKILL));
  EXPECT_TRUE(comes("aborted"));
}

// Once: a group, or who follows the move, waits no longer for what may never come.
TEST_F(SourceMoveTest, WhatQemuHoldsUpIsNewsOnce) {
  std::vector<std::string> states;
  events_.observe([&](std::string_view name, const Json& data) {
    if (name == "migration") states.push_back(data.at("state"));
  });
  is_silent_ = true;
  restart();
  ASSERT_TRUE(comes("stuck"));
  is_silent_ = false;
  qemu_->wake();
  ASSERT_TRUE(comes("aborted"));
  EXPECT_THAT(states, ElementsAre("stuck", "aborted"));
}

}  // namespace
}  // namespace godwit::agent
