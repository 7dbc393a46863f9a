#include "qemu/accelerator.hh"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "os/child.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path newest_boot_kernel() {
  fs::path newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/boot", error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("vmlinuz-") && ::access(entry.path().c_str(), R_OK) == 0 &&
        (newest.empty() || entry.path() > newest)) {
      newest = entry.path();
    }
  }
  return newest;
}

std::string stamp_of(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return path.string();
  const auto time = fs::last_write_time(path, error).time_since_epoch().count();
  return fmt::format("{} {} {}", path.string(), size, time);
}

// Whatever makes an earlier answer worthless when it changes.
std::string cache_key(const AcceleratorProbe& probe, const fs::path& kernel) {
  std::string boot_id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot_id);
  const fs::path binary = probe.binary.find('/') == std::string::npos
                              ? fs::path("/usr/bin") / probe.binary
                              : fs::path(probe.binary);
  return fmt::format("{} | {} | {} | {} | {}", boot_id, stamp_of(binary), stamp_of(kernel),
                     probe.cpu_model, probe.kvm_device.string());
}

std::optional<AcceleratorReport> cached(const AcceleratorProbe& probe, const std::string& key) {
  if (probe.cache_file.empty()) return std::nullopt;
  std::ifstream file(probe.cache_file);
  const json object = json::parse(file, nullptr, false);
  const auto accelerator = parse_accelerator(text_at(object, "accelerator"));
  if (text_at(object, "key") != key || !accelerator) return std::nullopt;
  return AcceleratorReport{.accelerator = *accelerator, .notice = text_at(object, "notice")};
}

// Best effort: without the cache the next start probes again.
void store(const AcceleratorProbe& probe, const std::string& key, const AcceleratorReport& report) {
  if (probe.cache_file.empty()) return;
  const json object = {
      {"key", key}, {"accelerator", to_text(report.accelerator)}, {"notice", report.notice}};
  const std::string temporary = fmt::format("{}.{}", probe.cache_file.string(), ::getpid());
  std::ofstream(temporary) << object.dump() << "\n";
  std::error_code ignored;
  fs::rename(temporary, probe.cache_file, ignored);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

AcceleratorReport without_kvm(std::string why) {
  return {.accelerator = Accelerator::tcg,
          .notice = fmt::format("vms run under TCG (slowly): {}", why)};
}

AcceleratorReport run_kernel(const AcceleratorProbe& probe, const fs::path& kernel) {
  os::Command command;
  // Without a root file system the kernel panics; panic=-1 reboots at once, -no-reboot makes that
  // QEMU's orderly end.
  command.argv = {probe.binary,
                  "-nodefaults",
                  "-no-user-config",
                  "-display",
                  "none",
                  "-machine",
                  "q35",
                  "-accel",
                  "kvm",
                  "-cpu",
                  probe.cpu_model + ",enforce",
                  "-m",
                  "256M",
                  "-kernel",
                  kernel.string(),
                  "-append",
                  "console=ttyS0 panic=-1",
                  "-serial",
                  "stdio",
                  "-no-reboot"};
  const auto output = os::run(std::move(command), {}, probe.limit);
  if (!output) {
    return without_kvm(
        fmt::format("KVM does not run an ordinary kernel ({})", output.error().text));
  }
  if (!output->status.success() || output->out.find("Linux version") == std::string::npos) {
    const std::string said = first_line(output->err);
    return without_kvm(fmt::format("KVM does not run {} as CPU {} ({})", kernel.string(),
                                   probe.cpu_model, said.empty() ? output->status.text() : said));
  }
  return {.accelerator = Accelerator::kvm, .notice = {}};
}

}  // namespace

AcceleratorReport probe_accelerator(const AcceleratorProbe& probe) {
  if (::access(probe.kvm_device.c_str(), R_OK | W_OK) != 0) {
    return without_kvm(errno_text("open " + probe.kvm_device.string()));
  }
  const fs::path kernel = probe.kernel.empty() ? newest_boot_kernel() : probe.kernel;
  if (kernel.empty()) return without_kvm("there is no readable kernel in /boot to try KVM with");
  const std::string key = cache_key(probe, kernel);
  if (const auto known = cached(probe, key)) return *known;
  const AcceleratorReport report = run_kernel(probe, kernel);
  store(probe, key, report);
  return report;
}

}  // namespace godwit::qemu
