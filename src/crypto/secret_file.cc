#include "crypto/secret_file.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace godwit::crypto {
namespace {

// crypto stands beside os in the layers and opens only these files, so it closes them itself.
struct OpenFile {
  int fd;
  ~OpenFile() {
    if (fd >= 0) ::close(fd);
  }
};

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

}  // namespace

Result<> write_file(const std::filesystem::path& path, std::string_view text, mode_t mode) {
  const std::filesystem::path fresh = path.string() + ".new";
  ::unlink(fresh.c_str());  // left by a crash
  const OpenFile file{::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)};
  if (file.fd < 0) return std::unexpected(Error{errno_text("create " + fresh.string())});
  if (!write_all(file.fd, text) || ::fsync(file.fd) != 0) {
    return std::unexpected(Error{errno_text("write " + fresh.string())});
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) {
    return std::unexpected(Error{errno_text("rename to " + path.string())});
  }
  const OpenFile directory{::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (directory.fd >= 0) ::fsync(directory.fd);
  return {};
}

Result<std::string> read_file(const std::filesystem::path& path, mode_t allowed) {
  const OpenFile file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return std::unexpected(Error{errno_text("open " + path.string())});
  struct stat status{};
  if (::fstat(file.fd, &status) != 0) {
    return std::unexpected(Error{errno_text("look at " + path.string())});
  }
  if ((status.st_mode & 0777U & ~allowed) != 0) {
    return fail("{} has mode {:o}: others could have read it; make it {:o} if it is still secret",
                path.string(), status.st_mode & 0777U, allowed);
  }
  std::string text(kMaxSecretFile, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = ::read(file.fd, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::unexpected(Error{errno_text("read " + path.string())});
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size == text.size()) return fail("{} is too large for a key", path.string());
  text.resize(size);
  return text;
}

}  // namespace godwit::crypto
