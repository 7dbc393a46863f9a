#include "translate/rollout.hh"

#include <gmock/gmock.h>

#include "translate/device_rules.hh"
#include "translate/translate_testing.hh"

namespace godwit::translate {
namespace {

using ::testing::HasSubstr;

constexpr const char* kGuest = "web1";

// A guest of two addresses that moves about a fabric whose devices are told in any order, lose
// requests and answers, hear old ones again, refuse and come back. After whatever a device does
// every packet finds the guest.
class Wandering final {
 public:
  explicit Wandering(unsigned seed, bool is_fine = false)
      : random_(seed), is_fine_(is_fine), fabric_(random_fabric(random_)) {
    detours_ = random_() % 4 == 0 ? Detours::allowed : Detours::none;
    const auto hosts = hosts_of_fabric();
    host_ = hosts[random_() % hosts.size()];
    const DeviceIndex home = fabric_.devices[host_].neighbours.front();
    addresses_ = {address_at(fabric_, home, true, 0), address_at(fabric_, home, false, 0)};
  }

  void move_to(DeviceIndex to) {
    if (to == host_) return;
    ++epoch_;
    GuestMove move{.from = host_, .to = to, .addresses = {}, .detours = detours_};
    for (const Ip& address : addresses_) {
      move.addresses.push_back({.address = address,
                                .from_locator = locator_of(address),
                                .to_locator = locator_at(fabric_, to, address.is4(), epoch_)});
    }
    Rollout rollout(fabric_, move, epoch_);
    rollout.stage();
    if (run(rollout, random_() % 4 == 0) && random_() % 5 != 0) {
      rollout.flip();
      is_leaving_ = true;
      run(rollout, false);
      rollout.settle();
      run(rollout, false);
      is_leaving_ = false;
      for (const auto& each : move.addresses) {
        const bool is_home = fabric_.is_home(to, each.address);
        locators_[each.address] = is_home ? std::nullopt : std::optional(each.to_locator);
      }
    } else {
      rollout.undo();
      run(rollout, false);
    }
    check_settled();
  }

  void wander() {
    const auto hosts = hosts_of_fabric();
    const DeviceIndex home = host_;
    for (int i = 0; i < 6; ++i) {
      ASSERT_NO_FATAL_FAILURE(move_to(hosts[random_() % hosts.size()]));
    }
    is_fine_ = true;
    for (int i = 0; i < 30 && host_ != home; ++i) ASSERT_NO_FATAL_FAILURE(move_to(home));
    ASSERT_EQ(host_, home);
    for (const auto& [device, rules] : devices_) {
      EXPECT_TRUE(rules.content().empty()) << "rules are left at " << fabric_.devices[device].name;
    }
  }

 private:
  std::vector<DeviceIndex> hosts_of_fabric() const {
    std::vector<DeviceIndex> hosts;
    for (DeviceIndex i = 0; i < fabric_.devices.size(); ++i) {
      if (fabric_.devices[i].is_host()) hosts.push_back(i);
    }
    return hosts;
  }
  std::optional<Ip> locator_of(Ip address) const {
    const auto found = locators_.find(address);
    return found == locators_.end() ? std::nullopt : found->second;
  }

  // Until all devices have what they shall; false: one refused, or never answered.
  bool run(Rollout& rollout, bool has_refusing) {
    const DeviceIndex refusing = random_() % fabric_.devices.size();
    for (int rounds = 0; !rollout.is_reached(); ++rounds) {
      if (rounds > 1000) {
        ADD_FAILURE() << "no end";
        return false;
      }
      for (auto& request : rollout.due(now_)) in_flight_.push_back(std::move(request));
      std::ranges::shuffle(in_flight_, random_);
      while (!in_flight_.empty()) {
        const auto request = in_flight_.back();
        in_flight_.pop_back();
        deliver(rollout, request, has_refusing && request.device == refusing);
        check_packets(rollout);
        if (::testing::Test::HasFatalFailure() || ::testing::Test::HasNonfatalFailure())
          return false;
      }
      if (rollout.is_refused() && rollout.wanted() == Phase::staged) return false;
      if (rollout.wanted() == Phase::staged && rounds > 20 && random_() % 4 == 0) return false;
      now_ += kAskAgain;
    }
    return true;
  }

  bool happens(unsigned percent) { return !is_fine_ && random_() % 100 < percent; }

  void deliver(Rollout& rollout, const Rollout::Request& request, bool is_refused) {
    if (happens(10)) return;  // lost
    if (happens(10)) old_.push_back(request);
    if (happens(10) && !old_.empty()) {
      const auto& late = old_[random_() % old_.size()];
      (void)devices_[late.device].set(kGuest, late.version, late.rules);
      rollout.has(late.device, late.version);  // once it had
    }
    if (is_refused) return rollout.refused(request.device, request.version, "no room");
    const auto done = devices_[request.device].set(kGuest, request.version, request.rules);
    ASSERT_TRUE(done) << done.error().text;
    if (happens(10)) return;  // its answer is lost
    rollout.has(request.device, request.version);
    // The source's host has it: the guest runs at the target, what was held there is sent on.
    if (is_leaving_ && rollout.reached() >= Phase::forwarded) host_ = target_of(rollout);
  }

  DeviceIndex target_of(const Rollout& rollout) const { return rollout.move().to; }

  void check_packets(const Rollout& rollout) {
    const bool is_between = is_leaving_ && rollout.reached() < Phase::forwarded;
    if (is_between) return;  // it stands: what comes is held where it was
    const Tables tables = all_tables();
    for (const Ip& address : addresses_) {
      Packets packets(fabric_, tables, address, host_);
      for (const DeviceIndex entry : entries(fabric_)) {
        const Trip trip = packets.from(entry);
        ASSERT_TRUE(trip.arrived) << "from " << fabric_.devices[entry].name << ", "
                                  << to_text(rollout.reached()) << ": " << trip.why;
      }
      const bool sends_on =
          is_leaving_ && rollout.reached() < Phase::settled && rollout.wanted() < Phase::settled;
      if (sends_on) {
        EXPECT_TRUE(packets.late_at(rollout.move().from).arrived);
      }
    }
  }

  void check_settled() {
    const Tables tables = all_tables();
    for (const Ip& address : addresses_) {
      const auto expected = rules_of(fabric_, address, {host_, locator_of(address)}, detours_);
      for (const auto& [device, rules] : tables) {
        Rules of_address;
        for (const Rule& rule : rules) {
          if (rule.match == address || rule.becomes == address || rule.match == locator_of(address))
            of_address.push_back(rule);
        }
        const auto found = expected.find(device);
        const auto difference =
            compare(found == expected.end() ? Rules{} : found->second, of_address);
        EXPECT_TRUE(difference.empty()) << fabric_.devices[device].name;
      }
    }
  }

  Tables all_tables() const {
    Tables tables;
    for (const auto& [device, rules] : devices_) tables[device] = rules.content();
    return tables;
  }

  std::mt19937 random_;
  bool is_fine_;
  Fabric fabric_;
  Detours detours_ = Detours::none;
  DeviceIndex host_ = 0;
  std::vector<Ip> addresses_;
  std::map<Ip, std::optional<Ip>> locators_;
  unsigned epoch_ = 0;
  bool is_leaving_ = false;
  Instant now_{};
  std::map<DeviceIndex, DeviceRules> devices_;
  std::vector<Rollout::Request> in_flight_, old_;
};

TEST(Rollout, EveryPacketFindsAGuestThatWanders) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Wandering(seed).wander();
    ASSERT_FALSE(HasFailure());
  }
}

struct OneMove : ::testing::Test {
  Fabric fabric = small_fabric();
  DeviceIndex from = *fabric.find("ha1"), to = *fabric.find("ha3");
  Ip address = address_at(fabric, *fabric.find("edge1"), true, 0);
  Ip locator = locator_at(fabric, to, true, 0);
  GuestMove move{.from = from, .to = to, .addresses = {{address, {}, locator}}};
  Rollout rollout{fabric, move, 1};

  void answer_all() {
    for (const auto& request : rollout.due({})) rollout.has(request.device, request.version);
  }
};

TEST_F(OneMove, TheSourceSHostFlipsFirst) {
  rollout.stage();
  answer_all();
  EXPECT_TRUE(rollout.is_reached());
  rollout.flip();
  const auto first = rollout.due({});
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first[0].device, from);
  rollout.has(from, first[0].version);
  EXPECT_EQ(rollout.due({}).size(), 9U);
}

TEST_F(OneMove, NothingIsFlippedThatIsNotStaged) {
  rollout.stage();
  rollout.flip();
  auto requests = rollout.due({});
  EXPECT_EQ(requests[0].version, (Version{1, Phase::staged}));
  for (std::size_t i = 1; i < requests.size(); ++i) {
    rollout.has(requests[i].device, requests[i].version);
  }
  EXPECT_EQ(rollout.reached(), Phase::before);
  EXPECT_TRUE(rollout.due({}).empty());
  EXPECT_EQ(rollout.next(), Instant{} + kAskAgain);
  EXPECT_EQ(rollout.due(Instant{} + kAskAgain).size(), 1U);
}

TEST_F(OneMove, OneThatRefusesIsNamed) {
  rollout.stage();
  const auto requests = rollout.due({});
  rollout.refused(requests[0].device, requests[0].version, "no room");
  EXPECT_TRUE(rollout.is_refused());
  EXPECT_EQ(rollout.missing().front(), (std::pair{requests[0].device, std::string("no room")}));
  rollout.undo();
  for (const auto& request : rollout.due({})) {
    EXPECT_TRUE(request.rules.empty());
    EXPECT_EQ(request.version, (Version{1, Phase::undone}));
    rollout.has(request.device, request.version);
  }
  EXPECT_TRUE(rollout.is_reached());
}

TEST_F(OneMove, TheOthersDoNotWaitForASourceThatIsGone) {
  rollout.stage();
  answer_all();
  rollout.flip();
  rollout.abandon(from);
  EXPECT_EQ(rollout.reached(), Phase::forwarded);
  const auto requests = rollout.due({});
  EXPECT_EQ(requests.size(), 9U) << "it is asked all the same";
  for (const auto& each : requests) {
    if (each.device != from) rollout.has(each.device, each.version);
  }
  EXPECT_EQ(rollout.reached(), Phase::flipped);
  rollout.settle();
  EXPECT_EQ(rollout.reached(), Phase::drained);
  answer_all();
  EXPECT_TRUE(rollout.is_reached());
  EXPECT_FALSE(rollout.is_waiting()) << "it was back for the last step";
}

TEST_F(OneMove, WhatAnAbandonedDeviceShallHaveItIsAskedToTakeToTheEnd) {
  rollout.stage();
  answer_all();
  rollout.flip();
  rollout.abandon(from);
  rollout.settle();
  const auto others = [&] {
    for (const auto& each : rollout.due({})) {
      if (each.device != from) rollout.has(each.device, each.version);
    }
  };
  others();
  others();
  EXPECT_TRUE(rollout.is_reached());
  EXPECT_TRUE(rollout.is_waiting());
  const auto last = rollout.due(Instant{} + kAskAgain);
  ASSERT_EQ(last.size(), 1U);
  EXPECT_EQ(last[0].version, (Version{1, Phase::settled}));
  rollout.has(from, {1, Phase::flipped});
  EXPECT_TRUE(rollout.is_waiting()) << "the answer to an older one";
  rollout.has(from, last[0].version);
  EXPECT_FALSE(rollout.is_waiting());
}

TEST_F(OneMove, ADriverThatWasRestartedGoesOn) {
  Rollout again(fabric, move, 1, Phase::staged);
  again.flip();
  ASSERT_EQ(again.due({}).size(), 1U);
  EXPECT_EQ(again.wanted(), Phase::flipped);
}

TEST(DeviceRules, TwoGuestsDoNotShareAnAddress) {
  DeviceRules device;
  const Rule depart{RuleKind::depart, Ip::of4(1), Ip::of4(2)};
  ASSERT_TRUE(device.set("a", {1, Phase::settled}, {depart}));
  const auto refused = device.set("b", {1, Phase::settled}, {depart});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("guest a has a rule for that address"));
  Rule staged = depart;
  staged.is_active = false;
  EXPECT_TRUE(device.set("b", {1, Phase::staged}, {staged}));
  EXPECT_TRUE(device.set("a", {1, Phase::undone}, {})) << "it goes";
  EXPECT_TRUE(device.set("b", {1, Phase::flipped}, {depart}));
  EXPECT_EQ(device.content(), Rules{depart});
}

TEST(DeviceRules, WhatIsOlderIsNotTaken) {
  DeviceRules device;
  const Rule depart{RuleKind::depart, Ip::of4(1), Ip::of4(2)};
  ASSERT_TRUE(device.set("a", {2, Phase::undone}, {}));
  ASSERT_TRUE(device.set("a", {1, Phase::flipped}, {depart}));
  EXPECT_TRUE(device.content().empty());
}

TEST(DeviceRules, AfterAForgottenOneAnyIsTaken) {
  DeviceRules device;
  const Rule depart{RuleKind::depart, Ip::of4(1), Ip::of4(2)};
  ASSERT_TRUE(device.set("a", {2, Phase::flipped}, {depart}));
  device.forget("a");
  device.forget("nobody");
  EXPECT_TRUE(device.guests().empty());
  EXPECT_TRUE(device.set("b", {1, Phase::flipped}, {depart})) << "the address is nobody's";
  device.forget("b");
  ASSERT_TRUE(device.set("a", {1, Phase::flipped}, {depart}));
  EXPECT_EQ(device.content(), Rules{depart});
}

TEST(DeviceRules, ThereIsAnEndToThem) {
  DeviceRules device;
  Rules many(kMostRules);
  for (std::size_t i = 0; i < many.size(); ++i) {
    many[i] = {RuleKind::depart, Ip::of4(static_cast<std::uint32_t>(i)), Ip::of4(1)};
  }
  ASSERT_TRUE(device.set("a", {1, Phase::settled}, many));
  const auto refused = device.set("b", {1, Phase::settled}, {{RuleKind::claim, Ip::of4(7)}});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("no room"));
  for (std::size_t i = 0; i < kMostGone + 5; ++i) {
    ASSERT_TRUE(device.set(fmt::format("gone{}", i), {1, Phase::undone}, {}));
  }
  EXPECT_EQ(device.guests().size(), kMostGone + 1);
}

}  // namespace
}  // namespace godwit::translate
