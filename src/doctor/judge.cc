#include "doctor/judge.hh"

#include <fmt/chrono.h>

#include <cstdio>

namespace godwit::doctor {
namespace {

// The upper bits of IPv4 addresses that are not routed between sites (RFC 1918, RFC 6598).
bool is_private(const std::string& address) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (std::sscanf(address.c_str(), "%u.%u.%u.%u", &a, &b, &c, &d) != 4) return false;
  return a == 10 || (a == 172 && b >= 16 && b < 32) || (a == 192 && b == 168) ||
         (a == 100 && b >= 64 && b < 128);
}

}  // namespace

Finding judge_kernel(const std::string& release) {
  std::pair<unsigned, unsigned> version;
  if (std::sscanf(release.c_str(), "%u.%u", &version.first, &version.second) != 2) {
    return warn("kernel", fmt::format("Linux {}: not a version that is understood", release),
                "check that it is 5.12 or newer");
  }
  const std::string detail = fmt::format("Linux {}", release);
  if (version >= kOldestKernel) return ok("kernel", detail);
  return failed(
      "kernel",
      fmt::format("{} is older than {}.{}", detail, kOldestKernel.first, kOldestKernel.second),
      "install a newer kernel: apt install linux-image-cloud-amd64, then reboot");
}

Finding judge_memory(ByteCount total, ByteCount available) {
  const auto detail = fmt::format("{} of {} available", to_text(available), to_text(total));
  if (available < kLeastMemory) {
    return failed("memory", detail + ": too little for the agent and a vm",
                  "free some, or give the host more");
  }
  if (available < kComfortableMemory) {
    return warn("memory", detail + ": small vms only", "free some, or give the host more");
  }
  return ok("memory", detail);
}

Finding judge_disk(const std::string& directory, ByteCount available, bool lasts) {
  const auto detail = fmt::format("{} has {} free", directory, to_text(available));
  if (available < kLeastDisk) {
    return failed("disk", detail + ": what cannot be journalled cannot be done",
                  "free some space there");
  }
  if (!lasts) {
    return warn("disk", fmt::format("{} is in memory: what it holds ends with a reboot", directory),
                "put it on a disk: without its journal a host cannot decide an interrupted move");
  }
  if (available < kComfortableDisk) return warn("disk", detail, "free some space there");
  return ok("disk", detail);
}

Finding judge_clock(bool synchronised, std::chrono::microseconds most_error) {
  if (synchronised) {
    return ok("clock", fmt::format("synchronised, at most {} off",
                                   godwit::to_text(Nanoseconds(most_error))));
  }
  return warn("clock", "not synchronised: certificates need the time right to 10 minutes",
              "apt install chrony (or enable systemd-timesyncd)");
}

Finding judge_conntrack(std::optional<std::uint64_t> used, std::optional<std::uint64_t> size) {
  if (!used || !size || *size == 0) {
    return ok("conntrack", "connections are not tracked in this network namespace");
  }
  const auto detail = fmt::format("{} of {} entries used", *used, *size);
  if (static_cast<double>(*used) < kConntrackAlarm * static_cast<double>(*size)) {
    return ok("conntrack", detail);
  }
  return warn("conntrack", detail + ": soon new flows are dropped, also the agents'",
              fmt::format("sysctl net.netfilter.nf_conntrack_max={}", *size * 4));
}

Finding judge_mtu(const std::string& interface, unsigned mtu, unsigned path_mtu) {
  const auto detail = fmt::format("{} bytes on {}, wires need {}", mtu, interface, path_mtu);
  if (mtu >= path_mtu) return ok("mtu", detail);
  return failed("mtu", detail, fmt::format("raise it: ip link set {} mtu {}", interface, path_mtu));
}

Finding judge_certificate(const std::string& host, std::chrono::sys_seconds from,
                          std::chrono::sys_seconds until, std::chrono::sys_seconds now) {
  constexpr auto kDay = "{:%Y-%m-%d}";
  if (now < from) {
    return failed("certificate",
                  fmt::format("of host {} is not valid before {}", host,
                              fmt::format(kDay, fmt::gmtime(from.time_since_epoch().count()))),
                  "the host's clock is behind: synchronise it");
  }
  const auto end = fmt::format(kDay, fmt::gmtime(until.time_since_epoch().count()));
  const char* const remedy =
      "join again: move host.key and host.pem out of the state directory, restart the agent, and "
      "use a new invitation";
  if (now >= until) {
    return failed("certificate", fmt::format("of host {} expired on {}", host, end), remedy);
  }
  const auto days = std::chrono::floor<std::chrono::days>(until - now).count();
  const auto detail = fmt::format("of host {}, valid until {} ({} days)", host, end, days);
  if (until - now < kRenewBefore) return warn("certificate", detail, remedy);
  return ok("certificate", detail);
}

Finding judge_mode(const std::string& name, const std::string& directory, unsigned mode,
                   unsigned allowed) {
  if ((mode & ~allowed) == 0) return ok(name, fmt::format("{}, mode {:04o}", directory, mode));
  return failed(name,
                fmt::format("{} has mode {:04o}: others could read keys or put sockets there",
                            directory, mode),
                fmt::format("chmod {:04o} {}", allowed, directory));
}

Finding judge_address(const std::string& address) {
  if (address.empty()) {
    return failed("address", "no interface has an address that other hosts could be told",
                  "configure the network, or name one (address in /etc/godwit/godwitd.conf)");
  }
  if (!is_private(address)) return ok("address", address);
  return warn("address", fmt::format("{} is private: hosts elsewhere cannot reach it", address),
              "if a NAT gives this host a public address, name that first in "
              "/etc/godwit/godwitd.conf");
}

}  // namespace godwit::doctor
