#include "agent/relocation_record.hh"

#include "qemu/json.hh"
#include "translate/rule_json.hh"

namespace godwit::agent {

nlohmann::json to_json(const RelocationRecord& record) {
  nlohmann::json addresses = nlohmann::json::array();
  for (const auto& each : record.addresses) {
    addresses.push_back({{"address", each.address.text()},
                         {"from_locator", each.from_locator ? each.from_locator->text() : ""},
                         {"to_locator", each.to_locator.text()}});
  }
  return {{"port", record.port.text()},
          {"name", record.name},
          {"from", record.from},
          {"described", record.described},
          {"epoch", record.epoch},
          {"addresses", addresses},
          {"reached", translate::to_text(record.reached)},
          {"wanted", translate::to_text(record.wanted)},
          {"here", record.here},
          {"source_told", record.source_told},
          {"strategy", to_text(record.strategy)},
          {"lead", record.lead}};
}

RelocationRecord relocation_record(const nlohmann::json& json) {
  const auto damaged = [&](const Error& error) {
    fail_setup("the agent's store holds a damaged relocation: {}", error.text);
  };
  RelocationRecord record;
  const auto port = id_field<PortId>(json, "port");
  if (!port) damaged(port.error());
  record.port = *port;
  record.name = text_field_or(json, "name", "");
  record.from = text_field_or(json, "from", "");
  record.described = qemu::member(json, "described");
  record.epoch = epoch_field(json, "epoch", 1);
  for (const auto& each : array_field(json, "addresses")) {
    const auto address = parse_ip(text_field_or(each, "address", ""));
    const auto to = parse_ip(text_field_or(each, "to_locator", ""));
    if (!address) damaged(address.error());
    if (!to) damaged(to.error());
    const auto from = parse_ip(text_field_or(each, "from_locator", ""));
    record.addresses.push_back({.address = *address,
                                .from_locator = from ? std::optional(*from) : std::nullopt,
                                .to_locator = *to});
  }
  const auto reached = translate::parse_phase(text_field_or(json, "reached", ""));
  const auto wanted = translate::parse_phase(text_field_or(json, "wanted", ""));
  if (!reached) damaged(reached.error());
  if (!wanted) damaged(wanted.error());
  record.reached = *reached;
  record.wanted = *wanted;
  record.here = qemu::flag_at(json, "here");
  record.source_told = qemu::flag_at(json, "source_told");
  // A version that knew no other did not say it.
  const std::string said = text_field_or(json, "strategy", to_text(Strategy::nat));
  const auto known = strategy(said);
  if (!known) damaged({"no strategy is called " + said});
  record.strategy = *known;
  record.lead = qemu::member(json, "lead");
  return record;
}

std::vector<GuestAddress> guest_at(const translate::Fabric& fabric, translate::DeviceIndex host,
                                   const std::vector<translate::AddressMove>& addresses) {
  std::vector<GuestAddress> guest;
  for (const auto& each : addresses) {
    guest.push_back({.address = each.address});
    if (!fabric.is_home(host, each.address)) guest.back().locator = each.to_locator;
  }
  return guest;
}

}  // namespace godwit::agent
