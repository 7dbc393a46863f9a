// godwit vm nic ls|add|rm|configure|deconfigure
#include "cli/vm_nic.hh"

#include <fmt/ranges.h>

#include <ostream>

namespace godwit::cli {
namespace {

struct Nic {
  std::string vm, port, mac;
  std::vector<std::string> addresses, gateways, resolvers;
  unsigned mtu = 0;
  bool is_default = false, drop_old = false;
};

std::string path(const Nic& nic, std::string_view rest = {}) {
  return path_of("vms", nic.vm, "nics") + "/" + nic.port + std::string(rest);
}

CLI::App* add_on_nic(CLI::App& noun, const char* verb, const char* help,
                     const std::shared_ptr<Nic>& nic) {
  auto* app = noun.add_subcommand(verb, help);
  add_name(*app, "VM", nic->vm, "Name of the vm")->required();
  add_name(*app, "PORT", nic->port, "Port of the NIC")->required();
  return app;
}

void configure(const Context& context, const Nic& nic) {
  json body = {
      {"addresses", nic.addresses}, {"gateways", nic.gateways}, {"resolvers", nic.resolvers}};
  if (nic.mtu != 0) body["mtu"] = nic.mtu;
  if (nic.is_default) body["default"] = true;
  if (nic.drop_old) body["drop_old"] = true;
  const json done = context.post(path(nic, "/network"), body);
  if (context.as_json) return context.print_json(done);
  context.say(fmt::format("vm {} has {} as {}, {:.0f} ms{}", nic.vm, fmt::join(nic.addresses, " "),
                          text_of(done, "interface"), number_of(done, "took_ms"),
                          nic.is_default ? ": its way for what begins anew" : ""));
  for (const json& note : done.value("notes", json::array())) {
    context.say("  note: " + note.get<std::string>());
  }
}

void add_configure(CLI::App& noun, Context& context, const std::shared_ptr<Nic>& nic) {
  auto* app = add_on_nic(noun, "configure",
                         "Tell the guest the addresses of a NIC, by its qemu-guest-agent: what has "
                         "one of them leaves by this NIC",
                         nic);
  app->add_option("--address", nic->addresses, "Address with its network's length; again for more")
      ->required()
      ->type_name("IP/LENGTH")
      ->allow_extra_args(false);
  app->add_option("--gateway", nic->gateways, "Gateway, one for each family")
      ->type_name("IP")
      ->allow_extra_args(false);
  app->add_option("--resolver", nic->resolvers,
                  "DNS server, once this NIC is the way out; again for more")
      ->type_name("IP")
      ->allow_extra_args(false);
  app->add_option("--mtu", nic->mtu, "Largest packet (default 1500)")
      ->check(CLI::Range(1280, 65535));
  auto* is_default = app->add_flag(
      "--default", nic->is_default,
      "Make it the way of all that begins anew; what has another NIC's address goes on by that");
  app->add_flag("--drop-old", nic->drop_old, "MPTCP connections give the other NICs' addresses up")
      ->needs(is_default);
  add_json(*app, context);
  app->callback([&context, nic] { configure(context, *nic); });
}

}  // namespace

Table nic_table(const json& nics) {
  Table table({{"NIC"}, {"MAC"}, {"SLOT", Align::right}, {"ADDRESSES"}});
  for (const json& nic : nics) {
    const json addresses = nic.value("network", json::object()).value("addresses", json::array());
    table.row({text_of(nic, "port"), text_of(nic, "mac"), text_of(nic, "slot"),
               addresses.empty()
                   ? "-"
                   : fmt::format("{}", fmt::join(addresses.get<std::vector<std::string>>(), " "))});
  }
  return table;
}

void add_vm_nic(CLI::App& vms, Context& context) {
  auto* noun =
      vms.add_subcommand("nic", "NICs that come and go while a vm runs")->require_subcommand(1);
  const auto nic = std::make_shared<Nic>();

  auto* ls = noun->add_subcommand("ls", "List a vm's NICs");
  add_name(*ls, "VM", nic->vm, "Name of the vm")->required();
  add_json(*ls, context);
  ls->callback([&context, nic] {
    const json nics = context.fetch(path_of("vms", nic->vm)).value("nics", json::array());
    if (context.as_json) return context.print_json(nics);
    context.io.out << nic_table(nics).text("no NICs");
  });

  auto* add = add_on_nic(*noun, "add", "Plug a NIC in; its port is made if it is not there", nic);
  add->add_option("--mac", nic->mac, "Its MAC (default: made of the port's id)")->type_name("MAC");
  add_json(*add, context);
  add->callback([&context, nic] {
    json body = {{"port", nic->port}};
    set_if_given(body, "mac", nic->mac);
    const json made = context.post(path_of("vms", nic->vm, "nics"), body);
    if (context.as_json) return context.print_json(made);
    context.say(
        fmt::format("NIC {} plugged into vm {}: {}", nic->port, nic->vm, text_of(made, "mac")));
  });

  add_on_nic(*noun, "rm", "Unplug a NIC that was plugged in; its port stays", nic)
      ->callback([&context, nic] {
        context.remove(path(*nic));
        context.say(fmt::format("NIC {} unplugged from vm {}", nic->port, nic->vm));
      });

  add_configure(*noun, context, nic);
  add_on_nic(*noun, "deconfigure", "Take back what configure did in the guest", nic)
      ->callback([&context, nic] {
        context.remove(path(*nic, "/network"));
        context.say(fmt::format("vm {} has no addresses of NIC {} any more", nic->vm, nic->port));
      });
}

}  // namespace godwit::cli
