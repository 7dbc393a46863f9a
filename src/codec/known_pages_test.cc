#include "codec/known_pages.hh"

#include <gtest/gtest.h>

#include <random>

namespace godwit::codec {
namespace {

constexpr std::size_t kPage = 4096;
const Bytes kKey(crypto::KeyedHash::kKeySize, std::byte{7});

Bytes page(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(kPage);
  for (auto& byte : bytes) byte = static_cast<std::byte>('a' + random() % 8);
  return bytes;
}

std::shared_ptr<KnownPages> some(std::size_t count, std::size_t budget = SIZE_MAX) {
  auto pages = std::make_shared<KnownPages>(kPage, budget, kKey);
  for (std::size_t i = 0; i < count; ++i) pages->add(page(i));
  pages->seal();
  return pages;
}

TEST(KnownPages, EachIsFoundByItsContentsAndReadByItsPlace) {
  const auto pages = some(5000);
  ASSERT_EQ(pages->pages(), 5000U);
  Catalogue catalogue;
  BytesView left = pages->catalogue();
  std::mt19937_64 random(1);
  while (!left.empty()) {
    const auto part = left.first(std::min<std::size_t>(left.size(), 1 + random() % 100));
    catalogue.learn(part);
    left = left.subspan(part.size());
  }
  KnownReader reader({.kept = pages});
  for (std::size_t i = 4999; i < 5000; i -= 7) {
    const auto place = catalogue.find(page(i));
    ASSERT_EQ(place, i);
    EXPECT_TRUE(std::ranges::equal(reader.page(*place).value(), page(i)));
  }
  EXPECT_FALSE(catalogue.find(page(5000)));
  EXPECT_FALSE(reader.page(5000));
}

// What is in memory is quicker to read than what is in an image, whose names come later.
TEST(KnownPages, OfANameThatIsToldTwiceTheFirstPlaceCounts) {
  const auto pages = some(2000);
  const BytesView names = pages->catalogue().subspan(crypto::KeyedHash::kKeySize);
  Catalogue catalogue;
  catalogue.learn(pages->catalogue());
  catalogue.learn(names);  // among them the table grows
  for (std::size_t i = 0; i < 2000; i += 97) EXPECT_EQ(catalogue.find(page(i)), i);
}

TEST(KnownPages, WhereNothingIsFoundFewAreLookedFor) {
  const auto pages = some(100);
  Catalogue catalogue;
  catalogue.learn(pages->catalogue());
  const auto most_passed_over = [&] {
    std::uint64_t passed_over = 0;
    while (passed_over < 100 && !catalogue.find(page(7))) ++passed_over;
    return passed_over;
  };
  for (std::uint64_t i = 0; i < Catalogue::kMostMisses; ++i) {
    EXPECT_FALSE(catalogue.find(page(1000 + i)));
  }
  EXPECT_EQ(most_passed_over(), 0U);
  for (std::uint64_t i = 0; i <= Catalogue::kMostMisses; ++i) {
    EXPECT_FALSE(catalogue.find(page(1000 + i)));
  }
  EXPECT_EQ(most_passed_over(), Catalogue::kStride - 1);
  EXPECT_TRUE(catalogue.find(page(8))) << "all are looked for again";
}

TEST(KnownPages, ZeroesAndRepetitionsArePassedOver) {
  KnownPages pages(kPage, SIZE_MAX, kKey);
  pages.add(page(1));
  pages.add(Bytes(kPage));
  pages.add(page(1));
  pages.add(page(2));
  pages.seal();
  EXPECT_EQ(pages.pages(), 2U);
}

TEST(KnownPages, TheBudgetHoldsButForTheLastGroup) {
  const auto pages = some(5000, 200'000);
  EXPECT_LT(pages->pages(), 500U);
  EXPECT_LT(pages->bytes(), 200'000U + 16 * kPage);
  EXPECT_GT(pages->bytes(), 190'000U);
}

TEST(KnownPages, NamesTellNothingWithoutTheKey) {
  KnownPages one(kPage, SIZE_MAX, kKey);
  KnownPages other(kPage, SIZE_MAX, Bytes(crypto::KeyedHash::kKeySize, std::byte{8}));
  one.add(page(1));
  other.add(page(1));
  EXPECT_FALSE(std::ranges::equal(one.catalogue().last(crypto::KeyedHash::kSize),
                                  other.catalogue().last(crypto::KeyedHash::kSize)));
}

TEST(KnownPages, WhereNothingIsKnownNothingIsFound) {
  Catalogue catalogue;
  catalogue.learn({});
  EXPECT_FALSE(catalogue.find(page(1)));
  catalogue.learn(kKey);
  EXPECT_FALSE(catalogue.find(page(1)));
  EXPECT_FALSE(KnownReader({}).page(0));
  EXPECT_TRUE(catalogue_of({}).empty());
}

}  // namespace
}  // namespace godwit::codec
