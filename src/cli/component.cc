// godwit component ls|show|macs|add|set|rm
#include <algorithm>
#include <charconv>
#include <cmath>
#include <ostream>

#include "cli/options.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

struct Wish {
  std::string name, type, tenant, mirror, ageing;
  std::vector<std::string> ports, removed, macs;
  std::optional<unsigned> count, most_macs;
  bool snoops = false, floods = false;  // neither: as it was
};

unsigned number_in(const std::string& text, const std::string& option) {
  unsigned value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc{} && parsed.ptr == text.data() + text.size()) return value;
  throw CLI::ValidationError("--port", fmt::format("'{}' is no number in '{}'", text, option));
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find(at, begin);
    parts.push_back(text.substr(begin, end - begin));
  }
  return parts;
}

// "web,access=10,isolated", "up,trunk=10+20,native=1" as the API has it; the agent checks values.
json port_of(const std::string& text) {
  const auto words = split(text, ',');
  json port = {{"name", words[0]}};
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& word = words[i];
    const std::size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (word == "isolated" || word == "stretched" || word == "mirrored") {
      port[word] = true;
    } else if (word == "trunk") {
      port["trunk"] = json::array();  // of all
    } else if (key == "isolated" || key == "stretched" || key == "mirrored") {
      port[key] = value != "no";
    } else if (key == "access" || key == "native") {
      port[key] = number_in(value, word);
    } else if (key == "flood") {
      port["flooded_per_s"] = number_in(value, word);
    } else if (key == "trunk") {
      port["trunk"] = json::array();
      for (const auto& vlan : split(value, '+')) port["trunk"].push_back(number_in(vlan, word));
    } else {
      throw CLI::ValidationError(
          "--port", fmt::format("'{}' of '{}' is none of access=, trunk=, native=, flood=, "
                                "isolated, stretched, mirrored",
                                word, text));
    }
  }
  return port;
}

// "52:54:00:12:34:56@web,10"
json mac_of(const std::string& text) {
  const std::size_t at = text.find('@');
  if (at == std::string::npos) {
    throw CLI::ValidationError("--mac", fmt::format("'{}' is not MAC@PORT[,VLAN]", text));
  }
  const auto where = split(text.substr(at + 1), ',');
  json mac = {{"mac", text.substr(0, at)}, {"port", where[0]}};
  if (where.size() > 1) mac["vlan"] = number_in(where[1], text);
  return mac;
}

json body_of(const Wish& wish) {
  json body = json::object();
  json ports = json::array();
  for (unsigned i = 1; i <= wish.count.value_or(0); ++i) {
    ports.push_back({{"name", std::to_string(i)}});
  }
  for (const auto& port : wish.ports) ports.push_back(port_of(port));
  if (!ports.empty()) body["ports"] = ports;
  for (const auto& port : wish.removed) body["remove_ports"].push_back(port);
  for (const auto& mac : wish.macs) body["macs"].push_back(mac_of(mac));
  if (!wish.mirror.empty()) body["mirror"] = wish.mirror == "none" ? "" : wish.mirror;
  if (!wish.ageing.empty()) {
    body["ageing_s"] = parse_duration(wish.ageing).value() / seconds(1);
  }
  if (wish.most_macs) body["most_macs"] = *wish.most_macs;
  if (wish.snoops || wish.floods) body["snooping"] = wish.snoops;
  return body;
}

std::string vlans_of(const json& port) {
  if (port.contains("access")) return text_of(port, "access");
  const json trunk = port.value("trunk", json::array());
  std::string vlans = trunk.empty() ? "all" : "";
  for (const json& vlan : trunk) vlans += (vlans.empty() ? "" : "+") + vlan.dump();
  const double native = number_of(port, "native");
  return native == 0 ? vlans : fmt::format("{}, native {}", vlans, native);
}

std::string traits_of(const json& port) {
  std::vector<std::string> traits;
  for (const char* trait : {"isolated", "stretched", "mirrored"}) {
    if (port.value(trait, false)) traits.emplace_back(trait);
  }
  if (port.contains("flooded_per_s")) traits.push_back("flood=" + text_of(port, "flooded_per_s"));
  return traits.empty() ? "-" : fmt::format("{}", fmt::join(traits, ","));
}

std::string drops_of(const json& port) {
  std::string drops;
  for (const auto& [cause, count] : port.value("drops", json::object()).items()) {
    drops += fmt::format("{}{} {}", drops.empty() ? "" : ", ", count.dump(), cause);
  }
  return drops.empty() ? "-" : drops;
}

void list_components(Context& context) {
  const json components = context.fetch("/v1/components");
  if (context.as_json) return context.print_json(components);
  Table table({{"COMPONENT"}, {"TYPE"}, {"PORTS", Align::right}, {"TENANT"}});
  for (const json& each : components) {
    table.row({text_of(each, "name"), text_of(each, "type"),
               std::to_string(each.value("ports", json::array()).size()), text_of(each, "tenant")});
  }
  context.io.out << table.text("no components");
}

void show_component(Context& context, const std::string& name) {
  const json component = context.fetch(path_of("components", name));
  if (context.as_json) return context.print_json(component);
  const std::string mirror = component.value("mirror", "");
  context.io.out << fmt::format(
      "{} {} of tenant {}: {} addresses known of at most {}, forgotten after {} s{}\n\n",
      text_of(component, "type"), name, text_of(component, "tenant"),
      text_of(component, "known_macs"), text_of(component, "most_macs"),
      text_of(component, "ageing_s"), mirror.empty() ? "" : ", mirror at port " + mirror);
  Table table({{"PORT"},
               {"VLANS"},
               {"IS"},
               {"RX", Align::right},
               {"RX BYTES", Align::right},
               {"TX", Align::right},
               {"TX BYTES", Align::right},
               {"DROPPED"}});
  for (const json& port : component.value("ports", json::array())) {
    table.row({name + "-" + text_of(port, "name"), vlans_of(port), traits_of(port),
               text_of(port, "rx_frames"), bytes_of(port, "rx_bytes"), text_of(port, "tx_frames"),
               bytes_of(port, "tx_bytes"), drops_of(port)});
  }
  context.io.out << table.text("no ports");
}

void show_macs(Context& context, const std::string& name) {
  const json macs = context.fetch(path_of("components", name, "macs"));
  if (context.as_json) return context.print_json(macs);
  Table table({{"MAC"}, {"VLAN", Align::right}, {"PORT"}, {"IS"}});
  for (const json& each : macs) {
    const bool has_vlan = number_of(each, "vlan") != 0;
    table.row({text_of(each, "mac"), has_vlan ? text_of(each, "vlan") : "-",
               name + "-" + text_of(each, "port"), each.value("static", false) ? "static" : "-"});
  }
  context.io.out << table.text("no addresses");
}

void create_component(Context& context, const Wish& wish) {
  json body = body_of(wish);
  body["name"] = wish.name;
  set_if_given(body, "type", wish.type);
  set_if_given(body, "tenant", wish.tenant);
  const json made = context.post("/v1/components", body);
  if (context.as_json) return context.print_json(made);
  std::vector<std::string> ports;
  for (const json& port : made.value("ports", json::array())) {
    ports.push_back(wish.name + "-" + text_of(port, "name"));
  }
  context.say(fmt::format("{} {} added, with ports {}", text_of(made, "type"), wish.name,
                          ports.empty() ? "none" : fmt::format("{}", fmt::join(ports, ", "))));
}

void change_component(Context& context, const Wish& wish) {
  const json made = context.post(path_of("components", wish.name), body_of(wish));
  if (context.as_json) return context.print_json(made);
  context.say(fmt::format("component {} changed", wish.name));
}

void add_settings(CLI::App& app, Context& context, Wish& wish) {
  app.add_option("--port", wish.ports,
                 "A port: NAME, with ,access=VLAN or ,trunk=VLAN+VLAN,native=VLAN, ,isolated, "
                 ",stretched (to this switch's instance elsewhere), ,mirrored, ,flood=FRAMES/S")
      ->type_name("SPEC");
  app.add_option("--mirror", wish.mirror, "The port that gets copies, or none")->type_name("NAME");
  app.add_option("--mac", wish.macs, "An address that stays: MAC@PORT[,VLAN]; all of them")
      ->type_name("MAC");
  add_duration(app, "--ageing", wish.ageing, "Addresses are forgotten after (default: 300s)");
  app.add_option("--most-macs", wish.most_macs, "Addresses that are learned (default: 16384)");
  auto* snoops = app.add_flag("--snooping", wish.snoops,
                              "IP groups only to ports that want them (IGMP, MLD): the default");
  app.add_flag("--no-snooping", wish.floods, "IP groups to all ports")->excludes(snoops);
  add_json(app, context);
}

}  // namespace

void add_component(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("component", "Switches between wires")->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List the components of this host");
  add_json(*ls, context);
  ls->callback([&context] { list_components(context); });

  const auto wish = std::make_shared<Wish>();
  const auto add_on = [&](const char* verb, const char* help) {
    auto* command = noun->add_subcommand(verb, help);
    add_name(*command, "COMPONENT", wish->name, "Its name")->required();
    return command;
  };
  auto* show = add_on("show", "Show a component, its ports and what they count");
  add_json(*show, context);
  show->callback([&context, wish] { show_component(context, wish->name); });
  auto* macs = add_on("macs", "Show the addresses that a switch knows");
  add_json(*macs, context);
  macs->callback([&context, wish] { show_macs(context, wish->name); });

  auto* add = add_on("add", "Add a component; its ports are called COMPONENT-PORT");
  add->add_option("--type", wish->type, "What it is (default: switch)")
      ->check(CLI::IsMember({"switch"}));
  add->add_option("--ports", wish->count, "So many ports, called 1, 2, ...")
      ->check(CLI::Range(1U, 1024U));
  add_settings(*add, context, *wish);
  add_name(*add, "--tenant", wish->tenant, "Tenant (default: default)")->type_name("TENANT");
  add->callback([&context, wish] { create_component(context, *wish); });

  auto* set = add_on("set", "Change its settings, add or change ports; what is known stays");
  add_settings(*set, context, *wish);
  set->add_option("--remove-port", wish->removed, "A port that goes")->type_name("NAME");
  set->callback([&context, wish] { change_component(context, *wish); });

  auto* rm = add_on("rm", "Remove a component and its ports, which have no wires any more");
  rm->callback([&context, wish] {
    context.remove(path_of("components", wish->name));
    context.say(fmt::format("component {} removed", wish->name));
  });
}

}  // namespace godwit::cli
