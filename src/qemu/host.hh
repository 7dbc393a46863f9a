#pragma once
// What this host's QEMU can run: asked once from a QEMU without a machine, sent to others for
// preflight.
#include <nlohmann/json_fwd.hpp>

#include <map>
#include <string>
#include <vector>

#include "qemu/vm_spec.hh"

namespace godwit::qemu {

inline constexpr Nanoseconds kHostProbeLimit = seconds(20);
inline constexpr unsigned kOldestQemu[2] = {7, 2};

struct HostCapabilities {
  std::string qemu_version;  // "7.2.22"
  Accelerator accelerator = Accelerator::tcg;
  std::vector<std::string> machines;  // versioned ones only: "pc-q35-7.2", ...
  // Model -> features it needs that this host's accelerator lacks; empty = usable.
  std::map<std::string, std::vector<std::string>> cpu_models;
  ByteCount memory_total;
  ByteCount memory_available;  // at the time of asking
  bool operator==(const HostCapabilities&) const = default;
};

// Runs QEMU for a fraction of a second; blocks.
Result<HostCapabilities> probe_host(Accelerator accelerator,
                                    const std::string& binary = "qemu-system-x86_64");
// /proc/meminfo again; the rest does not change while QEMU stays the same.
void refresh_memory(HostCapabilities& host);

nlohmann::json to_json(const HostCapabilities& host);
Result<HostCapabilities> host_capabilities_from_json(const nlohmann::json& object);

// Newest versioned q35 machine of this QEMU, e.g. "pc-q35-7.2"; empty when there is none.
std::string newest_machine(const HostCapabilities& host);

// The memory to give a vm so that this QEMU sees all that its guest writes while it migrates.
// Before 9.0 the dirty bitmap of a RAM block whose length is a multiple of 64 pages was read by a
// fast path that left TCG's TLB stale: later writes were never sent again (measured with 7.2,
// 2026-11; mended upstream by "physmem: Fix migration dirty bitmap coherency with TCG memory
// access"). Two pages more take the slow, right path.
ByteCount trackable_memory(ByteCount wanted, const HostCapabilities& host);

// One line for each reason why this host cannot run the vm; empty = it can. `host_name` is for the
// text. A different accelerator is one: a vm's CPU state does not carry over between KVM and TCG.
std::vector<std::string> refusals(const VmSpec& spec, const HostCapabilities& host,
                                  std::string_view host_name);

}  // namespace godwit::qemu
