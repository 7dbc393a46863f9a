#pragma once
// UEFI firmware of this host, by the descriptors that its packages install (QEMU,
// docs/interop/firmware.json): code, the same for all vms, and variables, of which each vm has its
// own from a template.
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "base/units.hh"
#include "qemu/disk_spec.hh"

namespace godwit::qemu {

struct Firmware {
  std::filesystem::path code;
  DiskFormat code_format = DiskFormat::raw;
  std::filesystem::path variables;  // raw
  ByteCount code_size{}, variables_size{};
};

// Where descriptors are: one of a later directory takes the place of its namesake.
inline const std::vector<std::filesystem::path> kFirmwareDirectories = {"/usr/share/qemu/firmware",
                                                                        "/etc/qemu/firmware"};

// For a machine like "pc-q35-7.2": the first by name that needs no SMM, so without Secure Boot.
// Nothing: there is none, or none whose files can be read.
std::optional<Firmware> find_uefi(
    std::string_view machine,
    const std::vector<std::filesystem::path>& directories = kFirmwareDirectories);

}  // namespace godwit::qemu
