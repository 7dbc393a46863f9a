#include "wire/due_queue.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <random>

namespace godwit::wire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Sleeper {
  explicit Sleeper(int number_in) : number(number_in) {}
  DueQueue<Sleeper>::Place& place() { return place_; }
  int number;
  DueQueue<Sleeper>::Place place_;
};

constexpr Instant at(int second) { return Instant(seconds(second)); }

class DueQueueTest : public ::testing::Test {
 protected:
  DueQueueTest() {
    for (int i = 0; i < 10; ++i) sleepers.push_back(std::make_unique<Sleeper>(i));
  }
  std::vector<int> run(int second) {
    std::vector<int> ticked;
    queue.run(at(second), [&](Sleeper& sleeper) { ticked.push_back(sleeper.number); });
    return ticked;
  }
  void wake(std::size_t number, int second) { queue.wake(*sleepers[number], at(second)); }

  DueQueue<Sleeper> queue;
  std::vector<std::unique_ptr<Sleeper>> sleepers;
};

TEST_F(DueQueueTest, TicksWhoIsDueAndNobodyElse) {
  wake(3, 30), wake(1, 10), wake(2, 20);
  EXPECT_EQ(queue.next(), at(10));
  EXPECT_THAT(run(9), IsEmpty());
  EXPECT_THAT(run(20), ElementsAre(1, 2));
  EXPECT_THAT(run(20), IsEmpty());
  EXPECT_EQ(queue.next(), at(30));
  EXPECT_THAT(run(99), ElementsAre(3));
  EXPECT_EQ(queue.next(), Instant::max());
}

TEST_F(DueQueueTest, TheSoonestOfWhatOneIsWokenForCounts) {
  wake(1, 10), wake(1, 5), wake(1, 20);
  EXPECT_EQ(sleepers[1]->place().due(), at(5));
  EXPECT_THAT(run(5), ElementsAre(1));
  EXPECT_THAT(run(30), IsEmpty());
}

TEST_F(DueQueueTest, WhoIsWokenInATickWaitsForTheNext) {
  wake(1, 1), wake(2, 2);
  int ticks = 0;
  queue.run(at(2), [&](Sleeper& sleeper) {
    ++ticks;
    queue.wake(sleeper, at(0));
    wake(2, 0), wake(3, 0);  // 2 is about to be ticked
  });
  EXPECT_EQ(ticks, 2);
  EXPECT_THAT(run(2), ElementsAre(::testing::_, ::testing::_, ::testing::_));
}

TEST_F(DueQueueTest, WhoEndsIsNotTickedEvenIfHeWasAboutToBe) {
  wake(1, 1), wake(2, 2), wake(3, 3), wake(4, 4);
  sleepers[3].reset();
  std::vector<int> ticked;
  queue.run(at(9), [&](Sleeper& sleeper) {
    ticked.push_back(sleeper.number);
    sleepers[2].reset();
    if (sleeper.number == 4) sleepers[4].reset();  // himself
  });
  EXPECT_THAT(ticked, ElementsAre(1, 4));
  EXPECT_EQ(queue.next(), Instant::max());
}

TEST_F(DueQueueTest, WhoLeftMayComeToAnother) {
  DueQueue<Sleeper> other;
  wake(1, 1), wake(2, 2);
  sleepers[1]->place().leave();
  other.wake(*sleepers[1], at(3));
  EXPECT_EQ(other.next(), at(3));
  EXPECT_EQ(queue.next(), at(2));
  sleepers.clear();
  EXPECT_EQ(other.next(), Instant::max());
}

// Against a plain list.
TEST_F(DueQueueTest, IsAsAListThatIsSearched) {
  std::mt19937 random(1);
  sleepers.clear();
  std::vector<int> due(200, 0);  // 0: waits for nothing
  for (int i = 0; i < 200; ++i) sleepers.push_back(std::make_unique<Sleeper>(i));
  int now = 1;
  for (int step = 0; step < 100'000; ++step) {
    const std::size_t one = random() % due.size();
    switch (random() % 8) {
      case 0:
        sleepers[one]->place().leave();
        due[one] = 0;
        break;
      case 1: {
        now += static_cast<int>(random() % 3);
        std::vector<int> expected;
        for (std::size_t i = 0; i < due.size(); ++i) {
          if (due[i] == 0 || due[i] > now) continue;
          expected.push_back(static_cast<int>(i));
          due[i] = 0;
        }
        ASSERT_THAT(run(now), ::testing::UnorderedElementsAreArray(expected)) << step;
        break;
      }
      default: {
        const int when = now + 1 + static_cast<int>(random() % 50);
        wake(one, when);
        due[one] = due[one] == 0 ? when : std::min(due[one], when);
      }
    }
    const auto soonest =
        std::ranges::min(due, {}, [](int when) { return when == 0 ? INT_MAX : when; });
    ASSERT_EQ(queue.next(), soonest == 0 ? Instant::max() : at(soonest)) << step;
  }
}

}  // namespace
}  // namespace godwit::wire
