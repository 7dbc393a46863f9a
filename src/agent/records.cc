#include "agent/records.hh"

#include <algorithm>
#include <limits>

#include "base/host_name.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

template <class T>
T must(Result<T> value) {
  if (!value) fail_setup("the agent's store holds a damaged record: {}", value.error().text);
  return *std::move(value);
}

// 0 if it is missing, negative or no integer. Values made here may be of the signed kind.
std::uint64_t count_field(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = qemu::member(object, key);
  if (!value.is_number_integer()) return 0;
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  return static_cast<std::uint64_t>(std::max<std::int64_t>(value.get<std::int64_t>(), 0));
}

}  // namespace

std::string_view to_text(PortKind kind) {
  switch (kind) {
    case PortKind::nic:
      return "nic";
    case PortKind::bridge:
      return "bridge";
    case PortKind::uplink:
      return "uplink";
    case PortKind::component:
      return "component";
  }
  return "?";
}

std::optional<PortKind> port_kind(std::string_view text) {
  if (text == "nic") return PortKind::nic;
  if (text == "bridge") return PortKind::bridge;
  if (text == "uplink") return PortKind::uplink;
  if (text == "component") return PortKind::component;
  return std::nullopt;
}

Result<std::string> text_field(const nlohmann::json& object, const char* key) {
  if (!object.is_object() || !object.contains(key)) return fail("'{}' is missing", key);
  const auto& value = object[key];
  if (!value.is_string()) return fail("'{}' must be a text", key);
  return value.get<std::string>();
}

std::string text_field_or(const nlohmann::json& object, const char* key,
                          std::string_view fallback) {
  return text_field(object, key).value_or(std::string(fallback));
}

std::vector<std::string> texts_field(const nlohmann::json& object, const char* key) {
  std::vector<std::string> texts;
  for (const auto& each : array_field(object, key)) {
    if (each.is_string()) texts.push_back(each.get<std::string>());
  }
  return texts;
}

const nlohmann::json& array_field(const nlohmann::json& object, const char* key) {
  static const nlohmann::json kNone = nlohmann::json::array();
  const nlohmann::json& value = qemu::member(object, key);
  return value.is_array() ? value : kNone;
}

Result<bool> flag_field(const nlohmann::json& object, const char* key, bool fallback) {
  const nlohmann::json& value = qemu::member(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) return fail("'{}' must be true or false", key);
  return value.get<bool>();
}

Epoch epoch_field(const nlohmann::json& object, const char* key, Epoch fallback) {
  const std::uint64_t value = count_field(object, key);
  // One is left so that the next move can count up.
  const bool usable = value > 0 && value < std::numeric_limits<Epoch>::max();
  return usable ? static_cast<Epoch>(value) : fallback;
}

nlohmann::json to_json(const std::vector<GuestAddress>& guest) {
  nlohmann::json list = nlohmann::json::array();
  for (const GuestAddress& each : guest) {
    nlohmann::json one = {{"address", each.address.text()}};
    if (each.locator) one["locator"] = each.locator->text();
    if (each.new_address) one["new_address"] = each.new_address->text();
    list.push_back(std::move(one));
  }
  return list;
}

Result<std::vector<GuestAddress>> parse_guest(const nlohmann::json& json) {
  std::vector<GuestAddress> guest;
  if (json.is_null()) return guest;
  if (!json.is_array() || json.size() > kMostGuestAddresses) {
    return fail("a guest's addresses are a list of at most {}", kMostGuestAddresses);
  }
  for (const auto& each : json) {
    // As an operator says it, or as we tell it.
    const auto address =
        parse_ip(each.is_string() ? each.get<std::string>() : text_field_or(each, "address", ""));
    if (!address) return std::unexpected(address.error());
    if (address->is_unspecified() || address->is_loopback() || address->is_multicast() ||
        address->is_link_local()) {
      return fail("{} is no address that a guest has in a routed network", address->text());
    }
    if (std::ranges::any_of(guest, [&](const auto& one) { return one.address == *address; })) {
      return fail("a guest has address {} once", address->text());
    }
    guest.push_back({.address = *address});
    for (const auto& [key, member] : {std::pair("locator", &GuestAddress::locator),
                                      std::pair("new_address", &GuestAddress::new_address)}) {
      if (!each.is_object() || !each.contains(key)) continue;
      const auto other = parse_ip(text_field_or(each, key, ""));
      if (!other) return std::unexpected(other.error());
      guest.back().*member = *other;
    }
  }
  return guest;
}

std::vector<Ip> addresses_of(const std::vector<GuestAddress>& guest) {
  std::vector<Ip> addresses;
  for (const GuestAddress& each : guest) addresses.push_back(each.address);
  return addresses;
}

nlohmann::json to_json(const PortRecord& record) {
  nlohmann::json json = {{"id", record.id.text()},          {"name", record.name},
                         {"tenant", record.tenant},         {"kind", to_text(record.kind)},
                         {"epoch", record.epoch},           {"vm", record.vm},
                         {"component", record.component},   {"bridge", record.bridge},
                         {"interface", record.interface},   {"address", record.address},
                         {"masquerade", record.masquerade}, {"topology", record.topology}};
  if (!record.guest.empty()) json["guest_addresses"] = to_json(record.guest);
  return json;
}

Result<PortRecord> parse_port(const nlohmann::json& json) {
  const auto kind = port_kind(text_field_or(json, "kind", ""));
  if (!kind) return fail("a port of unknown kind");
  const auto id = id_field<PortId>(json, "id");
  if (!id) return std::unexpected(id.error());
  PortRecord record{.id = *id,
                    .name = text_field_or(json, "name", ""),
                    .tenant = text_field_or(json, "tenant", ""),
                    .kind = *kind,
                    .epoch = epoch_field(json, "epoch", 1),
                    .vm = text_field_or(json, "vm", ""),
                    .component = text_field_or(json, "component", ""),
                    .bridge = text_field_or(json, "bridge", ""),
                    .interface = text_field_or(json, "interface", ""),
                    .address = text_field_or(json, "address", ""),
                    .masquerade = flag_field(json, "masquerade", false).value_or(false),
                    .topology = text_field_or(json, "topology", "")};
  auto guest = parse_guest(qemu::member(json, "guest_addresses"));
  if (!guest) return std::unexpected(guest.error());
  record.guest = *std::move(guest);
  if (record.id.is_zero() || !is_valid_name(record.name) || !is_valid_name(record.tenant)) {
    return fail("port {} has no valid name or tenant", record.id.text());
  }
  return record;
}

PortRecord port_record(const nlohmann::json& json) { return must(parse_port(json)); }

std::string_view store_kind(const WireRecord& record) {
  return is_foreign(record.remote_host) ? kForeignWire : "wire";
}

nlohmann::json to_json(const WireRecord& record) {
  return {{"id", record.id.text()},
          {"tenant", record.tenant},
          {"local", record.local.text()},
          {"remote", record.remote.text()},
          {"remote_name", record.remote_name},
          {"remote_host", record.remote_host},
          {"remote_epoch", record.remote_epoch},
          {"topology", record.topology}};
}

Result<WireRecord> parse_wire(const nlohmann::json& json) {
  const auto id = id_field<WireId>(json, "id");
  const auto local = id_field<PortId>(json, "local");
  const auto remote = id_field<PortId>(json, "remote");
  if (!id) return std::unexpected(id.error());
  if (!local) return std::unexpected(local.error());
  if (!remote) return std::unexpected(remote.error());
  WireRecord record{.id = *id,
                    .tenant = text_field_or(json, "tenant", ""),
                    .local = *local,
                    .remote = *remote,
                    .remote_name = text_field_or(json, "remote_name", ""),
                    .remote_host = text_field_or(json, "remote_host", ""),
                    .remote_epoch = epoch_field(json, "remote_epoch", 1),
                    .topology = text_field_or(json, "topology", "")};
  if (record.local == record.remote || !is_valid_name(record.tenant) ||
      !is_valid_name(record.remote_name) || !is_valid_host(record.remote_host)) {
    return fail("wire {} has no valid ends", record.id.text());
  }
  return record;
}

WireRecord wire_record(const nlohmann::json& json) { return must(parse_wire(json)); }

nlohmann::json to_json(const VmRecord& record) {
  return {{"spec", qemu::to_json(record.spec)},
          {"pid", record.process.pid},
          {"start_time", record.process.start_time},
          {"stopped", record.stopped},
          {"arriving", record.arriving ? record.arriving->text() : ""}};
}

VmRecord vm_record(const nlohmann::json& json) {
  return {.spec = must(qemu::vm_spec_from_json(qemu::member(json, "spec"))),
          .process = {.pid = static_cast<pid_t>(count_field(json, "pid")),
                      .start_time = count_field(json, "start_time")},
          .stopped = text_field_or(json, "stopped", ""),
          .arriving = MigrationId::parse(text_field_or(json, "arriving", ""))};
}

}  // namespace godwit::agent
