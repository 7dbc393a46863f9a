#include "agent/records.hh"

namespace godwit::agent {
namespace {

template <class T>
T must(Result<T> value) {
  if (!value) fail_setup("the agent's store holds a damaged record: {}", value.error().text);
  return *std::move(value);
}

std::string text(const nlohmann::json& json, const char* key) {
  return must(text_field(json, key));
}

}  // namespace

std::string_view to_text(PortKind kind) {
  switch (kind) {
    case PortKind::nic: return "nic";
    case PortKind::bridge: return "bridge";
    case PortKind::uplink: return "uplink";
  }
  return "?";
}

std::optional<PortKind> port_kind(std::string_view text) {
  if (text == "nic") return PortKind::nic;
  if (text == "bridge") return PortKind::bridge;
  if (text == "uplink") return PortKind::uplink;
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

nlohmann::json to_json(const PortRecord& record) {
  return {{"id", record.id.text()},       {"name", record.name},
          {"tenant", record.tenant},      {"kind", to_text(record.kind)},
          {"epoch", record.epoch},        {"vm", record.vm},
          {"bridge", record.bridge},      {"interface", record.interface},
          {"address", record.address}};
}

PortRecord port_record(const nlohmann::json& json) {
  const auto kind = port_kind(text(json, "kind"));
  if (!kind) fail_setup("the agent's store holds a port of unknown kind");
  return {.id = must(id_field<PortId>(json, "id")),
          .name = text(json, "name"),
          .tenant = text(json, "tenant"),
          .kind = *kind,
          .epoch = json.value("epoch", Epoch{1}),
          .vm = text(json, "vm"),
          .bridge = text(json, "bridge"),
          .interface = text(json, "interface"),
          .address = text(json, "address")};
}

nlohmann::json to_json(const WireRecord& record) {
  return {{"id", record.id.text()},           {"tenant", record.tenant},
          {"local", record.local.text()},     {"remote", record.remote.text()},
          {"remote_name", record.remote_name}, {"remote_host", record.remote_host},
          {"remote_epoch", record.remote_epoch}};
}

WireRecord wire_record(const nlohmann::json& json) {
  return {.id = must(id_field<WireId>(json, "id")),
          .tenant = text(json, "tenant"),
          .local = must(id_field<PortId>(json, "local")),
          .remote = must(id_field<PortId>(json, "remote")),
          .remote_name = text(json, "remote_name"),
          .remote_host = text(json, "remote_host"),
          .remote_epoch = json.value("remote_epoch", Epoch{1})};
}

nlohmann::json to_json(const VmRecord& record) {
  return {{"spec", qemu::to_json(record.spec)},
          {"pid", record.process.pid},
          {"start_time", record.process.start_time},
          {"stopped", record.stopped}};
}

VmRecord vm_record(const nlohmann::json& json) {
  return {.spec = must(qemu::vm_spec_from_json(json.at("spec"))),
          .process = {.pid = json.value("pid", pid_t{-1}),
                      .start_time = json.value("start_time", std::uint64_t{0})},
          .stopped = text(json, "stopped")};
}

}  // namespace godwit::agent
