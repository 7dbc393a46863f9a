#pragma once
// Whether KVM works here, found out by running an ordinary kernel under it. The device file alone
// says little: a nested or emulated /dev/kvm may accept a vm, run its firmware and then hang in the
// first real kernel.
#include <filesystem>
#include <string>

#include "qemu/vm_spec.hh"

namespace godwit::qemu {

// A kernel without root file system panics after 1 to 3 s under KVM, also nested.
inline constexpr Nanoseconds kAcceleratorProbeLimit = seconds(10);

struct AcceleratorReport {
  Accelerator accelerator = Accelerator::tcg;
  std::string notice;  // why not KVM; empty with KVM
  bool operator==(const AcceleratorReport&) const = default;
};

struct AcceleratorProbe {
  std::filesystem::path kernel;      // a bzImage; empty: the newest /boot/vmlinuz-*
  std::filesystem::path cache_file;  // empty: none. Holds until the host boots or its parts change
  std::string binary = "qemu-system-x86_64";
  std::string cpu_model{kDefaultCpuModel};
  std::filesystem::path kvm_device = "/dev/kvm";
  Nanoseconds limit = kAcceleratorProbeLimit;
};

// Blocks for at most `limit` the first time, then answers from the cache.
AcceleratorReport probe_accelerator(const AcceleratorProbe& probe);

}  // namespace godwit::qemu
