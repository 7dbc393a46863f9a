#pragma once
// For tests: a directory of their own, which goes with them.
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "base/check.hh"

namespace godwit {

class TestDirectory final {
 public:
  TestDirectory() {
    // Short: a unix socket's path has 107 bytes.
    std::string pattern = (std::filesystem::temp_directory_path() / "godwit-XXXXXX").string();
    CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot make {}", pattern);
    path_ = pattern;
  }
  ~TestDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace godwit
