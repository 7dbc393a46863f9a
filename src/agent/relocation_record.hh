#pragma once
// What a host keeps of a guest's uplink that follows it to there.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/records.hh"
#include "agent/source_record.hh"
#include "translate/rollout.hh"

namespace godwit::agent {

// kind "relocation", by port.
struct RelocationRecord {
  PortId port;
  std::string name;          // of the port
  std::string from;          // host
  nlohmann::json described;  // port and wire, as the source's agent said
  Epoch epoch = 0;           // of the port here, and of the rules
  std::vector<translate::AddressMove> addresses;
  translate::Phase reached = translate::Phase::before, wanted = translate::Phase::staged;
  bool here = false;         // the uplink is
  bool source_told = false;  // that it may forget its own
  Strategy strategy = Strategy::nat;
  nlohmann::json lead{};  // what the strategy keeps of its own (lead.hh); null: nothing
};
nlohmann::json to_json(const RelocationRecord& record);
RelocationRecord relocation_record(const nlohmann::json& json);
// The guest as its uplink has it there: without a locator where it is at home.
std::vector<GuestAddress> guest_at(const translate::Fabric& fabric, translate::DeviceIndex host,
                                   const std::vector<translate::AddressMove>& addresses);

}  // namespace godwit::agent
