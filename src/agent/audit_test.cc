#include "agent/audit.hh"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/test_directory.hh"

namespace godwit::agent {
namespace {

struct AuditTest : testing::Test {
  std::filesystem::path file() const { return directory_ / "audit.log"; }
  const TestDirectory directory_;
};

TEST_F(AuditTest, IsBoundedAndReadableByItsOwnerOnly) {
  Audit audit(file(), {.file_bytes = 1000, .files = 2});
  for (int i = 0; i < 200; ++i) audit.record({{"who", "ann"}, {"did", fmt::format("move {}", i)}});
  std::size_t bytes = 0, files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
    bytes += entry.file_size();
    ++files;
    struct stat status{};
    ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U) << entry.path();
  }
  EXPECT_EQ(files, 3u);
  EXPECT_LE(bytes, 3000u);
  const auto kept = audit.list(0, "");
  ASSERT_GT(kept.size(), 20u);
  EXPECT_EQ(kept.back()["did"], "move 199") << "the newest are kept, the oldest first";
  EXPECT_EQ(kept[kept.size() - 2]["did"], "move 198");
}

TEST_F(AuditTest, SurvivesARestartAndADamagedLine) {
  Audit(file()).record({{"did", "one"}, {"tenant", "red"}});
  std::ofstream(file(), std::ios::app) << "{\"did\": \"tor\n";  // a power cut
  Audit audit(file());
  audit.record({{"did", "two"}, {"tenant", "blue"}});
  EXPECT_EQ(audit.list(0, "").size(), 2u);
  EXPECT_EQ(audit.list(0, "blue").size(), 1u);
  EXPECT_EQ(audit.list(1LL << 40, "").size(), 0u);
}

}  // namespace
}  // namespace godwit::agent
