#include "store/store.hh"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/result.hh"

namespace godwit::store {
namespace {

class Stores : public testing::TestWithParam<bool> {
 protected:
  Stores() {
    std::string pattern = testing::TempDir() + "store-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    reopen();
  }
  ~Stores() override { std::filesystem::remove_all(directory_); }
  std::string path() const { return (directory_ / "agent.db").string(); }
  void reopen() {
    if (GetParam()) {
      store_.reset();
      store_ = open_sqlite(path());
    } else if (!store_) {
      store_ = make_memory_store();
    }
  }
  std::filesystem::path directory_;
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

INSTANTIATE_TEST_SUITE_P(Kinds, Stores, testing::Bool(),
                         [](const auto& which) { return which.param ? "Sqlite" : "Memory"; });

TEST(Sqlite, FileIsPrivateAndDamageIsSaid) {
  const std::string path = testing::TempDir() + "store-private.db";
  std::filesystem::remove(path);
  (void)open_sqlite(path);
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  std::ofstream(path, std::ios::trunc) << std::string(8192, 'x');
  EXPECT_THROW((void)open_sqlite(path), SetupError);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace godwit::store
