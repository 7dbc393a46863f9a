#pragma once
// A disk of a vm, as its guest and its migration see it. Where its file is, each host decides.
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "base/units.hh"

namespace godwit::qemu {

inline constexpr std::size_t kMaxDisks = 8;
inline constexpr std::size_t kMaxDiskName = 20;  // bytes of a virtio disk's serial number
inline constexpr std::uint64_t kSectorBytes = 512;
inline constexpr ByteCount kMinDisk{1ULL << 20};
inline constexpr ByteCount kMaxDisk{64ULL << 40};

enum class DiskFormat { qcow2, raw };
std::string_view to_text(DiskFormat format);
Result<DiskFormat> parse_disk_format(std::string_view text);

// pflash: the variables of the vm's UEFI firmware, a disk like the others but for its guest.
enum class DiskBus { virtio, scsi, cdrom, pflash };
std::string_view to_text(DiskBus bus);
Result<DiskBus> parse_disk_bus(std::string_view text);

// An image of the library that a disk is an overlay of.
struct BaseImage {
  std::string name;  // empty: none
  DiskFormat format = DiskFormat::qcow2;
  std::string sha256;  // of its file, 64 hex digits: the same name means the same bytes nowhere
  bool operator==(const BaseImage&) const = default;
};

struct DiskSpec {
  std::string name;  // within the vm; the guest sees it as the disk's serial number
  DiskFormat format = DiskFormat::qcow2;
  DiskBus bus = DiskBus::virtio;
  ByteCount size{};  // that the guest sees; whole sectors
  BaseImage image{};
  bool operator==(const DiskSpec&) const = default;
};

// On one host.
struct DiskPaths {
  std::filesystem::path file;
  std::filesystem::path image{};  // empty: it is no overlay
};

// Names of block nodes in QEMU: the disk as its device has it.
std::string disk_node(std::size_t index);
// And the file below it.
std::string file_node(const std::string& node);

std::vector<ByteCount> sizes_of(const std::vector<DiskSpec>& disks);

nlohmann::json to_json(const DiskSpec& disk);
Result<DiskSpec> disk_spec_from_json(const nlohmann::json& object);
// Each alone, and all of one vm together.
Result<> check(const std::vector<DiskSpec>& disks);

}  // namespace godwit::qemu
