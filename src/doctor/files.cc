// The agent's directories: who may look in, how much room there is, and the certificate in there.
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "crypto/certificate.hh"
#include "doctor/examine.hh"
#include "doctor/judge.hh"

namespace godwit::doctor {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kPermissions = 07777;

Finding look_at_directory(const std::string& name, const fs::path& path, unsigned allowed) {
  struct stat state{};
  if (::stat(path.c_str(), &state) != 0) {
    if (errno == ENOENT) return ok(name, path.string() + " is made by the agent's first start");
    return failed(name, errno_text("look at " + path.string()), "sudo godwit doctor");
  }
  return judge_mode(name, path.string(), state.st_mode & kPermissions, allowed);
}

// Of the directory, or of the one that it will be made in.
Finding look_at_disk(fs::path path) {
  struct statfs state{};
  std::error_code error;
  while (!fs::exists(path, error) && path.has_parent_path() && path != path.root_path()) {
    path = path.parent_path();
  }
  if (::statfs(path.c_str(), &state) != 0) {
    return warn("disk", errno_text("look at " + path.string()), "sudo godwit doctor");
  }
  const auto block = static_cast<std::uint64_t>(state.f_bsize);
  const bool lasts = state.f_type != TMPFS_MAGIC && state.f_type != RAMFS_MAGIC;
  return judge_disk(path.string(), ByteCount{state.f_bavail * block}, lasts);
}

Finding look_at_certificate(const fs::path& path) {
  if (::access(path.c_str(), R_OK) != 0) {
    if (errno == ENOENT) {
      return ok("certificate",
                "none yet: `godwit host invite` founds a fleet, `godwit join` "
                "joins one");
    }
    return warn("certificate", errno_text("read " + path.string()), "sudo godwit doctor");
  }
  std::ifstream file(path);
  const std::string pem{std::istreambuf_iterator<char>(file), {}};
  const auto certificate = crypto::Certificate::from_pem(pem);
  if (!certificate) {
    return failed("certificate", fmt::format("{}: {}", path.string(), certificate.error().text),
                  "restore the state directory from a backup, or join again");
  }
  return judge_certificate(certificate->common_name(), certificate->not_before(),
                           certificate->not_after(), crypto::wall_now());
}

}  // namespace

Findings examine_files(const Options& options) {
  return {look_at_directory("state-dir", options.state_dir, 0700),
          look_at_directory("run-dir", options.run_dir, 0711), look_at_disk(options.state_dir),
          look_at_certificate(options.state_dir / "host.pem")};
}

}  // namespace godwit::doctor
