#include "migrate/group.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::migrate {
namespace {

using S = SourceState;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<GroupMember> in(std::initializer_list<S> states) {
  std::vector<GroupMember> members;
  for (const S state : states) members.push_back({.state = state});
  return members;
}

TEST(Group, AllAreHandedOverOnceAllAreReady) {
  EXPECT_THAT(judge({}, in({S::ready, S::copying, S::ready})).cutover, IsEmpty());
  EXPECT_THAT(judge({}, in({S::ready, S::ready, S::ready})).cutover, ElementsAre(0, 1, 2));
  EXPECT_THAT(judge({.hold = true}, in({S::ready, S::ready})).cutover, IsEmpty());
}

TEST(Group, OneIsNotToldTwice) {
  auto members = in({S::copying, S::ready});
  members[0].cutover_told = true;  // it hands over
  members[1].cutover_told = true;
  EXPECT_THAT(judge({}, members).cutover, IsEmpty());
}

TEST(Group, InOrderTheNextWaitsUntilTheOneBeforeRunsThere) {
  const GroupOptions options{.in_order = true};
  auto members = in({S::ready, S::ready, S::ready});
  EXPECT_THAT(judge(options, members).cutover, ElementsAre(0));
  members[0].cutover_told = true;
  for (const S state : {S::copying, S::switching, S::released}) {
    members[0].state = state;
    EXPECT_THAT(judge(options, members).cutover, IsEmpty());
  }
  members[0].state = S::committed;
  EXPECT_THAT(judge(options, members).cutover, ElementsAre(1));
}

TEST(Group, BeforeTheFirstIsHandedOverItMovesWholeOrNotAtAll) {
  EXPECT_TRUE(judge({}, in({S::ready, S::aborting})).abort);
  EXPECT_TRUE(judge({}, in({S::switching, S::aborted})).abort);
  // It is decided elsewhere: the others go on.
  EXPECT_FALSE(judge({}, in({S::released, S::aborted, S::ready})).abort);
  auto members = in({S::draining, S::aborted, S::ready});
  members[0].cutover_told = members[1].cutover_told = true;
  EXPECT_THAT(judge({.in_order = true}, members).cutover, ElementsAre(2));
}

TEST(Group, TheCapIsSharedByWhatIsLeft) {
  auto members = in({S::copying, S::copying, S::ready, S::draining});
  members[0].remaining_bytes = 3e8;
  members[1].remaining_bytes = 1e8;
  const auto caps = judge({.cap = {100'000'000}}, members).caps;
  ASSERT_EQ(caps.size(), 4U);
  EXPECT_NEAR(static_cast<double>(caps[0].bits_per_second), 73.5e6, 1e6);
  EXPECT_NEAR(static_cast<double>(caps[1].bits_per_second), 24.5e6, 1e6);
  EXPECT_NEAR(static_cast<double>(caps[2].bits_per_second), 2e6, 0.1e6);
  EXPECT_EQ(caps[3].bits_per_second, 1U);
  std::uint64_t sum = 0;
  for (const BitRate cap : caps) sum += cap.bits_per_second;
  EXPECT_LE(sum, 100'000'003U);
  EXPECT_THAT(judge({}, members).caps, IsEmpty());
}

TEST(Group, ItsStateIsThatOfTheLeastFar) {
  EXPECT_EQ(state_of(in({S::ready, S::copying})), S::copying);
  EXPECT_EQ(state_of(in({S::aborted, S::draining})), S::draining);
  EXPECT_EQ(state_of(in({S::aborted, S::aborting})), S::aborting);
  EXPECT_EQ(state_of(in({S::aborted, S::aborted})), S::aborted);
}

}  // namespace
}  // namespace godwit::migrate
