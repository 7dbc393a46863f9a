#include "store/store.hh"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/result.hh"
#include "base/test_directory.hh"

namespace godwit::store {
namespace {

class Stores : public testing::TestWithParam<bool> {
 protected:
  Stores() { reopen(); }
  std::string path() const { return (directory_ / "agent.db").string(); }
  void reopen() {
    if (GetParam()) {
      store_.reset();
      store_ = open_sqlite(path());
    } else if (!store_) {
      store_ = make_memory_store();
    }
  }
  const TestDirectory directory_;
  std::unique_ptr<Store> store_;
};

TEST_P(Stores, DocumentsSurviveInOrder) {
  store_->put("vm", "b", {{"n", 2}});
  store_->put("vm", "a", {{"n", 1}});
  store_->put("port", "a", {{"n", 3}});
  store_->put("vm", "b", {{"n", 4}});
  reopen();
  const auto vms = store_->list("vm");
  ASSERT_EQ(vms.size(), 2u);
  EXPECT_EQ(vms[0].key, "a");
  EXPECT_EQ(vms[1].body["n"], 4);
  EXPECT_EQ((*store_->find("port", "a"))["n"], 3);
  store_->erase("vm", "a");
  store_->erase("vm", "never there");
  reopen();
  EXPECT_FALSE(store_->find("vm", "a"));
}

// An older version writes what it knows of.
TEST_P(Stores, MembersOfANewerVersionStay) {
  store_->put("vm", "a", {{"n", 1}, {"new", "x"}, {"spec", {{"cpus", 1}, {"new", {1, 2}}}}});
  store_->put("vm", "a", {{"n", 2}, {"spec", {{"cpus", 4}}}});
  reopen();
  const nlohmann::json both = {{"n", 2}, {"new", "x"}, {"spec", {{"cpus", 4}, {"new", {1, 2}}}}};
  EXPECT_EQ(store_->find("vm", "a"), both);
  store_->put("vm", "a", {{"new", nullptr}});
  EXPECT_EQ((*store_->find("vm", "a"))["new"], nullptr);
  store_->erase("vm", "a");
  store_->put("vm", "a", {{"n", 3}});
  EXPECT_EQ(store_->find("vm", "a"), nlohmann::json({{"n", 3}}));
}

TEST_P(Stores, AGroupIsWrittenTogether) {
  store_->put("port", "old", 1);
  store_->begin_group();
  EXPECT_TRUE(store_->record("port", "a", 1));
  store_->put("port", "b", 2);
  store_->erase("port", "old");
  EXPECT_EQ(store_->find("port", "a"), 1) << "known at once";
  EXPECT_EQ(store_->list("port").size(), 2u);
  EXPECT_TRUE(store_->end_group());
  EXPECT_TRUE(store_->record("port", "c", 3));
  reopen();
  EXPECT_EQ(store_->list("port").size(), 3u);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Stores, testing::Bool(),
                         [](const auto& which) { return which.param ? "Sqlite" : "Memory"; });

// ---- a full disk ----

class FullDisk : public testing::Test {
 protected:
  std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>();
  std::unique_ptr<Store> store_ = open_on(disk_);
};

TEST_F(FullDisk, AGroupThatDoesNotFitWaits) {
  disk_->is_full = true;
  store_->begin_group();
  EXPECT_TRUE(store_->record("port", "a", 1));
  EXPECT_FALSE(store_->end_group());
  EXPECT_EQ(store_->find("port", "a"), 1);
  disk_->is_full = false;
  EXPECT_TRUE(store_->catch_up());
  EXPECT_EQ(open_on(disk_)->find("port", "a"), 1);
}

TEST_F(FullDisk, WhatIsRecordedIsThereOrAsItWas) {
  ASSERT_TRUE(store_->record("move", "a", 1));
  disk_->is_full = true;
  EXPECT_FALSE(store_->record("move", "a", 2));
  EXPECT_EQ(*store_->find("move", "a"), 1);
  disk_->is_full = false;
  EXPECT_TRUE(store_->catch_up());
  EXPECT_EQ(*store_->find("move", "a"), 1) << "a promise that was refused is not kept later";
}

TEST_F(FullDisk, WhatIsPutIsKnownAtOnceAndWrittenWhenThereIsRoom) {
  store_->put("vm", "old", 1);
  store_->put("vm", "gone", 2);
  disk_->is_full = true;
  store_->put("vm", "new", 3);
  store_->put("vm", "old", 4);
  store_->erase("vm", "gone");
  EXPECT_EQ(*store_->find("vm", "old"), 4);
  EXPECT_FALSE(store_->find("vm", "gone"));
  const auto known = store_->list("vm");
  ASSERT_EQ(known.size(), 2u);
  EXPECT_EQ(known[0].key, "new");
  EXPECT_FALSE(store_->catch_up());
  EXPECT_EQ(open_on(disk_)->list("vm").size(), 2u) << "a crash now: as it was before";
  EXPECT_EQ(*open_on(disk_)->find("vm", "old"), 1);
  disk_->is_full = false;
  EXPECT_TRUE(store_->catch_up());
  EXPECT_EQ(*open_on(disk_)->find("vm", "new"), 3);
  EXPECT_FALSE(open_on(disk_)->find("vm", "gone"));
}

TEST_F(FullDisk, WhatIsRecordedDoesNotOvertakeWhatWasPut) {
  disk_->is_full = true;
  store_->put("vm", "a", 1);
  disk_->is_full = false;
  ASSERT_TRUE(store_->record("move", "b", 2));
  EXPECT_EQ(*open_on(disk_)->find("vm", "a"), 1);
}

// A limit on the size of files is as good as a full disk: write(2) takes no more.
class FileSizeLimit final {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST(Sqlite, WhatDoesNotFitIsNotThereAfterwards) {
  const TestDirectory directory;
  const std::string path = (directory / "agent.db").string();
  auto store = open_sqlite(path);
  store->put("vm", "a", 1);
  {
    const FileSizeLimit limit(std::filesystem::file_size(path + "-wal") + 1000);
    const auto refused = store->record("vm", "a", 2);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().text.find("make room"), std::string::npos) << refused.error().text;
    store->put("vm", "b", 3);
    EXPECT_EQ(*store->find("vm", "a"), 1);
    EXPECT_EQ(*store->find("vm", "b"), 3);
  }
  EXPECT_TRUE(store->catch_up());
  store.reset();
  store = open_sqlite(path);
  EXPECT_EQ(*store->find("vm", "a"), 1);
  EXPECT_EQ(*store->find("vm", "b"), 3);
}

// As after a power loss: the log is read by another process, with the failed write's rest in it.
TEST(Sqlite, WhatDidNotFitIsNotFoundInTheLogEither) {
  const TestDirectory directory;
  const std::string path = (directory / "agent.db").string();
  const std::string copy = (directory / "copy.db").string();
  auto store = open_sqlite(path);
  store->put("vm", "a", 1);
  {
    const FileSizeLimit limit(std::filesystem::file_size(path + "-wal") + 1000);
    ASSERT_FALSE(store->record("vm", "a", 2));
  }
  for (const char* suffix : {"", "-wal"}) {
    std::filesystem::copy_file(path + suffix, copy + suffix);
  }
  EXPECT_EQ(*open_sqlite(copy)->find("vm", "a"), 1);
}

TEST(Sqlite, OneAgentPerStore) {
  const TestDirectory directory;
  const std::string path = (directory / "agent.db").string();
  const auto store = open_sqlite(path);
  EXPECT_THROW((void)open_sqlite(path), SetupError);
}

TEST(Sqlite, FileIsPrivateAndDamageIsSaid) {
  const TestDirectory directory;
  const std::string path = (directory / "agent.db").string();
  (void)open_sqlite(path);
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  std::ofstream(path, std::ios::trunc) << std::string(8192, 'x');
  EXPECT_THROW((void)open_sqlite(path), SetupError);
}

}  // namespace
}  // namespace godwit::store
