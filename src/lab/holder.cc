#include "lab/holder.hh"

#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>

#include "base/check.hh"
#include "lab/address_plan.hh"
#include "lab/control.hh"
#include "lab/node.hh"
#include "lab/state.hh"
#include "lab/user_namespace.hh"
#include "lab/wan.hh"
#include "lab/wiring.hh"

namespace godwit::lab {
namespace {

class Holder final {
 public:
  Holder(StateDirectory directory, const std::string& name, LabConfig lab,
         std::vector<std::string> keep_visible)
      : directory_(std::move(directory)),
        lab_(std::move(lab)),
        keep_visible_(std::move(keep_visible)) {
    // From now on these wait until the lab can be taken down in order.
    signals_ = loop_.on_signals({SIGTERM, SIGINT, SIGHUP}, [this](int) { loop_.stop(); });
    state_.name = name;
    state_.holder = *os::identify(::getpid());
    for (const auto& site : lab_.sites) {
      state_.nodes.push_back({.name = router_name(site),
                              .site = site,
                              .is_router = true,
                              .has_agent = lab_.networks.at(site).router_has_agent,
                              .ipv4 = {},
                              .ipv6 = {},
                              .announced = {},
                              .init = {}});
      note_address(state_.nodes.back(), router_address(lab_, site));
    }
    for (const Host& host : lab_.hosts) {
      state_.nodes.push_back({.name = host.name,
                              .site = host.site,
                              .has_agent = true,
                              .ipv4 = {},
                              .ipv6 = {},
                              .announced = {},
                              .behind_nat = lab_.networks.at(host.site).nat != Nat::none,
                              .init = {}});
      note_address(state_.nodes.back(), host_address(lab_, host.name));
    }
  }

  void build() {
    directory_.save(state_);
    mount_disks(directory_.file("disks"));
    for (NodeState& node : state_.nodes) start(node);  // routers come first
    std::vector<std::array<os::Fd, 2>> taps;
    for (std::size_t i = 0; i < lab_.links.size(); ++i) {
      taps.push_back(wire_link(
          lab_, i, {router_of(lab_.links[i].sites[0]), router_of(lab_.links[i].sites[1])}));
    }
    for (const auto& site : lab_.sites) route_router(lab_, site, router_of(site));
    start_emulator(taps);
    directory_.save(state_);
  }

  void serve(const os::Fd& channel) {
    channel_watch_ = loop_.watch(channel, EPOLLIN, [&](auto) { hear(channel); });
    const auto children = loop_.on_signals({SIGCHLD}, [&](int) { notice_deaths(); });
    ControlServer control(loop_, directory_.file("holder.sock"),
                          [&](const nlohmann::json& request) { return handle(request); });
    const auto written = ::write(channel.number(), kReadyWord.data(), kReadyWord.size());
    if (written == static_cast<ssize_t>(kReadyWord.size())) loop_.run();
    channel_watch_.reset();
  }

  // Ends everything; also after a build that failed half way.
  void tear_down() {
    for (NodeState& node : state_.nodes) {
      if (node.running()) stop_node(node.init);
    }
    emulator_ = {};  // kills and reaps
    ::umount2(directory_.file("disks").c_str(), MNT_DETACH);
    directory_.remove();
  }

 private:
  void note_address(NodeState& node, const Address& address) {
    node.ipv4 = address.ipv4;
    node.ipv6 = address.ipv6;
    node.announced.clear();
    if (!node.has_agent) return;
    const SiteNetwork& network = lab_.networks.at(node.site);
    const bool ipv4_only = !network.has_ipv6() || network.ip == IpFamilies::ipv4_announced;
    if (network.has_ipv4()) node.announced.push_back(address.ipv4);
    if (!ipv4_only) node.announced.push_back(address.ipv6);
  }

  void start(NodeState& node) {
    NodeSpec spec{.name = node.name,
                  .forwards = node.is_router,
                  .mounts = {.disks = directory_.file("disks"),
                             .host = node.name,
                             .hosts_file = hosts_file(lab_),
                             .keep = keep_visible_}};
    node.init = start_node(spec);
    if (node.is_router) {
      wire_router(lab_, node.site, node.init.pid);
    } else {
      wire_host(lab_, {node.name, node.site}, node.init.pid, router_of(node.site));
      note_address(node, host_address(lab_, node.name));
    }
  }

  void start_emulator(const std::vector<std::array<os::Fd, 2>>& taps) {
    os::Command command{.argv = {"/proc/self/exe", "lab", "wan-emulator", directory_.path()}};
    command.dies_with_us = true;
    int target = kFirstTapFd;
    for (const auto& pair : taps) {
      for (const os::Fd& tap : pair) command.fds.push_back({tap.number(), target++});
    }
    emulator_ = os::Child::spawn(command);
    emulator_.on_exit(loop_, [this](os::ExitStatus status) {
      fmt::print(stderr, "the emulator ended: {}; the lab ends with it\n", status.text());
      loop_.stop();
    });
    state_.emulator = emulator_.identity();
    wait_for_emulator();
  }

  void wait_for_emulator() {
    const Instant deadline = loop_.now() + seconds(10);
    while (::access(directory_.file("wan.sock").c_str(), F_OK) != 0) {
      loop_.run_once(milliseconds(5));
      if (emulator_.poll() || loop_.now() > deadline) fail_setup("the emulator did not start");
    }
  }

  pid_t router_of(const std::string& site) const {
    const NodeState* const router = state_.find(router_name(site));
    CHECK(router != nullptr);
    return router->init.pid;
  }

  void hear(const os::Fd& channel) {
    std::array<char, 16> buffer;
    const ssize_t got = ::read(channel.number(), buffer.data(), buffer.size());
    if (got > 0)
      kept_ = std::string_view(buffer.data(), static_cast<std::size_t>(got)) == kKeepWord;
    if (kept_ || got <= 0) channel_watch_.reset();
    if (!kept_) loop_.stop();
  }

  // A host that ended by itself (somebody killed its init) is a host without power.
  void notice_deaths() {
    for (NodeState& node : state_.nodes) {
      if (!node.running() || ::waitpid(node.init.pid, nullptr, WNOHANG) != node.init.pid) continue;
      node.init = {};
      directory_.save(state_);
      fmt::print(stderr, "{} lost its power\n", node.name);
    }
  }

  Result<nlohmann::json> handle(const nlohmann::json& request) {
    const std::string what = request.at("do");
    if (what == "down") {
      loop_.stop();
      return nlohmann::json::object();
    }
    if (what == "agents") {
      state_.agents = request.at("on");
      directory_.save(state_);
      return nlohmann::json::object();
    }
    const std::string name = request.at("host");
    const auto node =
        std::find_if(state_.nodes.begin(), state_.nodes.end(),
                     [&](const NodeState& candidate) { return candidate.name == name; });
    if (node == state_.nodes.end() || node->is_router)
      return fail("there is no host '{}' in this lab", name);
    if (what == "kill") {
      if (node->running()) stop_node(node->init);
      node->init = {};
    } else if (what == "start") {
      const bool was_off = !node->running();
      if (was_off) start_again(*node);
      directory_.save(state_);
      return nlohmann::json{{"started", was_off}};
    } else if (what == "readdress") {
      if (!node->running()) return fail("host {} is off: start it first", name);
      readdress(*node);
    } else {
      return fail("the holder cannot '{}'", what);
    }
    directory_.save(state_);
    return nlohmann::json{{"addresses", node->announced}};
  }

  void readdress(NodeState& node) {
    const Address from{.ipv4 = node.ipv4, .ipv6 = node.ipv6};
    const Address to = later_address(lab_, node.name, readdressed_++);
    readdress_host(lab_, {node.name, node.site}, node.init.pid, from, to);
    note_address(node, to);
  }

  void start_again(NodeState& node) {
    try {
      start(node);
    } catch (const SetupError&) {
      if (node.running()) stop_node(node.init);
      node.init = {};
      throw;
    }
  }

  os::Loop loop_;
  StateDirectory directory_;
  LabConfig lab_;
  std::vector<std::string> keep_visible_;
  LabState state_;
  os::Child emulator_;
  std::size_t readdressed_ = 0;
  bool kept_ = false;
  os::Loop::Watch channel_watch_;
  os::Loop::Watch signals_;
};

}  // namespace

int run_holder(const std::string& name, const std::vector<std::string>& keep_visible) {
  ::prctl(PR_SET_NAME, "lab:holder");
  ::signal(SIGPIPE, SIG_IGN);
  const os::Fd channel(kChannelFd);
  const auto report = [&](const std::string& text) {
    fmt::print(stderr, "{}\n", text);
    [[maybe_unused]] const auto written = ::write(channel.number(), text.data(), text.size());
    return 1;
  };
  const StateDirectory directory(name);
  try {
    leave_the_machine();
  } catch (const SetupError& error) {
    directory.remove();
    return report(error.what());
  }
  const auto lab = parse_lab(read_file(directory.file("lab.yaml"), kMaxConfigBytes), "lab.yaml");
  if (!lab) return report(lab.error().text);
  Holder holder(directory, name, *lab, keep_visible);
  try {
    holder.build();
    holder.serve(channel);
  } catch (const std::exception& error) {
    holder.tear_down();
    return report(error.what());
  }
  holder.tear_down();
  return 0;
}

}  // namespace godwit::lab
