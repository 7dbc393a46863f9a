// What the machine and its programs must offer: QEMU and a user for it, KVM, memory, the time.
#include <pwd.h>
#include <sys/timex.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "doctor/examine.hh"
#include "doctor/judge.hh"
#include "os/child.hh"
#include "qemu/accelerator.hh"
#include "qemu/firmware.hh"
#include "qemu/host.hh"
#include "qemu/launch.hh"
#include "qemu/tpm.hh"

namespace godwit::doctor {
namespace {

Finding try_kvm(const qemu::AcceleratorReport& report) {
  if (report.accelerator == qemu::Accelerator::kvm) return ok("kvm", "runs an ordinary kernel");
  return warn(
      "kvm", report.notice,
      "modprobe kvm_intel or kvm_amd; turn virtualisation on in the firmware, or for a "
      "cloud vm choose a type that nests. All hosts of a fleet that exchange vms must agree");
}

Finding try_qemu(const Result<qemu::HostCapabilities>& host) {
  if (!host) {
    return failed("qemu", host.error().text, "apt install qemu-system-x86 (7.2 or newer)");
  }
  return ok("qemu", fmt::format("QEMU {}, machine types up to {}", host->qemu_version,
                                qemu::newest_machine(*host)));
}

Finding try_disk_tools() {
  for (const char* program : {"qemu-img", "qemu-storage-daemon"}) {
    const auto done = os::run({.argv = {program, "--version"}});
    if (!done || !done->status.success()) {
      return failed("disk-tools", fmt::format("{} cannot be run: vms have no disks here", program),
                    "apt install qemu-utils qemu-system-x86");
    }
  }
  return ok("disk-tools", "qemu-img and qemu-storage-daemon run");
}

// Which not every vm needs.
Finding find_firmware(const Result<qemu::HostCapabilities>& host) {
  const auto uefi = host ? qemu::find_uefi(qemu::newest_machine(*host)) : std::nullopt;
  if (uefi) return ok("uefi", uefi->code.string());
  return warn("uefi", "no firmware for QEMU: vms with --firmware uefi cannot come here",
              "apt install ovmf");
}

Finding find_tpm() {
  if (qemu::has_tpm_emulator()) return ok("tpm", "swtpm runs");
  return warn("tpm", "there is no swtpm: vms with --tpm cannot come here", "apt install swtpm");
}

// NBD is QEMU's own; Debian has the others' drivers in a package of their own.
Finding find_volume_drivers() {
  const auto missing = qemu::missing_volume_drivers();
  if (missing.empty()) return ok("volumes", "QEMU speaks nbd, iscsi, nfs and rbd");
  return warn("volumes",
              fmt::format("QEMU does not speak {}: vms with disks at such servers cannot come here",
                          fmt::join(missing, ", ")),
              "apt install qemu-block-extra");
}

// Where there is one.
Finding try_libvirt() {
  const auto exists = [](const std::filesystem::path& path) {
    std::error_code error;
    return std::filesystem::exists(path, error);
  };
  if (!exists("/run/libvirt/libvirt-sock") && !exists("/run/libvirt/virtqemud-sock")) {
    return ok("libvirt", "none runs here");
  }
  std::error_code error;
  auto program =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "godwit-libvirt";
  if (!exists(program)) program = "/usr/libexec/godwit/godwit-libvirt";
  const auto done = os::run({.argv = {program.string(), "qemu:///system", "describe", "-"}});
  if (done && done->status.success()) return ok("libvirt", "its domains can move from and to here");
  return warn(
      "libvirt",
      fmt::format("one runs here, whose domains cannot move: {}", !done ? done.error().text
                                                                  : done->out.empty() ? done->err
                                                                                      : done->out),
      "apt install godwit-libvirt");
}

Finding find_qemu_user() {
  const std::string wanted(qemu::kQemuUsers[0]);
  if (::getpwnam(wanted.c_str()) != nullptr) return ok("qemu-user", wanted);
  return warn("qemu-user", fmt::format("there is no user {}: QEMU runs as another", wanted),
              fmt::format("install the package godwitd, or: useradd --system --user-group "
                          "--shell /usr/sbin/nologin {}",
                          wanted));
}

Finding ask_clock() {
  timex clock{};
  const int state = ::adjtimex(&clock);
  const bool synchronised = state >= 0 && state != TIME_ERROR && (clock.status & STA_UNSYNC) == 0;
  return judge_clock(synchronised, std::chrono::microseconds(clock.maxerror));
}

}  // namespace

Findings examine_machine() {
  const auto accelerator = qemu::probe_accelerator({.kernel = {}, .cache_file = {}});
  const auto host = qemu::probe_host(accelerator.accelerator);
  qemu::HostCapabilities memory;
  qemu::refresh_memory(memory);
  return {try_qemu(host),
          try_kvm(accelerator),
          find_qemu_user(),
          try_disk_tools(),
          find_firmware(host),
          find_tpm(),
          find_volume_drivers(),
          try_libvirt(),
          judge_memory(memory.memory_total, memory.memory_available),
          ask_clock()};
}

}  // namespace godwit::doctor
