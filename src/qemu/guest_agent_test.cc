#include "qemu/guest_agent.hh"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "os/test_wait.hh"
#include "qemu/guest_agent_testing.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct GuestAgentTest : ::testing::Test {
  Result<json> execute(const std::string& command, const json& arguments = nullptr) {
    auto answer = std::make_shared<std::optional<Result<json>>>();
    agent.execute(command, arguments, [answer](Result<json> got) { *answer = std::move(got); });
    EXPECT_TRUE(os::run_until(loop, [&] { return guest.link.settle(), answer->has_value(); }));
    return answer->value_or(fail("nothing"));
  }
  Result<GuestOutput> run(Nanoseconds limit = seconds(10)) {
    auto answer = std::make_shared<std::optional<Result<GuestOutput>>>();
    agent.run("/bin/sh", {"-c", "true"}, limit,
              [answer](Result<GuestOutput> got) { *answer = std::move(got); });
    EXPECT_TRUE(os::run_until(loop, [&] { return guest.link.settle(), answer->has_value(); }));
    return answer->value_or(fail("nothing"));
  }
  std::string reply(const json& request) {
    const std::string command = request.at("execute");
    if (replies.contains(command) && !replies[command].empty()) {
      const std::string next = replies[command].front();
      if (replies[command].size() > 1) replies[command].erase(replies[command].begin());
      return next;
    }
    return R"({"return": {}})";
  }

  std::map<std::string, std::vector<std::string>> replies;  // the last one again and again
  FakeGuest guest{[this](const json& request) { return reply(request); }, 4 << 20};
  os::Loop loop;
  GuestAgent agent{loop, guest.link.take_a()};
};

TEST_F(GuestAgentTest, AsksOneAfterTheOtherBehindWhatWasLeftOver) {
  guest.noise = "{\"return\": 7}\nleft over";
  replies["first"] = {R"({"return": 1})"};
  replies["second"] = {R"({"error": {"class": "GenericError", "desc": "no such thing"}})"};
  std::vector<std::string> heard;
  for (const char* command : {"first", "second", "third"}) {
    agent.execute(command, nullptr, [&](const Result<json>& got) {
      heard.push_back(got ? got->dump() : got.error().text);
    });
  }
  guest.link.settle();
  EXPECT_THAT(heard, ElementsAre("1", "no such thing", "{}"));
}

TEST_F(GuestAgentTest, WhatIsNoAnswerEndsTheConversation) {
  replies["odd"] = {"[1]"};
  EXPECT_FALSE(execute("odd"));
  const auto later = execute("guest-ping");
  ASSERT_FALSE(later);
  EXPECT_THAT(later.error().text, HasSubstr("no JSON object"));
}

TEST_F(GuestAgentTest, AnAnswerWithoutEndIsBounded) {
  replies["long"] = {std::string(kMaxGuestAnswer * 2, 'x')};
  const auto answer = execute("long");
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().text, HasSubstr("more than"));
}

TEST_F(GuestAgentTest, AChannelThatClosesFailsAllThatWait) {
  replies["mute"] = {""};
  int failed = 0;
  for (int i = 0; i < 3; ++i) {
    agent.execute("mute", nullptr, [&](const Result<json>& got) { failed += got ? 0 : 1; });
  }
  guest.link.settle();
  guest.link.cut();
  guest.link.settle();
  EXPECT_EQ(failed, 3);
}

TEST_F(GuestAgentTest, TooManyThatWaitAreRefused) {
  replies["mute"] = {""};
  std::optional<std::string> why;
  for (std::size_t i = 0; i <= kMaxGuestAgentPending; ++i) {
    agent.execute("mute", nullptr, [&](const Result<json>& got) { why = got.error().text; });
  }
  ASSERT_TRUE(os::run_until(loop, [&] { return why.has_value(); }));
  EXPECT_THAT(*why, HasSubstr("too many"));
}

TEST_F(GuestAgentTest, AReplyMayDestroyTheAgent) {
  FakeGuest other([](const json&) { return R"({"return": {}})"; });
  auto own = std::make_unique<GuestAgent>(loop, other.link.take_a());
  own->execute("guest-ping", nullptr, [&](const Result<json>&) { own.reset(); });
  own->execute("guest-ping", nullptr, [](const Result<json>&) { FAIL(); });
  other.link.settle();
  EXPECT_EQ(own, nullptr);
}

TEST_F(GuestAgentTest, RunsAProgramToItsEnd) {
  replies["guest-exec"] = {R"({"return": {"pid": 42}})"};
  replies["guest-exec-status"] = {
      R"({"return": {"exited": false}})",
      R"({"return": {"exited": true, "exitcode": 3, "out-data": "aGVsbG8K", "err-data": "b2g="}})"};
  const auto output = run();
  ASSERT_TRUE(output) << output.error().text;
  EXPECT_EQ(output->exit_code, 3);
  EXPECT_EQ(output->out, "hello\n");
  EXPECT_EQ(output->err, "oh");
  EXPECT_EQ(guest.requests[0]["arguments"]["capture-output"], true);
  EXPECT_EQ(guest.requests[1]["arguments"]["pid"], 42);
}

TEST_F(GuestAgentTest, AProgramThatDoesNotEndIsWaitedForWithALimit) {
  replies["guest-exec"] = {R"({"return": {"pid": 42}})"};
  replies["guest-exec-status"] = {R"({"return": {"exited": false}})"};
  const auto output = run(milliseconds(120));
  ASSERT_FALSE(output);
  EXPECT_THAT(output.error().text, HasSubstr("has not ended within"));
}

TEST_F(GuestAgentTest, AGuestThatForbidsProgramsIsToldHowToAllowThem) {
  replies["guest-exec"] = {
      R"({"error": {"class": "CommandNotFound", "desc": "Command guest-exec has been disabled"}})"};
  const auto output = run();
  ASSERT_FALSE(output);
  EXPECT_THAT(output.error().text, HasSubstr("qemu-ga.conf"));
}

TEST_F(GuestAgentTest, HostileAnswersOfAProgramAreNoCrash) {
  replies["guest-exec"] = {R"({"return": {"pid": "x"}})", R"({"return": [1]})"};
  replies["guest-exec-status"] = {
      R"({"return": {"exited": true, "exitcode": -7, "signal": 9999999, "out-data": "=%&"}})",
      R"({"return": {"exited": true, "exitcode": 99999999999, "out-data": 3}})"};
  for (int i = 0; i < 2; ++i) {
    const auto output = run();
    ASSERT_TRUE(output);
    EXPECT_EQ(output->out, "");
    EXPECT_EQ(output->exit_code, 255);
  }
}

}  // namespace
}  // namespace godwit::qemu
