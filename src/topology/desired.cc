#include "topology/desired.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "base/id.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;

constexpr const char* kNameRule = "use 1 to 63 of a-z, 0-9 and '-'";

class Parser final {
 public:
  explicit Parser(std::string default_name) { desired_.name = std::move(default_name); }

  std::expected<Desired, std::vector<Problem>> parse(const json& file) {
    if (!file.is_object()) {
      problem("", "a topology is a mapping of {}", fmt::join(kSections, ", "));
      return std::unexpected(problems_);
    }
    for (const auto& [key, value] : file.items()) {
      if (std::ranges::find(kSections, key) != kSections.end()) continue;
      problem(pointer_below("", key), "'{}' is none of {}", key, fmt::join(kSections, ", "));
    }
    read_name(file, "name", desired_.name);
    desired_.tenant = "default";
    read_name(file, "tenant", desired_.tenant);
    read_things(file, "components", desired_.components);
    read_things(file, "ports", desired_.ports);
    read_things(file, "vms", desired_.vms);
    for (auto& component : desired_.components) make_list_of_ports(component);
    if (file.contains("wires")) read_wires(file["wires"]);
    if (!problems_.empty()) return std::unexpected(problems_);
    return desired_;
  }

 private:
  static constexpr std::array<const char*, 6> kSections = {"name",  "tenant", "components",
                                                           "ports", "vms",    "wires"};

  template <class... Args>
  void problem(std::string where, fmt::format_string<Args...> format, Args&&... args) {
    problems_.push_back({std::move(where), fmt::format(format, std::forward<Args>(args)...)});
  }

  void read_name(const json& file, const char* key, std::string& into) {
    if (file.contains(key)) into = text_of(file[key]);
    if (!is_valid_name(into))
      problem(pointer_below("", key), "'{}' is no name: {}", into, kNameRule);
  }

  // A name may look like a number.
  static std::string text_of(const json& value) {
    return value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
  }

  void read_things(const json& file, const char* section, std::vector<WantedThing>& into) {
    const std::string where = pointer_below("", section);
    const json things = file.value(section, json());
    if (things.is_null()) return;
    if (!things.is_object()) {
      return problem(where,
                     "'{}' is a mapping of names to settings, like {}: {{ sw1: {{ host: "
                     "east }} }}",
                     section, section);
    }
    for (const auto& [key, settings] : things.items()) {
      read_thing(section, key, settings, pointer_below(where, key), into);
    }
  }

  // The key is a name, or HOST/NAME where two hosts have one of that name.
  void read_thing(const char* section, const std::string& key, const json& settings,
                  const std::string& where, std::vector<WantedThing>& into) {
    const std::string noun(section, std::string_view(section).size() - 1);
    if (!settings.is_object()) {
      return problem(where, "{} '{}' needs settings, at least host: HOST", noun, key);
    }
    const std::size_t slash = key.find('/');
    WantedThing thing{.place = slash == std::string::npos ? "" : key.substr(0, slash),
                      .name = slash == std::string::npos ? key : key.substr(slash + 1),
                      .tenant = desired_.tenant,
                      .settings = settings,
                      .where = where};
    const std::string host = text_of(settings.value("host", json()));
    if (!thing.place.empty() && !host.empty() && host != thing.place) {
      problem(pointer_below(where, "host"), "{} '{}' is at host '{}' by its key and at '{}' here",
              noun, key, thing.place, host);
    }
    if (thing.place.empty()) thing.place = host;
    if (thing.place.empty()) {
      problem(where, "{} '{}' is nowhere: add host: with the name of a host or a site", noun, key);
    }
    if (!is_valid_name(thing.name)) {
      problem(where, "'{}' is no name of a {}: {}", thing.name, noun, kNameRule);
    }
    if (settings.contains("tenant")) thing.tenant = text_of(settings["tenant"]);
    if (!is_valid_name(thing.tenant)) {
      problem(pointer_below(where, "tenant"), "'{}' is no name of a tenant: {}", thing.tenant,
              kNameRule);
    }
    for (const char* said : {"host", "tenant", "name", "topology"}) thing.settings.erase(said);
    into.push_back(std::move(thing));
  }

  // `ports` as a mapping of names to settings, or as the API has them.
  void make_list_of_ports(WantedThing& component) {
    if (!component.settings.contains("ports")) return;
    const json ports = component.settings["ports"];
    const std::string where = pointer_below(component.where, "ports");
    json list = json::array();
    std::size_t index = 0;
    for (const auto& [key, settings] : ports.items()) {
      const std::string at = pointer_below(where, ports.is_array() ? std::to_string(index++) : key);
      json port = settings.is_null() ? json::object() : settings;
      if (settings.is_string() && ports.is_array()) port = {{"name", settings}};
      if (!port.is_object()) {
        problem(at, "a port of component '{}' is a name with settings, like web: {{ access: 10 }}",
                component.name);
        continue;
      }
      if (ports.is_object()) port["name"] = key;
      port["name"] = text_of(port.value("name", json()));
      const std::string name = component.name + "-" + port["name"].get<std::string>();
      if (!is_valid_name(name)) problem(at, "'{}' is no name of a port: {}", name, kNameRule);
      for (const json& other : list) {
        if (other["name"] == port["name"]) problem(at, "there are two ports '{}'", name);
      }
      list.push_back(std::move(port));
    }
    component.settings["ports"] = std::move(list);
  }

  void read_wires(const json& wires) {
    if (wires.is_null()) return;
    if (!wires.is_array())
      return problem("/wires", "'wires' is a list of pairs: - [sw1-web, lan0]");
    std::map<std::string, std::string> wired;
    for (std::size_t i = 0; i < wires.size(); ++i) {
      const std::string where = pointer_below("/wires", std::to_string(i));
      const json& wire = wires[i];
      const bool is_pair = wire.is_array() && wire.size() == 2;
      const bool is_named = wire.is_object() && wire.contains("a") && wire.contains("b");
      if (!is_pair && !is_named) {
        problem(where, "a wire is a pair of ports: [sw1-web, lan0], or of HOST/PORT");
        continue;
      }
      const WantedWire wanted{.a = text_of(is_pair ? wire[0] : wire["a"]),
                              .b = text_of(is_pair ? wire[1] : wire["b"]),
                              .where = where};
      for (const auto& end : {wanted.a, wanted.b}) {
        const auto [other, is_first] = wired.try_emplace(end, where);
        if (is_first) continue;
        problem(where,
                "port '{}' has another wire in this file: a port has one, a switch many ports",
                end);
      }
      desired_.wires.push_back(wanted);
    }
  }

  Desired desired_;
  std::vector<Problem> problems_;
};

}  // namespace

std::expected<Desired, std::vector<Problem>> parse(const json& file,
                                                   const std::string& default_name) {
  return Parser(default_name).parse(file);
}

}  // namespace godwit::topology
