// godwit port ls|add|rm
#include <ostream>

#include "cli/options.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

struct NewPort {
  std::string name, bridge, interface, address, tenant;
  std::vector<std::string> guest;
  bool uplink = false, masquerade = false;
};

// The guest behind it: its addresses, and by what they are reached where it is not at home.
std::string guest_of(const json& port) {
  std::string guest;
  for (const json& each : port.value("guest_addresses", json::array())) {
    if (!guest.empty()) guest += ' ';
    guest += text_of(each, "address");
    if (each.contains("locator")) guest += fmt::format(" ({})", text_of(each, "locator"));
  }
  return guest;
}

// The vm or component that has it, or who is behind it.
std::string owner_of(const json& port) {
  if (const std::string guest = guest_of(port); !guest.empty()) return guest;
  return text_of(port, port.value("vm", "").empty() ? "component" : "vm");
}

void list_ports(Context& context) {
  const json ports = context.fetch("/v1/ports");
  if (context.as_json) return context.print_json(ports);
  Table table({{"PORT"},
               {"KIND"},
               {"HOST"},
               {"OF"},
               {"INTERFACE"},
               {"EPOCH", Align::right},
               {"STATE"},
               {"WIRE"},
               {"TENANT"}});
  for (const json& port : ports) {
    table.row({text_of(port, "name"), text_of(port, "kind"), text_of(port, "host"), owner_of(port),
               text_of(port, "interface"), text_of(port, "epoch"), text_of(port, "state"),
               text_of(port, "wire").substr(0, 8), text_of(port, "tenant")});
  }
  context.io.out << table.text("no ports");
}

void create_port(Context& context, const NewPort& port) {
  json body = {{"name", port.name},
               {"kind", port.uplink            ? "uplink"
                        : !port.bridge.empty() ? "bridge"
                                               : "nic"}};
  set_if_given(body, "bridge", port.bridge);
  set_if_given(body, "interface", port.interface);
  set_if_given(body, "address", port.address);
  if (port.masquerade) body["masquerade"] = true;
  if (!port.guest.empty()) body["guest_addresses"] = port.guest;
  set_if_given(body, "tenant", port.tenant);
  const json made = context.post("/v1/ports", body);
  if (context.as_json) return context.print_json(made);
  const std::string guest = guest_of(made);
  context.say(fmt::format("port {} added{}", port.name, guest.empty() ? "" : " for " + guest));
}

}  // namespace

void add_port(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("port", "Ports: where a wire ends")->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List the ports this agent knows");
  add_json(*ls, context);
  ls->callback([&context] { list_ports(context); });

  auto* add =
      noun->add_subcommand("add", "Add a port: for a vm's NIC, a bridge or the host itself");
  auto port = std::make_shared<NewPort>();
  add_name(*add, "NAME", port->name, "Name of the new port")->required();
  auto* bridge =
      add->add_option("--bridge", port->bridge, "Join this existing Linux bridge to the wire");
  auto* uplink =
      add->add_flag("--uplink", port->uplink, "An interface in this host's own network stack");
  uplink->excludes(bridge);
  add->add_option("--interface", port->interface, "Name of the interface (default: chosen)");
  auto* address =
      add->add_option("--address", port->address, "Address of the uplink, like 10.9.0.1/24")
          ->needs(uplink);
  add->add_option("--guest", port->guest,
                  "Address of the guest behind the uplink, in a routed network: this host routes "
                  "it to there, answers for it, and is the guest's gateway; again for one more. "
                  "any4 or any6: "
                  "one of those that the fabric has for guests here (godwit fabric)")
      ->needs(uplink)
      ->excludes(address)
      ->type_name("IP");
  add->add_flag("--masquerade", port->masquerade,
                "What comes from the uplink's network leaves this host with the host's address")
      ->needs(address);
  add_name(*add, "--tenant", port->tenant, "Tenant (default: default)")->type_name("TENANT");
  add_json(*add, context);
  add->callback([&context, port] { create_port(context, *port); });

  auto* rm = noun->add_subcommand("rm", "Remove a port");
  auto name = std::make_shared<std::string>();
  add_name(*rm, "PORT", *name, "Its name")->required();
  rm->callback([&context, name] {
    context.remove(path_of("ports", *name));
    context.say(fmt::format("port {} removed", *name));
  });
}

}  // namespace godwit::cli
