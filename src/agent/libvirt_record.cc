#include "agent/libvirt_record.hh"

#include <sys/stat.h>
#include <sys/xattr.h>

namespace godwit::agent {
namespace {

libvirt::Domain domain_of(const nlohmann::json& json) {
  auto domain = libvirt::domain_from_json(json.value("domain", nlohmann::json()));
  if (!domain) fail_setup("the agent's store holds a damaged migration: {}", domain.error().text);
  return *std::move(domain);
}

// acl(5), linux/posix_acl_xattr.h: a version, then {tag, permissions, id} of the owner, the group
// and all others. With a default ACL no umask is asked.
Result<> open_what_is_made_in(const std::filesystem::path& directory) {
  struct Entry {
    std::uint16_t tag, permissions;
    std::uint32_t id;
  };
  struct {
    std::uint32_t version = 2;
    Entry entries[3] = {{0x01, 7, ~0U}, {0x04, 7, ~0U}, {0x20, 7, ~0U}};
  } const acl;
  if (::setxattr(directory.c_str(), "system.posix_acl_default", &acl, sizeof acl, 0) == 0 ||
      errno == EOPNOTSUPP) {  // an agent that is root needs none
    return {};
  }
  return fail("{}", errno_text("set the default ACL of " + directory.string()));
}

}  // namespace

nlohmann::json to_json(const LibvirtSourceRecord& record) {
  return {{"move", to_json(record.move)}, {"domain", to_json(record.domain)}};
}

LibvirtSourceRecord libvirt_source_record(const nlohmann::json& json) {
  return {.move = source_record(json.value("move", nlohmann::json::object())),
          .domain = domain_of(json)};
}

nlohmann::json to_json(const LibvirtTargetRecord& record) {
  return {{"id", record.id.text()},
          {"from", record.from},
          {"domain", to_json(record.domain)},
          {"state", migrate::to_text(record.state)},
          {"reason", record.reason},
          {"started", record.started},
          {"by", record.by},
          {"new_disks", record.new_disks}};
}

LibvirtTargetRecord libvirt_target_record(const nlohmann::json& json) {
  const auto id = id_field<MigrationId>(json, "id");
  const auto state = migrate::target_state(json.value("state", ""));
  if (!id || !state) fail_setup("the agent's store holds a damaged migration: {}", json.dump());
  return {.id = *id,
          .from = text_field_or(json, "from", ""),
          .domain = domain_of(json),
          .state = *state,
          .reason = text_field_or(json, "reason", ""),
          .started = json.value("started", std::int64_t{0}),
          .by = text_field_or(json, "by", ""),
          .new_disks = texts_field(json, "new_disks")};
}

LibvirtSockets::LibvirtSockets(const std::filesystem::path& run_dir, const MigrationId& id)
    : directory(run_dir / ("libvirt-" + id.text())),
      memory(directory / "memory"),
      disks(directory / "disks"),
      control(directory / "control") {}

Result<> make_directory(const LibvirtSockets& sockets) {
  std::error_code error;
  if (!std::filesystem::create_directory(sockets.directory, error)) {
    return fail("cannot make {}: {}", sockets.directory.string(),
                error ? error.message() : "it is there already");
  }
  if (::chmod(sockets.directory.c_str(), S_ISVTX | 0733) != 0) {
    return fail("{}", errno_text("chmod " + sockets.directory.string()));
  }
  return open_what_is_made_in(sockets.directory);
}

stream::TransferId tunnel_of(const MigrationId& id) {
  auto bytes = id.bytes;
  for (std::byte& byte : bytes) byte = ~byte;
  return stream::TransferId::from(bytes);
}

std::vector<nbd::Export> exports_of(const libvirt::Domain& domain) {
  std::vector<nbd::Export> exports;
  for (const libvirt::DomainDisk& disk : domain.moving_disks()) {
    exports.push_back({.name = "drive-" + disk.alias, .size = disk.size});
  }
  return exports;
}

}  // namespace godwit::agent
