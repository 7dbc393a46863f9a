#include "qemu/make_disk.hh"

#include <fcntl.h>

#include "qemu/launch.hh"
#include "qemu/qemu_img.hh"

namespace godwit::qemu {
namespace {

Result<> create(const DiskSpec& disk, const DiskPaths& paths) {
  std::vector<std::string> arguments{"create", "-q", "-f", std::string(to_text(disk.format))};
  if (!disk.image.name.empty()) {
    arguments.insert(arguments.end(),
                     {"-b", paths.image.string(), "-F", std::string(to_text(disk.image.format))});
  }
  arguments.insert(arguments.end(), {paths.file.string(), std::to_string(disk.size.bytes)});
  const auto made = run_qemu_img(std::move(arguments));
  return made ? Result<>{} : std::unexpected(made.error());
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
