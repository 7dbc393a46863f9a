#include "agent/host_search.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

namespace godwit::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class SomePeers final : public Peers {
 public:
  const std::string& self() const override { return self_; }
  bool is_up(const std::string& peer) const override { return sessions.contains(peer); }
  std::vector<std::string> up() const override { return {sessions.begin(), sessions.end()}; }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return 0; }
  void request(const std::string&, const std::string&, const nlohmann::json&, Reply,
               Nanoseconds) override {}
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady) override {}

  std::set<std::string> sessions;

 private:
  std::string self_ = "e1";
};

// Host e1 of site east searches; w1 and w2 are site west.
class HostSearchTest : public testing::Test {
 protected:
  void start(const std::string& to) {
    const auto preflight = [this](const std::string& host, const auto& checked) {
      asked_.push_back(host);
      checked(
          Findings{.checks = {{.name = "memory", .ok = !full_.contains(host), .detail = host}}});
    };
    search_.start(to, preflight, [this](Result<HostSearch::Outcome> outcome) {
      EXPECT_FALSE(outcome_) << "told twice";
      outcome_ = std::move(outcome);
    });
  }
  void come_up(const std::string& peer) {
    peers_.sessions.insert(peer);
    search_.on_session_up(peer);
  }

  static std::vector<std::string> hosts_called(const std::string& name) {
    if (name == "west") return {"w1", "w2"};
    if (name == "east") return {"e1"};
    if (name == "w1" || name == "w2") return {name};
    return {};
  }

  os::Loop loop_;
  SomePeers peers_;
  std::vector<std::string> asked_;
  std::set<std::string> full_;
  std::optional<Result<HostSearch::Outcome>> outcome_;
  HostSearch search_{loop_, peers_, hosts_called};
};

TEST_F(HostSearchTest, AHostThatIsUpIsAskedAtOnce) {
  peers_.sessions = {"w1", "w2"};
  start("w2");
  ASSERT_TRUE(outcome_ && *outcome_);
  EXPECT_EQ((*outcome_)->host, "w2");
  EXPECT_THAT(asked_, ElementsAre("w2"));
}

TEST_F(HostSearchTest, OneThatIsKnownIsWaitedFor) {
  start("w1");
  come_up("w2");
  EXPECT_FALSE(outcome_);
  come_up("w1");
  ASSERT_TRUE(outcome_ && *outcome_);
  EXPECT_EQ((*outcome_)->host, "w1");
  come_up("w1");  // its next session is nobody's business
}

TEST_F(HostSearchTest, OfASiteTheFirstThatIsUpAndHasRoom) {
  peers_.sessions = {"w1", "w2"};
  full_ = {"w1"};
  start("west");
  ASSERT_TRUE(outcome_ && *outcome_);
  EXPECT_EQ((*outcome_)->host, "w2");
  EXPECT_THAT((*outcome_)->findings.checks, SizeIs(1)) << "of w2 alone";
  EXPECT_THAT(asked_, ElementsAre("w1", "w2"));
}

TEST_F(HostSearchTest, WhereNobodyHasRoomAllSayWhy) {
  full_ = {"w1", "w2"};
  peers_.sessions = {"w1"};  // w2 is not waited for: one that can answer does
  start("west");
  ASSERT_TRUE(outcome_ && *outcome_);
  EXPECT_FALSE(all_ok((*outcome_)->findings.checks));
  EXPECT_THAT(asked_, ElementsAre("w1"));
}

TEST_F(HostSearchTest, WhatIsNoTargetIsRefusedAtOnce) {
  for (const char* to : {"nowhere", "e1", "east"}) {
    outcome_.reset();
    start(to);
    ASSERT_TRUE(outcome_) << to;
    ASSERT_FALSE(*outcome_) << to;
    EXPECT_THAT(outcome_->error().text, HasSubstr(to));
  }
  EXPECT_THAT(asked_, SizeIs(0));
}

}  // namespace
}  // namespace godwit::agent
