// The library with a real loop, real files and qemu-img: what gets in, what is found out about it
// later, and what an agent that ended leaves.
#include "agent/images.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/test_directory.hh"
#include "crypto/sha256.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using testing::HasSubstr;

constexpr std::uint64_t kMebibyte = 1 << 20;
constexpr std::uint64_t kCryptMethodEnd = 35;  // of a big-endian number in qcow2's header

class ImagesTest : public testing::Test {
 protected:
  ImagesTest() {
    config_.name = "e1";
    config_.disk_dir = directory_ / "disks";
    fs::create_directories(config_.library());
    // QEMU's user passes through.
    for (const auto& path : {directory_.path(), config_.disk_dir, config_.library()}) {
      fs::permissions(path, fs::perms(0711));
    }
    start();
  }

  // An agent starts, after another one if there was one.
  void start() {
    images_.reset();
    images_ = std::make_unique<Images>(loop_, config_, *store_, events_);
    images_->start([this](const std::string&) { return users_; });
  }

  std::string file(const std::string& name, const std::string& content) {
    std::ofstream(directory_ / name, std::ios::binary) << content;
    return directory_ / name;
  }
  std::string disk(const std::string& name, const std::vector<std::string>& how) {
    std::vector<std::string> argv = {"qemu-img", "create", "-q"};
    argv.insert(argv.end(), how.begin(), how.end());
    argv.insert(argv.end(), {directory_ / name, "3M"});
    const auto made = os::run({.argv = argv});
    EXPECT_TRUE(made && made->status.success()) << (made ? made->err : made.error().text);
    return directory_ / name;
  }
  static void overwrite(const std::string& path, std::uint64_t at, char byte) {
    std::fstream io(path, std::ios::in | std::ios::out | std::ios::binary);
    io.seekp(static_cast<std::streamoff>(at));
    io.put(byte);
  }
  static std::string sum_of(const std::string& path) {
    std::string all(fs::file_size(path), '\0');
    std::ifstream(path, std::ios::binary).read(all.data(), std::ssize(all));
    return to_hex(crypto::sha256(as_bytes(all)));
  }

  std::string state(const std::string& name) {
    const auto image = images_->show(name);
    return image ? (*image)["state"].get<std::string>() : "absent";
  }
  // Adds it, and waits; what is shown then.
  Json add(const Json& request) {
    const auto begun = images_->add(request);
    if (!begun) return {{"refused", begun.error().text}};
    const auto name = request["name"].get<std::string>();
    EXPECT_TRUE(os::run_until(loop_, [&] { return state(name) != "copying"; }));
    return *images_->show(name);
  }
  std::string refusal(const Json& request) { return add(request).value("refused", ""); }
  Json verify(const std::string& name) {
    EXPECT_TRUE(images_->verify(name));
    EXPECT_EQ(state(name), "verifying");
    EXPECT_TRUE(os::run_until(loop_, [&] { return state(name) != "verifying"; }));
    return *images_->show(name);
  }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(config_.library()), {}));
  }

  const TestDirectory directory_;
  Config config_;
  os::Loop loop_;
  std::unique_ptr<store::Store> store_ = store::make_memory_store();
  Events events_;
  std::vector<std::string> users_;
  std::unique_ptr<Images> images_;
};

TEST_F(ImagesTest, ARawFileIsCopiedSummedAndNotWrittenAgain) {
  const auto source = file("disk.raw", std::string(kMebibyte + 1000, 'x'));
  const Json image = add({{"name", "base"}, {"file", source}, {"sha256", sum_of(source)}});
  EXPECT_EQ(image["state"], "ready") << image;
  EXPECT_EQ(image["format"], "raw") << "told by qemu-img";
  EXPECT_EQ(image["size_bytes"], kMebibyte + 1000);
  EXPECT_EQ(image["virtual_size_bytes"], kMebibyte + 1024) << "in whole sectors";
  EXPECT_EQ(image["sha256"], sum_of(source));
  EXPECT_EQ(image["tenant"], "default");
  EXPECT_EQ(image["used_by"], Json::array());
  const auto usable = images_->usable("base", "default");
  ASSERT_TRUE(usable);
  const auto copy = images_->path(*usable);
  EXPECT_EQ(copy, config_.library() / "base.raw");
  EXPECT_EQ(sum_of(copy), sum_of(source));
  EXPECT_EQ(fs::status(copy).permissions(), fs::perms(0444));
  EXPECT_EQ(files(), 1U);
  EXPECT_EQ(images_->list(), std::vector<Json>{image});
}

TEST_F(ImagesTest, AQcow2HasTheSizeOfItsDisk) {
  const Json image = add({{"name", "base"}, {"file", disk("d", {"-f", "qcow2"})}});
  EXPECT_EQ(image["state"], "ready") << image;
  EXPECT_EQ(image["format"], "qcow2");
  EXPECT_EQ(image["virtual_size_bytes"], 3 * kMebibyte);
  EXPECT_TRUE(fs::exists(config_.library() / "base.qcow2"));
}

TEST_F(ImagesTest, HolesStayHoles) {
  const auto source = file("disk.raw", "begins");
  fs::resize_file(source, 16 * kMebibyte);
  const Json image = add({{"name", "base"}, {"file", source}});
  EXPECT_EQ(image["size_bytes"], 16 * kMebibyte) << image;
  const auto copy = config_.library() / "base.raw";
  EXPECT_EQ(sum_of(copy), sum_of(source));
  struct stat about{};
  ASSERT_EQ(::stat(copy.c_str(), &about), 0);
  EXPECT_LT(static_cast<std::uint64_t>(about.st_blocks) * 512, kMebibyte);
}

TEST_F(ImagesTest, AnotherSumIsAFailureThatStaysUntilItIsAddedAgain) {
  const auto source = file("disk.raw", "content");
  const Json failed = add({{"name", "base"}, {"file", source}, {"sha256", std::string(64, 'a')}});
  EXPECT_EQ(failed["state"], "failed");
  EXPECT_THAT(failed["error"].get<std::string>(), HasSubstr(sum_of(source)));
  EXPECT_EQ(files(), 0U);
  EXPECT_FALSE(images_->usable("base", "default"));
  EXPECT_THAT(refusal({{"name", "base"}, {"file", source}, {"tenant", "red"}}),
              HasSubstr("there is an image 'base' already"));
  std::string sum = sum_of(source);
  std::ranges::transform(sum, sum.begin(),
                         [](char c) { return static_cast<char>(std::toupper(c)); });
  EXPECT_EQ(add({{"name", "base"}, {"file", source}, {"sha256", sum}})["state"], "ready");
}

TEST_F(ImagesTest, WhatIsNotWholeIsRefused) {
  const auto error = [&](const std::string& source, const Json& format = nullptr) {
    const Json image = add({{"name", "base"}, {"file", source}, {"format", format}});
    EXPECT_EQ(image.value("state", ""), "failed") << image;
    EXPECT_EQ(files(), 0U);
    return image.value("error", "");
  };
  const auto base = disk("base", {"-f", "qcow2"});
  const auto over = disk("over", {"-f", "qcow2", "-b", base, "-F", "qcow2"});
  EXPECT_THAT(error(over), HasSubstr("backing file " + base));
  EXPECT_THAT(error(over), HasSubstr("qemu-img convert -O qcow2 " + over));
  const std::string outside = "data_file=" + (directory_ / "data").string();
  EXPECT_THAT(error(disk("apart", {"-f", "qcow2", "-o", outside})), HasSubstr("in another file"));
  // Its header says AES (qcow2.txt, crypt_method): making a LUKS one takes a second of hashing.
  const auto locked = disk("locked", {"-f", "qcow2"});
  overwrite(locked, kCryptMethodEnd, '\1');
  EXPECT_THAT(error(locked), HasSubstr("encrypted"));
  EXPECT_THAT(error(disk("foreign", {"-f", "vmdk"})), HasSubstr("is of format vmdk"));
  EXPECT_THAT(error(file("text", "none"), "qcow2"), HasSubstr("Image is not in qcow2 format"));
  EXPECT_THAT(error(file("nothing", "")), HasSubstr("is empty"));
}

TEST_F(ImagesTest, RequestsThatCannotBeMeant) {
  const auto source = file("disk.raw", "content");
  const Json good = {{"name", "base"}, {"file", source}};
  const auto with = [&](const char* key, const Json& value) {
    Json request = good;
    request[key] = value;
    return refusal(request);
  };
  EXPECT_THAT(with("name", "../base"), HasSubstr("is no name"));
  EXPECT_THAT(with("tenant", "Red"), HasSubstr("is no name"));
  EXPECT_THAT(with("file", "disk.raw"), HasSubstr("from /"));
  EXPECT_THAT(with("file", directory_ / "none"), HasSubstr("No such file"));
  EXPECT_THAT(with("file", directory_.path()), HasSubstr("no regular file"));
  EXPECT_THAT(with("format", "vmdk"), HasSubstr("qcow2 or raw"));
  EXPECT_THAT(with("sha256", "abc"), HasSubstr("64 hex digits"));
  EXPECT_THAT(with("sha256", 5), HasSubstr("must be a text"));
  EXPECT_THAT(with("public", "yes"), HasSubstr("true or false"));
  EXPECT_EQ(images_->list().size(), 0U);
  EXPECT_EQ(add(good)["state"], "ready");
  EXPECT_THAT(refusal(good), HasSubstr("there is an image 'base' already"));
}

TEST_F(ImagesTest, ACopyIsGivenUpAndItsNameIsFreeAtOnce) {
  const auto large = file("large.raw", "begins"), small = file("small.raw", "other");
  fs::resize_file(large, 4096 * kMebibyte);
  ASSERT_TRUE(images_->add({{"name", "base"}, {"file", large}}));
  EXPECT_EQ(state("base"), "copying");
  EXPECT_EQ((*images_->show("base"))["size_bytes"], 4096 * kMebibyte);
  EXPECT_THAT(images_->usable("base", "default").error().text, HasSubstr("still being copied"));
  ASSERT_TRUE(images_->remove("base"));
  EXPECT_EQ(state("base"), "absent");
  EXPECT_EQ(add({{"name", "base"}, {"file", small}})["sha256"], sum_of(small));
  EXPECT_EQ(files(), 1U);
}

TEST_F(ImagesTest, AgentsThatEndLeaveOnlyWhatTheNextOneTidiesUp) {
  const auto source = file("disk.raw", "content");
  add({{"name", "base"}, {"file", source}});
  std::ofstream(config_.library() / "half.partial") << "half";
  // Between the record and the renaming.
  fs::rename(config_.library() / "base.raw", config_.library() / "base.partial");
  start();
  EXPECT_EQ(state("base"), "ready");
  EXPECT_EQ(state("half"), "absent");
  EXPECT_TRUE(fs::exists(config_.library() / "base.raw"));
  EXPECT_EQ(files(), 1U);
  fs::remove(config_.library() / "base.raw");
  start();
  EXPECT_EQ(state("base"), "damaged");
  EXPECT_TRUE(images_->remove("base"));
  EXPECT_EQ(state("base"), "absent");
}

TEST_F(ImagesTest, VerifyingFindsAFlippedBit) {
  add({{"name", "base"}, {"file", file("disk.raw", std::string(3 * kMebibyte, 'x'))}});
  EXPECT_EQ(verify("base")["state"], "ready");
  const auto copy = config_.library() / "base.raw";
  const std::string before = sum_of(copy);
  fs::permissions(copy, fs::perms(0644));
  overwrite(copy, 2 * kMebibyte + 17, 'y');
  const Json damaged = verify("base");
  EXPECT_EQ(damaged["state"], "damaged");
  EXPECT_THAT(damaged["error"].get<std::string>(), HasSubstr(before));
  EXPECT_THAT(damaged["error"].get<std::string>(), HasSubstr(sum_of(copy)));
  EXPECT_THAT(images_->usable("base", "default").error().text, HasSubstr("is damaged"));
  overwrite(copy, 2 * kMebibyte + 17, 'x');
  EXPECT_FALSE(verify("base").contains("error"));
  EXPECT_TRUE(images_->usable("base", "default"));
  EXPECT_FALSE(images_->verify("none"));
}

TEST_F(ImagesTest, WhatAVmUsesIsNotRemoved) {
  add({{"name", "base"}, {"file", file("disk.raw", "content")}});
  users_ = {"web", "db"};
  EXPECT_EQ((*images_->show("base"))["used_by"], Json({"web", "db"}));
  EXPECT_THAT(images_->remove("base").error().text, HasSubstr("web, db"));
  users_.clear();
  EXPECT_TRUE(images_->remove("base"));
  EXPECT_FALSE(images_->remove("base"));
  EXPECT_TRUE(os::run_until(loop_, [&] { return files() == 0; }));
  start();
  EXPECT_EQ(state("base"), "absent");
}

TEST_F(ImagesTest, AnotherTenantMayUseWhatIsPublic) {
  const auto source = file("disk.raw", "content");
  add({{"name", "reds"}, {"file", source}, {"tenant", "red"}});
  add({{"name", "all"}, {"file", source}, {"tenant", "red"}, {"public", true}});
  EXPECT_TRUE(images_->usable("reds", "red"));
  EXPECT_THAT(images_->usable("reds", "blue").error().text, HasSubstr("there is no image 'reds'"));
  EXPECT_TRUE(images_->usable("all", "blue"));
}

TEST_F(ImagesTest, WhoWaitsIsBounded) {
  const auto source = file("disk.raw", "content");
  for (std::size_t i = 0; i < kMostUnfinishedImages; ++i) {
    ASSERT_TRUE(images_->add({{"name", fmt::format("n{}", i)}, {"file", source}}));
  }
  EXPECT_THAT(refusal({{"name", "more"}, {"file", source}}), HasSubstr("wait, or remove some"));
}

TEST_F(ImagesTest, ChangesAreTold) {
  std::vector<std::string> told;
  events_.observe([&](std::string_view name, const Json& data) {
    EXPECT_EQ(name, "image");
    EXPECT_EQ(data["tenant"], "default");
    told.push_back(data["state"]);
  });
  add({{"name", "base"}, {"file", file("disk.raw", "content")}});
  verify("base");
  EXPECT_TRUE(images_->remove("base"));
  EXPECT_THAT(told, testing::ElementsAre("copying", "ready", "verifying", "ready", "removed"));
}

}  // namespace
}  // namespace godwit::agent
