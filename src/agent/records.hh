#pragma once
// What the agent keeps in its store, by kind: values and their JSON form. A record that does not
// parse is damage, not input: SetupError.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/id.hh"
#include "base/ip.hh"
#include "migrate/state.hh"
#include "os/child.hh"
#include "qemu/vm_spec.hh"

namespace godwit::agent {

using godwit::to_text;  // durations: argument-dependent lookup does not reach it

inline constexpr std::string_view kDefaultTenant = "default";

enum class PortKind : std::uint8_t { nic, bridge, uplink, component };
std::string_view to_text(PortKind kind);
std::optional<PortKind> port_kind(std::string_view text);

// Of the guest behind an uplink, in a routed network.
struct GuestAddress {
  Ip address{};
  std::optional<Ip> locator{};  // by which it is reached where it is not at home
  // Or, where its own means nothing: what its new connections have for others (strategy endpoint).
  std::optional<Ip> new_address{};
  bool operator==(const GuestAddress&) const = default;
};
nlohmann::json to_json(const std::vector<GuestAddress>& guest);
Result<std::vector<GuestAddress>> parse_guest(const nlohmann::json& json);
std::vector<Ip> addresses_of(const std::vector<GuestAddress>& guest);
inline constexpr std::size_t kMostGuestAddresses = 16;

// kind "port", by id.
struct PortRecord {
  PortId id;
  std::string name;
  std::string tenant{kDefaultTenant};
  PortKind kind = PortKind::nic;
  Epoch epoch = 1;
  std::string vm;         // nic: the vm that has it, if any
  std::string component;  // component: which
  std::string bridge;     // bridge: the existing Linux bridge
  std::string interface;  // the interface in the host's stack (uplink, bridge) or QEMU's TAP (nic)
  std::string address;    // uplink: "10.9.0.1/24", optional
  bool masquerade = false;  // uplink: what comes from there leaves with the host's address
  std::string topology{};   // which made it, if any: what its next `apply --prune` may remove
  // uplink: it is one guest's, and the host routes these to it (os/guest_route.hh).
  std::vector<GuestAddress> guest{};
};

// kind: store_kind(), by local port: one end, as the owner of that port knows it. A wire
// whose ports are both here has two.
struct WireRecord {
  WireId id;
  std::string tenant{kDefaultTenant};
  PortId local;
  PortId remote;
  std::string remote_name;  // of the port
  std::string remote_host;  // where it was last known to be; may be this host
  Epoch remote_epoch = 1;
  std::string topology{};  // as of a port
};

// Wires to other fleets are apart: the release before takes such a host's name for damage.
inline constexpr std::string_view kForeignWire = "foreign-wire";
std::string_view store_kind(const WireRecord& record);

// kind "vm", by name.
struct VmRecord {
  qemu::VmSpec spec;
  os::ProcessIdentity process;
  std::string stopped;  // why it does not run any more; empty while it does
  // The migration that brings it here, until it has run here: only that one may start or discard
  // it.
  std::optional<MigrationId> arriving;
};

nlohmann::json to_json(const PortRecord& record);
nlohmann::json to_json(const WireRecord& record);
nlohmann::json to_json(const VmRecord& record);
PortRecord port_record(const nlohmann::json& json);
WireRecord wire_record(const nlohmann::json& json);
VmRecord vm_record(const nlohmann::json& json);

// The same records as a peer sends them: input, refused with a reason.
Result<PortRecord> parse_port(const nlohmann::json& json);
Result<WireRecord> parse_wire(const nlohmann::json& json);

// Fields of a peer's or a client's JSON, of which any may be missing or of another type: nothing
// here throws, an error names the field. (nlohmann's value() and at() throw on a wrong type, which
// would end the agent.)
Result<std::string> text_field(const nlohmann::json& object, const char* key);
std::string text_field_or(const nlohmann::json& object, const char* key, std::string_view fallback);
std::vector<std::string> texts_field(const nlohmann::json& object, const char* key);
// An empty array if it is missing or no array.
const nlohmann::json& array_field(const nlohmann::json& object, const char* key);
// Absent: the fallback. The error is for a value that is there and is not true or false.
Result<bool> flag_field(const nlohmann::json& object, const char* key, bool fallback);
// From 1 on; the fallback if it is missing, not an integer or out of range.
Epoch epoch_field(const nlohmann::json& object, const char* key, Epoch fallback);
template <class AnId>
Result<AnId> id_field(const nlohmann::json& object, const char* key) {
  const auto text = text_field(object, key);
  if (!text) return std::unexpected(text.error());
  const auto id = AnId::parse(*text);
  if (!id) return fail("'{}': '{}' is not an id of 32 hex digits", key, *text);
  return *id;
}

}  // namespace godwit::agent
