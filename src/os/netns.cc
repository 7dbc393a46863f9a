#include "os/netns.hh"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "base/check.hh"
#include "base/result.hh"

namespace godwit::os {
namespace {

constexpr const char* kMine = "/proc/thread-self/ns/net";

Fd open_namespace(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) fail_setup("{}", errno_text(fmt::format("open network namespace {}", path)));
  return fd;
}

}  // namespace

NetNamespace NetNamespace::create() {
  // A thread that leaves for the new namespace and ends there: ours never moves.
  Fd made;
  int error = 0;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) == 0) made = Fd(::open(kMine, O_RDONLY | O_CLOEXEC));
    error = errno;
  }).join();
  errno = error;
  if (!made) fail_setup("{}; this needs root", errno_text("make a network namespace"));
  return NetNamespace(std::move(made));
}

NetNamespace NetNamespace::current() { return open(kMine); }

NetNamespace NetNamespace::of_process(pid_t pid) {
  return open(fmt::format("/proc/{}/ns/net", pid));
}

NetNamespace NetNamespace::open(const std::string& path) {
  return NetNamespace(open_namespace(path));
}

void NetNamespace::bind(const std::string& path) const {
  const Fd point(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0444));
  const auto from = fmt::format("/proc/self/fd/{}", fd_.number());
  if (!point || ::mount(from.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    fail_setup("{}", errno_text(fmt::format("bind a network namespace to {}", path)));
  }
}

void NetNamespace::unbind(const std::string& path) {
  ::umount2(path.c_str(), MNT_DETACH);
  ::unlink(path.c_str());
}

void NetNamespace::enter() const {
  if (::setns(fd_.number(), CLONE_NEWNET) != 0) {
    fail_setup("{}", errno_text("enter a network namespace"));
  }
}

namespace {

bool same_file(const Fd& a, const Fd& b) {
  struct stat one{};
  struct stat other{};
  return ::fstat(a.number(), &one) == 0 && ::fstat(b.number(), &other) == 0 &&
         one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

}  // namespace

NetNamespace::Visit::Visit(const NetNamespace& inside) : before_(open_namespace(kMine)) {
  // Entering needs CAP_SYS_ADMIN, even where one is already; an agent does without it.
  if (same_file(before_, inside.fd())) {
    before_.reset();
  } else {
    inside.enter();
  }
}

NetNamespace::Visit::~Visit() {
  if (!before_) return;
  CHECK(::setns(before_.number(), CLONE_NEWNET) == 0, "return to a network namespace: errno {}",
        errno);
}

}  // namespace godwit::os
