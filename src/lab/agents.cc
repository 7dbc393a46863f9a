#include "lab/agents.hh"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <tuple>

#include "os/child.hh"

namespace godwit::lab {
namespace {

constexpr Nanoseconds kCommandLimit = seconds(30);
constexpr Nanoseconds kStartLimit = seconds(20);
constexpr const char* kLog = "/var/log/godwitd.log";
constexpr const char* kHooks = "/var/lib/godwit/hooks";  // /etc is one for all hosts
constexpr const char* kSocket = "/run/godwit/godwitd.sock";

// As they are built, or as the packages install them: bin/godwit-lab, sbin/godwitd.
std::string beside_this(std::string_view program) {
  std::error_code ignored;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const auto& directory : {here, here.parent_path() / "sbin"}) {
    const std::string path = (directory / program).string();
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

os::Output in_host(const std::string& lab, const std::string& host,
                   std::vector<std::string> options, const std::vector<std::string>& argv,
                   std::string_view input = {}) {
  std::vector<std::string> words = {"/proc/self/exe", "lab", "exec", "--name", lab};
  words.insert(words.end(), options.begin(), options.end());
  words.push_back(host);
  words.emplace_back("--");
  words.insert(words.end(), argv.begin(), argv.end());
  auto output = os::run({.argv = words}, input, kCommandLimit);
  if (!output) fail_setup("on {}: {}: {}", host, fmt::join(argv, " "), output.error().text);
  return std::move(*output);
}

std::string checked_in_host(const std::string& lab, const std::string& host,
                            const std::vector<std::string>& argv, std::string_view input = {}) {
  const os::Output output = in_host(lab, host, {}, argv, input);
  if (!output.status.success()) {
    fail_setup("on {}: {}: {}: {}{}", host, fmt::join(argv, " "), output.status.text(), output.out,
               output.err);
  }
  return output.out;
}

std::string end_of_log(const std::string& lab, const std::string& host) {
  return in_host(lab, host, {}, {"tail", "-n", "20", kLog}).out;
}

}  // namespace

std::string agent_program() { return beside_this("godwitd"); }

void start_agent(const std::string& lab, const NodeState& host) {
  std::vector<std::string> argv = {agent_program(), "--name",  host.name, "--site",
                                   host.site,       "--hooks", kHooks};
  for (const auto& address : host.announced) argv.insert(argv.end(), {"--address", address});
  const os::Output started = in_host(lab, host.name, {"--detach", "--log", kLog}, argv);
  if (!started.status.success()) fail_setup("start godwitd on {}: {}", host.name, started.err);
  // Its readiness is its socket. An agent that ended is not waited for.
  const std::string wait = fmt::format(
      "i=0; while [ $i -lt {} ]; do [ -S {} ] && exit 0; pgrep -x godwitd >/dev/null || exit 1; "
      "sleep 0.05; i=$((i+1)); done; exit 1",
      duration_cast<milliseconds>(kStartLimit).count() / 50, kSocket);
  if (!in_host(lab, host.name, {}, {"sh", "-c", wait}).status.success()) {
    fail_setup("godwitd on {} does not answer; its log ends with:\n{}", host.name,
               end_of_log(lab, host.name));
  }
}

void start_fleet(const LabState& state, const std::function<void()>& checkpoint) {
  const std::string cli = beside_this("godwit");
  if (cli.empty())
    fail_setup("there is a godwitd but no godwit beside it: build both, or use --no-agents");
  // Everyone must reach the founder, so it is not behind a NAT if any is not.
  std::vector<const NodeState*> hosts;
  for (const NodeState& node : state.nodes) {
    if (node.has_agent) hosts.push_back(&node);
  }
  std::ranges::sort(hosts, {}, [](const NodeState* node) {
    return std::tuple(node->behind_nat, node->is_router, node);  // in the lab's order otherwise
  });
  const NodeState* const founder = hosts.front();
  for (const NodeState* host : hosts) {
    checkpoint();
    start_agent(state.name, *host);
    if (host == founder) continue;
    checkpoint();
    const auto invite = nlohmann::json::parse(
        checked_in_host(state.name, founder->name, {cli, "host", "invite", "--json"}), nullptr,
        false);
    if (!invite.is_object() || !invite.contains("command")) {
      fail_setup("`godwit host invite --json` on {} gave no command", founder->name);
    }
    // "godwit join TOKEN@HOST:PORT"
    const std::string line = invite["command"];
    checked_in_host(state.name, host->name, {cli, "join", "-"}, line.substr(line.rfind(' ') + 1));
  }
}

}  // namespace godwit::lab
