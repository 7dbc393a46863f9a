#include "agent/image_file.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <nlohmann/json.hpp>

#include "crypto/sha256.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPiece = 1 << 20;         // bytes read and summed at a time
constexpr std::size_t kLeastHole = 64 << 10;    // bytes of zeros that are not written
constexpr std::uint64_t kUnsynced = 256 << 20;  // bytes: the kernel's backlog, and progress's lie
constexpr mode_t kImageMode = 0444;             // QEMU's user reads it
constexpr Nanoseconds kInfoLimit = seconds(30);
constexpr std::size_t kMostWords = 500;  // bytes of what qemu-img says that an error quotes

// errno's error, of this attempt on this file.
std::unexpected<Error> failed_to(std::string_view attempt, const fs::path& file) {
  return fail("{}", errno_text(fmt::format("{} {}", attempt, file.string())));
}

// The file that is made: it has holes where zeros would be, and goes unless it is kept.
class Copy final {
 public:
  explicit Copy(fs::path path) : path_(std::move(path)) {}
  ~Copy() {
    if (!kept_) ::unlink(path_.c_str());
  }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;

  Result<> make() {
    ::unlink(path_.c_str());  // of a copy that was given up
    file_.reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kImageMode));
    if (!file_) return failed_to("make", path_);
    return {};
  }

  Result<> write(BytesView piece, std::uint64_t at) {
    for (std::size_t from = 0; from < piece.size(); from += kLeastHole) {
      const auto part = piece.subspan(from, std::min(kLeastHole, piece.size() - from));
      if (is_all_zeros(part)) continue;
      if (auto done = write_all(part, at + from); !done) return done;
    }
    return {};
  }

  // Durable, of this size, readable by all and writable by none (whatever our umask).
  Result<> finish(ByteCount size) {
    const int fd = file_.number();
    if (::ftruncate(fd, static_cast<off_t>(size.bytes)) != 0) return failed_to("extend", path_);
    if (::fchmod(fd, kImageMode) != 0) return failed_to("chmod", path_);
    if (::fsync(fd) != 0) return failed_to("write", path_);
    return {};
  }
  void keep() { kept_ = true; }

 private:
  Result<> write_all(BytesView bytes, std::uint64_t at) {
    while (!bytes.empty()) {
      const auto wrote =
          ::pwrite(file_.number(), bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) return failed_to("write", path_);
      const auto count = static_cast<std::size_t>(wrote);
      bytes = bytes.subspan(count);
      at += count;
      unsynced_ += count;
    }
    if (unsynced_ < kUnsynced) return {};
    unsynced_ = 0;
    if (::fdatasync(file_.number()) != 0) return failed_to("write", path_);
    return {};
  }

  fs::path path_;
  os::Fd file_;
  std::uint64_t unsynced_ = 0;
  bool kept_ = false;
};

struct Summed {
  ByteCount size;
  std::string sha256;
};

using TakePiece = std::function<Result<>(BytesView piece, std::uint64_t at)>;

// Reads all of the file, and gives each piece to `take` too.
Result<Summed> sum_pieces(const os::Fd& file, const fs::path& name, ImageWork& work,
                          const TakePiece& take) {
  crypto::Sha256Stream sum;
  Bytes buffer(kPiece);
  std::uint64_t at = 0;
  while (true) {
    if (work.cancelled) return fail("reading {} was given up", name.string());
    const auto got = ::pread(file.number(), buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed_to("read", name);
    if (got == 0) return Summed{.size = {at}, .sha256 = to_hex(sum.finish())};
    const auto piece = BytesView(buffer).first(static_cast<std::size_t>(got));
    sum.add(piece);
    if (auto taken = take(piece, at); !taken) return std::unexpected(taken.error());
    at += piece.size();
    work.done_bytes = at;
  }
}

// Size and time of the last change: what tells that somebody writes to a file.
Result<std::array<std::int64_t, 3>> stamp_of(const ImageSource& source) {
  struct stat about{};
  if (::fstat(source.file.number(), &about) != 0) return failed_to("look at", source.name);
  return std::array<std::int64_t, 3>{about.st_size, about.st_mtim.tv_sec, about.st_mtim.tv_nsec};
}

Result<Summed> copy_pieces(const ImageSource& source, Copy& copy, ImageWork& work) {
  const auto before = stamp_of(source);
  if (!before) return std::unexpected(before.error());
  if (auto made = copy.make(); !made) return std::unexpected(made.error());
  auto summed = sum_pieces(source.file, source.name, work, [&](BytesView piece, std::uint64_t at) {
    return copy.write(piece, at);
  });
  if (!summed) return summed;
  const auto after = stamp_of(source);
  if (!after) return std::unexpected(after.error());
  if (before != after) {
    return fail("{} changed while it was copied: stop what writes to it, and add it again",
                source.name.string());
  }
  if (!source.sha256.empty() && summed->sha256 != source.sha256) {
    return fail("{} has the SHA-256 {}, not {}: fetch it again", source.name.string(),
                summed->sha256, source.sha256);
  }
  if (auto done = copy.finish(summed->size); !done) return std::unexpected(done.error());
  return summed;
}

// What `qemu-img info` says of the copy.
Result<nlohmann::json> ask_qemu_img(const ImageSource& source, const fs::path& copy,
                                    const std::optional<os::Command::User>& qemu) {
  os::Command command;
  command.argv = {"qemu-img", "info", "--output=json"};
  if (!source.format.empty()) command.argv.insert(command.argv.end(), {"-f", source.format});
  command.argv.push_back(copy.string());
  command.user = qemu;
  command.cwd = "/";
  const auto output = os::run(std::move(command), {}, kInfoLimit);
  if (!output) {
    return fail("cannot ask qemu-img what {} is: {} (is qemu-utils installed?)",
                source.name.string(), output.error().text);
  }
  auto info = nlohmann::json::parse(output->out, nullptr, false);
  if (!output->status.success() || !info.is_object()) {
    return fail("qemu-img does not understand the copy of {} ({}): {}", source.name.string(),
                output->status.text(), output->err.substr(0, kMostWords));
  }
  return info;
}

// An image of another format, or one that is not whole without another file or a key.
Result<> check_is_whole(const nlohmann::json& info, const std::string& name) {
  const auto refuse = [&](const std::string& what) {
    return fail("{} {}: make a whole one of it first (qemu-img convert -O qcow2 {} NEW.qcow2)",
                name, what, name);
  };
  const std::string format = qemu::text_at(info, "format");
  if (format != "qcow2" && format != "raw") return refuse("is of format " + format);
  if (const auto backing = qemu::text_at(info, "backing-filename"); !backing.empty()) {
    return refuse(fmt::format("has only what differs from its backing file {}", backing));
  }
  const auto& details = qemu::member(qemu::member(info, "format-specific"), "data");
  if (const auto data = qemu::text_at(details, "data-file"); !data.empty()) {
    return refuse(fmt::format("has its data in another file, {}", data));
  }
  if (qemu::flag_at(info, "encrypted")) {
    return fail("{} is encrypted, and Godwit keeps no keys: decrypt it first (qemu-img convert)",
                name);
  }
  if (qemu::unsigned_at(info, "virtual-size") == 0) return fail("{} is empty", name);
  return {};
}

}  // namespace

Result<ImageFacts> copy_image(const ImageSource& source, const fs::path& path,
                              const std::optional<os::Command::User>& qemu, ImageWork& work) {
  Copy copy(path);
  const auto summed = copy_pieces(source, copy, work);
  if (!summed) return std::unexpected(summed.error());
  const auto info = ask_qemu_img(source, path, qemu);
  if (!info) return std::unexpected(info.error());
  const auto whole = check_is_whole(*info, source.name.string());
  if (!whole) return std::unexpected(whole.error());
  copy.keep();
  return ImageFacts{.format = qemu::text_at(*info, "format"),
                    .size = summed->size,
                    .virtual_size = {qemu::unsigned_at(*info, "virtual-size")},
                    .sha256 = summed->sha256};
}

Result<std::string> sum_image(const fs::path& path, ImageWork& work) {
  const os::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return failed_to("open", path);
  // From the disk: what the kernel has in memory says nothing of it.
  ::posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED);
  const auto summed =
      sum_pieces(file, path, work, [](BytesView, std::uint64_t) { return Result<>(); });
  if (!summed) return std::unexpected(summed.error());
  return summed->sha256;
}

Result<> sync_directory(const fs::path& path) {
  const os::Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.number()) != 0) return failed_to("sync", path);
  return {};
}

}  // namespace godwit::agent
