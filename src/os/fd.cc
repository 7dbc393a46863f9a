#include "os/fd.hh"

#include <fcntl.h>
#include <unistd.h>

#include "base/result.hh"

namespace godwit::os {

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Fd Fd::duplicate() const {
  const int copy = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) fail_setup("{}", errno_text("duplicate a file descriptor"));
  return Fd(copy);
}

void set_nonblocking(const Fd& fd) {
  const int flags = ::fcntl(fd.number(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.number(), F_SETFL, flags | O_NONBLOCK) < 0) {
    fail_setup("{}", errno_text("set a file descriptor non-blocking"));
  }
}

}  // namespace godwit::os
