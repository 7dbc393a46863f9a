#include "lab/user_namespace.hh"

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/result.hh"
#include "lab/state.hh"

namespace godwit::lab {

void leave_the_machine() {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  if (user != 0) {
    if (::unshare(CLONE_NEWUSER) != 0) {
      fail_setup(
          "{}; run as root, or allow user namespaces (sysctl user.max_user_namespaces, "
          "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)",
          errno_text("make a user namespace"));
    }
    // One user and one group are all that may be mapped without help; setgroups(2) must be given
    // up.
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", fmt::format("0 {} 1", user));
    write_file("/proc/self/gid_map", fmt::format("0 {} 1", group));
  }
  if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0) {
    fail_setup("{}", errno_text("make the lab's namespaces"));
  }
  if (::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    fail_setup("{}", errno_text("make the mounts private"));
  }
}

}  // namespace godwit::lab
