#pragma once
// Whether two hosts see the same storage is not told by its name or its path: one makes a file with
// a random name, the other looks whether it is there.
#include <filesystem>

#include "base/id.hh"
#include "base/result.hh"

namespace godwit::agent {

using StorageMarkerId = Id<struct StorageMarkerTag>;

// The file, as long as this lives.
class StorageMarker final {
 public:
  // Throws SetupError.
  explicit StorageMarker(const std::filesystem::path& directory);
  ~StorageMarker();
  StorageMarker(const StorageMarker&) = delete;
  StorageMarker& operator=(const StorageMarker&) = delete;

  const StorageMarkerId& id() const { return id_; }
  static bool is_in(const std::filesystem::path& directory, const StorageMarkerId& id);

 private:
  StorageMarkerId id_;
  std::filesystem::path file_;
};

}  // namespace godwit::agent
