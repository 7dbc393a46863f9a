#include "agent/move_resumption.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/move_groups.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using migrate::SourceEvent;
using migrate::SourceState;
using testing::ElementsAre;
using testing::IsEmpty;

class Up final : public Peers {
 public:
  const std::string& self() const override { return self_; }
  bool is_up(const std::string&) const override { return is_up_now; }
  std::vector<std::string> up() const override { return {}; }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return 0; }
  void request(const std::string&, const std::string&, const nlohmann::json&, Reply,
               Nanoseconds) override {}
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady) override {}

  bool is_up_now = true;

 private:
  std::string self_ = "e1";
};

// In the state in which it is put; aborted by what ends it, and over when that is heard.
class AMove final : public Move {
 public:
  explicit AMove(SourceRecord record) : record_(std::move(record)) {}

  Result<> accept() override { return {}; }
  void begin() override {}
  void restart() override {}
  using Move::feed;
  void feed(SourceEvent event, std::string text) override {
    if (event == SourceEvent::cutover) ++cutovers;
    if (event != SourceEvent::abort_requested && event != SourceEvent::target_failed) return;
    if (handed_over() || record_.state == SourceState::aborted) return;
    record_.state = SourceState::aborted;
    record_.reason = std::move(text);
  }
  void give_up() override { feed(SourceEvent::abort_requested, "given up"); }
  Result<> set(const MoveChanges&) override { return {}; }
  void break_off() override {
    if (may_go_on(record_)) record_.broken_off = true;
  }
  void went_on(const std::optional<MigrationId>& as) override {
    if (as) record_.resumed_as = as->text();
    record_.broken_off = as.has_value();
  }
  void share(const std::shared_ptr<SharedIndex>&) override {}
  void share_bandwidth(BitRate) override {}
  void regroup(const GroupPlace&) override {}
  double remaining_bytes() const override { return 0; }
  double dirty_bytes_per_second() const override { return 0; }
  const SourceRecord& record() const override { return record_; }
  SourceState state() const override { return record_.state; }
  const std::string& reason() const override { return record_.reason; }
  nlohmann::json describe() const override { return {{"state", to_text(record_.state)}}; }
  nlohmann::json progress() const override { return {{"phase", ""}}; }
  bool over() const override { return record_.state == SourceState::aborted && heard; }
  bool handed_over() const override { return record_.state == SourceState::committed; }

  SourceRecord record_;
  bool heard = true;
  int cutovers = 0;
};

class MoveResumptionTest : public testing::Test {
 protected:
  AMove& have(SourceState state, std::optional<std::size_t> place = {}, bool resume = true) {
    SourceRecord record;
    record.id.bytes[15] = static_cast<std::byte>(moves_.size() + 1);
    record.vm = "vm" + std::to_string(moves_.size());
    record.to = "w1";
    record.state = state;
    record.resume = resume;
    if (place) record.group = GroupPlace{.id = kGroup, .index = *place, .of = 2};
    return add(std::move(record));
  }
  AMove& add(SourceRecord record) {
    moves_.push_back(std::make_unique<AMove>(std::move(record)));
    if (moves_.back()->record_.group) groups_.add(*moves_.back());
    return *moves_.back();
  }
  std::vector<Move*> all() const {
    std::vector<Move*> all;
    for (const auto& each : moves_) all.push_back(each.get());
    return all;
  }
  // Which were begun again, after some time in which something was heard.
  std::vector<std::string> begun() {
    events_.publish("migration", {{"tenant", "default"}});
    const Instant until = loop_.now() + milliseconds(600);
    while (loop_.now() < until) loop_.run_once(milliseconds(20));
    return begun_;
  }

  static constexpr MigrationId kGroup{{std::byte{9}}};
  os::Loop loop_;
  Up peers_;
  Events events_;
  std::vector<std::unique_ptr<AMove>> moves_;
  std::vector<std::string> begun_;
  bool refuses_ = false;
  MoveGroups groups_{loop_, events_, [this](const MigrationId& id) -> Move* {
                       for (const auto& each : moves_) {
                         if (each->record_.id == id) return each.get();
                       }
                       return nullptr;
                     }};
  MoveResumption resumption_{loop_, peers_, events_, [this] { return all(); },
                             [this](const Move& old) -> Result<Move*> {
                               begun_.push_back(old.record().vm);
                               if (refuses_) return fail("it is gone");
                               SourceRecord record = old.record();
                               record.id.bytes[0] = std::byte{1};
                               record.state = SourceState::planned;
                               record.broken_off = false;
                               return &add(record);
                             }};
};

TEST_F(MoveResumptionTest, OneThatWasBrokenOffIsBegunAgainOnce) {
  AMove& move = have(SourceState::copying);
  EXPECT_THAT(begun(), IsEmpty()) << "nothing has happened";
  move.break_off();
  move.feed(SourceEvent::target_failed);
  EXPECT_THAT(begun(), ElementsAre("vm0"));
  EXPECT_EQ(move.record_.resumed_as, moves_[1]->record_.id.text());
  EXPECT_THAT(begun(), ElementsAre("vm0")) << "no more";
}

TEST_F(MoveResumptionTest, NotWhereItIsNotWishedOrTooLate) {
  have(SourceState::copying, {}, false);
  have(SourceState::switching);
  have(SourceState::ready).record_.times_resumed = kMostResumed;
  for (const auto& each : moves_) {
    each->break_off();
    each->feed(SourceEvent::target_failed);
  }
  EXPECT_THAT(begun(), IsEmpty());
}

TEST_F(MoveResumptionTest, NotBeforeBothEndsAreThroughWithIt) {
  AMove& move = have(SourceState::ready);
  move.heard = peers_.is_up_now = false;
  move.break_off();
  move.feed(SourceEvent::target_failed);
  EXPECT_THAT(begun(), IsEmpty());
  peers_.is_up_now = true;
  EXPECT_THAT(begun(), IsEmpty()) << "the target has not heard that it was ended";
  move.heard = true;  // no event tells it
  EXPECT_THAT(begun(), ElementsAre("vm0"));
}

TEST_F(MoveResumptionTest, OneThatCannotBeBegunAgainStays) {
  AMove& move = have(SourceState::ready);
  refuses_ = true;
  move.break_off();
  move.feed(SourceEvent::target_failed);
  EXPECT_THAT(begun(), ElementsAre("vm0"));
  EXPECT_FALSE(goes_on(move.record_));
  EXPECT_EQ(move.record_.resumed_as, "");
}

// The first of them ends the others, which would not go on by themselves.
TEST_F(MoveResumptionTest, AGroupGoesOnWhole) {
  AMove& first = have(SourceState::copying, 0);
  AMove& second = have(SourceState::ready, 1);
  second.heard = false;
  first.break_off();
  first.feed(SourceEvent::target_failed);
  EXPECT_THAT(begun(), IsEmpty());
  EXPECT_EQ(second.state(), SourceState::aborted);
  second.heard = true;
  EXPECT_THAT(begun(), ElementsAre("vm0", "vm1"));
  ASSERT_EQ(moves_.size(), 4U);
  for (const std::size_t next : {2UL, 3UL}) moves_[next]->record_.state = SourceState::ready;
  (void)begun();
  EXPECT_EQ(moves_[2]->cutovers + moves_[3]->cutovers, 2) << "the group lives on";
}

// Its members begin one after the other.
TEST_F(MoveResumptionTest, AGroupGoesOnWholeOfWhichOneHadNotBegun) {
  AMove& first = have(SourceState::preparing, 0);
  AMove& second = have(SourceState::planned, 1);
  for (AMove* each : {&first, &second}) {
    each->record_.begins_at = 77;
    each->break_off();
    each->feed(SourceEvent::target_failed);
  }
  EXPECT_THAT(begun(), ElementsAre("vm0", "vm1"));
  EXPECT_EQ(moves_[3]->record_.begins_at, 77);
}

TEST_F(MoveResumptionTest, AGroupStaysWholeWhereOneHasFailed) {
  AMove& first = have(SourceState::copying, 0);
  AMove& second = have(SourceState::copying, 1);
  second.feed(SourceEvent::target_failed, "no memory");
  first.break_off();
  first.feed(SourceEvent::target_failed);
  EXPECT_THAT(begun(), IsEmpty());
  EXPECT_FALSE(goes_on(first.record_)) << "who follows it need not wait";
}

TEST_F(MoveResumptionTest, WhatHasArrivedOfAGroupHoldsUpNobody) {
  have(SourceState::committed, 0);
  AMove& second = have(SourceState::ready, 1);
  second.break_off();
  second.feed(SourceEvent::target_failed);
  EXPECT_THAT(begun(), ElementsAre("vm1"));
}

}  // namespace
}  // namespace godwit::agent
