#include "agent/fabrics.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/source_record.hh"
#include "store/disk.hh"

namespace godwit::agent {
namespace {

using testing::HasSubstr;

// Hosts of one fleet that hear each other at once, if their wire is up.
class Wire final : public Peers {
 public:
  const std::string& self() const override { return self_; }
  bool is_up(const std::string&) const override { return is_connected; }
  std::vector<std::string> up() const override {
    return is_connected ? std::vector<std::string>{"other"} : std::vector<std::string>{};
  }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return its_protocol; }
  void request(const std::string&, const std::string& method, const nlohmann::json& body,
               Reply reply, Nanoseconds) override {
    if (!is_connected) return reply(fail("no session"));
    ++asked;
    auto shared = std::make_shared<Reply>(std::move(reply));
    far->on_request({.peer = "this",
                     .method = method,
                     .answer = [shared](Result<nlohmann::json> answer) { (*shared)(answer); }},
                    body);
  }
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady) override {}

  Fabrics* far = nullptr;
  bool is_connected = true;
  unsigned its_protocol = kRulesProtocol, asked = 0;

 private:
  std::string self_ = "this";
};

nlohmann::json file_of(const std::string& name) {
  return {{"name", name},
          {"tiers", {"edge"}},
          {"devices",
           {{"edge1",
             {{"tier", "edge"},
              {"networks", {"10.1.1.0/24"}},
              {"hosts", {"a1"}},
              {"outside", true}}}}}};
}

struct FabricsTest : testing::Test {
  FabricsTest() {
    to_b.far = &b;
    to_a.far = &a;
  }
  os::Loop loop;
  std::unique_ptr<store::Store> store_a = store::open_on(std::make_shared<store::MemoryDisk>()),
                                store_b = store::open_on(std::make_shared<store::MemoryDisk>());
  Events events;
  Wire to_b, to_a;
  Fabrics a{*store_a, to_b, events}, b{*store_b, to_a, events};
};

TEST_F(FabricsTest, WhatOneIsToldAllKnow) {
  ASSERT_TRUE(a.set(file_of("east")));
  ASSERT_NE(b.get(), nullptr);
  EXPECT_EQ(b.get()->name, "east");
  EXPECT_EQ(a.describe(), b.describe());
  ASSERT_TRUE(b.set(file_of("west")));
  EXPECT_EQ(a.get()->name, "west");
  ASSERT_TRUE(a.set(nullptr));
  EXPECT_EQ(b.get(), nullptr);
}

TEST_F(FabricsTest, AHostThatWasAwayLearnsItWhenItIsBack) {
  to_b.is_connected = to_a.is_connected = false;
  ASSERT_TRUE(a.set(file_of("east")));
  EXPECT_EQ(b.get(), nullptr);
  to_b.is_connected = to_a.is_connected = true;
  a.on_session_up("other");
  ASSERT_NE(b.get(), nullptr);
  // Both were told something meanwhile: the later one wins, whoever speaks first.
  to_b.is_connected = to_a.is_connected = false;
  ASSERT_TRUE(b.set(file_of("west")));
  ASSERT_TRUE(a.set(file_of("north")));
  ASSERT_TRUE(a.set(file_of("north2")));
  to_b.is_connected = to_a.is_connected = true;
  b.on_session_up("other");
  EXPECT_EQ(b.get()->name, a.get()->name);
  EXPECT_EQ(a.get()->name, "north2");
}

TEST_F(FabricsTest, AnOlderAgentIsNotAsked) {
  to_b.its_protocol = kRulesProtocol - 1;
  ASSERT_TRUE(a.set(file_of("east")));
  EXPECT_EQ(to_b.asked, 0U);
}

TEST_F(FabricsTest, ABadFileChangesNothing) {
  ASSERT_TRUE(a.set(file_of("east")));
  const auto bad = a.set({{"tiers", {"edge"}}, {"devices", {{"x", {{"tier", "no"}}}}}});
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().text, HasSubstr("/devices/x"));
  EXPECT_EQ(a.get()->name, "east");
  EXPECT_EQ(b.get()->name, "east");
}

TEST_F(FabricsTest, ItIsThereAfterARestart) {
  ASSERT_TRUE(a.set(file_of("east")));
  Fabrics again(*store_a, to_b, events);
  EXPECT_EQ(again.get(), nullptr);
  again.start();
  EXPECT_EQ(again.describe(), a.describe());
  ASSERT_NE(again.get(), nullptr);
}

TEST_F(FabricsTest, MovesKeepTheirsWhenAnotherComes) {
  ASSERT_TRUE(a.set(file_of("east")));
  const auto mine = a.get();
  ASSERT_TRUE(a.set(file_of("west")));
  EXPECT_EQ(mine->name, "east");
}

}  // namespace
}  // namespace godwit::agent
