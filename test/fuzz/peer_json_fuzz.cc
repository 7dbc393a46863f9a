// The JSON that peers and clients send to an agent, as far as it is read: descriptions of vms,
// ports, wires, hosts, the outcome of hooks and clocks. An object is understood or refused, nothing
// throws, and what is understood means the same when it is written and read again.
#include <nlohmann/json.hpp>

#include "agent/clock.hh"
#include "agent/hooks.hh"
#include "agent/records.hh"
#include "base/check.hh"
#include "qemu/commands.hh"
#include "qemu/host.hh"
#include "qemu/vm_spec.hh"
#include "session/join_messages.hh"
#include "session/json_body.hh"

namespace {

using namespace godwit;
using nlohmann::json;

void fields(const json& object) {
  (void)agent::text_field(object, "id");
  (void)agent::texts_field(object, "ports");
  (void)agent::array_field(object, "nics");
  (void)agent::flag_field(object, "hold", false);
  (void)agent::epoch_field(object, "epoch", 1);
  (void)agent::id_field<MigrationId>(object, "id");
  (void)qemu::migration_info(object);
}

void values(const json& object) {
  if (const auto spec = qemu::vm_spec_from_json(object)) {
    CHECK(qemu::vm_spec_from_json(qemu::to_json(*spec)).value() == *spec);
  }
  if (const auto port = agent::parse_port(object)) {
    CHECK(agent::to_json(agent::port_record(agent::to_json(*port))) == agent::to_json(*port));
  }
  if (const auto wire = agent::parse_wire(object)) {
    CHECK(agent::to_json(agent::wire_record(agent::to_json(*wire))) == agent::to_json(*wire));
  }
  if (const auto host = session::known_host_from_json(object)) {
    CHECK(session::to_json(session::known_host_from_json(session::to_json(*host)).value()) ==
          session::to_json(*host));
  }
  if (const auto host = qemu::host_capabilities_from_json(object)) (void)qemu::to_json(*host);
  const auto hooks = agent::hook_outcome(object);
  CHECK(hooks.took >= Nanoseconds(0) && hooks.failure.size() <= 1024);
  CHECK(agent::clock_report(object).why.size() <= 1024);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto body = session::parse_json_body(std::as_bytes(std::span(data, size)));
  if (!body) return 0;
  fields(*body);
  values(*body);
  (void)session::printable(session::json_text(*body));
  return 0;
}
