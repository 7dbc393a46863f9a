#pragma once
// The doctor's judgement, without I/O: measured values in, findings out. Each bound is named.
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/units.hh"
#include "doctor/finding.hh"

namespace godwit::doctor {

// The agent itself takes 20 to 60 MiB, with 64 MiB of held frames at most; the rest is for vms.
inline constexpr ByteCount kLeastMemory{256ULL << 20U};
inline constexpr ByteCount kComfortableMemory{1ULL << 30U};
// The store is a few hundred KiB; without room for its journal an agent can promise nothing.
inline constexpr ByteCount kLeastDisk{16ULL << 20U};
inline constexpr ByteCount kComfortableDisk{256ULL << 20U};
// Hosts' certificates live a year; a month is time to act.
inline constexpr std::chrono::days kRenewBefore{30};
// Above this share of its table, conntrack soon drops new flows, also the agents'.
inline constexpr double kConntrackAlarm = 0.8;
inline constexpr std::pair<unsigned, unsigned> kOldestKernel{5, 12};  // pidfd_getfd, mount_setattr

Finding judge_kernel(const std::string& release);  // uname(2): "6.1.0-31-amd64"
Finding judge_memory(ByteCount total, ByteCount available);
Finding judge_disk(const std::string& directory, ByteCount available, bool lasts);
// `synchronised`: what the kernel's clock says of itself (adjtimex(2)).
Finding judge_clock(bool synchronised, std::chrono::microseconds most_error);
Finding judge_conntrack(std::optional<std::uint64_t> used, std::optional<std::uint64_t> size);
Finding judge_mtu(const std::string& interface, unsigned mtu, unsigned path_mtu);
Finding judge_certificate(const std::string& host, std::chrono::sys_seconds from,
                          std::chrono::sys_seconds until, std::chrono::sys_seconds now);
// `mode`: permission bits of a directory that must be closed to others but for `allowed`.
Finding judge_mode(const std::string& name, const std::string& directory, unsigned mode,
                   unsigned allowed);
// Which address other hosts are told. RFC 1918 and RFC 6598 addresses are hidden behind a NAT from
// hosts elsewhere.
Finding judge_address(const std::string& address);

}  // namespace godwit::doctor
