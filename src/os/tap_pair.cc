#include "os/tap_pair.hh"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/check.hh"
#include "os/nftables.hh"

namespace godwit::os {
namespace {

constexpr std::size_t kNameLimit = kInterfaceNameLimit - 1;

constexpr std::string_view kTablePrefix = "godwit_";

std::string guest_name(const std::string& name) { return name + "g"; }
std::string agent_name(const std::string& name) { return name + "a"; }

// Also right when the table is not there: adding is idempotent.
std::string removal(const std::string& name) {
  return fmt::format("add table netdev godwit_{0}\ndelete table netdev godwit_{0}\n", name);
}

std::string joining(const std::string& name) {
  constexpr auto kChain =
      "  chain from_{0} {{ type filter hook ingress device \"{0}\" priority 0; fwd to \"{1}\"; "
      "}}\n";
  const auto guest = guest_name(name);
  const auto agent = agent_name(name);
  return fmt::format("table netdev godwit_{} {{\n", name) + fmt::format(kChain, guest, agent) +
         fmt::format(kChain, agent, guest) + "}\n";
}

void check_name(const std::string& name) {
  const auto is_allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > kNameLimit || !std::ranges::all_of(name, is_allowed)) {
    fail_setup("TAP pair name '{}': 1 to {} of [a-z0-9] are allowed", name, kNameLimit);
  }
}

// The number of the process's descriptor for this interface: the kernel names it in fdinfo.
int find_descriptor(pid_t pid, const std::string& interface) {
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/fdinfo", pid), error)) {
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (line == "iff:\t" + interface) return std::stoi(entry.path().filename().string());
    }
  }
  fail_setup("reattach to TAP {}: process {} does not have it", interface, pid);
}

Tap copy_from(const Child& qemu, const std::string& interface) {
  Result<Fd> copy = qemu.copy_fd(find_descriptor(qemu.pid(), interface));
  if (!copy) fail_setup("reattach to TAP {}: {}", interface, copy.error().text);
  Result<Tap> tap = Tap::adopt(std::move(*copy));
  if (!tap) fail_setup("reattach to TAP {}: {}", interface, tap.error().text);
  if (tap->name() != interface) {  // the process closed it meanwhile and reused the number
    fail_setup("reattach to TAP {}: process {} gave it up", interface, qemu.pid());
  }
  return std::move(*tap);
}

}  // namespace

std::string TapPair::name_of(const PortId& port) { return "gw" + port.text().substr(0, 12); }

TapPair TapPair::create(const Options& options) {
  check_name(options.name);
  TapPair pair(
      options,
      Tap::open({.name = guest_name(options.name), .udp_segmentation = options.udp_segmentation}),
      Tap::open({.name = agent_name(options.name), .udp_segmentation = options.udp_segmentation}));
  pair.join();
  return pair;
}

TapPair TapPair::reattach(const Options& options, const Child& qemu) {
  check_name(options.name);
  Tap guest = copy_from(qemu, guest_name(options.name));
  TapPair pair(
      options, std::move(guest),
      Tap::open({.name = agent_name(options.name), .udp_segmentation = options.udp_segmentation}));
  pair.join();
  return pair;
}

void TapPair::remove_stale() {
  const auto tables = netdev_tables();
  if (!tables) fail_setup("{}", tables.error().text);
  Netlink netlink;
  for (std::string_view table : *tables) {
    if (!table.starts_with(kTablePrefix)) continue;
    const std::string name(table.substr(kTablePrefix.size()));
    if (netlink.find(agent_name(name))) continue;
    if (const auto removed = apply_nftables(removal(name)); !removed) {
      fail_setup("{}", removed.error().text);
    }
  }
}

TapPair::TapPair(Options options, Tap guest, Tap agent)
    : options_(std::move(options)), guest_(std::move(guest)), agent_(std::move(agent)) {}

TapPair::TapPair(TapPair&& other) noexcept
    : options_(std::move(other.options_)),
      guest_(std::move(other.guest_)),
      agent_(std::move(other.agent_)),
      netlink_(std::move(other.netlink_)),
      joined_(std::exchange(other.joined_, false)) {}

void TapPair::join() {
  for (const auto& name : {guest_.name(), agent_.name()}) {
    netlink_.set_mtu(name, options_.mtu);
    netlink_.set_queue_length(name, kTapQueueFrames);
    netlink_.silence_ipv6(name);
  }
  const auto joined = apply_nftables(removal(options_.name) + joining(options_.name));
  if (!joined) {
    fail_setup("join TAP pair {}: {} (needs CONFIG_NFT_FWD_NETDEV)", options_.name,
               joined.error().text);
  }
  joined_ = true;
  // Up only now: nothing reaches the host's stack from these interfaces.
  netlink_.set_up(guest_.name());
  netlink_.set_up(agent_.name());
}

TapPair::~TapPair() {
  if (joined_) static_cast<void>(apply_nftables(removal(options_.name)));
}

std::size_t TapPair::read_untaken(MutableBytes into) {
  guest_.refresh_header_size();
  return guest_.read(into);
}

void TapPair::set_mtu(unsigned mtu) {
  options_.mtu = mtu;
  netlink_.set_mtu(guest_.name(), mtu);
  netlink_.set_mtu(agent_.name(), mtu);
}

TapPair::Lost TapPair::lost() {
  // What a TAP sends is what its descriptor's reader gets.
  return {.to_agent = netlink_.dropped(agent_.name()), .to_guest = netlink_.dropped(guest_.name())};
}

}  // namespace godwit::os
