#include "os/service.hh"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>
#include <string>

#include "os/fd.hh"

namespace godwit::os {

void tell_service_ready() {
  constexpr std::string_view kReady = "READY=1";
  const char* const name = std::getenv("NOTIFY_SOCKET");
  if (name == nullptr) return;
  std::string path(name);
  ::unsetenv("NOTIFY_SOCKET");
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  if (path.empty() || path.size() > sizeof address.sun_path) return;
  if (path[0] == '@') path[0] = '\0';  // abstract, unix(7)
  path.copy(address.sun_path, path.size());
  const Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  (void)::sendto(fd.number(), kReady.data(), kReady.size(), MSG_NOSIGNAL,
                 reinterpret_cast<sockaddr*>(&address), length);
}

}  // namespace godwit::os
