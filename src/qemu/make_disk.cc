#include "qemu/make_disk.hh"

#include <fcntl.h>

#include "os/child.hh"
#include "qemu/launch.hh"

namespace godwit::qemu {
namespace {

constexpr Nanoseconds kQemuImgLimit = seconds(20);

Result<> run_qemu_img(std::vector<std::string> arguments) {
  std::vector<std::string> notices;
  os::Command command{.argv = {"qemu-img"}, .user = qemu_user(notices), .cwd = "/"};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  const auto done = os::run(std::move(command), {}, kQemuImgLimit);
  if (!done) return std::unexpected(done.error());
  if (done->status.success()) return {};
  return fail("qemu-img: {}: {}", done->status.text(), done->err);
}

Result<> create(const DiskSpec& disk, const DiskPaths& paths) {
  std::vector<std::string> arguments{"create", "-q", "-f", std::string(to_text(disk.format))};
  if (!disk.image.name.empty()) {
    arguments.insert(arguments.end(),
                     {"-b", paths.image.string(), "-F", std::string(to_text(disk.image.format))});
  }
  arguments.insert(arguments.end(), {paths.file.string(), std::to_string(disk.size.bytes)});
  return run_qemu_img(std::move(arguments));
}

}  // namespace

Result<> make_disk(const DiskSpec& disk, const DiskPaths& paths) {
  const auto why = [&](const std::string& what) {
    return fail("cannot make disk {} in {}: {}", disk.name, paths.file.string(), what);
  };
  {
    const os::Fd file(
        ::open(paths.file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return why(errno_text("create it"));
  }
  auto done = grant_to_qemu(paths.file);
  if (done) done = create(disk, paths);
  if (done) return done;
  std::error_code ignored;
  std::filesystem::remove(paths.file, ignored);
  return why(done.error().text);
}

void remove_bitmap(const DiskSpec& disk, const DiskPaths& paths, const std::string& name) {
  if (disk.format != DiskFormat::qcow2) return;
  (void)run_qemu_img({"bitmap", "--remove", "-f", "qcow2", paths.file.string(), name});
}

}  // namespace godwit::qemu
