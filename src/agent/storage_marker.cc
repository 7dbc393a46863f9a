#include "agent/storage_marker.hh"

#include <fcntl.h>

#include "os/fd.hh"
#include "os/random.hh"

namespace godwit::agent {
namespace {

std::filesystem::path file_of(const std::filesystem::path& directory, const StorageMarkerId& id) {
  return directory / (id.text() + ".marker");
}

}  // namespace

StorageMarker::StorageMarker(const std::filesystem::path& directory)
    : id_(os::random_id<StorageMarkerId>()), file_(file_of(directory, id_)) {
  const os::Fd file(::open(file_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) fail_setup("{}", errno_text("make " + file_.string()));
}

StorageMarker::~StorageMarker() {
  std::error_code ignored;
  std::filesystem::remove(file_, ignored);
}

bool StorageMarker::is_in(const std::filesystem::path& directory, const StorageMarkerId& id) {
  std::error_code error;
  return std::filesystem::exists(file_of(directory, id), error);
}

}  // namespace godwit::agent
