// The file of an image's pages, and the pages it names read back out of real images.
#include "agent/page_index.hh"

#include <gtest/gtest.h>

#include "base/test_directory.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPage = 4096;
const Bytes kKey(crypto::KeyedHash::kKeySize, std::byte{7});
const Bytes kStamp(64, std::byte{1});

Bytes pages_of(std::initializer_list<int> fills) {
  Bytes bytes;
  for (const int fill : fills) bytes.resize(bytes.size() + kPage, static_cast<std::byte>(fill));
  return bytes;
}

class PageIndexTest : public testing::Test {
 protected:
  TestDirectory directory_;
  fs::path file_ = directory_ / "image.base.pages";
};

TEST_F(PageIndexTest, NamesEachPageThatIsNoZeroesOnceByItsPlace) {
  PageIndex index(file_, kStamp, kKey);
  index.add(0, pages_of({3, 0, 4, 3}));
  index.add(64 << 10, pages_of({0, 5}));
  Bytes part = pages_of({6});
  part.resize(part.size() + 512);  // a disk's end
  index.add(128 << 10, part);
  ASSERT_TRUE(index.end());
  const auto pages = read_page_index(file_, kStamp);
  ASSERT_TRUE(pages) << pages.error().text;
  std::vector<std::uint32_t> places;
  for (const NamedPage& each : *pages) places.push_back(each.place);
  EXPECT_EQ(places, (std::vector<std::uint32_t>{0, 2, 17, 32}));
  EXPECT_EQ((*pages)[1].name, crypto::KeyedHash(kKey)(pages_of({4})));
  EXPECT_EQ(fs::file_size(file_), 64U + 4 * 20 + 8);
}

TEST_F(PageIndexTest, OfAnotherStampOrCutItIsNone) {
  PageIndex index(file_, kStamp, kKey);
  index.add(0, pages_of({1, 2}));
  EXPECT_FALSE(is_page_index(file_, kStamp)) << "it is not whole yet";
  ASSERT_TRUE(index.end());
  EXPECT_TRUE(is_page_index(file_, kStamp));
  EXPECT_FALSE(is_page_index(file_, Bytes(64)));
  EXPECT_FALSE(is_page_index(directory_ / "none", kStamp));
  for (const std::uintmax_t cut : {1U, 8U, 20U, 28U, 48U}) {
    const fs::path shorter = directory_ / "shorter";
    fs::copy_file(file_, shorter, fs::copy_options::overwrite_existing);
    fs::resize_file(shorter, fs::file_size(file_) - cut);
    EXPECT_FALSE(read_page_index(shorter, kStamp)) << cut;
  }
}

}  // namespace
}  // namespace godwit::agent
