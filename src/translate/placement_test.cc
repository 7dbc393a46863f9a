#include "translate/placement.hh"

#include <gmock/gmock.h>

#include "translate/translate_testing.hh"

namespace godwit::translate {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> names_of(const Fabric& fabric, const std::vector<DeviceIndex>& devices) {
  std::vector<std::string> names;
  for (const DeviceIndex each : devices) names.push_back(fabric.devices[each].name);
  return names;
}

struct SmallFabric : ::testing::Test {
  std::vector<std::string> departures_to(const std::string& host, Detours detours) const {
    return names_of(fabric, departures(fabric, at_home, *fabric.find(host), detours));
  }
  Fabric fabric = small_fabric();
  Ip at_home = address_at(fabric, *fabric.find("edge1"), true, 0);
};

// Nobody's packets pass core2 on their way to both.
TEST_F(SmallFabric, ToAnotherPodDevicesOfAllTiersDepart) {
  EXPECT_THAT(departures_to("ha3", Detours::none),
              ElementsAre("core1", "agg1", "agg2", "agg3", "agg4", "edge1", "edge3"));
}

TEST_F(SmallFabric, WithinAPodTheCoreIsLeftAlone) {
  EXPECT_THAT(departures_to("ha2", Detours::none), ElementsAre("agg1", "agg2", "edge1", "edge2"));
}

TEST_F(SmallFabric, WithDetoursTheHomeAloneDeparts) {
  EXPECT_THAT(departures_to("ha3", Detours::allowed), ElementsAre("edge1"));
}

TEST_F(SmallFabric, AGuestThatIsAtHomeCostsNoRule) {
  EXPECT_TRUE(rules_of(fabric, at_home, {*fabric.find("ha1"), {}}, Detours::none).empty());
  EXPECT_TRUE(fabric.is_home(*fabric.find("hb1"), at_home));
  EXPECT_FALSE(fabric.is_home(*fabric.find("ha2"), at_home));
}

TEST_F(SmallFabric, ItsHostTakesAndItsHomeAnswers) {
  const DeviceIndex host = *fabric.find("ha3");
  const Ip locator = locator_at(fabric, host, true, 0);
  const Tables tables = rules_of(fabric, at_home, {host, locator}, Detours::allowed);
  EXPECT_THAT(tables.at(host), ElementsAre(Rule{RuleKind::arrive, locator, at_home},
                                           Rule{RuleKind::claim, locator}));
  EXPECT_THAT(
      tables.at(*fabric.find("edge1")),
      ElementsAre(Rule{RuleKind::depart, at_home, locator}, Rule{RuleKind::claim, at_home}));
}

// Everybody reaches a displaced guest, on a shortest way, and no rule could be left out.
class Placed final {
 public:
  explicit Placed(unsigned seed) : random_(seed), fabric_(random_fabric(random_)) {
    const auto edges = with_networks();
    const DeviceIndex home = edges[random_() % edges.size()];
    do {
      host_ = random_() % fabric_.devices.size();
    } while (!fabric_.devices[host_].is_host());
    is4_ = random_() % 2 == 0;
    address_ = address_at(fabric_, home, is4_, 0);
  }

  void check(Detours detours) {
    if (fabric_.is_home(host_, address_)) return;
    Tables tables =
        rules_of(fabric_, address_, {host_, locator_at(fabric_, host_, is4_, 0)}, detours);
    const auto shortest = distances(fabric_, {host_});
    for (const DeviceIndex entry : entries(fabric_)) {
      const Trip trip = Packets(fabric_, tables, address_, host_).from(entry);
      ASSERT_TRUE(trip.arrived) << "from " << fabric_.devices[entry].name << ": " << trip.why;
      if (detours == Detours::none) {
        ASSERT_EQ(trip.hops, shortest[entry]) << "from " << fabric_.devices[entry].name;
      }
    }
    if (detours == Detours::none) expect_all_needed(tables, shortest);
  }

 private:
  std::vector<DeviceIndex> with_networks() const {
    auto edges = entries(fabric_);
    std::erase_if(edges, [&](DeviceIndex each) { return fabric_.devices[each].networks.empty(); });
    return edges;
  }

  void expect_all_needed(const Tables& tables, const std::vector<unsigned>& shortest) const {
    for (const auto& [device, rules] : tables) {
      Tables fewer = tables;
      std::erase_if(fewer[device], [](const Rule& rule) { return rule.kind == RuleKind::depart; });
      if (fewer[device].size() == rules.size()) continue;
      const bool is_missed = std::ranges::any_of(entries(fabric_), [&](DeviceIndex entry) {
        const Trip trip = Packets(fabric_, fewer, address_, host_).from(entry);
        return !trip.arrived || trip.hops > shortest[entry];
      });
      EXPECT_TRUE(is_missed) << "the rule at " << fabric_.devices[device].name << " is not needed";
    }
  }

  std::mt19937 random_;
  Fabric fabric_;
  DeviceIndex host_ = 0;
  bool is4_ = true;
  Ip address_{};
};

TEST(Placement, OnRandomFabricsAllReachTheGuestOnShortestWays) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    ASSERT_NO_FATAL_FAILURE(Placed(seed).check(Detours::none));
    ASSERT_NO_FATAL_FAILURE(Placed(seed).check(Detours::allowed));
  }
}

}  // namespace
}  // namespace godwit::translate
