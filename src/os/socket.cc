#include "os/socket.hh"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.hh"

namespace godwit::os {
namespace {

std::string reason_of(int error) { return std::strerror(error); }

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

}  // namespace

SocketStream::SocketStream(Loop& loop, Fd fd, std::string peer, State state, std::string failure)
    : loop_(loop),
      fd_(std::move(fd)),
      peer_(std::move(peer)),
      state_(state),
      failure_(std::move(failure)),
      ended_(state == State::kFailed) {}

void SocketStream::start(Events events) {
  CHECK(events_ == nullptr, "{} was started twice", peer_);
  events_ = std::make_shared<Events>(std::move(events));
  if (ended_) return schedule_closed();
  interest_ =
      (wants_read_ ? EPOLLIN : 0U) | (wants_write_ || state_ == State::kConnecting ? EPOLLOUT : 0U);
  watch_ = loop_.watch(fd_, interest_, [this](std::uint32_t bits) { on_events(bits); });
}

void SocketStream::on_events(std::uint32_t bits) {
  const auto events = events_;
  const auto destroyed = [&] { return events.use_count() == 1; };
  if (state_ == State::kConnecting) {
    on_connected();
    if (destroyed() || state_ != State::kOpen) return;
  }
  const bool hung_up = (bits & (EPOLLHUP | EPOLLERR)) != 0;
  if (hung_up && !wants_read_) {
    // The kernel reports a hang-up for ever, and the consumer is not reading: stop watching. It
    // will meet the end when it reads or writes again.
    watch_.reset();
    if (!std::exchange(wants_write_, false)) return;
    const bool was_told = ended_;
    fail("the peer hung up");
    if (was_told && events->writable) events->writable();  // write() swallows the rest
    return;
  }
  if ((bits & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && wants_read_) {
    wants_read_ = false;
    if (events->readable) events->readable();
    if (destroyed()) return;
  }
  if ((bits & EPOLLOUT) != 0 && wants_write_ && state_ == State::kOpen) {
    wants_write_ = false;
    if (events->writable) events->writable();
    if (destroyed()) return;
  }
  update_interest();
}

void SocketStream::on_connected() {
  int error = 0;
  socklen_t size = sizeof error;
  CHECK(::getsockopt(fd_.number(), SOL_SOCKET, SO_ERROR, &error, &size) == 0);
  if (error != 0) return fail(fmt::format("connect to {}: {}", peer_, reason_of(error)));
  state_ = State::kOpen;
  wants_write_ = true;  // tells `writable` that the connection is there
  if (std::exchange(finish_after_connect_, false)) finish();
}

void SocketStream::update_interest() {
  if (!watch_) return;
  const std::uint32_t wanted = (wants_read_ ? EPOLLIN : 0U) | (wants_write_ ? EPOLLOUT : 0U);
  if (wanted == interest_) return;
  interest_ = wanted;
  watch_.set_events(wanted);
}

std::size_t SocketStream::read(MutableBytes into) {
  if (state_ != State::kOpen || ended_ || into.empty()) return 0;
  const auto got = ::recv(fd_.number(), into.data(), into.size(), MSG_DONTWAIT);
  if (got > 0) return static_cast<std::size_t>(got);
  if (got < 0 && (would_block(errno) || errno == EINTR)) {
    wants_read_ = true;
    if (events_ != nullptr && !watch_) {
      fail("the peer hung up");  // a hang-up came while nobody read, and now all is read
    } else {
      update_interest();
    }
    return 0;
  }
  if (got < 0) {
    fail(reason_of(errno));
    return 0;
  }
  ended_ = true;  // orderly: the sending direction may go on, without any more watching for bytes
  schedule_closed();
  return 0;
}

std::size_t SocketStream::write(BytesView from) {
  if (state_ == State::kFailed) return from.size();
  if (from.empty()) return 0;
  if (state_ == State::kConnecting) return 0;
  std::size_t taken = 0;
  while (taken < from.size()) {
    const auto rest = from.subspan(taken);
    const auto sent = ::send(fd_.number(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      taken += static_cast<std::size_t>(sent);
    } else if (would_block(errno)) {
      wants_write_ = true;
      update_interest();
      return taken;
    } else if (errno != EINTR) {
      fail(reason_of(errno));
      return from.size();
    }
  }
  return taken;
}

std::size_t SocketStream::write_with(BytesView from, int descriptor) {
  if (state_ != State::kOpen) return write(from);
  iovec piece{.iov_base = const_cast<std::byte*>(from.data()), .iov_len = from.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{.msg_name = nullptr,
                 .msg_namelen = 0,
                 .msg_iov = &piece,
                 .msg_iovlen = 1,
                 .msg_control = control.data(),
                 .msg_controllen = control.size(),
                 .msg_flags = 0};
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  const auto sent = ::sendmsg(fd_.number(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<std::size_t>(sent);
  if (would_block(errno) || errno == EINTR) {
    wants_write_ = true;
    update_interest();
    return 0;
  }
  fail(reason_of(errno));
  return from.size();
}

void SocketStream::finish() {
  if (state_ == State::kConnecting) {
    finish_after_connect_ = true;
  } else if (state_ == State::kOpen) {
    ::shutdown(fd_.number(), SHUT_WR);  // ENOTCONN: the peer is gone, and read() will say so
  }
}

void SocketStream::fail(std::string reason) {
  if (state_ == State::kFailed) return;
  state_ = State::kFailed;
  watch_.reset();
  if (std::exchange(ended_, true)) return;  // closed() was or will be called already
  failure_ = std::move(reason);
  schedule_closed();
}

// closed() is never called from inside read() or write(): their callers hold on to the stream.
void SocketStream::schedule_closed() {
  if (events_ == nullptr) return;  // start() will come back here
  if (state_ == State::kOpen && watch_) {
    wants_read_ = false;  // a socket at its end is readable for ever
    update_interest();
  }
  closing_ = loop_.after(Nanoseconds(0), [this] {
    const auto events = events_;
    if (events->closed) events->closed(failure_);
  });
}

namespace {

std::unique_ptr<SocketStream> failed(Loop& loop, std::string peer, std::string reason) {
  return std::make_unique<SocketStream>(loop, Fd(), std::move(peer), SocketStream::State::kFailed,
                                        std::move(reason));
}

std::unique_ptr<SocketStream> connect(Loop& loop, Fd fd, const sockaddr* to, socklen_t size,
                                      std::string peer) {
  using enum SocketStream::State;
  if (!fd) return failed(loop, peer, errno_text("make a socket"));
  if (::connect(fd.number(), to, size) != 0 && errno != EINPROGRESS) {
    return failed(loop, peer, errno_text(fmt::format("connect to {}", peer)));
  }
  // Also where connect() succeeded at once: then the first round of the loop says writable.
  return std::make_unique<SocketStream>(loop, std::move(fd), std::move(peer), kConnecting);
}

}  // namespace

std::unique_ptr<SocketStream> tcp_connect(Loop& loop, const Endpoint& to) {
  Fd fd(::socket(to.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  const int on = 1;
  if (fd) ::setsockopt(fd.number(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_storage raw;
  const socklen_t size = to.to_sockaddr(raw, to.family());
  return connect(loop, std::move(fd), reinterpret_cast<sockaddr*>(&raw), size, to.text());
}

std::unique_ptr<SocketStream> unix_connect(Loop& loop, const std::string& path) {
  const std::string peer = "unix:" + path;
  sockaddr_un raw{};
  raw.sun_family = AF_UNIX;
  if (path.size() >= sizeof raw.sun_path) {
    return failed(
        loop, peer,
        fmt::format("connect to {}: the path is longer than {} bytes, choose a shorter one", peer,
                    sizeof raw.sun_path - 1));
  }
  std::memcpy(raw.sun_path, path.data(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  return connect(loop, std::move(fd), reinterpret_cast<sockaddr*>(&raw), sizeof raw, peer);
}

std::unique_ptr<SocketStream> adopt_stream(Loop& loop, Fd fd, std::string peer) {
  set_nonblocking(fd);
  return std::make_unique<SocketStream>(loop, std::move(fd), std::move(peer),
                                        SocketStream::State::kOpen);
}

SocketPair make_socket_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    fail_setup("{}", errno_text("make a socket pair"));
  }
  return {Fd(ends[0]), Fd(ends[1])};
}

}  // namespace godwit::os
