// Whoever waits for a word of QEMU's gets one, also when the Qmp goes before QEMU has spoken; and
// does not use what is gone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/test_wait.hh"
#include "qemu/block_jobs.hh"
#include "qemu/command_sequence.hh"
#include "qemu/dirty_bitmaps.hh"
#include "qemu/migration.hh"
#include "qemu/nic_plug.hh"
#include "qemu/qmp_testing.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kEnded = "the QMP connection has ended";

struct QmpEndTest : ::testing::Test {
  void greet() {
    qemu.say(kGreeting);
    qemu.answer(json::object());
  }
  // To all that was asked since.
  void answer(const json& value) {
    link.settle();
    qemu.answer(value);
    link.settle();
  }
  template <class T = void>
  std::move_only_function<void(Result<T>)> told() {
    return
        [this](const Result<T>& result) { words.push_back(result ? "done" : result.error().text); };
  }
  // What is told when it goes now.
  std::string end() {
    link.settle();
    EXPECT_THAT(words, IsEmpty());
    qmp.reset();
    EXPECT_THAT(words, IsEmpty()) << "told by what is half gone";
    EXPECT_TRUE(os::run_until(loop, [&] { return !words.empty(); }));
    return words.empty() ? "nothing" : words.back();
  }

  os::Loop loop;
  os::MemoryLink link;
  FakeQemu qemu{link};
  std::vector<std::string> words;
  std::unique_ptr<Qmp> qmp = std::make_unique<Qmp>(loop, link.take_a(), "web1", Qmp::Events{});
};

TEST_F(QmpEndTest, AllThatWaitAreToldInTheirOrder) {
  greet();
  for (const char* command : {"a", "b", "c"}) qmp->execute(command, nullptr, told<json>());
  link.settle();
  qemu.say(json({{"return", 1}, {"id", qemu.commands[2]["id"]}}).dump() + "\n");
  EXPECT_THAT(words, ElementsAre("done"));
  words.clear();
  end();
  EXPECT_THAT(words, ElementsAre("a of vm web1: the QMP connection has ended",
                                 "c of vm web1: the QMP connection has ended"));
}

TEST_F(QmpEndTest, AlsoBeforeItIsReady) {
  qemu.say(kGreeting);
  qmp->execute("a", nullptr, told<json>());
  EXPECT_THAT(end(), EndsWith(kEnded));
}

TEST_F(QmpEndTest, AlsoThoseBehindAnAnswerThatEndsIt) {
  greet();
  qmp->execute("a", nullptr, [this](const Result<json>&) { qmp.reset(); });
  qmp->execute("b", nullptr, told<json>());
  link.settle();
  link.cut("broken pipe");
  link.settle();
  EXPECT_EQ(qmp, nullptr);
  ASSERT_TRUE(os::run_until(loop, [&] { return !words.empty(); }));
  EXPECT_THAT(words, ElementsAre(EndsWith(kEnded)));
}

TEST_F(QmpEndTest, ATimeOutThatIsDueThenIsNone) {
  greet();
  const auto goes = loop.after(Nanoseconds(0), [this] { qmp.reset(); });
  qmp->execute("a", nullptr, told<json>(), Nanoseconds(0));
  ASSERT_TRUE(os::run_until(loop, [&] { return !words.empty(); }));
  EXPECT_THAT(words, ElementsAre(EndsWith(kEnded)));
}

TEST_F(QmpEndTest, ASequenceEndsWithTheErrorWhereverItIs) {
  greet();
  run(*qmp, {{"a", nullptr}, {"b", nullptr, true}, {"c", nullptr}}, told());
  answer(json::object());
  EXPECT_EQ(end(), "b of vm web1: the QMP connection has ended");
}

// Whether its last step was done nobody knows: it did not fail as it may.
TEST_F(QmpEndTest, WhatMayFailIsRefusedByQemuNotByItsAbsence) {
  greet();
  run(*qmp, {{"a", nullptr, true}, {"b", nullptr, true}}, told());
  link.settle();
  qemu.say(json({{"error", {{"desc", "none"}}}, {"id", qemu.commands[1]["id"]}}).dump() + "\n");
  link.settle();
  ASSERT_EQ(qemu.commands.size(), 3U);
  link.cut("broken pipe");
  link.settle();
  EXPECT_THAT(words, ElementsAre("b of vm web1: broken pipe"));
}

TEST_F(QmpEndTest, ContIsToldWhileItWaitsForQemu) {
  greet();
  cont_until_running(*qmp, told());
  EXPECT_THAT(end(), EndsWith(kEnded));
}

TEST_F(QmpEndTest, ContIsToldBetweenTwoAttempts) {
  greet();
  cont_until_running(*qmp, told());
  answer(json::object());
  answer({{"running", false}});
  EXPECT_THAT(end(), HasSubstr("web1"));
}

TEST_F(QmpEndTest, TapsAreToldBetweenTwoLooks) {
  greet();
  untap_disks(*qmp, 1, told());
  answer(json::object());
  answer({{{"device", "godwit-tap0"}}});
  EXPECT_THAT(end(), HasSubstr("web1"));
}

TEST_F(QmpEndTest, AGuestThatStandsForItsTapsToo) {
  greet();
  end_lost_taps(*qmp, 1, told());
  answer({{{"device", "godwit-tap0"}}});
  answer({{"running", true}});
  answer(json::object());  // stop
  EXPECT_EQ(end(), "block-job-cancel of vm web1: the QMP connection has ended");
}

TEST_F(QmpEndTest, BitmapsAreTold) {
  greet();
  take_changes(
      *qmp, {DiskSpec{}}, "east", [] { return true; },
      [tell = std::make_shared<Answer<Changes>>(told<Changes>())](const Result<Changes>& changes) {
        (*tell)(changes);
      });
  EXPECT_THAT(end(), EndsWith(kEnded));
}

TEST_F(QmpEndTest, BitmapsThatAreForgottenAreTold) {
  greet();
  forget_changes(*qmp, 1, "east", told());
  EXPECT_THAT(end(), EndsWith(kEnded));
}

TEST_F(QmpEndTest, ANicOnItsWayOutIsTold) {
  greet();
  NicUnplug unplug(*qmp, {.port = {}, .name = "uplink", .mac = "52:54:00:00:00:05", .slot = 1},
                   told());
  EXPECT_THAT(end(), EndsWith("its QEMU is gone"));
}

TEST_F(QmpEndTest, AMoveThatIsAbortedIsTold) {
  greet();
  bool runs = true;
  OutgoingMigration migration(*qmp, {.status = {},
                                     .pre_switchover = {},
                                     .completed = {},
                                     .ended = [&](const OutgoingMigration::End& end) {
                                       runs = end.running;
                                       words.push_back(end.reason);
                                     }});
  migration.abort("as wished");
  EXPECT_THAT(end(), HasSubstr("as wished"));
  EXPECT_FALSE(runs);
}

TEST_F(QmpEndTest, AMoveThatArrivesIsTold) {
  greet();
  IncomingMigration migration(*qmp,
                              {.listening = {}, .loaded = {}, .failed = [this](std::string why) {
                                 words.push_back(std::move(why));
                               }});
  const json data = {{"status", "postcopy-active"}};
  migration.event({.name = "MIGRATION", .data = data, .happened = {}});
  EXPECT_THAT(end(), EndsWith(kEnded));
}

}  // namespace
}  // namespace godwit::qemu
