#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.hh"
#include "os/socket.hh"

namespace godwit::os {
namespace {

constexpr int kBacklog = 256;
constexpr int kAcceptsPerRound = 32;  // so that a flood of dials does not starve the loop
// Out of descriptors or memory: accepting again at once would only spin.
constexpr Nanoseconds kPauseWhenExhausted = milliseconds(100);

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un raw{};
  raw.sun_family = AF_UNIX;
  if (path.size() >= sizeof raw.sun_path) {
    fail_setup("listen on unix:{}: the path is longer than {} bytes, choose a shorter one", path,
               sizeof raw.sun_path - 1);
  }
  std::memcpy(raw.sun_path, path.data(), path.size());
  return raw;
}

void remove_stale_socket(const std::string& path, const sockaddr_un& raw) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) {
    fail_setup("listen on unix:{}: something that is not a socket is there; remove it", path);
  }
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int error =
      ::connect(probe.number(), reinterpret_cast<const sockaddr*>(&raw), sizeof raw) == 0 ? 0
                                                                                          : errno;
  if (error != ECONNREFUSED) {
    fail_setup("listen on unix:{}: another process listens there; stop it first", path);
  }
  ::unlink(path.c_str());
}

Fd bound_tcp_socket(const Endpoint& at) {
  Fd fd(::socket(at.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd) return fd;
  const int on = 1;
  const int off = 0;
  ::setsockopt(fd.number(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ::setsockopt(fd.number(), IPPROTO_TCP, TCP_NODELAY, &on,
               sizeof on);  // inherited by accepted ones
  if (at.is_ipv6 && at.is_any()) {
    ::setsockopt(fd.number(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  }
  sockaddr_storage raw;
  const socklen_t size = at.to_sockaddr(raw, at.family());
  if (::bind(fd.number(), reinterpret_cast<sockaddr*>(&raw), size) != 0) fd.reset();
  return fd;
}

Endpoint local_endpoint(const Fd& fd) {
  sockaddr_storage raw{};
  socklen_t size = sizeof raw;
  CHECK(::getsockname(fd.number(), reinterpret_cast<sockaddr*>(&raw), &size) == 0);
  return Endpoint::from_sockaddr(raw).value_or(Endpoint{});
}

Accepted describe(const Fd& fd, const sockaddr_storage& peer, bool is_unix) {
  Accepted accepted;
  if (!is_unix) {
    accepted.peer = Endpoint::from_sockaddr(peer).value_or(Endpoint{});
    accepted.local = local_endpoint(fd);
    return accepted;
  }
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd.number(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
    accepted.credentials = {credentials.pid, credentials.uid, credentials.gid};
  }
  return accepted;
}

}  // namespace

Listener::Listener(Loop& loop, Fd fd, std::string path, OnAccept on_accept)
    : loop_(loop),
      fd_(std::move(fd)),
      path_(std::move(path)),
      on_accept_(std::make_shared<OnAccept>(std::move(on_accept))) {
  if (::listen(fd_.number(), kBacklog) != 0) fail_setup("{}", errno_text("listen"));
  if (path_.empty()) local_ = local_endpoint(fd_);
  listen();
}

Listener::~Listener() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

std::unique_ptr<Listener> Listener::tcp(Loop& loop, const Endpoint& at, OnAccept on_accept) {
  Fd fd = bound_tcp_socket(at);
  if (!fd && at.is_ipv6 && at.is_any() && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
    fd = bound_tcp_socket(Endpoint::any_ipv4(at.port));
  }
  if (!fd) fail_setup("{}", errno_text(fmt::format("listen on tcp {}", at.text())));
  return std::unique_ptr<Listener>(new Listener(loop, std::move(fd), {}, std::move(on_accept)));
}

std::unique_ptr<Listener> Listener::unix_(Loop& loop, const std::string& path, mode_t mode,
                                          OnAccept on_accept) {
  const sockaddr_un raw = unix_address(path);
  remove_stale_socket(path, raw);
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  // The mode set before bind() is the path's from its first moment, less the umask; chmod() then
  // adds what the umask took.
  if (!fd || ::fchmod(fd.number(), mode) != 0 ||
      ::bind(fd.number(), reinterpret_cast<const sockaddr*>(&raw), sizeof raw) != 0 ||
      ::chmod(path.c_str(), mode) != 0) {
    fail_setup("{}", errno_text(fmt::format("listen on unix:{}", path)));
  }
  return std::unique_ptr<Listener>(new Listener(loop, std::move(fd), path, std::move(on_accept)));
}

void Listener::listen() {
  watch_ = loop_.watch(fd_, EPOLLIN, [this](std::uint32_t) { accept_some(); });
}

void Listener::accept_some() {
  const auto on_accept = on_accept_;
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    Fd fd(::accept4(fd_.number(), reinterpret_cast<sockaddr*>(&peer), &size,
                    SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        pause_accepting();
      }
      if (errno == ECONNABORTED || errno == EINTR) continue;  // accept(2): that one is gone, try on
      return;
    }
    const Accepted accepted = describe(fd, peer, !path_.empty());
    const std::string name = path_.empty() ? accepted.peer.text() : "unix:" + path_;
    (*on_accept)(
        std::make_unique<SocketStream>(loop_, std::move(fd), name, SocketStream::State::kOpen),
        accepted);
    if (on_accept.use_count() == 1) return;  // the listener is gone
  }
}

void Listener::pause_accepting() {
  watch_.reset();
  resume_ = loop_.after(kPauseWhenExhausted, [this] { listen(); });
}

}  // namespace godwit::os
