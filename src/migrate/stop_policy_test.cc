#include "migrate/stop_policy.hh"

#include <gtest/gtest.h>

namespace godwit::migrate {
namespace {

// The pause is taken as proportional to what remains.
RoundHistory history_of(std::initializer_list<double> megabytes) {
  RoundHistory history;
  for (const double mb : megabytes) {
    history.begin_round(
        {.remaining_bytes = mb * 1e6, .predicted_pause = milliseconds(static_cast<int>(mb * 10))});
  }
  return history;
}

Effort effort(double megabytes, std::uint64_t rounds = 6) {
  return {.rounds = rounds,
          .sent_bytes = 600e6,
          .memory_bytes = 500e6,
          .remaining_bytes = megabytes * 1e6};
}

TEST(StopPolicy, NamesAreReadAsPrinted) {
  for (const auto policy : {StopPolicy::downtime, StopPolicy::smart, StopPolicy::stock}) {
    EXPECT_EQ(stop_policy(to_text(policy)), policy);
  }
  EXPECT_FALSE(stop_policy("clever"));
}

TEST(StopPolicy, SmartGoesOnWhileRoundsShrink) {
  EXPECT_FALSE(is_enough(StopPolicy::smart, history_of({500, 60, 9, 2}), effort(2)));
}

TEST(StopPolicy, SmartStopsAtALocalMinimumOfTheWindow) {
  EXPECT_FALSE(is_enough(StopPolicy::smart, history_of({500, 60, 9, 12}), effort(12)));
  EXPECT_FALSE(is_enough(StopPolicy::smart, history_of({500, 60, 9, 12, 10}), effort(10)));
  EXPECT_TRUE(is_enough(StopPolicy::smart, history_of({500, 60, 9, 12, 10, 7}), effort(7)));
}

TEST(StopPolicy, SmartForgetsWhatLeftTheWindow) {
  const auto history = history_of({500, 60, 9, 20, 21, 22, 20, 23, 18});
  EXPECT_TRUE(is_enough(StopPolicy::smart, history, effort(18)));
}

TEST(StopPolicy, SmartStopsWhereNothingMoves) {
  EXPECT_FALSE(is_enough(StopPolicy::smart, history_of({500, 60, 61, 59, 60}), effort(60)));
  EXPECT_TRUE(is_enough(StopPolicy::smart, history_of({500, 60, 61, 59, 60, 61, 60}), effort(60)));
}

TEST(StopPolicy, SmartDoesNotWaitForeverForAMinimum) {
  const auto rising = history_of({500, 60, 61, 70, 80, 90});
  EXPECT_FALSE(is_enough(StopPolicy::smart, rising, effort(90, kMostRounds - 1)));
  EXPECT_TRUE(is_enough(StopPolicy::smart, rising, effort(90, kMostRounds)));
}

TEST(StopPolicy, StockStopsByXensThreeBounds) {
  const RoundHistory history = history_of({500, 60, 9});
  EXPECT_FALSE(is_enough(StopPolicy::stock, history, effort(9)));
  EXPECT_TRUE(is_enough(StopPolicy::stock, history, effort(0.1)));
  EXPECT_TRUE(is_enough(StopPolicy::stock, history, effort(9, kMostRounds)));
  auto much = effort(9);
  much.sent_bytes = 1600e6;
  EXPECT_TRUE(is_enough(StopPolicy::stock, history, much));
}

}  // namespace
}  // namespace godwit::migrate
