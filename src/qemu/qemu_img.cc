#include "qemu/qemu_img.hh"

#include "qemu/launch.hh"

namespace godwit::qemu {
namespace {

constexpr Nanoseconds kLimit = seconds(20);

}  // namespace

os::Command qemu_img(std::vector<std::string> arguments) {
  std::vector<std::string> notices;
  arguments.insert(arguments.begin(), "qemu-img");
  return {.argv = std::move(arguments), .user = qemu_user(notices), .cwd = "/"};
}

Result<std::string> run_qemu_img(std::vector<std::string> arguments) {
  const auto done = os::run(qemu_img(std::move(arguments)), {}, kLimit);
  if (!done) return std::unexpected(done.error());
  if (done->status.success()) return done->out;
  return fail("qemu-img: {}: {}", done->status.text(), done->err);
}

}  // namespace godwit::qemu
