#include "http/channel.hh"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>

namespace godwit::http {
namespace {

class UnixChannel final : public Channel {
 public:
  explicit UnixChannel(os::Fd fd) : fd_(std::move(fd)) {}

  const os::Fd& fd() const override { return fd_; }

  Result<> send(BytesView bytes) override {
    while (!bytes.empty()) {
      const auto sent = ::send(fd_.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return fail("{}", errno_text("send the request to the agent"));
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
    return {};
  }

  std::size_t receive(MutableBytes into) override {
    const auto got = ::recv(fd_.number(), into.data(), into.size(), MSG_DONTWAIT);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) ended_ = true;
    return 0;
  }

  bool ended() const override { return ended_; }
  std::string why_ended() const override { return {}; }
  void finish() override { ::shutdown(fd_.number(), SHUT_WR); }

 private:
  os::Fd fd_;
  bool ended_ = false;
};

Result<std::unique_ptr<Channel>> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail("the socket path {} is too long", path);
  path.copy(address.sun_path, path.size());
  os::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail("{}", errno_text("make a socket"));
  if (::connect(fd.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) {
      return fail("no agent answers at {}: is godwitd running? (--socket names another one)", path);
    }
    if (errno == EACCES) {
      return fail(
          "no permission for {}: run as root, or as a user of the fleet (-H HOST, godwit user add)",
          path);
    }
    return fail("{}", errno_text("connect to " + path));
  }
  return std::make_unique<UnixChannel>(std::move(fd));
}

}  // namespace

Dialler unix_dialler(const std::string& path) {
  return {.where = path, .dial = [path] { return connect_to(path); }};
}

}  // namespace godwit::http
