#include "agent/target_record.hh"

namespace godwit::agent {

nlohmann::json to_json(const TargetRecord& record) {
  return {{"id", record.id.text()},
          {"from", record.from},
          {"state", migrate::to_text(record.state)},
          {"reason", record.reason},
          {"started", record.started},
          {"by", record.by},
          {"spec", qemu::to_json(record.spec)},
          {"ports", record.ports},
          {"uplinks", record.uplinks},
          {"leading", to_json(record.leading)},
          {"epoch", record.epoch},
          {"second_nic", record.second_nic.text()},
          {"flip", record.flip},
          {"clock", record.clock},
          {"hooks", record.hooks},
          {"refusal_told", record.refusal_told},
          {"restarted", record.restarted},
          {"postcopy", record.postcopy},
          {"memory_follows", record.memory_follows},
          {"shared_disks", record.shared_disks}};
}

TargetRecord target_record(const nlohmann::json& json) {
  TargetRecord record;
  const auto id = id_field<MigrationId>(json, "id");
  const auto state = migrate::target_state(json.value("state", ""));
  const auto spec = qemu::vm_spec_from_json(json.value("spec", nlohmann::json()));
  if (!id || !state || !spec) {
    fail_setup("the agent's store holds a damaged migration: {}", json.dump());
  }
  record.id = *id;
  record.state = *state;
  record.spec = *spec;
  record.from = text_field_or(json, "from", "");
  record.reason = text_field_or(json, "reason", "");
  record.started = json.value("started", std::int64_t{0});
  record.by = text_field_or(json, "by", "");
  record.ports = array_field(json, "ports");
  record.uplinks = array_field(json, "uplinks");
  record.leading = leading_of(json);
  record.epoch = epoch_field(json, "epoch", 1);
  record.second_nic = id_field<PortId>(json, "second_nic").value_or(PortId{});
  record.flip = json.value("flip", nlohmann::json());
  record.clock = json.value("clock", nlohmann::json());
  record.hooks = json.value("hooks", nlohmann::json());
  record.refusal_told = json.value("refusal_told", true);
  record.restarted = json.value("restarted", false);
  record.postcopy = json.value("postcopy", false);
  record.memory_follows = json.value("memory_follows", false);
  record.shared_disks = json.value("shared_disks", false);
  return record;
}

}  // namespace godwit::agent
