// godwit component ls|show|macs|...|add|set|stretch|unstretch|rm
#include <algorithm>
#include <ostream>

#include "cli/component_words.hh"
#include "cli/fleet_state.hh"
#include "cli/options.hh"
#include "cli/table.hh"
#include "topology/stretch.hh"

namespace godwit::cli {
namespace {

struct Wish {
  std::string name, type, tenant, mirror, ageing, otherwise, place;
  std::vector<std::string> ports, removed, macs, settings;
  std::map<std::string, std::vector<std::string>> lists;  // by field
  std::optional<unsigned> count, most_macs;
  bool snoops = false, floods = false;  // neither: as it was
};

// A field that is a list of objects, and the option that gives one of it.
struct ListOption {
  const char* option;
  const char* field;
  const char* first;  // of the object's fields, the one that is written without its name
  const char* help;
};
constexpr ListOption kLists[] = {
    {"--network", "networks", "prefix",
     "dhcp: a network that it serves: PREFIX,range=FIRST-LAST,router=IP,dns=IP+IP,domain=NAME,"
     "mtu=BYTES,lease=1h; all of them"},
    {"--route", "routes", "to",
     "router: PREFIX,via=IP or PREFIX,port=NAME or PREFIX,drop; with from=PREFIX only of these "
     "sources; all of them"},
    {"--rule", "rules", "action",
     "router, nat, firewall: allow|drop|reject and with commas what it is of: in=PORT, out=PORT, "
     "from=PREFIX+PREFIX, to=, protocol=tcp|udp|icmp, ports=80+8000-8099, source-ports=, "
     "icmp-types=, states=new+established+related, log; the first that fits decides; all of them"},
    {"--list", "sets", "name",
     "router, nat, firewall: a name, @NAME in rules, for prefixes or ports: NAME,members=A+B; all "
     "of them"},
    {"--masquerade", "masquerade", "out",
     "router, nat: what leaves at a port gets its address: PORT,from=PREFIX,to=IP-IP,"
     "ports=FIRST-LAST; all of them"},
    {"--forward", "forward", "address",
     "router, nat: what comes for an address goes to another: IP,protocol=tcp,ports=80,to=IP,"
     "to-port=8080; all of them"},
    {"--one-to-one", "one_to_one", "outside",
     "router, nat: PREFIX,inside=PREFIX: each address of one is one of the other; all of them"},
    {"--reserve", "reservations", "mac", "dhcp: an address for one: MAC,address=IP; all of them"},
};

// What it knows, and can list.
struct List {
  const char* name;
  const char* help;
  std::vector<const char*> columns;
};
const std::vector<List> kKnown = {
    {"macs", "Show the addresses that a switch knows", {"mac", "vlan", "port", "static"}},
    {"neighbours", "Show the addresses that a router knows", {"address", "mac", "port"}},
    {"flows",
     "Show the flows through a router or firewall (a thousand at most)",
     {"flow", "becomes", "state", "remaining_s", "packets", "bytes"}},
    {"rules",
     "Show what the rules of a router or firewall counted",
     {"rule", "packets", "bytes", "logged"}},
    {"leases",
     "Show the addresses that a DHCP server has given",
     {"address", "mac", "host", "state", "remaining_s"}},
};

json ports_of(const Wish& wish) {
  json ports = json::array();
  for (unsigned i = 1; i <= wish.count.value_or(0); ++i) {
    ports.push_back({{"name", std::to_string(i)}});
  }
  for (const auto& port : wish.ports) ports.push_back(object_of(port, "name"));
  return ports;
}

json body_of(const Wish& wish) {
  json body = json::object();
  for (const auto& setting : wish.settings) {
    json fields = object_of("," + setting, "");
    fields.erase("");
    body.update(fields);
  }
  if (json ports = ports_of(wish); !ports.empty()) body["ports"] = std::move(ports);
  for (const auto& port : wish.removed) body["remove_ports"].push_back(port);
  for (const auto& mac : wish.macs) body["macs"].push_back(pinned_mac_of(mac));
  for (const ListOption& list : kLists) {
    const auto said = wish.lists.find(list.field);
    if (said == wish.lists.end()) continue;
    for (const auto& text : said->second) body[list.field].push_back(object_of(text, list.first));
  }
  if (!wish.mirror.empty()) body["mirror"] = wish.mirror == "none" ? "" : wish.mirror;
  set_if_given(body, "default", wish.otherwise);
  if (!wish.ageing.empty()) {
    body["ageing_s"] = parse_duration(wish.ageing).value() / seconds(1);
  }
  if (wish.most_macs) body["most_macs"] = *wish.most_macs;
  if (wish.snoops || wish.floods) body["snooping"] = wish.snoops;
  return body;
}

std::string drops_of(const json& port) {
  std::string drops;
  for (const auto& [cause, count] : port.value("drops", json::object()).items()) {
    drops += fmt::format("{}{} {}", drops.empty() ? "" : ", ", count.dump(), cause);
  }
  return drops.empty() ? "-" : drops;
}

// Without what has a column of its own.
std::string settings_of(json port) {
  for (const char* key :
       {"name", "id", "index", "rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "drops"}) {
    port.erase(key);
  }
  return as_words(port);
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

// "most_macs" as "most macs", "ageing_s" as "ageing", of seconds.
std::pair<std::string, std::string> line_of(std::string key, const json& value) {
  std::string text = value.is_string()   ? value.get<std::string>()
                     : value.is_object() ? as_words(value)
                                         : value.dump();
  if (key.ends_with("_s")) {
    key.resize(key.size() - 2);
    text += " s";
  }
  std::ranges::replace(key, '_', ' ');
  return {std::move(key), std::move(text)};
}

std::vector<std::pair<std::string, std::string>> lines_of(json component) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const char* key : {"type", "tenant"}) lines.push_back(line_of(key, component[key]));
  for (const char* key : {"type", "tenant", "name", "id", "ports"}) component.erase(key);
  for (const auto& [key, value] : component.items()) {
    if (value.is_null() || value == "") continue;
    for (const json& each : value.is_array() ? value : json::array({value})) {
      lines.push_back(line_of(key, each));
    }
  }
  return lines;
}

void show_component(Context& context, const std::string& name) {
  const json component = context.fetch(path_of("components", name));
  if (context.as_json) return context.print_json(component);
  context.io.out << pairs(lines_of(component)) << '\n';
  Table table({{"PORT"},
               {"IS"},
               {"RX", Align::right},
               {"RX BYTES", Align::right},
               {"TX", Align::right},
               {"TX BYTES", Align::right},
               {"DROPPED"}});
  for (const json& port : component.value("ports", json::array())) {
    table.row({name + "-" + text_of(port, "name"), settings_of(port), text_of(port, "rx_frames"),
               bytes_of(port, "rx_bytes"), text_of(port, "tx_frames"), bytes_of(port, "tx_bytes"),
               drops_of(port)});
  }
  context.io.out << table.text("no ports");
}

// "remaining_s" as REMAINING, of seconds.
std::string title_of(std::string_view column) {
  if (column.ends_with("_s")) column.remove_suffix(2);
  std::string title(column);
  std::ranges::transform(title, title.begin(), [](char c) {
    return c == '_' ? ' ' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  });
  return title;
}

std::string cell_of(const json& row, std::string_view column) {
  const auto found = row.find(column);
  if (found == row.end() || *found == 0 || *found == false) return "-";
  if (*found == true) return std::string(column);
  return text_of(row, column) + (column.ends_with("_s") ? " s" : "");
}

void show_list(Context& context, const std::string& name, const List& list) {
  const json rows = context.fetch(path_of("components", name, list.name));
  if (context.as_json) return context.print_json(rows);
  std::vector<std::string> titles;
  for (const char* column : list.columns) titles.push_back(title_of(column));
  Table table(std::vector<Column>(titles.begin(), titles.end()));
  for (const json& row : rows) {
    std::vector<std::string> cells;
    for (const char* column : list.columns) cells.push_back(cell_of(row, column));
    table.row(std::move(cells));
  }
  context.io.out << table.text(fmt::format("no {}", list.name));
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

// The host that is spoken to, whose switch it is.
std::string own_host(const Context& context) {
  for (const json& host : context.fetch("/v1/hosts")) {
    if (text_of(host, "state") == "self") return text_of(host, "name");
  }
  throw Failure(ExitStatus::failed, "the agent does not say which host it is of");
}

void stretch(Context& context, const Wish& wish, bool stretches) {
  const std::string host = own_host(context);
  const auto before = ask_fleet(context);
  const auto steps = stretches ? topology::stretch(before, host, wish.name, wish.place)
                               : topology::unstretch(before, host, wish.name, wish.place);
  if (!steps) throw Failure(ExitStatus::refused, steps.error().text);
  take_all(context, *steps);
  const auto hosts = topology::stretched_over(ask_fleet(context), host, wish.name);
  if (context.as_json) return context.print_json({{"name", wish.name}, {"hosts", hosts}});
  context.say(fmt::format("switch {} is at {}", wish.name, fmt::join(hosts, ", ")));
}

void change_component(Context& context, const Wish& wish) {
  const json made = context.post(path_of("components", wish.name), body_of(wish));
  if (context.as_json) return context.print_json(made);
  context.say(fmt::format("component {} changed", wish.name));
}

void add_settings(CLI::App& app, Context& context, Wish& wish) {
  app.add_option(
         "--port", wish.ports,
         "A port: NAME, and with commas what it is. Of a switch: access=VLAN or "
         "trunk=VLAN+VLAN,native=VLAN, isolated, stretched (to this switch's instance "
         "elsewhere), mirrored, flood=FRAMES/S. Of a router: address=IP/LENGTH+IP/LENGTH, mtu=, "
         "shared (by this gateway's instances elsewhere), proxy, advertise, dns=IP, relay=IP")
      ->type_name("SPEC");
  app.add_option("--set", wish.settings, "A setting that has no option here, as the API has it")
      ->type_name("KEY=VALUE");
  app.add_option("--mirror", wish.mirror, "switch: the port that gets copies, or none")
      ->type_name("NAME");
  app.add_option("--mac", wish.macs, "switch: an address that stays: MAC@PORT[,VLAN]; all of them")
      ->type_name("MAC");
  add_duration(app, "--ageing", wish.ageing,
               "switch: addresses are forgotten after (default: 300s)");
  app.add_option("--most-macs", wish.most_macs,
                 "switch: addresses that are learned (default: 16384)");
  auto* snoops =
      app.add_flag("--snooping", wish.snoops,
                   "switch: IP groups only to ports that want them (IGMP, MLD): the default");
  app.add_flag("--no-snooping", wish.floods, "switch: IP groups to all ports")->excludes(snoops);
  app.add_option("--default", wish.otherwise,
                 "router, nat, firewall: what becomes of new flows of which no rule is (default: "
                 "allow; of a firewall: drop)")
      ->check(CLI::IsMember({"allow", "drop", "reject"}));
  for (const ListOption& list : kLists) {
    app.add_option(list.option, wish.lists[list.field], list.help)->type_name("SPEC");
  }
  add_json(app, context);
}

}  // namespace

void add_component(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("component", "Switches, routers and the like between wires")
                   ->require_subcommand(1);
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
  for (const List& list : kKnown) {
    auto* known = add_on(list.name, list.help);
    add_json(*known, context);
    known->callback([&context, wish, &list] { show_list(context, wish->name, list); });
  }

  auto* add = add_on("add", "Add a component; its ports are called COMPONENT-PORT");
  add->add_option("--type", wish->type, "What it is (default: switch)")
      ->check(CLI::IsMember({"switch", "router", "nat", "firewall", "dhcp"}));
  add->add_option("--ports", wish->count, "So many ports, called 1, 2, ...")
      ->check(CLI::Range(1U, 1024U));
  add_settings(*add, context, *wish);
  add_name(*add, "--tenant", wish->tenant, "Tenant (default: default)")->type_name("TENANT");
  add->callback([&context, wish] { create_component(context, *wish); });

  auto* set = add_on("set", "Change its settings, add or change ports; what is known stays");
  add_settings(*set, context, *wish);
  set->add_option("--remove-port", wish->removed, "A port that goes")->type_name("NAME");
  set->callback([&context, wish] { change_component(context, *wish); });

  for (const bool stretches : {true, false}) {
    auto* verb =
        stretches ? add_on("stretch", "Have a switch at another host, too; it is one with this one")
                  : add_on("unstretch",
                           "Take a stretched switch away from a host where nothing hangs on it");
    add_name(*verb, stretches ? "--to" : "--from", wish->place, "Host, or site: its first host")
        ->type_name("DESTINATION")
        ->required();
    add_json(*verb, context);
    verb->callback([&context, wish, stretches] { stretch(context, *wish, stretches); });
  }

  auto* rm = add_on("rm", "Remove a component and its ports, which have no wires any more");
  rm->callback([&context, wish] {
    context.remove(path_of("components", wish->name));
    context.say(fmt::format("component {} removed", wish->name));
  });
}

}  // namespace godwit::cli
