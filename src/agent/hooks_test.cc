#include "agent/hooks.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/test_directory.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class HooksTest : public testing::Test {
 protected:
  HooksTest() {
    fs::create_directories(directory_ / "pre-pause.d");
    fs::create_directories(directory_ / "post-resume.d");
  }

  void hook(const std::string& name, const std::string& script, fs::perms perms = fs::perms(0755)) {
    const fs::path path = directory_ / name;
    std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
    fs::permissions(path, perms);
  }

  std::unique_ptr<HookRun> begin(HookMoment moment) {
    return std::make_unique<HookRun>(
        loop_, policy_,
        HookCall{.moment = moment,
                 .migration = MigrationId{},
                 .vm = "web",
                 .from = "e1",
                 .to = "w1",
                 .outcome = moment == HookMoment::post_resume ? "moved" : ""},
        [this](const HookOutcome& outcome) { outcome_ = outcome; });
  }
  HookOutcome run(HookMoment moment) {
    outcome_.reset();
    const auto run = begin(moment);
    EXPECT_TRUE(os::run_until(loop_, [this] { return outcome_.has_value(); }));
    return outcome_.value_or(HookOutcome{});
  }
  std::string said() const {
    std::ifstream file(directory_ / "said");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string to_said() const { return " >>" + (directory_ / "said").string(); }

  const TestDirectory made_;
  const fs::path& directory_ = made_.path();
  HookPolicy policy_{.directory = directory_, .timeout = seconds(20)};
  os::Loop loop_;
  std::optional<HookOutcome> outcome_;
};

TEST_F(HooksTest, RunInOrderWithACleanEnvironment) {
  ::setenv("GODWIT_SECRET", "of the agent", 1);
  hook("post-resume.d/20-b.sh", "echo b $GODWIT_MOMENT $GODWIT_OUTCOME" + to_said());
  hook("post-resume.d/10-a",
       "echo a $GODWIT_VM $GODWIT_FROM $GODWIT_TO $GODWIT_SECRET" + to_said());
  hook("post-resume.d/30-off", "echo off" + to_said(), fs::perms(0644));
  hook("post-resume.d/40~", "echo leftover" + to_said());
  hook("post-resume.d/.hidden", "echo hidden" + to_said());
  const auto outcome = run(HookMoment::post_resume);
  EXPECT_EQ(said(), "a web e1 w1\nb post-resume moved\n");
  EXPECT_EQ(outcome.ran, 2);
  EXPECT_EQ(outcome.failure, "");
  ::unsetenv("GODWIT_SECRET");
}

TEST_F(HooksTest, AFailureEndsPrePauseAndNotPostResume) {
  for (const auto moment : {HookMoment::pre_pause, HookMoment::post_resume}) {
    const std::string in = std::string(to_text(moment)) + ".d/";
    hook(in + "10-fails", "echo the reason; exit 3");
    hook(in + "20-next", "true");
    const auto outcome = run(moment);
    EXPECT_EQ(outcome.ran, moment == HookMoment::pre_pause ? 1 : 2);
    EXPECT_THAT(outcome.failure, HasSubstr("hook 10-fails: exit status 3"));
  }
}

TEST_F(HooksTest, WhatTakesTooLongIsKilledWithAllThatItStarted) {
  policy_.timeout = milliseconds(200);
  hook("pre-pause.d/hangs", "sleep 1000 & echo $!" + to_said() + "; wait");
  const auto outcome = run(HookMoment::pre_pause);
  EXPECT_THAT(outcome.failure, HasSubstr("took longer than 200 ms"));
  const pid_t grandchild = std::stoi(said());
  EXPECT_TRUE(os::run_until(loop_, [&] { return ::kill(grandchild, 0) != 0; }));
}

TEST_F(HooksTest, WhatIsLeftInItsSessionEndsWithIt) {
  hook("pre-pause.d/leaves", "sleep 1000 & echo $!" + to_said());
  EXPECT_EQ(run(HookMoment::pre_pause).failure, "");
  const pid_t grandchild = std::stoi(said());
  EXPECT_TRUE(os::run_until(loop_, [&] { return ::kill(grandchild, 0) != 0; }));
}

TEST_F(HooksTest, AnAbortKillsWhatRuns) {
  hook("pre-pause.d/hangs", "echo $$" + to_said() + "; sleep 1000");
  auto run = begin(HookMoment::pre_pause);
  ASSERT_TRUE(os::run_until(loop_, [this] { return said().ends_with("\n"); }));
  run.reset();
  EXPECT_NE(::kill(std::stoi(said()), 0), 0);
  EXPECT_FALSE(outcome_);
}

TEST_F(HooksTest, MuchOutputIsReadAndTooMuchIsAFailure) {
  hook("pre-pause.d/10-much", "head -c 4000000 /dev/zero");
  EXPECT_EQ(run(HookMoment::pre_pause).failure, "");
  hook("pre-pause.d/20-endless", "cat /dev/zero");
  EXPECT_THAT(run(HookMoment::pre_pause).failure, HasSubstr("printed more than"));
}

TEST_F(HooksTest, WhatOthersMayChangeIsNotRun) {
  hook("pre-pause.d/open", "echo ran" + to_said(), fs::perms(0777));
  EXPECT_THAT(run(HookMoment::pre_pause).failure, HasSubstr("may be changed by others"));
  fs::permissions(directory_ / "pre-pause.d/open", fs::perms(0755));
  fs::permissions(directory_ / "pre-pause.d", fs::perms(0777));
  EXPECT_TRUE(has_hooks(policy_, HookMoment::pre_pause));
  EXPECT_THAT(run(HookMoment::pre_pause).failure, HasSubstr("may be changed by others"));
  EXPECT_EQ(said(), "");
}

TEST_F(HooksTest, WhatIsNoProgramIsAFailure) {
  std::ofstream(directory_ / "pre-pause.d/text") << "no interpreter";
  fs::permissions(directory_ / "pre-pause.d/text", fs::perms(0755));
  EXPECT_THAT(run(HookMoment::pre_pause).failure, HasSubstr("execute"));
  fs::remove_all(directory_);
  EXPECT_FALSE(has_hooks(policy_, HookMoment::pre_pause));
}

TEST_F(HooksTest, APeersOutcomeIsBounded) {
  const auto outcome =
      hook_outcome({{"ms", 1e300}, {"ran", 1u << 31}, {"failure", std::string(1 << 20, 'x')}});
  EXPECT_LE(outcome.took, kMaxHooks * kMaxHookTimeout);
  EXPECT_EQ(outcome.ran, static_cast<int>(kMaxHooks));
  EXPECT_LE(outcome.failure.size(), 1024U);
  EXPECT_EQ(hook_outcome(nullptr).ran, 0);
}

}  // namespace
}  // namespace godwit::agent
