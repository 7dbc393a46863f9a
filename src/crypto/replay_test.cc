#include "crypto/replay.hh"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>

namespace godwit::crypto {
namespace {

constexpr std::uint64_t kSurelyHeld = ReplayWindow::kWindow - 63;

TEST(ReplayWindow, AcceptsEachCounterOnce) {
  ReplayWindow window;
  EXPECT_TRUE(window.accept(0));
  EXPECT_FALSE(window.accept(0));
  EXPECT_TRUE(window.accept(5));
  EXPECT_TRUE(window.accept(3));
  EXPECT_FALSE(window.accept(5));
  EXPECT_FALSE(window.accept(3));
  EXPECT_EQ(window.end(), 6u);
}

TEST(ReplayWindow, RefusesWhatIsTooOldToTell) {
  ReplayWindow window;
  EXPECT_TRUE(window.accept(10 * ReplayWindow::kWindow));
  EXPECT_TRUE(window.accept(9 * ReplayWindow::kWindow + 64));
  EXPECT_FALSE(window.accept(9 * ReplayWindow::kWindow));
  EXPECT_FALSE(window.accept(0));
}

TEST(ReplayWindow, SurvivesTheExtremes) {
  ReplayWindow window;
  EXPECT_FALSE(window.accept(std::numeric_limits<std::uint64_t>::max()));
  EXPECT_TRUE(window.accept(std::numeric_limits<std::uint64_t>::max() - 1));
  EXPECT_FALSE(window.accept(std::numeric_limits<std::uint64_t>::max() - 1));
  EXPECT_FALSE(window.has_all_below(1));
}

TEST(ReplayWindow, KnowsWhetherAllBelowArrived) {
  ReplayWindow window;
  EXPECT_TRUE(window.has_all_below(0));
  EXPECT_FALSE(window.has_all_below(1));
  for (std::uint64_t counter = 0; counter < 200'000; ++counter) {
    ASSERT_TRUE(window.accept(counter));
  }
  EXPECT_TRUE(window.has_all_below(200'000));
  EXPECT_FALSE(window.has_all_below(200'001));
  ASSERT_TRUE(window.accept(200'001));
  EXPECT_FALSE(window.has_all_below(200'002));
  EXPECT_TRUE(window.has_all_between(200'001, 200'002));
  ASSERT_TRUE(window.accept(200'000));
  EXPECT_TRUE(window.has_all_below(200'002));
}

TEST(ReplayWindow, NeverForgetsThatOneWasMissing) {
  ReplayWindow window;
  for (std::uint64_t counter = 0; counter < 200'000; ++counter) {
    if (counter == 777) continue;
    ASSERT_TRUE(window.accept(counter));
  }
  EXPECT_EQ(window.contiguous(), 777u);
  EXPECT_FALSE(window.has_all_below(200'000));
  EXPECT_FALSE(window.has_all_between(700, 200'000));
  EXPECT_TRUE(window.has_all_between(190'000, 200'000));
}

// Against a set that remembers everything.
TEST(ReplayWindow, AgreesWithAnExactModel) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    ReplayWindow window;
    std::set<std::uint64_t> seen;
    std::uint64_t top = 0;
    for (int i = 0; i < 5000; ++i) {
      const bool jump = random() % 500 == 0;
      const std::uint64_t step = jump ? random() % (2 * ReplayWindow::kWindow) : random() % 4;
      const std::uint64_t back = random() % 3 == 0 ? random() % (random() % 2 ? 70'000 : 20) : 0;
      const std::uint64_t counter = top + step > back ? top + step - back : 0;
      const bool copy = seen.contains(counter);
      const bool too_old = counter + kSurelyHeld <= top;
      const bool accepted = window.accept(counter);
      EXPECT_FALSE(copy && accepted) << counter;
      EXPECT_TRUE(copy || too_old || accepted) << counter << " top " << top;
      if (accepted) seen.insert(counter);
      top = std::max(top, accepted ? counter : std::uint64_t{0});
      std::uint64_t first_missing = 0;
      if (i % 100 == 0) {
        while (seen.contains(first_missing)) ++first_missing;
        EXPECT_EQ(window.contiguous(), first_missing);
      }
    }
  }
}

}  // namespace
}  // namespace godwit::crypto
