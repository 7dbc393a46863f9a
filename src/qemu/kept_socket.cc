#include "qemu/kept_socket.hh"

#include <sys/socket.h>
#include <sys/un.h>

#include <charconv>
#include <string>
#include <string_view>
#include <system_error>

namespace godwit::qemu {
namespace {

namespace fs = std::filesystem;

std::string name_of(const os::Fd& socket, decltype(::getsockname)* ask) {
  sockaddr_un address{};
  socklen_t length = sizeof address;
  if (ask(socket.number(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  if (address.sun_family != AF_UNIX) return {};
  return {address.sun_path, ::strnlen(address.sun_path, sizeof address.sun_path)};
}

}  // namespace

Result<os::Fd> find_kept_socket(const os::Child& process, const fs::path& path, SocketEnd end) {
  std::error_code error;
  const fs::path all = fmt::format("/proc/{}/fd", process.pid());
  for (fs::directory_iterator each(all, error), last; !error && each != last;
       each.increment(error)) {
    std::error_code gone;
    if (!fs::read_symlink(each->path(), gone).string().starts_with("socket:")) continue;
    const std::string text = each->path().filename().string();
    int number = -1;
    std::from_chars(text.data(), text.data() + text.size(), number);
    auto copy = process.copy_fd(number);
    if (!copy) continue;
    const auto ask = end == SocketEnd::kAccepted ? ::getsockname : ::getpeername;
    if (name_of(*copy, ask) == path.string()) return std::move(*copy);
  }
  return fail("QEMU, process {}, keeps no socket for {}", process.pid(), path.string());
}

}  // namespace godwit::qemu
