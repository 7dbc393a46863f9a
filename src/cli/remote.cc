#include "cli/remote.hh"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "base/id.hh"
#include "cli/context.hh"
#include "crypto/tls.hh"
#include "os/endpoint.hh"

namespace godwit::cli {
namespace {

constexpr std::uint16_t kDefaultPort = 4747;
constexpr const char* kApiAlpn = "http/1.1";
constexpr Nanoseconds kDialTime = seconds(10);   // for one address: TCP and TLS
constexpr Nanoseconds kStallTime = seconds(30);  // for the kernel to take what we send

using Deadline = std::chrono::steady_clock::time_point;
Deadline in(Nanoseconds time) { return std::chrono::steady_clock::now() + time; }

// False when the time is up.
bool wait_for(const os::Fd& fd, short events, Deadline deadline) {
  for (;;) {
    const auto left = duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() < 0) return false;
    pollfd watched{.fd = fd.number(), .events = events, .revents = 0};
    const int count = ::poll(&watched, 1, static_cast<int>(left.count()) + 1);
    if (count > 0) return true;
  }
}

class TlsChannel final : public http::Channel {
 public:
  TlsChannel(os::Fd fd, crypto::TlsEngine engine)
      : fd_(std::move(fd)), engine_(std::move(engine)) {}

  Result<> handshake(Deadline deadline) {
    while (engine_.state() == State::handshaking) {
      if (const auto sent = flush(deadline); !sent) return sent;
      if (!wait_for(fd_, POLLIN, deadline)) return fail("no answer");
      if (!feed()) break;
    }
    (void)flush(deadline);
    if (engine_.state() == State::open) return {};
    return fail("{}", engine_.error().empty() ? "the connection was closed during the TLS handshake"
                                              : engine_.error());
  }

  const os::Fd& fd() const override { return fd_; }

  Result<> send(BytesView bytes) override {
    while (!bytes.empty()) {
      const std::size_t took = engine_.write(bytes);
      bytes = bytes.subspan(took);
      if (const auto sent = flush(in(kStallTime)); !sent) return sent;
      if (took == 0) return fail("cannot send to the agent: {}", engine_.error());
    }
    return {};
  }

  std::size_t receive(MutableBytes into) override {
    std::size_t got = engine_.read(into);
    while (got == 0 && engine_.state() == State::open && feed()) got = engine_.read(into);
    (void)flush(in(kStallTime));
    return got;
  }

  bool ended() const override { return engine_.state() != State::open || lower_ended_; }

  void finish() override {
    engine_.finish();
    (void)flush(in(kStallTime));
    ::shutdown(fd_.number(), SHUT_WR);
  }

  // A refusal of our certificate comes after our side of the handshake.
  std::string why_ended() const override { return engine_.error(); }

 private:
  using State = crypto::TlsEngine::State;

  // False when nothing is there now.
  bool feed() {
    std::array<std::byte, 32 * 1024> buffer;
    const auto got = ::recv(fd_.number(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got > 0) return engine_.feed(BytesView(buffer).first(static_cast<std::size_t>(got))), true;
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) lower_ended_ = true;
    return false;
  }

  Result<> flush(Deadline deadline) {
    while (!engine_.ciphertext().empty()) {
      const BytesView out = engine_.ciphertext();
      const auto sent = ::send(fd_.number(), out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) {
        engine_.consume_ciphertext(static_cast<std::size_t>(sent));
      } else if (errno != EAGAIN && errno != EINTR) {
        return fail("{}", errno_text("send to the agent"));
      } else if (!wait_for(fd_, POLLOUT, deadline)) {
        return fail("the agent does not take what is sent to it");
      }
    }
    return {};
  }

  os::Fd fd_;
  crypto::TlsEngine engine_;
  bool lower_ended_ = false;
};

Result<os::Fd> connect_tcp(const os::Endpoint& to, Deadline deadline) {
  os::Fd fd(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!fd) return fail("{}", errno_text("make a socket"));
  sockaddr_storage raw{};
  const socklen_t size = to.to_sockaddr(raw, to.family());
  int error =
      ::connect(fd.number(), reinterpret_cast<const sockaddr*>(&raw), size) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    if (!wait_for(fd, POLLOUT, deadline)) return fail("no answer");
    socklen_t length = sizeof error;
    ::getsockopt(fd.number(), SOL_SOCKET, SO_ERROR, &error, &length);
  }
  if (error != 0) return fail("{}", strerror(error));
  return fd;
}

Result<std::unique_ptr<http::Channel>> dial(const crypto::TlsContext& context,
                                            const std::string& name, const os::Endpoint& to) {
  const Deadline deadline = in(kDialTime);
  auto fd = connect_tcp(to, deadline);
  if (!fd) return fail("{}: {}", to.text(), fd.error().text);
  auto channel = std::make_unique<TlsChannel>(std::move(*fd),
                                              crypto::TlsEngine::client(context, kApiAlpn, name));
  if (const auto met = channel->handshake(deadline); !met) {
    return fail("{}: {}", to.text(), met.error().text);
  }
  return channel;
}

std::string with_port(const std::string& address) {
  const auto parsed = os::parse_host_port(address, kDefaultPort);
  if (!parsed) throw Failure(ExitStatus::usage, parsed.error().text);
  const bool is_ipv6 = parsed->host.contains(':');
  return is_ipv6 ? fmt::format("[{}]:{}", parsed->host, parsed->port)
                 : fmt::format("{}:{}", parsed->host, parsed->port);
}

}  // namespace

RemoteHost parse_remote_host(const std::string& text, const crypto::UserIdentity& identity) {
  const std::size_t at = text.find('@');
  if (at != std::string::npos) {
    const std::string name = text.substr(0, at);
    if (is_valid_name(name)) return {name, {with_port(text.substr(at + 1))}};
    throw Failure(ExitStatus::usage, fmt::format("'{}' is not a host's name", name));
  }
  const auto known = identity.hosts().find(text);
  if (known != identity.hosts().end()) return {text, known->second};
  const std::string address = with_port(text);
  for (const auto& [name, addresses] : identity.hosts()) {
    if (std::ranges::find(addresses, address) != addresses.end()) return {name, {address}};
  }
  // A name of the network: its first label is what the host calls itself (godwitd --name).
  std::string host = os::parse_host_port(text, kDefaultPort).value().host;
  const bool is_name = !os::Endpoint::parse(host, kDefaultPort);
  host.resize(std::min(host.find('.'), host.size()));
  if (is_name && is_valid_name(host)) return {host, {address}};
  throw Failure(ExitStatus::usage, fmt::format("which host of fleet {} is at {}? write NAME@{}",
                                               identity.fleet(), text, text));
}

crypto::UserIdentity load_identity(const std::string& named) {
  std::filesystem::path file = named;
  if (file.empty()) {
    const char* config = std::getenv("XDG_CONFIG_HOME");
    const char* home = std::getenv("HOME");
    file = config != nullptr && *config == '/'
               ? std::filesystem::path(config)
               : std::filesystem::path(home != nullptr ? home : "/") / ".config";
    file /= "godwit/identity.pem";
  }
  auto identity = crypto::UserIdentity::load(file);
  if (identity) return *std::move(identity);
  throw Failure(ExitStatus::usage,
                fmt::format("{}\nto use an agent over the network, have `godwit user add` run on "
                            "the fleet's founder and name the file that it writes (--identity)",
                            identity.error().text));
}

http::Dialler tls_dialler(crypto::UserIdentity identity, RemoteHost host) {
  std::string where = fmt::format("{}", host.name);
  auto context = std::make_shared<crypto::TlsContext>(identity);
  return {.where = std::move(where),
          .dial = [context, host]() -> Result<std::unique_ptr<http::Channel>> {
            std::string failures;
            for (const auto& address : host.addresses) {
              const auto named = os::parse_host_port(address, kDefaultPort);
              if (!named) return std::unexpected(named.error());
              const auto endpoints = os::resolve(named->host, named->port);
              if (!endpoints) {
                failures += "\n  " + endpoints.error().text;
                continue;
              }
              for (const auto& endpoint : *endpoints) {
                auto channel = dial(*context, host.name, endpoint);
                if (channel) return channel;
                failures += "\n  " + channel.error().text;
              }
            }
            return fail("cannot reach the agent of host {}:{}", host.name, failures);
          }};
}

}  // namespace godwit::cli
