#pragma once
// What the target of a migration keeps of it in its store.
#include <nlohmann/json.hpp>
#include <string>

#include "agent/source_record.hh"
#include "migrate/state.hh"

namespace godwit::agent {

// kind "migration-target", by id.
struct TargetRecord {
  MigrationId id;
  std::string from;  // host
  migrate::TargetState state = migrate::TargetState::planned;
  std::string reason;
  std::int64_t started = 0;  // seconds since 1970
  std::string by{};          // who asked for it at the source, by the source's word
  qemu::VmSpec spec;
  nlohmann::json ports;                              // as the source described them
  nlohmann::json uplinks = nlohmann::json::array();  // that follow it, as it did
  Leading leading{};
  Epoch epoch = 0;
  PortId second_nic{};          // that is to be the vm's way from now on; zero: none
  nlohmann::json flip{};        // to it, once it is through
  nlohmann::json clock{};       // see ClockReport
  nlohmann::json hooks{};       // of post-resume: {ms, ran, failure?}, once they are through
  bool refusal_told = true;     // false while the source has not heard of a failure here
  bool restarted = false;       // that this agent was is why it was refused
  bool postcopy = false;        // may come to it
  bool memory_follows = false;  // it came to it, and QEMU has not got all yet
  bool shared_disks = false;    // we see the source's: they are not copied
};
nlohmann::json to_json(const TargetRecord& record);
TargetRecord target_record(const nlohmann::json& json);

}  // namespace godwit::agent
