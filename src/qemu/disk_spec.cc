#include "qemu/disk_spec.hh"

#include <algorithm>
#include <array>
#include <set>

#include "base/id.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr std::size_t kSha256Digits = 64;
constexpr std::array<std::string_view, 4> kBuses = {"virtio", "scsi", "cdrom", "pflash"};

bool is_sha256(std::string_view text) {
  return text.size() == kSha256Digits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Result<> check(const DiskSpec& disk) {
  if (!is_valid_name(disk.name) || disk.name.size() > kMaxDiskName) {
    return fail("\"{}\" is no valid name of a disk: at most {} characters", disk.name,
                kMaxDiskName);
  }
  const ByteCount least = disk.bus == DiskBus::pflash ? ByteCount{kSectorBytes} : kMinDisk;
  if (disk.size < least || disk.size > kMaxDisk || disk.size.bytes % kSectorBytes != 0) {
    return fail("disk {}: a size of {} must be whole sectors of {} bytes, from {} to {}", disk.name,
                to_text(disk.size), kSectorBytes, to_text(least), to_text(kMaxDisk));
  }
  if (disk.bus == DiskBus::pflash && (disk.format != DiskFormat::raw || !disk.image.name.empty())) {
    return fail("disk {}: firmware's variables are raw, and begin as no image", disk.name);
  }
  if (disk.bus == DiskBus::cdrom && disk.image.name.empty()) {
    return fail("disk {}: say which image is in the drive, with image=", disk.name);
  }
  if (disk.image.name.empty()) return {};
  if (!is_valid_name(disk.image.name) || !is_sha256(disk.image.sha256)) {
    return fail("disk {}: \"{}\" is no image", disk.name, disk.image.name);
  }
  if (disk.format == DiskFormat::raw) {
    return fail(
        "disk {}: one that begins as an image is an overlay on it, which raw cannot be: "
        "leave out format=raw",
        disk.name);
  }
  return {};
}

}  // namespace

std::string_view to_text(DiskFormat format) { return format == DiskFormat::raw ? "raw" : "qcow2"; }

Result<DiskFormat> parse_disk_format(std::string_view text) {
  if (text == "qcow2") return DiskFormat::qcow2;
  if (text == "raw") return DiskFormat::raw;
  return fail("\"{}\" is no format of a disk: qcow2 or raw", text);
}

std::string_view to_text(DiskBus bus) { return kBuses[static_cast<std::size_t>(bus)]; }

Result<DiskBus> parse_disk_bus(std::string_view text) {
  const auto found = std::ranges::find(kBuses, text);
  if (found != kBuses.end()) return static_cast<DiskBus>(found - kBuses.begin());
  return fail("\"{}\" is no bus of a disk: virtio, scsi or cdrom", text);
}

std::string disk_node(std::size_t index) { return fmt::format("disk{}", index); }

std::string file_node(const std::string& node) { return node + "-file"; }

std::vector<ByteCount> sizes_of(const std::vector<DiskSpec>& disks) {
  std::vector<ByteCount> sizes;
  for (const DiskSpec& disk : disks) sizes.push_back(disk.size);
  return sizes;
}

json to_json(const DiskSpec& disk) {
  json object = {{"name", disk.name},
                 {"format", to_text(disk.format)},
                 {"bus", to_text(disk.bus)},
                 {"size_bytes", disk.size.bytes}};
  if (!disk.image.name.empty()) {
    object["image"] = {{"name", disk.image.name},
                       {"format", to_text(disk.image.format)},
                       {"sha256", disk.image.sha256}};
  }
  return object;
}

Result<DiskSpec> disk_spec_from_json(const json& object) {
  const auto format = parse_disk_format(text_at(object, "format"));
  if (!format) return std::unexpected(format.error());
  const auto bus = parse_disk_bus(text_at(object, "bus"));
  if (!bus) return std::unexpected(bus.error());
  DiskSpec disk{.name = text_at(object, "name"),
                .format = *format,
                .bus = *bus,
                .size = ByteCount{unsigned_at(object, "size_bytes")}};
  if (const json& image = member(object, "image"); !image.is_null()) {
    const auto image_format = parse_disk_format(text_at(image, "format"));
    if (!image_format) return std::unexpected(image_format.error());
    disk.image = {.name = text_at(image, "name"),
                  .format = *image_format,
                  .sha256 = text_at(image, "sha256")};
    if (disk.image.name.empty()) return fail("the image of disk {} has no name", disk.name);
  }
  return disk;
}

Result<> check(const std::vector<DiskSpec>& disks) {
  if (disks.size() > kMaxDisks) {
    return fail("{} disks are more than the most of {}", disks.size(), kMaxDisks);
  }
  std::set<std::string_view> names;
  for (const DiskSpec& disk : disks) {
    if (auto ok = check(disk); !ok) return ok;
    if (!names.insert(disk.name).second) return fail("the disk {} is given twice", disk.name);
  }
  return {};
}

}  // namespace godwit::qemu
