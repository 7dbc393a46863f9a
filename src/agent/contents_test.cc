// What this host has elsewhere, with real files, storage daemons and workers: what is indexed, of
// what whom is told, and that what is not as the index has it is not taken for it.
#include "agent/contents.hh"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "agent/content_reader.hh"
#include "agent/digest_key.hh"
#include "base/test_directory.hh"
#include "disk/dirty_map.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::size_t kBlock = disk::kBlockBytes;

class ContentsTest : public testing::Test {
 protected:
  ContentsTest() {
    config_.name = "w1";
    config_.disk_dir = directory_ / "disks";
    config_.state_dir = directory_ / "state";
    config_.run_dir = directory_ / "run";
    for (const auto& path :
         {directory_.path(), config_.disk_dir, config_.vm_disks(), config_.library(),
          config_.run_dir, config_.run_dir / "pages", config_.state_dir}) {
      fs::create_directories(path);
      fs::permissions(path, fs::perms(0711));  // QEMU's user passes through
    }
    images_.start([](const std::string&) { return std::vector<std::string>(); });
    vm_.id = VmId::from(Bytes(16, std::byte{1}));
    vm_.tenant = "blue";
    start();
  }

  // An agent starts, after another one if there was one.
  void start() {
    contents_.reset();
    contents_ = std::make_unique<Contents>(loop_, config_, digest_key(*store_), images_, disks_);
    contents_->start();
    EXPECT_TRUE(os::run_until(loop_, [&] { return contents_->idle(); }));
  }
  void index() {
    contents_->look();
    EXPECT_TRUE(os::run_until(loop_, [&] { return contents_->idle(); }));
  }

  // Of blocks that are filled with these, zero included, and a part of one.
  static std::string blocks(const std::string& fills) {
    std::string all;
    for (const char fill : fills) all += std::string(kBlock, fill == '0' ? '\0' : fill);
    return all + std::string(512, 'z');
  }
  void add_image(const std::string& name, const std::string& content, const std::string& tenant,
                 bool is_public = false) {
    const auto file = directory_ / ("for-" + name);
    std::ofstream(file, std::ios::binary) << content;
    ASSERT_TRUE(images_.add({{"name", name},
                             {"file", file.string()},
                             {"format", "raw"},
                             {"tenant", tenant},
                             {"public", is_public}}));
    ASSERT_TRUE(os::run_until(loop_, [&] {
      const auto image = images_.show(name);
      return image && (*image)["state"] == "ready";
    }));
  }
  fs::path image_file(const std::string& name) { return config_.library() / (name + ".raw"); }
  // Behind everybody's back, its times as they were.
  static void overwrite(const fs::path& path, std::uint64_t at, char with) {
    struct stat before{};
    ASSERT_EQ(::stat(path.c_str(), &before), 0);
    fs::permissions(path, fs::perms(0644));
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
        .seekp(static_cast<std::streamoff>(at))
        .put(with);
    const timespec times[] = {before.st_atim, before.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }

  std::shared_ptr<const Elsewhere> find() {
    std::optional<std::shared_ptr<const Elsewhere>> found;
    contents_->find(vm_, [&](auto elsewhere) { found = std::move(elsewhere); });
    EXPECT_TRUE(os::run_until(loop_, [&] { return found.has_value(); }));
    return found.value_or(nullptr);
  }
  std::vector<std::string> names(const std::shared_ptr<const Elsewhere>& elsewhere) {
    std::vector<std::string> names;
    for (const Content& content : elsewhere ? elsewhere->contents() : std::vector<Content>()) {
      names.push_back(content.name);
    }
    return names;
  }
  std::shared_ptr<ImagePages> find_pages(std::size_t most = kMostPages) {
    std::optional<std::shared_ptr<ImagePages>> found;
    contents_->find_pages(vm_, most, [&](auto pages) { found = std::move(pages); });
    EXPECT_TRUE(os::run_until(loop_, [&] { return found.has_value(); }));
    return *found;
  }
  // "same": a block that is full of it came; or why not.
  std::string read(ContentReader& reader, const Bytes& key, char fill,
                   std::size_t length = kBlock) {
    const std::string block(length, fill);
    std::string outcome;
    reader.read(crypto::KeyedHash(key)(as_bytes(block)), length, [&](const Result<Bytes>& bytes) {
      if (!bytes) return void(outcome = bytes.error().text);
      outcome = as_text(*bytes) == block ? "same" : "others";
    });
    EXPECT_TRUE(outcome.empty()) << "told from within";
    EXPECT_TRUE(os::run_until(loop_, [&] { return !outcome.empty(); }));
    return outcome;
  }

  os::Loop loop_;
  TestDirectory directory_;
  Config config_;
  Events events_;
  std::unique_ptr<store::Store> store_ = store::make_memory_store();
  Images images_{loop_, config_, *store_, events_};
  Disks disks_{config_, *store_, images_};
  qemu::VmSpec vm_;
  std::unique_ptr<Contents> contents_;
};

TEST_F(ContentsTest, BlocksOfAnImageAreFoundByTheirDigests) {
  add_image("base", blocks("a0bab"), "blue");
  EXPECT_EQ(find(), nullptr) << "nothing is indexed yet";
  index();
  const auto elsewhere = find();
  ASSERT_TRUE(elsewhere);
  EXPECT_EQ(elsewhere->names().size(), 3u) << "a, b, and the last";
  ContentReader reader(loop_, elsewhere, config_.run_dir);
  EXPECT_EQ(read(reader, elsewhere->key(), 'b'), "same");
  EXPECT_EQ(read(reader, elsewhere->key(), 'a'), "same");
  EXPECT_EQ(read(reader, elsewhere->key(), 'z', 512), "same");
  EXPECT_THAT(read(reader, elsewhere->key(), 'c'), HasSubstr("never here"));
}

TEST_F(ContentsTest, WhatHasChangedIsNotTakenForWhatItWas) {
  add_image("base", blocks("ab"), "blue");
  index();
  overwrite(image_file("base"), kBlock + 7, 'x');
  const auto elsewhere = find();
  ASSERT_TRUE(elsewhere) << "nobody could know";
  ContentReader reader(loop_, elsewhere, config_.run_dir);
  EXPECT_EQ(read(reader, elsewhere->key(), 'a'), "same");
  EXPECT_THAT(read(reader, elsewhere->key(), 'b'), HasSubstr("changed"));
}

TEST_F(ContentsTest, WhatIsGoneIsNotThere) {
  add_image("base", blocks("ab"), "blue");
  index();
  const auto elsewhere = find();
  ASSERT_TRUE(elsewhere);
  fs::remove(image_file("base"));
  ContentReader reader(loop_, elsewhere, config_.run_dir);
  EXPECT_NE(read(reader, elsewhere->key(), 'a'), "same");
  EXPECT_NE(read(reader, elsewhere->key(), 'b'), "same");
}

TEST_F(ContentsTest, AnIndexIsOfTheFileAsItWas) {
  add_image("base", blocks("ab"), "blue");
  index();
  fs::last_write_time(image_file("base"), fs::file_time_type::clock::now() + seconds(5));
  EXPECT_EQ(find(), nullptr);
  index();
  EXPECT_NE(find(), nullptr);
}

TEST_F(ContentsTest, AnIndexOutlivesItsAgent) {
  add_image("base", blocks("ab"), "blue");
  index();
  const auto before = find();
  start();
  const auto after = find();
  ASSERT_TRUE(before && after);
  EXPECT_EQ(before->names(), after->names());
  struct stat about{};
  const auto file = config_.state_dir / "contents" / "image.base.index";
  ASSERT_EQ(::stat(file.c_str(), &about), 0);
  EXPECT_EQ(fs::file_size(file), 64u + 16 + 3 * 16 + 16) << "one part, and the end";
}

TEST_F(ContentsTest, OneThatIsDamagedOrOfAnotherKeyIsNone) {
  add_image("base", blocks("ab"), "blue");
  index();
  const auto file = config_.state_dir / "contents" / "image.base.index";
  fs::resize_file(file, fs::file_size(file) - 1);
  EXPECT_EQ(find(), nullptr);
  index();
  const auto before = find();
  store_->erase("secret", "contents");
  start();
  const auto after = find();
  ASSERT_TRUE(before && after);
  EXPECT_NE(before->key(), after->key());
  EXPECT_NE(before->names(), after->names());
}

TEST_F(ContentsTest, OfAnotherTenantsOnlyWhatIsPublicIsTold) {
  add_image("own", blocks("a"), "blue");
  add_image("others", blocks("b"), "red");
  add_image("public", blocks("c"), "red", true);
  index();
  EXPECT_THAT(names(find()), ElementsAre("image.own", "image.public"));
}

TEST_F(ContentsTest, PagesOfImagesAreReadByTheirPlaces) {
  add_image("base", blocks("a0b"), "blue");
  add_image("begun-as", blocks("bc"), "red", true);
  add_image("others", blocks("d"), "red");
  EXPECT_EQ(find_pages(), nullptr) << "nothing is indexed yet";
  index();
  vm_.disks.resize(1);
  vm_.disks[0].image.name = "begun-as";
  const auto pages = find_pages();
  ASSERT_TRUE(pages);
  ASSERT_EQ(pages->pages(), 3u) << "b and c of what its disk began as, and a";
  const auto read = [&](std::uint64_t place) {
    const auto page = pages->page(place);
    return page ? std::string(as_text(*page)) : page.error().text;
  };
  EXPECT_EQ(read(2), std::string(4096, 'a'));
  EXPECT_EQ(read(0), std::string(4096, 'b'));
  EXPECT_EQ(read(1), std::string(4096, 'c'));
  EXPECT_THAT(read(3), HasSubstr("no such page"));
  EXPECT_EQ(find_pages(2)->pages(), 2u);
  EXPECT_EQ(find_pages(0), nullptr);
}

// More than are kept of an image at a time, in an order that is not the file's.
TEST_F(ContentsTest, PagesThatAreExpectedAreReadBesideEachOther) {
  constexpr std::size_t kReadAtOnce = 256 << 10, kParts = 200;
  std::string content(kParts * kReadAtOnce, '\0');
  for (std::size_t i = 0; i < kParts; ++i) {
    std::ranges::fill_n(content.begin() + static_cast<std::ptrdiff_t>(i * kReadAtOnce), 4096,
                        static_cast<char>(i + 1));
  }
  add_image("base", content, "blue");
  index();
  const auto pages = find_pages();
  ASSERT_TRUE(pages);
  ASSERT_EQ(pages->pages(), kParts);
  std::vector<std::uint64_t> places(kParts + 1);
  std::iota(places.begin(), places.end(), 0U);
  std::ranges::shuffle(places, std::mt19937(7));
  for (const std::uint64_t place : places) pages->expect(place);  // one is not there
  EXPECT_EQ(pages->under_way(), 64U) << "as many as are kept";
  for (const std::uint64_t place : places) {
    const auto page = pages->page(place);
    ASSERT_EQ(page.has_value(), place < kParts);
    if (page) {
      EXPECT_EQ(as_text(*page), std::string(4096, static_cast<char>(place + 1)));
    }
  }
}

TEST_F(ContentsTest, PagesOfAnImageThatHasChangedAreNotTakenAndNotToldOfAgain) {
  add_image("base", blocks("ab"), "blue");
  index();
  overwrite(image_file("base"), 7, 'x');
  const auto pages = find_pages();
  ASSERT_TRUE(pages) << "nobody could know";
  const auto changed = pages->page(0);
  ASSERT_FALSE(changed);
  EXPECT_THAT(changed.error().text, HasSubstr("godwit image verify base"));
  EXPECT_TRUE(pages->page(1));
  EXPECT_TRUE(os::run_until(loop_, [&] { return !contents_->idle(); })) << "it is indexed again";
  EXPECT_TRUE(os::run_until(loop_, [&] { return contents_->idle(); }));
  const auto again = find_pages();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->pages(), 3u) << "its first page, and those that are alike";
  for (std::uint64_t place = 0; place < 3; ++place) EXPECT_TRUE(again->page(place));
}

TEST_F(ContentsTest, PagesThatCannotBeReadSaySo) {
  add_image("base", blocks("ab"), "blue");
  index();
  const auto pages = find_pages();
  ASSERT_TRUE(pages);
  fs::remove(image_file("base"));
  const auto page = pages->page(0);
  ASSERT_FALSE(page);
  EXPECT_THAT(page.error().text, HasSubstr("image base cannot be read"));
}

TEST_F(ContentsTest, OfDisksThatWereLeftOnlyOthersOfTheTenant) {
  qemu::VmSpec left;
  left.memory = {64 << 20};
  left.kernel = "/boot/vmlinuz";
  left.id = VmId::from(Bytes(16, std::byte{2}));
  left.name = "gone";
  left.tenant = "blue";
  left.disks = {{.name = "data", .format = qemu::DiskFormat::raw, .size = qemu::kMinDisk}};
  ASSERT_TRUE(disks_.make(left));
  std::ofstream(disks_.paths(left)[0].file, std::ios::binary | std::ios::in) << blocks("ab");
  index();
  EXPECT_THAT(names(find()), IsEmpty()) << "it is of a vm that may run";
  disks_.leave(left, "e1");
  index();
  EXPECT_THAT(names(find()), ElementsAre(left.id.text() + ".data"));
  vm_.tenant = "red";
  EXPECT_THAT(names(find()), IsEmpty());
  vm_.tenant = "blue";
  vm_.id = left.id;
  EXPECT_THAT(names(find()), IsEmpty()) << "it is compared in place";
  disks_.remove(left.id);
  index();
  EXPECT_TRUE(fs::is_empty(config_.state_dir / "contents"));
}

}  // namespace
}  // namespace godwit::agent
