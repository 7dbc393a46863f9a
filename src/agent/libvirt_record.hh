#pragma once
// What the journal has of a libvirt domain's move, at its source and at its target; and names that
// both agree on.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/source_record.hh"
#include "libvirt/domain_xml.hh"
#include "nbd/export.hh"
#include "stream/transfer_frame.hh"

namespace godwit::agent {

// Of a session, from which on a libvirt domain may move.
inline constexpr unsigned kLibvirtProtocol = 9;
// "libvirt:web1" is the domain web1.
inline constexpr std::string_view kLibvirtPrefix = "libvirt:";
// libvirt's domains are of none: who sees every tenant sees them.
inline constexpr std::string_view kNoTenant;

// kind "libvirt-source", by id.
struct LibvirtSourceRecord {
  SourceRecord move;  // vm: with the prefix
  libvirt::Domain domain;
};
nlohmann::json to_json(const LibvirtSourceRecord& record);
LibvirtSourceRecord libvirt_source_record(const nlohmann::json& json);

// kind "libvirt-target", by id.
struct LibvirtTargetRecord {
  MigrationId id;
  std::string from;
  libvirt::Domain domain;
  migrate::TargetState state = migrate::TargetState::preparing;
  std::string reason;
  std::int64_t started = 0;  // seconds since 1970
  std::string by;
  std::vector<std::string> new_disks;  // paths; libvirt makes them, and they go if it fails
};
nlohmann::json to_json(const LibvirtTargetRecord& record);
LibvirtTargetRecord libvirt_target_record(const nlohmann::json& json);

// Where a move's sockets are: at the same place at both hosts, as libvirt gives it to both QEMUs.
// AppArmor has to be told of it (docs: README, "libvirt").
struct LibvirtSockets {
  LibvirtSockets(const std::filesystem::path& run_dir, const MigrationId& id);
  std::filesystem::path directory;
  std::filesystem::path memory, disks;  // QEMU's
  std::filesystem::path control;        // at the source: the target's libvirt
};
// Open to any user who knows its name, which nobody can guess: libvirt decides what its QEMU runs
// as. What is made in it, too.
Result<> make_directory(const LibvirtSockets& sockets);

// Names the tunnel to the target's libvirt, where a transfer's lanes name the transfer.
stream::TransferId tunnel_of(const MigrationId& id);

// As libvirt names and sizes them.
std::vector<nbd::Export> exports_of(const libvirt::Domain& domain);

}  // namespace godwit::agent
