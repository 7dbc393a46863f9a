#include "qemu/qmp.hh"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "os/test_wait.hh"
#include "qemu/migration.hh"
#include "qemu/qmp_testing.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct QmpTest : ::testing::Test {
  void greet() {
    qemu.say(kGreeting);
    qemu.answer(json::object());
  }
  Qmp::Reply record() {
    return [this](Result<json> result) {
      replies.push_back(result ? result->dump() : result.error().text);
    };
  }

  os::Loop loop;
  os::MemoryLink link;
  FakeQemu qemu{link};
  std::vector<std::string> replies;
  std::vector<std::string> events;
  std::vector<std::string> closed;
  int ready = 0;
  std::unique_ptr<Qmp> qmp = std::make_unique<Qmp>(
      loop, link.take_a(), "web1",
      Qmp::Events{.ready = [this] { ++ready; },
                  .event = [this](const QmpEvent& event) { events.push_back(event.name); },
                  .closed = [this](std::string reason) { closed.push_back(reason); }});
};

TEST_F(QmpTest, NegotiatesThenSendsWhatWaited) {
  qmp->execute("query-status", nullptr, record());
  link.settle();
  EXPECT_TRUE(qemu.commands.empty());
  greet();
  EXPECT_EQ(ready, 1);
  ASSERT_EQ(qemu.commands.size(), 2U);
  EXPECT_EQ(qemu.commands[0]["execute"], "qmp_capabilities");
  EXPECT_EQ(qemu.commands[1]["execute"], "query-status");
  EXPECT_FALSE(qemu.commands[1].contains("arguments"));
  qemu.answer({{"running", true}});
  EXPECT_THAT(replies, ElementsAre(R"({"running":true})"));
}

TEST_F(QmpTest, RepliesFindTheirCommandInAnyOrder) {
  greet();
  qmp->execute("a", {{"x", 1}}, record());
  qmp->execute("b", nullptr, record());
  link.settle();
  const json first = qemu.commands[1]["id"];
  const json second = qemu.commands[2]["id"];
  EXPECT_EQ(qemu.commands[1]["arguments"]["x"], 1);
  qemu.say(json({{"return", "B"}, {"id", second}}).dump() + "\n");
  qemu.say(json({{"return", "A"}, {"id", first}}).dump() + "\n");
  EXPECT_THAT(replies, ElementsAre("\"B\"", "\"A\""));
}

TEST_F(QmpTest, OutOfBandIsNegotiatedAndTakenOverWithoutASecondGreeting) {
  os::MemoryLink other;
  FakeQemu far{other};
  Qmp first(loop, other.take_a(), "web1", {}, Qmp::Mode::kOutOfBand);
  far.say(kGreeting);
  ASSERT_EQ(far.commands.size(), 1U);
  EXPECT_EQ(far.commands[0]["arguments"], json({{"enable", {"oob"}}}));
  far.answer(json::object());
  first.execute_out_of_band("migrate-recover", {{"uri", "unix:x"}}, record());
  other.settle();
  ASSERT_EQ(far.commands.size(), 2U);
  EXPECT_EQ(far.commands[1]["exec-oob"], "migrate-recover");
  const json old_id = far.commands[1]["id"];

  os::MemoryLink kept;
  FakeQemu same{kept};
  Qmp next(loop, kept.take_a(), "web1", {}, Qmp::Mode::kTakenOver);
  EXPECT_TRUE(next.is_ready());
  next.execute_out_of_band("migrate-recover", {{"uri", "unix:y"}}, record());
  kept.settle();
  same.say(json({{"return", "of the agent before"}, {"id", old_id}}).dump() + "\n");
  EXPECT_TRUE(replies.empty());
  same.answer("ours");
  EXPECT_THAT(replies, ElementsAre("\"ours\""));
}

TEST_F(QmpTest, ErrorsNameCommandAndVm) {
  greet();
  qmp->execute("cont", nullptr, record());
  link.settle();
  qemu.say(json({{"error", {{"class", "GenericError"}, {"desc", "not now"}}},
                 {"id", qemu.commands[1]["id"]}})
               .dump() +
           "\n");
  EXPECT_THAT(replies, ElementsAre("cont of vm web1: not now"));
}

TEST_F(QmpTest, ACommandTimesOutAndItsLateReplyIsIgnored) {
  greet();
  qmp->execute("stop", nullptr, record(), milliseconds(5));
  link.settle();
  ASSERT_TRUE(os::run_until(loop, [&] { return !replies.empty(); }));
  EXPECT_THAT(replies, ElementsAre("stop of vm web1: no reply within 5 ms"));
  qemu.say(json({{"return", 1}, {"id", qemu.commands[1]["id"]}}).dump() + "\n");
  EXPECT_EQ(replies.size(), 1U);
  EXPECT_FALSE(qmp->is_closed());
}

TEST_F(QmpTest, EventsHappenWhenQemuSaysSo) {
  greet();
  std::vector<Nanoseconds> ago;
  json data;
  qmp.reset();
  os::MemoryLink second;
  FakeQemu other(second);
  Qmp again(loop, second.take_a(), "web1",
            {.ready = {},
             .event =
                 [&](const QmpEvent& event) {
                   ago.push_back(loop.now() - event.happened);
                   data = event.data;
                 },
             .closed = {}});
  other.say(kGreeting);
  const auto say = [&](std::chrono::system_clock::duration since_1970) {
    const auto whole = duration_cast<seconds>(since_1970);
    const auto part = duration_cast<std::chrono::microseconds>(since_1970 - whole);
    other.say(json({{"timestamp", {{"seconds", whole.count()}, {"microseconds", part.count()}}},
                    {"event", "MIGRATION"},
                    {"data", {{"status", "active"}}}})
                  .dump() +
              "\n");
  };
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  say(now - milliseconds(50));
  say(now + std::chrono::hours(1));  // a clock that stepped
  say(seconds(7));
  ASSERT_EQ(ago.size(), 3U);
  EXPECT_GE(ago[0], milliseconds(50));
  EXPECT_LT(ago[0], milliseconds(150));
  EXPECT_LT(ago[1], milliseconds(50));
  EXPECT_LT(ago[2], milliseconds(300));
  EXPECT_EQ(data["status"], "active");
}

TEST_F(QmpTest, ALostConnectionFailsWhatWaitsThenTells) {
  greet();
  qmp->execute("a", nullptr, record());
  // A reply that sends the next command must not keep close() going for ever.
  qmp->execute("b", nullptr, [this](Result<json>) { qmp->execute("c", nullptr, record()); });
  link.settle();
  link.cut("broken pipe");
  link.settle();
  EXPECT_THAT(replies, ElementsAre("a of vm web1: broken pipe"));
  EXPECT_THAT(closed, ElementsAre("QMP of vm web1: broken pipe"));
  ASSERT_TRUE(os::run_until(loop, [&] { return replies.size() == 2; }));
  EXPECT_EQ(replies[1], "c of vm web1: QMP connection is closed");
}

TEST_F(QmpTest, GarbageClosesTheConnectionOnly) {
  for (const std::string_view bad : {"[]\n", "{\"QMP\"\n", "\xff\xfe\n", "{\"return\": {}}\n"}) {
    os::MemoryLink fresh;
    FakeQemu other(fresh);
    std::string reason;
    Qmp victim(loop, fresh.take_a(), "v",
               {.ready = {}, .event = {}, .closed = [&](std::string text) { reason = text; }});
    other.say(bad);
    EXPECT_THAT(reason, HasSubstr("QMP")) << bad;
  }
}

TEST_F(QmpTest, AnEndlessMessageIsBounded) {
  greet();
  const std::string chunk(1U << 20, 'x');
  for (std::size_t sent = 0; sent <= kMaxQmpMessage && closed.empty(); sent += chunk.size()) {
    qemu.say(chunk);
  }
  ASSERT_EQ(closed.size(), 1U);
  EXPECT_THAT(closed[0], HasSubstr("more than 8"));
}

TEST_F(QmpTest, ACallbackMayDestroyTheClient) {
  greet();
  qmp->execute("a", nullptr, [this](Result<json>) { qmp.reset(); });
  link.settle();
  qemu.answer(1);
  EXPECT_EQ(qmp, nullptr);
}

TEST_F(QmpTest, TooManyWaitingCommandsAreRefused) {
  greet();
  for (std::size_t i = 0; i <= kMaxQmpPending; ++i) qmp->execute("a", nullptr, record());
  ASSERT_TRUE(os::run_until(loop, [&] { return !replies.empty(); }));
  EXPECT_THAT(replies, ElementsAre("a of vm web1: too many commands are waiting"));
}

// It checks for a cancel, lets go of its lock, and waits: a cancel in between would be missed.
TEST_F(QmpTest, ACancelWakesAQemuThatIsAboutToWait) {
  greet();
  OutgoingMigration migration(*qmp, {});
  migration.abort("for a test");
  link.settle();
  qemu.answer({{"status", "active"}});
  link.settle();
  ASSERT_EQ(qemu.commands.size(), 4U);  // qmp_capabilities and query-migrate before
  EXPECT_EQ(qemu.commands[2]["execute"], "migrate_cancel");
  EXPECT_EQ(qemu.commands[3]["execute"], "migrate-continue");
  EXPECT_EQ(qemu.commands[3]["arguments"]["state"], "cancelling");
}

}  // namespace
}  // namespace godwit::qemu
