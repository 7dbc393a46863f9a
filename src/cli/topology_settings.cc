#include "cli/topology_settings.hh"

#include "fabric/component.hh"

namespace godwit::cli {
namespace {

using nlohmann::json;

void take_form(json& said, const json& shown) {
  for (auto& [key, value] : said.items()) {
    if (key != "ports" && shown.contains(key)) value = shown[key];
  }
}

void take_form_of_ports(json& ports, const json& shown) {
  for (json& port : ports) {
    for (const json& other : shown) {
      if (other["name"] == port["name"]) take_form(port, other);
    }
  }
}

}  // namespace

std::vector<Problem> read_settings(topology::Desired& desired) {
  std::vector<Problem> problems;
  for (topology::WantedThing& component : desired.components) {
    json request = component.settings;
    request["name"] = component.name;
    request["tenant"] = component.tenant;
    const auto record = fabric::new_component(request);
    if (!record) {
      problems.push_back({component.where,
                          fmt::format("component '{}': {}", component.name, record.error().text)});
      continue;
    }
    component.whole = fabric::whole(*record);
    take_form(component.settings, component.whole);
    if (component.settings.contains("ports")) {
      take_form_of_ports(component.settings["ports"], component.whole["ports"]);
    }
  }
  return problems;
}

}  // namespace godwit::cli
