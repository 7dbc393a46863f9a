#include "agent/state_sender.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/source_record.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Host w1: keeps what it is told, and answers when it is wished.
class Target final : public Peers {
 public:
  const std::string& self() const override { return self_; }
  bool is_up(const std::string&) const override { return up_; }
  std::vector<std::string> up() const override { return {"w1"}; }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return speaks; }
  void request(const std::string&, const std::string&, const Json& body, Reply reply,
               Nanoseconds) override {
    if (!up_) return reply(fail("no session"));
    asked.push_back(body);
    waiting_.push_back(std::move(reply));
  }
  Result<> push(const std::string&, const std::string& method, BytesView body) override {
    EXPECT_EQ(method, kStatePush);
    if (!up_) return fail("no session");
    pushed.push_back(to_bytes(body));
    return {};
  }
  void open_lane(const std::string&, LaneReady) override {}

  void answer(const Result<Json>& with = Json::object()) {
    for (auto& each : std::exchange(waiting_, {})) each(with);
  }
  void end_session() {
    up_ = false;
    answer(fail("the session ended"));
  }
  void begin_session() { up_ = true; }
  std::vector<std::uint64_t> numbers() const {
    std::vector<std::uint64_t> all;
    for (const Json& each : asked) all.push_back(each["number"]);
    return all;
  }

  unsigned speaks = kStateBytesProtocol;
  std::vector<Json> asked;
  std::vector<Bytes> pushed;

 private:
  std::string self_ = "e1";
  bool up_ = true;
  std::vector<Reply> waiting_;
};

class StateSenderTest : public testing::Test {
 protected:
  StateSender& sender() {
    if (!sender_) {
      sender_.emplace(
          loop_, target_, MigrationId{}, "w1",
          StateSender::Events{.answered = [this] { ++answered_; },
                              .failed = [this](const std::string& why) { failed_ = why; }});
    }
    return *sender_;
  }

  os::Loop loop_;
  Target target_;
  std::optional<StateSender> sender_;
  int answered_ = 0;
  std::string failed_;
  const Bytes some_ = Bytes(20'000, std::byte{7});
};

TEST_F(StateSenderTest, EachIsPushedBeforeItIsAskedFor) {
  sender().send(some_, false);
  sender().send({}, true);
  EXPECT_THAT(target_.numbers(), ElementsAre(1, 2));
  EXPECT_FALSE(target_.asked[0].contains("state"));
  EXPECT_EQ(target_.asked[1].value("state", "none"), "") << "there is nothing to wait for";
  EXPECT_TRUE(target_.asked[1]["last"].get<bool>());
  ASSERT_EQ(target_.pushed.size(), 1U);
  EXPECT_EQ(StateUnpacker().unpack(state_message(target_.pushed[0]).value()), some_);
  EXPECT_EQ(sender().sent().messages_bytes, some_.size());
  EXPECT_EQ(sender().sent().bytes, target_.pushed[0].size());
  EXPECT_LT(target_.pushed[0].size(), some_.size() / 10);
}

TEST_F(StateSenderTest, AnOlderTargetGetsHex) {
  target_.speaks = kStateBytesProtocol - 1;
  sender().send(some_, false);
  EXPECT_THAT(target_.pushed, IsEmpty());
  EXPECT_EQ(target_.asked[0]["state"], to_hex(some_));
}

TEST_F(StateSenderTest, WhatWasNotAnsweredIsToldAgainAsItWas) {
  sender().send(some_, false);
  target_.answer();
  sender().send(some_, false);
  sender().send(some_, true);
  target_.end_session();
  target_.begin_session();
  sender().send_again();
  EXPECT_THAT(target_.numbers(), ElementsAre(1, 2, 3, 2, 3));
  ASSERT_EQ(target_.pushed.size(), 5U);
  EXPECT_EQ(target_.pushed[3], target_.pushed[1]);
  EXPECT_EQ(target_.pushed[4], target_.pushed[2]);
  EXPECT_FALSE(sender().is_idle());
  target_.answer();
  EXPECT_TRUE(sender().is_idle());
  EXPECT_EQ(failed_, "");
}

TEST_F(StateSenderTest, OneThatIsRefusedThriceFails) {
  sender().send(some_, false);
  target_.answer(fail("not awaited"));
  EXPECT_EQ(failed_, "");
  for (int i = 0; i < 2; ++i) {
    sender().send_again();
    target_.answer(fail("not awaited"));
  }
  EXPECT_THAT(failed_, HasSubstr("not awaited"));
}

TEST_F(StateSenderTest, FewAreOnTheirWayAtOnce) {
  int sent = 0;
  for (; sender().has_room() && sent < 100; ++sent) sender().send(some_, false);
  EXPECT_GT(sent, 1);
  EXPECT_LT(sent, 10);
  target_.answer();
  EXPECT_TRUE(sender().has_room());
  EXPECT_EQ(answered_, sent);
}

TEST_F(StateSenderTest, ACapHoldsForWhatCrosses) {
  target_.speaks = kStateBytesProtocol - 1;  // as many bytes as one thinks
  sender().set_bandwidth(BitRate{8'000'000});
  const Instant begun = loop_.now();
  int waits = 0;
  os::Loop::Timer next;
  const std::function<void()> go_on = [&] {
    while (target_.asked.size() < 20) {
      if (const auto wait = sender().wait()) {
        ++waits;
        next = loop_.after(*wait, go_on);
        return;
      }
      sender().send(some_, false);
      target_.answer();
    }
  };
  go_on();
  ASSERT_TRUE(os::run_until(loop_, [&] { return target_.asked.size() == 20; }));
  // 20 times 40 kB at 1 MB/s; 64 KiB may go at once, and the last need not have gone.
  EXPECT_GT(loop_.now() - begun, milliseconds(800 - 66 - 40 - 20));
  EXPECT_NEAR(static_cast<double>(sender().sent().rate.bits_per_second), 8e6, 4e6);
  EXPECT_LT(waits, 40) << "it waits for as long as it takes";
  EXPECT_TRUE(sender().wait());
  sender().set_bandwidth(BitRate{0});
  EXPECT_FALSE(sender().wait()) << "none";
}

}  // namespace
}  // namespace godwit::agent
