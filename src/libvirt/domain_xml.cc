#include "libvirt/domain_xml.hh"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>

namespace godwit::libvirt {
namespace {

std::string text_at(const pugi::xml_node& node, const char* child, const char* attribute) {
  return node.child(child).attribute(attribute).value();
}

// libvirt's default unit is KiB; those that it writes itself are in it.
ByteCount memory_of(const pugi::xml_node& memory) {
  const std::string unit = memory.attribute("unit").as_string("KiB");
  const std::uint64_t amount = memory.text().as_ullong();
  if (unit == "b" || unit == "bytes") return {amount};
  if (unit == "MiB" || unit == "M") return {amount << 20};
  if (unit == "GiB" || unit == "G") return {amount << 30};
  return {amount << 10};
}

// See qemu::trackable_memory(): libvirt gives whole MiB, which is the memory that is not tracked.
constexpr unsigned long kTracksEmulated = 9'000'000;

void add_disk(const pugi::xml_node& node, Domain& domain) {
  const std::string type = node.attribute("type").value();
  const std::string device = node.attribute("device").as_string("disk");
  DomainDisk disk{.target = text_at(node, "target", "dev"),
                  .alias = text_at(node, "alias", "name"),
                  .path = text_at(node, "source", "file"),
                  .format = text_at(node, "driver", "type"),
                  .is_read_only = device == "cdrom" || device == "floppy" ||
                                  node.child("readonly") || node.child("shareable")};
  if (disk.is_read_only && !node.child("source")) return;  // an empty drive
  if (type != "file") {
    domain.obstacles.push_back(
        fmt::format("disk {} is of type {}: only disks in files move so far", disk.target, type));
  } else if (!disk.is_read_only && disk.format != "qcow2" && disk.format != "raw") {
    domain.obstacles.push_back(
        fmt::format("disk {} has the format {}: qcow2 and raw move", disk.target, disk.format));
  } else if (node.child("encryption") || node.child("source").child("encryption")) {
    domain.obstacles.push_back(fmt::format(
        "disk {} is encrypted by libvirt, whose secret is not at the target", disk.target));
  }
  domain.disks.push_back(std::move(disk));
}

}  // namespace

std::vector<DomainDisk> Domain::moving_disks() const {
  std::vector<DomainDisk> moving;
  std::ranges::copy_if(disks, std::back_inserter(moving),
                       [](const DomainDisk& disk) { return !disk.is_read_only; });
  return moving;
}

Result<Domain> parse_domain(std::string_view xml, unsigned long qemu) {
  pugi::xml_document document;
  const auto parsed = document.load_buffer(xml.data(), xml.size());
  const pugi::xml_node root = document.child("domain");
  if (!parsed || !root) return fail("this is no XML of a libvirt domain: {}", parsed.description());
  Domain domain{.name = root.child("name").text().as_string(),
                .uuid = root.child("uuid").text().as_string(),
                .memory = memory_of(root.child("memory"))};
  if (domain.name.empty() || domain.uuid.empty()) return fail("the domain has no name or no UUID");
  const std::string type = root.attribute("type").value();
  if (type != "kvm" && type != "qemu") {
    domain.obstacles.push_back(fmt::format("it is of type {}: QEMU's domains move", type));
  }
  if (type == "qemu" && qemu < kTracksEmulated) {
    domain.warnings.push_back(fmt::format(
        "it is emulated (TCG) by QEMU {}.{}, which may not send all that it writes while it "
        "moves, so that it stops or has damaged memory: it needs KVM, or QEMU 9",
        qemu / 1'000'000, qemu / 1'000 % 1'000));
  }
  const pugi::xml_node devices = root.child("devices");
  for (const auto& disk : devices.children("disk")) add_disk(disk, domain);
  for (const auto& interface : devices.children("interface")) {
    const std::string bridge = text_at(interface, "source", "bridge");
    if (!bridge.empty() && std::ranges::count(domain.bridges, bridge) == 0) {
      domain.bridges.push_back(bridge);
    }
  }
  if (devices.child("hostdev")) {
    domain.obstacles.emplace_back("it has a device of the host: detach it first");
  }
  if (devices.child("filesystem")) {
    domain.obstacles.emplace_back("it shares a directory of the host: detach it first");
  }
  return domain;
}

nlohmann::json to_json(const Domain& domain) {
  nlohmann::json disks = nlohmann::json::array();
  for (const DomainDisk& disk : domain.disks) {
    disks.push_back({{"target", disk.target},
                     {"alias", disk.alias},
                     {"path", disk.path},
                     {"format", disk.format},
                     {"read_only", disk.is_read_only},
                     {"size", disk.size.bytes},
                     {"used", disk.used.bytes}});
  }
  return {{"name", domain.name},           {"uuid", domain.uuid},
          {"memory", domain.memory.bytes}, {"bridges", domain.bridges},
          {"obstacles", domain.obstacles}, {"disks", disks},
          {"warnings", domain.warnings}};
}

Result<Domain> domain_from_json(const nlohmann::json& json) {
  try {
    Domain domain{.name = json.at("name"),
                  .uuid = json.at("uuid"),
                  .memory = {json.at("memory").get<std::uint64_t>()},
                  .bridges = json.at("bridges"),
                  .obstacles = json.at("obstacles"),
                  .warnings = json.value("warnings", std::vector<std::string>())};
    for (const auto& disk : json.at("disks")) {
      domain.disks.push_back({.target = disk.at("target"),
                              .alias = disk.at("alias"),
                              .path = disk.at("path"),
                              .format = disk.at("format"),
                              .is_read_only = disk.at("read_only"),
                              .size = {disk.at("size").get<std::uint64_t>()},
                              .used = {disk.at("used").get<std::uint64_t>()}});
    }
    return domain;
  } catch (const nlohmann::json::exception& error) {
    return fail("this does not describe a libvirt domain: {}", error.what());
  }
}

}  // namespace godwit::libvirt
