#include "lab/state.hh"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

namespace godwit::lab {
namespace {

constexpr std::size_t kStateLimit = 1024 * 1024;
constexpr Nanoseconds kKillWait = seconds(5);

std::string runtime_root() {
  if (::geteuid() == 0) return "/run/godwit-lab";
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime != '\0') return fmt::format("{}/godwit-lab", runtime);
  return fmt::format("/tmp/godwit-lab-{}", ::geteuid());
}

nlohmann::json to_json(const os::ProcessIdentity& process) {
  return {{"pid", process.pid}, {"start_time", process.start_time}};
}

os::ProcessIdentity process_from(const nlohmann::json& json) {
  return {.pid = json.at("pid").get<pid_t>(),
          .start_time = json.at("start_time").get<std::uint64_t>()};
}

void make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    fail_setup("{}", errno_text(fmt::format("make the directory {}", path)));
  }
  // In /tmp another user may have made it first: what is not ours is not used.
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) ||
      status.st_uid != ::geteuid()) {
    fail_setup("{} is not a directory of this user: remove it", path);
  }
}

void kill_recorded(const os::ProcessIdentity& process) {
  if (process.pid <= 0) return;
  auto child = os::Child::adopt(process);
  if (!child) return;  // ended, or the pid is a stranger's by now
  (void)child->kill(SIGKILL);
  (void)child->wait(kKillWait);
}

}  // namespace

const NodeState* LabState::find(std::string_view node) const {
  const auto found = std::find_if(nodes.begin(), nodes.end(), [&](const NodeState& candidate) {
    return candidate.name == node;
  });
  return found == nodes.end() ? nullptr : &*found;
}

StateDirectory::StateDirectory(const std::string& lab_name)
    : path_(fmt::format("{}/{}", runtime_root(), lab_name)) {}

void StateDirectory::make() const {
  make_directory(runtime_root());
  make_directory(path_);
}

bool StateDirectory::exists() const { return ::access(path_.c_str(), F_OK) == 0; }

os::Fd StateDirectory::try_lock() const {
  os::Fd lock(::open(file("lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) fail_setup("{}", errno_text(fmt::format("open {}", file("lock"))));
  if (::flock(lock.number(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) fail_setup("{}", errno_text(fmt::format("lock {}", file("lock"))));
  return {};
}

Result<LabState> StateDirectory::load() const {
  try {
    const auto json = nlohmann::json::parse(read_file(file("state.json"), kStateLimit));
    LabState state{.name = json.at("name"),
                   .holder = process_from(json.at("holder")),
                   .emulator = process_from(json.at("emulator")),
                   .agents = json.at("agents"),
                   .nodes = {}};
    for (const auto& node : json.at("nodes")) {
      state.nodes.push_back({.name = node.at("name"),
                             .site = node.at("site"),
                             .is_router = node.at("router"),
                             .has_agent = node.at("agent"),
                             .ipv4 = node.at("ipv4"),
                             .ipv6 = node.at("ipv6"),
                             .announced = node.at("announced"),
                             .behind_nat = node.at("behind_nat"),
                             .init = process_from(node.at("init"))});
    }
    return state;
  } catch (const std::exception& error) {
    return fail("read the state of the lab: {}", error.what());
  }
}

void StateDirectory::save(const LabState& state) const {
  auto nodes = nlohmann::json::array();
  for (const auto& node : state.nodes) {
    nodes.push_back({{"name", node.name},
                     {"site", node.site},
                     {"router", node.is_router},
                     {"agent", node.has_agent},
                     {"ipv4", node.ipv4},
                     {"ipv6", node.ipv6},
                     {"announced", node.announced},
                     {"behind_nat", node.behind_nat},
                     {"init", to_json(node.init)}});
  }
  const nlohmann::json json = {{"name", state.name},
                               {"holder", to_json(state.holder)},
                               {"emulator", to_json(state.emulator)},
                               {"agents", state.agents},
                               {"nodes", nodes}};
  write_file(file("state.json.new"), json.dump(2) + "\n");
  if (::rename(file("state.json.new").c_str(), file("state.json").c_str()) != 0) {
    fail_setup("{}", errno_text("replace the state of the lab"));
  }
}

void StateDirectory::remove() const {
  static constexpr std::array kFiles = {"state.json", "state.json.new", "lab.yaml", "holder.sock",
                                        "wan.sock",   "holder.log",     "lock"};
  for (const char* const name : kFiles) ::unlink(file(name).c_str());
  ::rmdir(file("disks").c_str());
  ::rmdir(path_.c_str());
  // In the holder's user namespace the user is root: the root is not asked for again.
  ::rmdir(path_.substr(0, path_.rfind('/')).c_str());  // stays while another lab is in it
}

std::vector<std::string> known_labs() {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(runtime_root().c_str()),
                                                      ::closedir);
  if (!directory) return names;
  while (const dirent* const entry = ::readdir(directory.get())) {
    const std::string_view name(entry->d_name);
    if (!name.starts_with('.')) names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void clean_up(const StateDirectory& directory) {
  if (const auto state = directory.load()) {
    kill_recorded(state->holder);
    for (const auto& node : state->nodes) kill_recorded(node.init);
    kill_recorded(state->emulator);
  }
  directory.remove();
}

std::string read_file(const std::string& path, std::size_t limit) {
  const os::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) fail_setup("{}", errno_text(fmt::format("open {}", path)));
  std::string text;
  std::array<char, 16384> buffer;
  for (;;) {
    const ssize_t got = ::read(fd.number(), buffer.data(), buffer.size());
    if (got < 0) fail_setup("{}", errno_text(fmt::format("read {}", path)));
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > limit) fail_setup("{} has more than {} bytes", path, limit);
  }
}

void write_file(const std::string& path, std::string_view text, mode_t mode) {
  const os::Fd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) fail_setup("{}", errno_text(fmt::format("open {}", path)));
  if (::write(fd.number(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    fail_setup("{}", errno_text(fmt::format("write {}", path)));
  }
}

}  // namespace godwit::lab
